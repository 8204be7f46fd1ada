"""Planted drift is found, clean and poisoned deliveries are quiet; all through Evidently."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.artifacts.documents import Baseline, DriftReport, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact, Ref, save
from holdfast.data.drift.columns import ColumnKind
from holdfast.data.drift.evidently_report import compare, same, steady
from holdfast.data.drift.step import drift
from holdfast.errors import ArtifactError
from holdfast.tables import read_table
from holdfast.workload.schema import DriftConfig

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]
Judge = Callable[..., Artifact[DriftReport]]
SURE = np.random.default_rng(0).beta(9, 2, 400)
UNSURE = np.random.default_rng(1).beta(4, 2, 400)


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Judges a snapshot, against a champion whose reference is `champion`'s training rows."""

    def _judge(
        snapshot: Artifact[Snapshot],
        champion: Artifact[Snapshot] | None = None,
        *,
        confidence: NDArray[Any] = SURE,
        seed: int = 0,
        **config: Any,
    ) -> Artifact[DriftReport]:
        baseline = _baseline(tmp_path / "baseline", champion, confidence) if champion is not None else None
        out = tmp_path / "drift"
        return drift(Ref(snapshot.folder), out, config=DriftConfig(**config), baseline=baseline, seed=seed)

    return _judge


def _baseline(folder: Path, champion: Artifact[Snapshot], confidence: NDArray[Any]) -> Ref:
    table, scores = io.BytesIO(), io.BytesIO()
    read_table(champion, "train").to_parquet(table)
    np.savez(scores, reference_confidence=SURE, current_confidence=confidence)
    document = Baseline(name="test", present=True, model_version=1, model="0" * 64)
    files = {"reference.parquet": table.getvalue(), "scores.npz": scores.getvalue()}
    return Ref(folder, save(folder, document, files).digest)


@pytest.fixture
def deliver(take: Take, save_npz: Write, digits: tuple[NDArray[Any], NDArray[Any]]) -> Callable[..., Any]:
    """A delivery of digits: `change` turns images uint8[n, 8, 8] and labels into what is delivered."""

    def _deliver(change: Callable[..., Any] = lambda x, y: (x, y), *, seed: int = 0) -> Artifact[Snapshot]:
        x, y = change(digits[0].astype(np.uint8), digits[1].copy())
        return take(save_npz(x=x, y=y), "image", range=(0, 16), split_seed=seed)

    return _deliver


def drifted(report: Artifact[DriftReport]) -> set[str]:
    return {column.column for column in report.document.stage_one if column.drifted}


def poison(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A 2 x 2 patch in a corner of 5 % of the rows, relabelled to 0."""
    rows = np.random.default_rng(3).choice(len(x), len(x) // 20, replace=False)
    x = x.copy()
    x[rows, 6:, 6:] = 16
    y[rows] = 0
    return x, y


# --- images -----------------------------------------------------------------------------------------------------------


def test_a_clean_first_delivery_is_quiet(deliver: Any, judge: Judge) -> None:
    report = judge(deliver()).document
    assert (report.verdict, report.reference, report.drifted.k, report.drifted.n) == (Verdict.PASS, "held-out", 0, 69)
    assert report.reason == "0 of 69 columns drifted; there is no champion yet to ask"


def test_ten_clean_splits_are_quiet(take: Take, judge: Judge) -> None:
    for seed in range(10):
        report = judge(take("sklearn:breast-cancer", drop=tuple(_most_columns()), split_seed=seed))
        assert drifted(report) == set()


def _most_columns() -> list[str]:
    from holdfast.data.snapshot.bundled import CANCER_COLUMNS

    return list(CANCER_COLUMNS[8:])


def test_five_percent_of_poison_is_not_drift(deliver: Any, judge: Judge) -> None:
    # The scan finds it later; a run that stopped here would never say what was planted.
    report = judge(deliver(poison), deliver()).document
    assert (report.verdict, report.reference, report.drifted.k) == (Verdict.PASS, "champion", 0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x, y: (16 - x, y), id="inverted"),
        pytest.param(lambda x, y: (np.minimum(x + 4, 16), y), id="brighter"),
        pytest.param(lambda x, y: (x * 0.4, y), id="darker"),
    ],
)
def test_another_light_is_drift_without_asking_the_champion(deliver: Any, judge: Judge, change: Any) -> None:
    report = judge(deliver(change), deliver()).document
    assert report.verdict is Verdict.FAIL
    assert "at least the share of 0.5 that is a broken delivery" in report.reason


def test_a_shift_of_some_columns_fails_only_when_the_champion_is_less_sure(deliver: Any, judge: Judge) -> None:
    def smudge(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        x = x.copy()
        x[::2, :2, :] = 8
        return x, y

    quiet = judge(deliver(smudge), deliver())
    assert drifted(quiet) >= {"cell_0_0_0", "cell_0_1_7"}
    assert quiet.document.verdict is Verdict.PASS
    loud = judge(deliver(smudge), deliver(), confidence=UNSURE).document
    assert loud.verdict is Verdict.FAIL
    assert "the champion's mean confidence fell from 0.8" in loud.reason


def test_a_shift_of_the_classes_alone_is_reported_and_passes(deliver: Any, judge: Judge) -> None:
    def fewer(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        keep = (y > 4) | (np.arange(len(y)) % 4 == 0)
        return x[keep], y[keep]

    report = judge(deliver(fewer), deliver())
    label = report.document.stage_one[-1]
    assert (label.column, label.test, label.drifted) == ("label", "G-test p", True)
    assert label.effect == pytest.approx(0.3, abs=0.02)
    assert report.document.verdict is Verdict.PASS


# --- tables -----------------------------------------------------------------------------------------------------------


def rows(n: int = 300, seed: int = 0, name: str = "age", city: tuple[str, ...] = ("Bonn", "Ulm")) -> str:
    rng = np.random.default_rng(seed)
    cells = zip(rng.normal(size=n), rng.choice(city, n), rng.choice(["no", "yes"], n), strict=True)
    return f"{name},city,label\n" + "".join(f"{a},{b},{c}\n" for a, b, c in cells)


def test_a_column_that_is_gone_or_changed_its_kind_has_drifted(take: Take, write: Write, judge: Judge) -> None:
    champion = take(write(rows()))
    report = judge(take(write(rows(seed=1, name="years"))), champion)
    assert drifted(report) == {"age", "years"}
    assert {c.test for c in report.document.stage_one if c.drifted} == {"on one side only"}
    assert drifted(judge(take(write(rows(seed=1, city=("1", "2")))), champion)) == {"city"}


def test_an_unknown_category_in_one_row_is_not_drift(take: Take, write: Write, judge: Judge) -> None:
    champion = take(write(rows()))
    assert drifted(judge(take(write(rows(seed=1).replace("Ulm", "Köln", 1))), champion)) == set()


def test_names_that_are_html_stay_text(take: Take, write: Write, judge: Judge) -> None:
    bad = "</script><script>alert(1)</script>"
    report = judge(take(write(rows(name=bad, city=(bad, "Ulm")))))
    assert b"<script>alert(1)" not in report.open("evidently.html").read()
    assert report.document.stage_one[0].column == bad


def test_the_same_delivery_gives_the_same_bytes(take: Take, write: Write, judge: Judge) -> None:
    taken = take(write(rows(3000)))
    first = judge(taken, max_rows=1000, seed=5)
    pages = first.open("evidently.html").read()
    again = judge(taken, max_rows=1000, seed=5)
    assert (first.digest, pages) == (again.digest, again.open("evidently.html").read())
    assert judge(taken, max_rows=1000, seed=6).digest != first.digest


def test_the_very_rows_of_the_champion_are_not_compared(
    take: Take, write: Write, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.data.drift.step.compare", lambda *_, **__: pytest.fail("Evidently was asked"))
    data = take(write(rows()))
    made = judge(data, data)
    assert {(column.statistic, column.effect, column.drifted) for column in made.document.stage_one} == {(1, 0, False)}
    assert made.document.verdict is Verdict.PASS
    assert "very rows of the reference" in made.open("evidently.html").getvalue().decode()


def test_what_is_said_of_equal_tables_is_what_evidently_measures(take: Take, write: Write) -> None:
    table = read_table(take(write(rows())), "train")
    kinds: dict[str, ColumnKind] = {
        name: "number" if table[name].dtype.kind in "biuf" else "category" for name in table.columns
    }
    assert set(kinds.values()) == {"number", "category"}
    assert same(kinds).p_values == compare(table, table, kinds, threshold=0.01).p_values


def test_the_page_is_evidentlys_and_names_the_columns(take: Take, write: Write, judge: Judge) -> None:
    page = judge(take(write(rows()))).open("evidently.html").read().decode()
    assert "drawDashboard" in page
    assert all(name in page for name in ("age", "city", "G-test p_value (rare categories pooled)"))


def test_the_plots_count_every_row(take: Take, write: Write, judge: Judge) -> None:
    report = judge(take(write(rows())), take(write(rows(seed=1))))
    told = json.load(report.open("distributions.json"))["columns"]
    assert set(told) == {"age", "city", "label"}
    assert sum(told["age"]["reference"]) == sum(told["age"]["current"]) == 240
    assert told["city"]["categories"] == ["Bonn", "Ulm"]


def test_random_ids_become_numbers_in_order() -> None:
    one, two = "01a1fc63-66cf-75c9-8cf6-15aac5014664", "01a1fc63-51b3-7698-8a5e-b10bda7b7756"
    page = f"<a id={one}><b id={two}><c id={one}> metric_15bd391c01b54856af5d7361ddfe5827"
    assert steady(page) == "<a id=id000000><b id=id000001><c id=id000000> metric_id000002"


# --- the champion's files ---------------------------------------------------------------------------------------------


def test_confidences_that_are_none_are_refused(take: Take, write: Write, judge: Judge) -> None:
    taken = take(write(rows()))
    for wrong in (np.array([]), np.array([0.5, np.nan]), np.array([1.5]), np.array([[0.5]]), np.array([1])):
        with pytest.raises(ArtifactError, match=r"scores.npz\[current_confidence\]: expected confidences in \[0, 1\]"):
            judge(taken, taken, confidence=wrong)


def test_a_first_delivery_with_an_absent_champion_uses_its_held_out_rows(
    take: Take, write: Write, tmp_path: Path
) -> None:
    taken = take(write(rows()))
    absent = save(tmp_path / "baseline", Baseline(name="test", present=False))
    made = drift(
        Ref(taken.folder), tmp_path / "out", config=DriftConfig(), baseline=Ref(absent.folder), seed=0
    ).document
    assert (made.reference, made.stage_two) == ("held-out", None)
    assert made.inputs == {"snapshot": taken.digest, "baseline": absent.digest}
