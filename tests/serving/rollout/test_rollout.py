"""Whole rollouts: real Envoy, two real MLServers, real requests."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast import registry
from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import load
from holdfast.errors import RefusedError, RolloutError
from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.serving.rollout.engine.journal import read_journal, state_folder
from holdfast.serving.rollout.matchup import Matchup
from holdfast.serving.rollout.step import rollout, run_rollout
from holdfast.workload.schema import RolloutPlan

CONFIG = RolloutPlan(shadow_requests=60, steps=(20, 60, 100), step_requests=40, rate=150, clients=6)
WAIT_SECONDS = 120
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, and the same written as IPv6 (gRPC does that)."""


def matchup(bundle: Path, game_day: str | None = None, champion: bool = True) -> Matchup:
    stable = served_arm("tiny", 1, bundle) if champion else None
    return Matchup(served_arm("tiny", 2, bundle, game_day), stable, bundle / "replay.npz")


def journal_of(out: Path) -> Path:
    return state_folder(out) / "journal.jsonl"


def wait_for_canary(journal: Path, ended) -> dict[str, int]:
    """The process ids, once live traffic is on the candidate."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and not ended():
        entries = read_journal(journal) if journal.exists() else []
        if any(e["kind"] == "done" and str(e["state"]).startswith("Canary") for e in entries):
            return next(e["pids"] for e in entries if e["kind"] == "started")
        threading.Event().wait(0.02)
    raise AssertionError("the rollout never came to a canary step")


def listening(pid: int) -> set[str]:
    """The addresses, in the kernel's hexadecimal, on which a process listens."""
    inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


@pytest.fixture(scope="module")
def promoted(tracking, tmp_path_factory):
    """Version 2, healthy, against the champion, version 1: the record, and the aliases afterwards."""
    out = tmp_path_factory.mktemp("promoted") / "rollout"
    artifact = rollout("tiny", out, version=2, tracking=tracking, config=CONFIG, seed=0)
    return artifact, registry.aliases(tracking, "tiny")


@pytest.fixture(scope="module")
def rolled_back(tracking, promoted, tmp_path_factory):
    """Version 3 against version 2; it turns slow and wrong after 50 live answers."""
    out = tmp_path_factory.mktemp("game-day") / "rollout"
    day = "delay_ms=400,wrong=1.0,after=50"
    artifact = rollout("tiny", out, version=3, tracking=tracking, config=CONFIG, seed=0, game_day=day)
    return artifact, registry.aliases(tracking, "tiny")


def test_a_healthy_candidate_is_promoted_without_a_lost_request(promoted):
    artifact, aliases = promoted
    record = artifact.document
    assert (record.outcome, record.verdict) == ("promoted", "pass")
    assert (record.candidate_version, record.champion_version) == (2, 1)
    assert (aliases["champion"], aliases["previous"]) == (2, 1)
    assert record.requests_failed == 0
    assert record.requests_sent > 150
    assert [t.weight for t in record.transitions] == [0, 20, 60, 100, 100, 100]


def test_every_step_had_its_own_answers_from_the_candidate(promoted):
    canaries = [t for t in promoted[0].document.transitions if t.state_before.startswith("Canary")]
    answered = [t.candidate.n for t in canaries]
    assert all(later - earlier >= CONFIG.step_requests for earlier, later in zip(answered, answered[1:], strict=False))


def test_the_journal_announces_before_it_reports(promoted):
    journal = [json.loads(line) for line in promoted[0].open("journal.jsonl").read().splitlines()]
    kinds = [entry["kind"] for entry in journal]
    assert kinds == ["created", "started", *["intent", "done"] * 5, "done", "mirrored"]
    assert {entry["fence"] for entry in journal} == {1}


def test_the_record_has_the_plan_in_effect_and_where_the_policy_was_overridden(promoted):
    # The policy in the decision about this version: tests/serving/conftest.py.
    found = json.loads(promoted[0].open("plan.json").read())
    assert found["policy"] == {"approval_seconds": 1800.0, "clients": 4}
    assert found["overridden"] == {"clients": 6}
    plan = RolloutPlan.model_validate({**CONFIG.model_dump(), "approval_seconds": 1800})
    assert found["plan"] == plan.complete.model_dump(mode="json")
    assert set(found["plan"]) == set(RolloutPlan.model_fields)


def test_the_timeline_counts_up(promoted):
    timeline = json.loads(promoted[0].open("timeline.json").read())
    for key in ("t", "sent", "candidate_requests", "champion_requests"):
        values = [sample[key] for sample in timeline]
        assert values == sorted(values)
    assert timeline[-1]["state"] == "Promoted"


def test_a_candidate_that_turns_bad_is_taken_out_without_a_lost_request(rolled_back):
    artifact, aliases = rolled_back
    record = artifact.document
    assert (record.outcome, record.verdict) == ("rolled-back", "fail")
    assert (record.champion_version, aliases["champion"]) == (2, 2)
    assert record.requests_failed == 0
    assert "game day: delay_ms=400,wrong=1.0,after=50" in record.reason
    assert max(t.weight for t in record.transitions) > 0
    assert record.transitions[-1].weight == 0
    assert 0 < record.transitions[-1].evidence["seconds_to_rollback"] < 20


def test_after_the_rollback_the_candidate_gets_nothing(rolled_back):
    timeline = json.loads(rolled_back[0].open("timeline.json").read())
    after = [sample for sample in timeline if sample["state"] in ("RollingBack", "RolledBack")]
    assert len({sample["candidate_requests"] for sample in after}) == 1
    assert after[-1]["champion_requests"] > after[0]["champion_requests"]


def test_the_incident_report_says_why_and_what_next(rolled_back):
    record, artifact = rolled_back[0].document, rolled_back[0]
    markdown = artifact.open("incident.md").read().decode()
    page = artifact.open("incident.html").read().decode()
    for text in (markdown, page):
        assert record.inputs["candidate"] in text
        assert "What to do next" in text
        assert "This was a game day" in text
    assert not re.search(r'(src|href)="(?!#)', page), "the page must not need anything else"


def test_records_lead_back_to_the_models(rolled_back, tracking, tmp_path):
    inputs = load(rolled_back[0].folder, RolloutRecord).document.inputs
    for role, version in (("candidate", 3), ("champion", 2)):
        fetched = registry.fetch(tracking, "tiny", version, tmp_path / role)
        assert fetched is not None
        assert inputs[role] == fetched.model.digest


def test_what_is_the_champion_already_is_not_rolled_out(tracking, promoted, tmp_path, no_child_left):
    before = registry.versions(tracking, "tiny")
    artifact = rollout("tiny", tmp_path / "rollout", version=2, tracking=tracking, config=CONFIG, seed=0)
    record = load(artifact.folder, RolloutRecord).document
    assert (record.outcome, record.verdict, record.cause) == ("promoted", "pass", "none")
    assert record.reason == "version 2 is the champion already, so there was nothing to roll out"
    assert (record.champion_version, record.requests_sent, record.transitions) == (2, 0, ())
    assert registry.versions(tracking, "tiny") == before
    assert not state_folder(tmp_path / "rollout").exists()
    assert no_child_left() == []


def test_a_fault_can_be_planted_in_the_champion(tracking, promoted, tmp_path):
    day = "wrong=1.0,after=20"
    artifact = rollout("tiny", tmp_path / "r", version=2, tracking=tracking, config=CONFIG, seed=0, game_day=day)
    assert (artifact.document.outcome, artifact.document.requests_sent > 0) == ("rolled-back", True)


def test_an_unknown_version_is_named(tracking, tmp_path):
    with pytest.raises(RolloutError, match="expected version 9 of model tiny, found none"):
        rollout("tiny", tmp_path / "rollout", version=9, tracking=tracking, config=CONFIG, seed=0)


def test_a_killed_candidate_is_never_promoted_and_no_client_notices(bundle, tmp_path, no_child_left):
    out, done = tmp_path / "rollout", threading.Event()
    addresses: set[str] = set()

    def kill() -> None:
        pids = wait_for_canary(journal_of(out), done.is_set)
        addresses.update(*(listening(pid) for pid in pids.values()))
        os.kill(pids["candidate"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        # Without a fault this would need minutes, so it cannot be over before the kill.
        config = CONFIG.model_copy(update={"step_requests": 20_000, "max_step_seconds": 60.0})
        record = run_rollout(matchup(bundle), out, config=config, seed=0, promote=pytest.fail).document
    finally:
        done.set()
        killer.join()
    assert (record.outcome, record.requests_failed, record.cause) == ("rolled-back", 0, "server")
    assert re.search("server is gone|ejected|failures in a row|fails more often", record.reason)
    assert no_child_left() == []
    assert not journal_of(out).exists()
    assert addresses == LOOPBACK


def test_sigterm_takes_the_candidate_out_and_ends(bundle, tmp_path):
    out = tmp_path / "rollout"
    program = (
        "import sys; from pathlib import Path\n"
        "from holdfast.serving.rollout.step import run_rollout\n"
        "from holdfast.serving.rollout.matchup import Matchup\n"
        "from holdfast.serving.rollout.contract.served_arm import served_arm\n"
        "from holdfast.workload.schema import RolloutPlan; from holdfast.errors import RolloutError\n"
        f"b, out = Path({str(bundle)!r}), Path({str(out)!r})\n"
        "try: run_rollout(Matchup(served_arm('tiny', 2, b), served_arm('tiny', 1, b), b / 'replay.npz'), out,\n"
        "    config=RolloutPlan(shadow_requests=20, step_requests=20000), seed=0, promote=print)\n"
        "except RolloutError as error: sys.exit(str(error))\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    pids = wait_for_canary(journal_of(out), lambda: running.poll() is not None)
    running.terminate()
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "told to stop; the candidate is out" in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    assert not out.exists()
    assert read_journal(state_folder(out) / "stopped-1.jsonl")[-1]["state"] == "Inconclusive"


def test_bytes_altered_after_the_check_are_refused_by_the_server(bundle, tmp_path, no_child_left):
    own = shutil.copytree(bundle, tmp_path / "bundle")
    prepared = matchup(own, champion=False)
    weights = own / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RefusedError, match="not served") as caught:
        run_rollout(prepared, tmp_path / "rollout", config=CONFIG, seed=0, promote=pytest.fail)
    assert caught.value.exit_code == 3
    assert no_child_left() == []
    assert not (tmp_path / "rollout").exists()


def test_too_few_answers_by_the_deadline_are_inconclusive(bundle, tmp_path):
    config = CONFIG.model_copy(update={"shadow_requests": 0, "step_requests": 20_000, "max_step_seconds": 1.0})
    # Without a champion: the stable arm is a second server of the candidate.
    prepared = matchup(bundle, champion=False)
    record = run_rollout(prepared, tmp_path / "rollout", config=config, seed=0, promote=pytest.fail).document
    assert (record.outcome, record.champion_version, record.cause) == ("inconclusive", None, "evidence")
    assert "nothing was compared with an earlier" in (tmp_path / "rollout" / "incident.md").read_text()
    assert "no verdict within 1 s" in record.reason
    assert record.transitions[-1].weight == 0
    assert record.requests_failed == 0
    again = run_rollout(prepared, tmp_path / "rollout", config=config, seed=0, promote=pytest.fail).document
    assert again.outcome == "inconclusive"
    assert load(tmp_path / "rollout-earlier-1", RolloutRecord).document == record


def test_another_contract_than_the_champions_is_refused(bundle, tmp_path, make_bundle):
    prepared = matchup(bundle)
    other = served_arm("tiny", 3, make_bundle(seed=1, classes=("a", "b")))
    with pytest.raises(RolloutError, match="expected the champion's contract"):
        run_rollout(
            Matchup(other, prepared.champion, prepared.rows),
            tmp_path / "rollout",
            config=CONFIG,
            seed=0,
            promote=pytest.fail,
        )
