"""A promoted model in operation: a planted regression is taken back once, a good one stays, and drift takes nothing."""

import numpy as np
import pytest

from holdfast.errors import RolloutError
from holdfast.serving.operation.loop import OperationActions, SignalSources, guard
from holdfast.serving.operation.observe import ServedCounts
from holdfast.workload.schema import OperationConfig

PLAN = OperationConfig(guarded=("errors", "latency", "attack", "loss"), look_seconds=60)
HOURS = 6 * 3600.0


class Clock:
    """Runs hours in a second."""

    def __init__(self):
        self.at = 1_000_000.0

    def now(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds


class Serving:
    """A served model: its failures and slow answers, from a moment on worse."""

    def __init__(self, clock, *, bad_after=np.inf, errors=0.005, slow=0.01, worse_errors=0.1, worse_slow=0.01):
        self.clock, self.bad_after, self.rng = clock, clock.now() + bad_after, np.random.default_rng(0)
        self.good, self.bad = (errors, slow), (worse_errors, worse_slow)
        self.seen = ServedCounts(0, 0, 0, 0)
        self.gone = False

    def read(self):
        if self.gone:
            raise RolloutError("prometheus: expected a sample of the last 30 s")
        errors, slow = self.bad if self.clock.now() >= self.bad_after else self.good
        failed, late = self.rng.binomial(20, errors), self.rng.binomial(20, slow)
        was = self.seen
        self.seen = ServedCounts(was.answered + 20, was.failed + failed, was.timed + 20, was.slow + late)
        return self.seen


class Told:
    def __init__(self):
        self.reasons, self.lines = [], []

    @property
    def actions(self):
        return OperationActions(self.reasons.append, self.lines.append)


def run(tmp_path, serving, *, clock, told, seconds=HOURS, plan=PLAN, **sources):
    found = SignalSources(counters=serving, **sources)
    return guard("a" * 64, plan, found, told.actions, tmp_path / "state.json", clock, seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return Told()


def test_a_good_model_stays(tmp_path, clock, told):
    assert run(tmp_path, Serving(clock), clock=clock, told=told) == "watched"
    assert told.reasons == []


@pytest.mark.parametrize("worse", [{"worse_errors": 0.1}, {"worse_errors": 0.005, "worse_slow": 0.2}])
def test_a_model_that_turns_bad_is_taken_back_once(tmp_path, clock, told, worse):
    serving = Serving(clock, bad_after=2 * 3600, **worse)
    assert run(tmp_path, serving, clock=clock, told=told) == "rolled-back"
    (reason,) = told.reasons
    assert reason.startswith("errors:" if worse["worse_errors"] == 0.1 else "latency:")
    assert clock.now() - serving.bad_after < 1800  # 30 looks of 20 answers
    assert not (tmp_path / "state.json").exists()


def test_what_the_plan_does_not_name_takes_nothing_back(tmp_path, clock, told):
    plan = PLAN.model_copy(update={"guarded": ("loss",)})
    assert run(tmp_path, Serving(clock, bad_after=0), clock=clock, told=told, plan=plan) == "watched"


def test_a_proven_loss_takes_it_back(tmp_path, clock, told):
    proofs = (lambda: None, lambda: "loss: bound of the gate 0.06, evidence 300" if clock.now() > 1_003_000 else None)
    assert run(tmp_path, Serving(clock), clock=clock, told=told, proofs=proofs) == "rolled-back"
    assert told.reasons == ["loss: bound of the gate 0.06, evidence 300"]


def test_attack_success_above_what_the_gate_measured_takes_it_back(tmp_path, clock, told):
    fooled = {"probes": lambda: (8, 8), "max_attack": 0.3}
    assert run(tmp_path, Serving(clock), clock=clock, told=told, **fooled) == "rolled-back"
    assert told.reasons[0].startswith("attack: a share above 0.3 is proven")


def test_evidence_outlives_the_process(tmp_path, clock, told):
    bad = Serving(clock, bad_after=0, worse_errors=0.06)
    looks = 0
    while run(tmp_path, bad, clock=clock, told=told, seconds=60) == "watched":
        clock.sleep(60)
        looks += 1
        assert looks < 100
    assert looks > 1
    assert len(told.reasons) == 1


def test_a_rollback_that_failed_is_tried_again_by_the_next_process(tmp_path, clock):
    tries = []

    def fails_first(reason):
        tries.append(reason)
        if len(tries) == 1:
            raise RolloutError("the version before was not ready in time")

    actions, sources = (
        OperationActions(fails_first, lambda line: None),
        SignalSources(counters=Serving(clock, bad_after=0)),
    )
    given = ("a" * 64, PLAN, sources, actions, tmp_path / "state.json", clock)
    with pytest.raises(RolloutError, match="was not ready"):
        guard(*given, seconds=HOURS)
    assert guard(*given, seconds=0) == "rolled-back"
    assert tries[0] == tries[1]


def test_without_counters_it_stays_and_a_line_names_it(tmp_path, clock, told):
    serving = Serving(clock)
    serving.gone = True
    assert run(tmp_path, serving, clock=clock, told=told, seconds=3600) == "watched"
    assert sum("no one watches it" in line for line in told.lines) == 1
    assert any("expected a sample of the last 30 s" in line for line in told.lines)


def test_the_evidence_about_another_model_is_none_about_this_one(tmp_path, clock, told):
    run(tmp_path, Serving(clock, bad_after=0, worse_errors=0.06), clock=clock, told=told, seconds=120)
    sources = SignalSources(counters=Serving(clock))
    assert guard("b" * 64, PLAN, sources, told.actions, tmp_path / "state.json", clock, seconds=600) == "watched"


def test_a_counter_that_went_back_is_no_evidence():
    assert ServedCounts(10, 1, 10, 1).since(ServedCounts(500, 3, 500, 3)) == {}
    assert ServedCounts(10, 1, 10, 1).since(None) == {"errors": (0, 0), "latency": (0, 0)}
