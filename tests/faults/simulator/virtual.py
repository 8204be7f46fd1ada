"""Runs the matrix in virtual time on every core and adds it up."""

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from os import cpu_count

from tests.faults.simulator.checks import Ended
from tests.faults.simulator.matrix import FAULTS, rollbacks
from tests.faults.simulator.plans import Run

TIMED = {"rollbacks 0": 0.0, "rollbacks 30": 0.3}
"""Rollbacks whose time is measured -> the share of calls that are refused."""
NAMES = (*(fault.name for fault in FAULTS), *TIMED)
ROLLBACKS = 400
"""Runs for each share of refused calls."""


@dataclass
class Tally:
    """What the runs of one fault came to."""

    fault: str
    runs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    """One line for each run in which something was wrong."""
    stuck: int = 0
    unproven: int = 0
    requests: int = 0
    seconds_to_zero: list[float] = field(default_factory=list)


def run_all(quick: bool, only: str | None = None) -> dict[str, Tally]:
    """Every fault (or one), and the timed rollbacks with 0 and 30 % of the calls refused."""
    jobs = [(name, quick) for name in NAMES if only in (None, name)]
    with ProcessPoolExecutor(cpu_count(), mp_context=get_context("spawn")) as pool:
        found = {}
        for tally in pool.map(_tally, jobs):
            found[tally.fault] = tally
            ends = ", ".join(f"{end} {n}" for end, n in sorted(tally.ends.items()))
            _say(f"faults: {tally.fault}: {tally.runs} runs, {len(tally.bad)} violations ({ends})")
            for line in tally.bad[:10]:
                _say(f"  {line}")
    return found


def one(name: str, number: int, quick: bool) -> Ended:
    """Run number `number` of a fault."""
    return runs(name, quick)[number]()


def _tally(job: tuple[str, bool]) -> Tally:
    name, quick = job
    tally = Tally(name)
    for number, run in enumerate(runs(name, quick)):
        _add(tally, number, run, run(), quick)
    return tally


def runs(name: str, quick: bool) -> Sequence[Run]:
    """All runs of a fault, or of the timed rollbacks."""
    if name in TIMED:
        return list(rollbacks(ROLLBACKS // (20 if quick else 1), TIMED[name]))
    return list(next(fault for fault in FAULTS if fault.name == name).runs(quick))


def _add(tally: Tally, number: int, run: Run, ended: Ended, quick: bool) -> None:
    tally.runs += 1
    tally.ends[ended.state] += 1
    tally.requests += ended.requests
    tally.stuck += any(line.startswith("stuck") for line in ended.violations)
    tally.unproven += any(line.startswith("promoted") for line in ended.violations)
    if ended.seconds_to_zero is not None:
        tally.seconds_to_zero.append(ended.seconds_to_zero)
    if ended.violations:
        again = f"python -m benchmarks.faults --only '{tally.fault}' --run {number}{' --quick' if quick else ''}"
        tally.bad.append(f"{run.about}, seed {run.seed}: {'; '.join(ended.violations)} (again: {again})")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
