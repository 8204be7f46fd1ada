"""An incident's timeline: what is collected, and that no entry and no record can be changed or left out unseen."""

import json
import shutil
from datetime import timedelta

import numpy as np
import pytest
from typer.testing import CliRunner

from holdfast.artifacts.documents import IncidentRecord, Review
from holdfast.artifacts.folder import canonical_json, load, save
from holdfast.attestation import store
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.people import SignerWords
from holdfast.cli import app
from holdfast.errors import ArtifactError, InputError, IntegrityError
from holdfast.incident.chain import Happening, by_time, chained
from holdfast.incident.step import PAGE, Sources, close_incident, closers, open_incident, read_incident
from holdfast.serving.guard import wealth
from holdfast.serving.guard.record import Record
from holdfast.serving.guard.store import SqliteStore
from tests.attestation.chains import NOW, signed_run

ANN = SignerWords("ann", "answers look wrong")
BO = SignerWords("bo", "the vendor's rows are dropped")
ALARM = {
    "event": "holdfast_guard_alarm", "at": "2026-11-02T10:00:00+00:00", "client": "thief", "detector": "far",
    "rows": 64, "model": "c" * 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A signed run, a review, and what a guard noted."""
    folder = tmp_path_factory.mktemp("incident")
    made = signed_run(folder / "run")
    save(folder / "reviews" / "0001", Review(name="digits", undecided=("a" * 64, "b" * 64)))
    held = SqliteStore(folder / "guard.db", made.artifacts["train"].digest)
    held.put("thief", Record(wealth.start(), wealth.start(), alarmed_by="far", rows=70), 1_793_000_000.0)
    held.put("user", Record(wealth.start(), wealth.start(), rows=9), 1_793_000_001.0)
    held.close()
    (folder / "server.log").write_text(f"starting\n{json.dumps(ALARM)}\n{{holdfast_guard_alarm\n")
    return folder, made


def sources(folder):
    return Sources((folder / "run", folder / "reviews"), (folder / "guard.db",), (folder / "server.log",))


def opened(world, out, **changes):
    folder, _ = world
    return open_incident("digits", out, changes.pop("sources", sources(folder)), ANN, at=NOW, model=None, trust=None)


def test_the_timeline_has_chain_quarantine_verdicts_and_alarms(world, tmp_path):
    _, made = world
    record = opened(world, tmp_path / "incident").document
    assert record.model == made.artifacts["train"].digest
    digests = {entry.digest for entry in record.entries}
    assert {artifact.digest for artifact in made.artifacts.values()} <= digests
    text = "\n".join(entry.what for entry in record.entries)
    for part in ("review: 2 rows undecided", "gate-decision: pass", "scan-report:", "alarm by far after 70 rows"):
        assert part in text or part.replace("review:", "review,") in text
    assert [entry.what for entry in record.entries if entry.source == "guard"] == [
        "client thief: alarm by far after 70 rows",
        "client thief: alarm by far after 64 rows",
    ]
    assert not [entry for entry in record.entries if entry.source == "altered"]


def test_the_incident_is_about_the_model_that_was_judged_not_the_champion_in_the_run(world, tmp_path):
    folder, made = world
    ours = made.artifacts["train"]
    files = {name: ours.path(name).read_bytes() for name in ours.document.files}
    first, second = (ours.document.model_copy(update={"best_epoch": epoch, "files": {}}) for epoch in (98, 99))
    champion = save(tmp_path / "more" / "champion", first, files)
    assert champion.digest != ours.digest
    found = opened(world, tmp_path / "one", sources=Sources((folder / "run", tmp_path / "more")))
    assert found.document.model == ours.digest
    save(tmp_path / "more" / "other", second, files)
    with pytest.raises(InputError, match=f"found 2: .*{champion.digest}.*; name it with --model"):
        opened(world, tmp_path / "two", sources=Sources((tmp_path / "more",)))


def test_times_count_as_signed_only_with_a_trust_policy(world, tmp_path):
    folder, made = world
    claimed = opened(world, tmp_path / "one").document
    proven = open_incident(
        "digits", tmp_path / "two", sources(folder), ANN, at=NOW, model=None, trust=made.trust
    ).document
    clocks = [{entry.clock for entry in one.entries if entry.source == "artifact"} for one in (claimed, proven)]
    assert clocks == [{"claimed", "none"}, {"signed", "none"}]


def test_altered_evidence_is_an_entry_and_stops_no_one(world, tmp_path):
    folder, _ = world
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / "steps" / "scan" / "made.txt").write_text("other")
    (tmp_path / "run" / "steps" / "attack" / "artifact.json").write_text("{")
    record = opened(world, tmp_path / "incident", sources=Sources((tmp_path / "run",))).document
    altered = [entry.what for entry in record.entries if entry.source == "altered"]
    assert len(altered) == 2
    assert any("made.txt" in what for what in altered)
    assert "2 pieces of evidence" in (tmp_path / "incident" / "0001" / PAGE).read_text()


@pytest.mark.parametrize("change", ["what", "removed", "moved", "model"])
def test_an_entry_that_was_changed_is_refused(world, tmp_path, change):
    made = opened(world, tmp_path / "incident")
    facts = json.loads(canonical_json(made.document))
    if change == "what":
        facts["entries"][3]["what"] = "nothing happened"
    elif change == "removed":
        del facts["entries"][3]
    elif change == "moved":
        facts["entries"][3:5] = reversed(facts["entries"][3:5])
    else:
        facts["model"] = "d" * 64
    (made.folder / "artifact.json").write_text(json.dumps(facts))
    with pytest.raises(ArtifactError, match="an entry that was changed, added or left out at number [14]"):
        read_incident(tmp_path / "incident")


def test_a_closing_is_signed_and_cannot_be_taken_away(world, tmp_path):
    folder, made = world
    opened(world, tmp_path / "incident")
    close_incident(
        tmp_path / "incident", Sources(), BO, at=NOW + timedelta(seconds=5), trust=None, signer=made.keys["approver"]
    )
    last = read_incident(tmp_path / "incident")[-1].document
    assert (last.state, last.entries[-1].what) == ("closed", "closed by bo: the vendor's rows are dropped")
    now = NOW + timedelta(minutes=1)
    assert closers(tmp_path / "incident", made.trust, now) == [f"bo ({made.keys['approver'].fingerprint[:12]}…)"]
    with pytest.raises(InputError, match="it is closed already"):
        close_incident(tmp_path / "incident", Sources(), BO, at=now, trust=None, signer=None)
    shutil.rmtree(tmp_path / "incident" / "0002")
    with pytest.raises(IntegrityError, match=r"expected the record .* that was signed, found none"):
        read_incident(tmp_path / "incident")


def test_a_signature_in_another_role_or_by_a_stranger_does_not_count(world, tmp_path):
    _, made = world
    stranger = make_key(tmp_path / "stranger.pem") and read_signer(str(tmp_path / "stranger.pem"))
    for number, signer in enumerate((made.keys["trainer"], stranger)):
        out = tmp_path / str(number)
        opened(world, out)
        close_incident(out, Sources(), BO, at=NOW, trust=None, signer=signer)
        assert closers(out, made.trust, NOW + timedelta(minutes=1)) == []


def test_a_record_that_forgets_what_was_known_is_refused(world, tmp_path):
    first = opened(world, tmp_path / "incident")
    entries = chained("digits", first.document.model, (), [Happening("person", "closed by mallory: nothing")])
    inputs = {"model": first.document.model, "incident": first.digest}
    forged = first.document.model_copy(update={"entries": entries, "inputs": inputs, "state": "closed"})
    save(tmp_path / "incident" / "0002", forged)
    with pytest.raises(IntegrityError, match="expected a record that follows on the one before"):
        read_incident(tmp_path / "incident")


def test_what_is_no_evidence_is_one_line(world, tmp_path):
    folder, _ = world
    (tmp_path / "not.db").write_text("x" * 4096)
    cases = {
        "expected a folder with artifacts, found none": Sources((tmp_path / "none",)),
        "expected the state of a guard": Sources(guards=(tmp_path / "not.db",)),
        "expected a log": Sources(alarms=(tmp_path / "none.log",)),
        "expected one model in the evidence, found none": Sources((folder / "reviews",)),
    }
    for number, (words, given) in enumerate(cases.items()):
        with pytest.raises(InputError, match=words):
            opened(world, tmp_path / str(number), sources=given)
        assert not (tmp_path / str(number)).exists()
    with pytest.raises(InputError, match="expected a new folder"):
        opened(world, folder)


def test_hostile_words_are_only_shown(world, tmp_path):
    event = {**ALARM, "client": "\u001b[2J<script>alert(1)</script>\n2026 forged line" + "x" * 900, "rows": [1]}
    (tmp_path / "evil.log").write_text(json.dumps(event))
    folder, _ = world
    made = opened(world, tmp_path / "incident", sources=Sources((folder / "run",), alarms=(tmp_path / "evil.log",)))
    what = next(entry.what for entry in made.document.entries if entry.source == "guard")
    assert what.isprintable()
    assert len(what) == 500
    assert "<script>" not in (made.folder / PAGE).read_text()


@pytest.mark.parametrize("at", [None, "no time", 1e300, True, [1], "9999-99-99T00:00:00"])
def test_a_time_that_is_none_is_left_out(world, tmp_path, at):
    (tmp_path / "odd.log").write_text(json.dumps({**ALARM, "at": at}))
    folder, _ = world
    made = opened(world, tmp_path / "incident", sources=Sources((folder / "run",), alarms=(tmp_path / "odd.log",)))
    entry = next(entry for entry in made.document.entries if entry.source == "guard")
    assert entry.at is None or at is True


def test_entries_come_once_and_are_shown_by_time():
    one, two = Happening("guard", "b", "2026-01-02T00:00:00Z"), Happening("guard", "a", "2026-01-01T00:00:00Z")
    first = chained("m", "a" * 64, (), [one, Happening("artifact", "chain")])
    more = chained("m", "a" * 64, first, [one, two])
    assert [entry.what for entry in more] == ["chain", "b", "a"]
    assert [entry.what for entry in by_time(more)] == ["chain", "a", "b"]


def test_the_commands_open_show_and_close(world, tmp_path):
    folder, made = world
    out, key, trust = tmp_path / "incident", folder / "run" / "keys" / "approver.pem", folder / "run" / "keys"
    run = lambda *words: CliRunner().invoke(app, ["incident", *map(str, words)])  # noqa: E731
    found = run("open", "digits", "--out", out, "--by", "ann", "--reason", "odd", "--evidence", folder / "run")
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("open: ")
    closed = run("close", out, "--by", "bo", "--reason", "done", "--key", key, "--json")
    assert json.loads(closed.stdout)["state"] == "closed"
    shown = run("show", out, "--trust", trust / "trust.yaml")
    assert "opened by ann: odd" in shown.stdout
    assert "closing signed by: bo (" in shown.stdout
    assert np.count_nonzero([line.startswith("page ") for line in shown.stdout.splitlines()]) == 1
    assert isinstance(load(out / "0002", IncidentRecord).document, IncidentRecord)
    assert store.read_all(out / store.ATTESTATIONS)
