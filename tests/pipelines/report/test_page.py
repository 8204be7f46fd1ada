"""The page of a run and of a story."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.artifacts.documents import Count, Verdict
from holdfast.artifacts.folder import Ref, load_any
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.sign import attest
from holdfast.errors import ArtifactError, IntegrityError
from holdfast_pipelines.report import Chapter, Comparison, DecisionTable, Pictures, write_report, write_story

SECTIONS = (
    "Delivery", "Schema", "Drift", "Quarantine", "Training", "Backdoor triggers", "Accuracy under attack",
    "Certified accuracy", "Gate", "Rollout", "Runs of this workload", "Chain of evidence",
)  # fmt: skip
VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would see: text, attributes, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str, name: str) -> list[str]:
        return [value for found, key, value in self.attributes if (found, key) == (tag, name)]


def page_of(run: Path) -> Page:
    return Page(write_report(run, run / "report.html").read_text())


def test_a_whole_run_shows_every_section_once(maker: Any) -> None:
    run = maker("clean").complete()
    html = write_report(run, run / "report.html").read_text()
    assert re.findall(r"<h3>(.*?)</h3>", html) == list(SECTIONS)
    assert Page(html).open == []


def test_copies_and_the_guard_have_a_section_where_they_were_made(maker: Any) -> None:
    made = maker("clean")
    for step in (made.snapshot, made.schema, made.drift, made.scan, made.train, made.evidence, made.guarded, made.gate):
        step()
    html = write_report(run := made.finish("refused"), run / "report.html").read_text()
    assert "<h3>Copies and the guard</h3>" in html
    page = Page(html)
    assert page.open == []
    assert "budget per client 300 queries" in page.text
    assert "100 queries: 61 of 180; 300 queries: 122 of 180" in page.text
    assert "in-distribution 300 the attacker has 180 rows" in page.text
    assert "noise query 21 shuffled never in 300" in page.text
    assert "made up users alarmed 0 of 20" in page.text
    assert html.count(">extract<") > maker("other").complete().joinpath("run.json").read_text().count("extract")
    assert "Not part of this run" not in page.text


def test_a_refused_run_begins_with_what_decided_and_what_to_do(maker: Any) -> None:
    made = maker("refused")
    for step in (made.snapshot, made.schema, made.drift, made.scan, made.train, made.evidence):
        step()
    made.gate(refused=True)
    run = made.finish("refused")
    html = write_report(run, run / "report.html").read_text()
    assert re.findall(r"<h3>(.*?)</h3>", html)[0] == "What decided"
    assert re.search(r'<p class="alert">Refused: \w+ \(fail\): measured .*, required .*What to do: ', html)
    assert 'data-head="required"' in html


def test_a_waived_check_stays_failed_with_its_waiver_next_to_it(maker: Any) -> None:
    run = maker("digits")
    run.snapshot()
    run.schema()
    run.drift()
    run.scan()
    run.train()
    run.evidence()
    run.gate(waived=True)
    page = page_of(run.finish("registered", model_version=1))
    assert "fail, waived" in page.text
    assert "Ana 2026-12-31T00:00:00Z ships <now>" in page.text
    assert "the waiver of drift by Ben: it ended" in page.text


def test_columns_that_teach_nothing_are_named_with_the_delivery(maker: Any) -> None:
    made = maker("table")
    made.snapshot(left_out=("id",), constant=("currency", "unit"))
    text = page_of(made.finish("failed")).text
    assert "columns left out id" in text
    assert "one value in every row currency, unit" in text


def test_the_links_of_the_contents_lead_somewhere(maker: Any) -> None:
    page = page_of(maker("clean").complete())
    targets = {href[1:] for href in page.all("a", "href") if href.startswith("#")}
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert targets <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_numbers_are_those_of_the_documents(maker: Any) -> None:
    run = maker("clean").complete()
    page = page_of(run)
    documents = [json.loads(path.read_text()) for path in run.rglob("artifact.json")]
    kinds = {document["kind"]: document for document in documents}
    for count in (
        kinds["model"]["clean"],
        kinds["robustness-report"]["worst_case"],
        *(attack["survived"] for attack in kinds["robustness-report"]["attacks"]),
        *(point["certified"] for point in kinds["certificate"]["certified"]),
        kinds["certificate"]["abstained"],
        kinds["scan-report"]["suspects"],
    ):
        assert f"{count['k']} of {count['n']}" in page.text
        assert f"{100 * count['k'] / count['n']:.1f} %" in page.text
    for check in kinds["gate-decision"]["checks"]:
        assert check["name"] in page.text
        assert check["required"] in page.text
    assert str(kinds["rollout-record"]["requests_sent"]) in page.text


def test_a_rate_stands_with_its_exact_interval(maker: Any) -> None:
    # scipy.stats.binomtest(281, 360).proportion_ci(0.95, "exact") = 0.7342, 0.8222
    assert "78.1 % [73.4, 82.2] 281 of 360" in page_of(maker("clean").complete()).text


def test_every_class_is_shown_without_and_under_attack_and_certified(maker: Any) -> None:
    # Of 36 examples of class 9, 25 are right and 7 are under attack: means of recalls 349 / 360 and 281 / 360.
    text = page_of(maker("clean").complete()).text
    assert "96.9 % clean, 78.1 % under attack" in text
    assert "36 of 360 right, balanced accuracy 10.0 %" in text
    assert re.search(r"\b9 69\.4 % \S+ \S+ 25 of 36 19\.4 % \S+ \S+ 7 of 36 100 % \S+ \S+ 25 of 25 100 %", text)
    assert "class: certified and correct" in text


def test_every_digest_of_the_chain_is_told(maker: Any) -> None:
    made = maker("clean")
    page = page_of(made.complete())
    assert all(digest in page.text for digest in made.digests.values())


def test_the_keys_that_signed_are_named_with_what_they_signed(maker: Any, tmp_path: Path) -> None:
    run = maker("clean").complete()
    assert "signed with key" not in page_of(run).text
    made = make_key(tmp_path / "trainer.pem")
    signer = read_signer(str(tmp_path / "trainer.pem"))
    attest(load_any(run / "steps" / "train"), signer, run / "attestations", run="clean", at=datetime.now(UTC))
    text = page_of(run).text
    assert text.count(made.fingerprint[:12]) == 1
    assert text.count("not signed") == len(list((run / "steps").glob("*/artifact.json"))) - 1
    assert "holdfast verify . --trust trust.yaml" in text


def test_bundles_that_cannot_be_read_leave_the_page_whole(maker: Any) -> None:
    run = maker("clean").complete()
    digest = load_any(run / "steps" / "train").digest
    (run / "attestations").mkdir()
    (run / "attestations" / f"{digest}.jsonl").write_bytes(b"{}\n")
    assert "a bundle that cannot be read" in page_of(run).text


def test_quarantined_images_are_pictures_most_suspect_first(maker: Any) -> None:
    run = maker("poisoned").complete(quarantined=64)
    page = page_of(run)
    gallery = [alt for alt in page.all("img", "alt") if alt.startswith("delivered as")]
    scores = [float(score) for score in re.findall(r"([0-9.]+) · row \d+", page.text)]
    assert len(gallery) == 24
    assert scores == sorted(scores, reverse=True)
    assert all(uri.startswith("data:image/png;base64,") for uri in page.all("img", "src"))


def test_quarantined_rows_of_a_table_are_shown_as_rows(maker: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    made = maker("table")
    made.snapshot(
        modality="text", shape=(200,), classes=("ham", "spam"), train_per_class=(700, 737), test_per_class=(180, 180)
    )
    stream = pyarrow.BufferOutputStream()
    table = pyarrow.table({"row": [3], "message": ["<b>win</b> & call 0900"], "label": ["ham"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, stream)
    made.scan_rows(stream.getvalue().to_pybytes())
    page = page_of(made.finish("failed"))
    assert "<b>win</b> & call 0900" in page.text
    assert page.all("img", "src") == []


def test_the_page_needs_nothing_from_outside(story_runs: dict[str, Path], tmp_path: Path) -> None:
    html = write_story(
        "Four acts", [Chapter(name, run=run) for name, run in story_runs.items()], tmp_path / "r.html"
    ).read_text()
    page = Page(html)
    assert not re.search(r"(?:src|href|action|data)\s*=\s*[\"']?(?:https?:)?//", html)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint({tag for tag, _, _ in page.attributes})
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]


def test_the_content_policy_allows_this_style_sheet_and_nothing_else(maker: Any) -> None:
    run = maker("clean").complete()
    html = write_report(run, run / "report.html").read_text()
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(value for value in Page(html).all("meta", "content") if "default-src" in value)
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;")


def test_four_acts_stay_below_three_megabytes(story_runs: dict[str, Path], tmp_path: Path) -> None:
    chapters = [Chapter(name, run=run) for name, run in story_runs.items()]
    assert write_story("Four acts", chapters, tmp_path / "r.html").stat().st_size < 3_000_000


def test_the_same_run_gives_the_same_bytes(maker: Any, tmp_path: Path) -> None:
    run = maker("clean").complete()
    first, second = (write_report(run, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_hostile_words_stay_words(maker: Any) -> None:
    evil = "<script>alert('x')</script>"
    made = maker("hostile")
    classes = (evil, '"><img src=x onerror=alert(1)>', *(str(i) for i in range(8)))
    made.workload = "</title><script>alert(2)</script>"
    made.snapshot(classes=classes)
    made.drift(names=("a\"b'c", "<svg onload=alert(3)>", "plain"))
    made.scan(4)
    run = made.finish("stopped", stopped_at="</p><script>alert(4)</script>")
    chapter = Chapter(evil, (evil,), run, {evil: evil}, (Comparison(evil, (evil,), ((evil, evil),), evil),))
    html = write_story(evil, [chapter, chapter], run / "r.html").read_text()
    page = Page(html)
    assert evil in page.text
    assert "a\"b'c" in page.text
    assert {"script"}.isdisjoint(re.findall(r"<(\w+)", html))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_a_stopped_run_says_what_stopped_it(story_runs: dict[str, Path]) -> None:
    page = page_of(story_runs["broken"])
    assert "Not run: scan, train, backdoor, attack, certify, gate, register, rollout." in page.text
    assert "The schema and drift checks stopped this delivery before training." in page.text
    assert "FLOAT_TYPE_BIG_FLOAT" in page.text


def test_a_refused_run_names_the_check_that_refused(maker: Any, tmp_path: Path) -> None:
    made = maker("refused")
    made.snapshot()
    made.train()
    made.evidence(flagged=True)
    made.gate(refused=True)
    run = made.finish("refused")
    assert "Not run: register, rollout. The gate refused this model" in page_of(run).text
    story = Page(write_story("Two", [Chapter("a", run=run), Chapter("b")], tmp_path / "r.html").read_text())
    assert "gate: backdoor" in story.text


def test_a_rollback_is_marked_at_its_moment(story_runs: dict[str, Path]) -> None:
    page = page_of(story_runs["regressed"])
    # The fixture rolls back at its 111th sample, one every 0.1 s from 0.
    assert "Rolled back after 11.0 s." in page.text
    assert "slow answers: e-value 871 reached 60" in page.text
    assert "steps/rollout/incident.html" in page.all("a", "href")


def test_tests_on_predictions_are_drawn_where_they_had_anything_to_say(story_runs: dict[str, Path]) -> None:
    text = page_of(story_runs["regressed"]).text
    assert "e-values against its answers" in text
    # The fixture's attack test stays at 1, as it does for a model without kept attacks.
    assert re.search(r"e-values against its predictions\s+disagreement\s+drift(?!\s+attack)", text)


def test_a_failed_run_shows_the_step_that_failed(maker: Any) -> None:
    made = maker("failed")
    made.snapshot()
    page = page_of(made.finish("failed", stopped_at="schema"))
    assert "The run failed in step schema" in page.text


def test_links_lead_to_files_wherever_the_page_lies(story_runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "pages" / "r.html"
    page = Page(write_report(story_runs["regressed"], out).read_text())
    links = [href for href in page.all("a", "href") if not href.startswith("#")]
    assert len(links) == 2
    assert all((out.parent / link).is_file() for link in links)


def test_a_story_shows_what_stands_beside_a_run(maker: Any, tmp_path: Path) -> None:
    made = maker("unscanned")
    made.snapshot()
    made.gate(refused=True)
    unscanned = made.finish("refused")
    rows = (("attack success", Count(k=318, n=324), Count(k=9, n=324)), ("gate", Verdict.FAIL, Verdict.PASS))
    figures = (
        Comparison("Side by side", ("unscanned", "scanned"), rows),
        Pictures("Planted", np.full((2, 1, 8, 8), 16.0), ("row 7", "row 9"), upper=16.0),
        DecisionTable("Unscanned before the gate", Ref(unscanned / "steps" / "gate", made.digests["gate"])),
    )
    chapter = Chapter("Poisoned", ("Why.",), maker("poisoned").complete(), {"planted": "64"}, figures)
    page = Page(write_story("Story", [chapter], tmp_path / "r.html").read_text())
    assert "98.1 % [96.0, 99.3] 318 of 324" in page.text  # scipy.stats.binomtest
    assert "2.8 % [1.3, 5.2] 9 of 324" in page.text
    assert {"row 7", "row 9"} <= set(page.all("img", "alt"))
    assert "Unscanned before the gate fail" in page.text


@pytest.mark.parametrize(
    "victim", ["distributions.json", "quarantine.npz", "curve.json", "triggers.npz", "timeline.json"]
)
def test_an_altered_file_is_refused_and_not_shown(maker: Any, victim: str) -> None:
    run = maker("altered").complete()
    path = next(run.rglob(victim))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{victim}: expected sha256"):
        write_report(run, run / "report.html")
    assert not (run / "report.html").exists()


def test_an_altered_document_is_refused(maker: Any) -> None:
    run = maker("altered").complete()
    path = run / "steps" / "attack" / "artifact.json"
    path.write_text(path.read_text().replace('"k":281', '"k":359'))
    with pytest.raises(IntegrityError, match="expected artifact"):
        write_report(run, run / "report.html")


def test_a_record_that_prettifies_a_verdict_is_refused(maker: Any) -> None:
    made = maker("pretty")
    made.snapshot()
    made.gate(refused=True)
    made.steps[-1]["verdict"] = "pass"
    with pytest.raises(IntegrityError, match="expected verdict fail of step gate, as in its document, found pass"):
        write_report(made.finish("registered"), made.folder / "report.html")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"folder": "../elsewhere"}, "expected a folder inside the run"),
        ({"digest": None}, "expected the digest of step snapshot"),
        ({"seconds": "soon"}, "steps.0.seconds"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(maker: Any, change: dict[str, Any], found: str) -> None:
    made = maker("odd")
    made.snapshot()
    made.steps[0].update(change)
    with pytest.raises(ArtifactError, match=found):
        write_report(made.finish("failed"), made.folder / "report.html")


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json: expected the record of a run, found none"):
        write_report(tmp_path, tmp_path / "report.html")
