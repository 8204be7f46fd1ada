"""The controller in virtual time (`tests/faults/simulator`): it keeps every promise, no matter what dies or fails.

Every run is held to all promises: it ends, at most one step is repeated, no two drivers write, weight 0 with the
candidate out unless it was promoted with its proof, and one more driver afterwards changes nothing.
"""

import numpy as np
import pytest

from holdfast.serving.rollout.engine.controller import Ask, OperatorRequest
from holdfast.serving.rollout.engine.machine import State
from holdfast.statistics import newcombe_upper
from tests.faults.simulator import matrix
from tests.faults.simulator.checks import Wanted, carry, difference_below, examine, one_driver
from tests.faults.simulator.matrix import FAULTS, Api, Metrics, Refusing, acts, f1, side_effects
from tests.faults.simulator.plans import OUT, PLAN, failing
from tests.faults.simulator.world import Behaviour, World


def wrong(runs) -> list[str]:
    """What was wrong with runs, each with what it was about."""
    return [f"{run.about}, seed {run.seed}: {line}" for run in runs for line in run().violations]


@pytest.mark.parametrize("bad", [False, True], ids=["healthy", "bad"])
def test_a_driver_may_be_killed_before_and_after_every_side_effect(bad):
    points = {(number, after) for number in side_effects(acts(0, bad)) for after in (False, True)}
    runs = [run for run in f1(1) if run.about.startswith("bad" if bad else "healthy")]
    assert len(runs) >= len(points) >= 14
    assert wrong(runs) == []


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name != "F1"], ids=lambda fault: fault.name)
def test_a_few_runs_of_each_fault_keep_every_promise(fault):
    assert wrong(list(fault.runs(True))[:4]) == []


@pytest.mark.parametrize("kind", ["hang", "stale", "future", "refused"])
def test_metrics_that_never_come_back_end_the_rollout_without_a_verdict(kind):
    world = World(PLAN, 0, trouble=Metrics(kind, since=3.0))
    ended = carry(world)
    assert ended is not None
    assert ended.state is State.INCONCLUSIVE
    # Blind for 15 s, however long the calls hang.
    assert world.now < 60


def test_after_a_time_without_renewal_the_split_is_judged_anew():
    # 10 s without an API: the lease ends and takes the weight away, and stable answers everything meanwhile.
    world = World(PLAN, 1, trouble=Api(1, cut=(5.0, 15.0)))
    ended = carry(world)
    assert ended is not None
    assert (ended.state, world.router.fired) == (State.PROMOTED, 1), ended.judgement.reason


def test_an_ejection_in_a_shared_incident_is_nobodys_fault():
    world = World(PLAN, 0, outlier=True)
    world.candidate = world.champion = lambda _: Behaviour(errors=0.4 if world.now > 6 else 0.0)
    ended = carry(world)
    assert ended is not None
    assert (ended.state, "ejected" in ended.judgement.reason) == (State.INCONCLUSIVE, True)


def test_probes_that_break_in_a_shared_incident_are_nobodys_fault():
    world = World(PLAN, 0, outlier=False)
    world.candidate = world.champion = lambda _: Behaviour(errors=0.1 if world.now > 6 else 0.0)
    ended = carry(world)
    assert ended is not None
    assert ended.state is not State.ROLLED_BACK, ended.judgement.reason


def test_an_abort_read_by_a_driver_that_dies_at_once_is_not_lost():
    trouble = matrix.DiesOnRequest(Refusing((), 0))
    world = World(PLAN, 0, trouble=trouble)
    world.requests.append((4.0, OperatorRequest(Ask.ABORT, "a person aborts")))
    ended = carry(world)
    assert ended is not None
    assert (ended.state, world.fences) == (State.INCONCLUSIVE, 2)


def test_a_rollback_that_cannot_be_written_calls_a_person_and_does_not_give_up():
    world = World(PLAN, 0, candidate=failing(0.5), trouble=Refusing(("remove",), 50))
    ended = carry(world)
    assert ended is not None
    assert (ended.state, world.router.weight) == (State.ROLLED_BACK, 0)
    assert any("cannot be taken out" in reason for reason in world.paged)


def test_the_checks_find_what_they_look_for():
    world = World(PLAN, 0)
    ended = one_driver(world)
    assert examine(world, ended, Wanted()).violations == ()
    world.proof.own[50], world.router.weight = 3, 25
    found = " ".join(examine(world, ended, Wanted(OUT)).violations)
    for part in ("expected Inconclusive or RolledBack", "3 of 100 answers at 50 %", "promoted, and the router has"):
        assert part in found


def test_the_bound_is_newcombes_written_twice():
    chance = np.random.default_rng(0)
    for _ in range(200):
        n, m = (int(value) for value in chance.integers(1, 5000, size=2))
        x, y = int(chance.integers(n + 1)), int(chance.integers(m + 1))
        assert difference_below([n, x], [m, y]) == pytest.approx(newcombe_upper(x, n, y, m), abs=1e-12)
