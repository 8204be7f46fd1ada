"""What a rollout asks of MLflow and leaves there, through real child processes and a real registry."""

import shutil
import stat
import time
from dataclasses import replace

import pytest

from holdfast import registry
from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import GateDecision, Model
from holdfast.artifacts.folder import load, save
from holdfast.errors import RefusedError, RegistryError
from holdfast.registry.notes import Note
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.step import rollout, state_folder
from holdfast.workload.schema import RolloutPlan


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    registry.set_up(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking(empty, tmp_path):
    """A registry with nothing in it."""
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def add(tracking, make_bundle, tmp_path):
    """Registers the same model, under the same decision or under one with another alpha."""

    def make(alpha: float = 0.05) -> registry.Registered:
        package, reports = tmp_path / "package", tmp_path / "reports"
        shutil.rmtree(package, ignore_errors=True)
        bundle = package / "data" / "bundle"
        shutil.copytree(make_bundle(seed=0), bundle)
        judged = load(bundle / "decision", GateDecision).document
        decision = save(bundle / "decision", judged.model_copy(update={"alpha": alpha}))
        model = load(bundle / "model", Model)
        tags = {
            "holdfast.verdict": "pass",
            "holdfast.model_digest": model.digest,
            "holdfast.decision_digest": decision.digest,
            "holdfast.bundle_digest": registry.seal_bundle(bundle),
        }
        (package / "MLmodel").write_text("flavors: {}\n")
        reports.mkdir(exist_ok=True)
        entry = registry.Entry("tiny", model.digest, tags, description="tiny", about="tiny")
        return registry.register(tracking, entry, package=package, reports=reports)

    return make


def note(tracking, version: int, **more) -> Note:
    tags = next(one.tags for one in registry.versions(tracking, "tiny") if one.number == version)
    digests = {"model": tags["holdfast.model_digest"], "decision": tags["holdfast.decision_digest"]}
    now = round(time.time(), 3)
    given = Note(version, "rolled-back", "it fails more often", now - 60, now, 1, **digests, cause=Cause.MODEL)
    return replace(given, **more)


def start(tracking, version, out, **plan):
    return rollout("tiny", out, version=version, tracking=tracking, config=RolloutPlan(**plan), seed=0)


def test_a_rolled_back_model_is_refused_until_the_gate_decides_anew(add, tracking, tmp_path):
    out = tmp_path / "rollout"
    assert add().version == 1
    registry_worker.leave_note(out, tracking, "tiny", note(tracking, 1))
    # The address of MLflow in it may have a password.
    assert [stat.S_IMODE(path.stat().st_mode) for path in out.parent.glob(".*rollout-note-*")] == [0o600]
    with pytest.raises(
        RefusedError, match=r"version 1, this very model, was rolled back for its own fault .* \(it fails more often\)"
    ) as no:
        start(tracking, 1, out)
    assert no.value.exit_code == 3
    assert not state_folder(out).exists()
    assert add().version == 1, "the same decision is no news"
    assert add(alpha=0.01).version == 2, "a new decision on a rolled-back model is a version of its own"
    assert registry_worker.fetch(tracking, "tiny", 2, tmp_path / "fetched").candidate.is_dir()


@pytest.mark.parametrize("cause", [Cause.SERVER, Cause.ROUTER, Cause.GATE])
def test_a_rollback_for_another_cause_than_the_models_fault_refuses_nothing(add, tracking, tmp_path, cause):
    add()
    registry_worker.leave_note(tmp_path / "rollout", tracking, "tiny", note(tracking, 1, cause=cause))
    assert registry_worker.fetch(tracking, "tiny", 1, tmp_path / "fetched").candidate.is_dir()
    (found,) = registry_worker.history(tracking, "tiny").notes
    assert (found.cause, found.counts_against_model) == (cause, False)
    assert add(alpha=0.01).version == 1, "it is the same version that starts again"


def test_a_fault_that_was_planted_refuses_nothing(add, tracking, tmp_path):
    add()
    registry_worker.leave_note(tmp_path / "rollout", tracking, "tiny", note(tracking, 1, game_day="wrong=1.0"))
    assert registry_worker.fetch(tracking, "tiny", 1, tmp_path / "fetched").candidate.is_dir()
    assert add(alpha=0.01).version == 1


def test_an_old_decision_is_refused_until_it_is_registered_again(add, tracking, tmp_path):
    add()
    day = 1 / 86400  # one second
    time.sleep(1.1)
    with pytest.raises(RefusedError, match=r"cannot start: the gate's decision is older than .* days"):
        start(tracking, 1, tmp_path / "rollout", max_decision_days=day)
    assert not state_folder(tmp_path / "rollout").exists()
    before = registry.versions(tracking, "tiny")[0].decided
    add()
    assert registry.versions(tracking, "tiny")[0].decided > before


def test_a_note_waits_while_mlflow_is_down_and_is_written_once(add, tracking, tmp_path):
    add()
    left = note(tracking, 1)
    database = tmp_path / "mlflow.db"
    database.rename(tmp_path / "away.db")
    registry_worker.leave_note(tmp_path / "rollout", tracking, "tiny", left)
    with pytest.raises(RegistryError, match="expected MLflow to answer"):
        registry_worker.hand_in(tmp_path)
    (tmp_path / "away.db").rename(database)
    registry_worker.hand_in(tmp_path)
    registry_worker.hand_in(tmp_path)
    found = registry_worker.history(tracking, "tiny")
    assert found.notes == (left,)
    assert not list(tmp_path.glob(".*.rollout-note-*"))


def test_a_note_about_a_version_that_is_gone_does_not_wait_for_ever(tracking, add, tmp_path):
    add()
    registry_worker.leave_note(tmp_path / "rollout", tracking, "tiny", replace(note(tracking, 1), version=9))
    registry_worker.hand_in(tmp_path)
    assert not list(tmp_path.glob(".*.rollout-note-*"))
    assert registry_worker.history(tracking, "tiny").notes == ()


def test_a_file_that_only_looks_like_a_note_is_left_alone(tmp_path):
    stray = tmp_path / ".rollout.rollout-note-1.json"
    stray.write_text("{}")
    registry_worker.hand_in(tmp_path)
    assert stray.exists()


def test_one_worker_does_all_tasks_and_a_dead_one_is_followed_by_another(tracking, no_child_left):
    with registry_worker.shared_worker():
        assert registry_worker.history(tracking, "tiny").notes == ()
        (first,) = no_child_left()
        assert registry_worker.history(tracking, "tiny").champion is None
        assert no_child_left() == [first]
        child = registry_worker._workers[0].child
        child.kill()
        child.wait()
        assert registry_worker.history(tracking, "tiny").notes == ()
        assert len(no_child_left()) == 1
    assert no_child_left() == []
