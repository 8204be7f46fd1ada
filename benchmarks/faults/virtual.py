"""Runs the matrix in virtual time on every core and adds it up."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from os import cpu_count

from benchmarks.faults.checks import Ended
from benchmarks.faults.matrix import FAULTS, Fault, Run, rollbacks
from benchmarks.table import Row, at_least, at_most

HOW = "virtual time, the real controller; `make faults`"
ROLLBACKS = 400
"""What runs end in whose driver never comes back."""


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
    names = [fault.name for fault in FAULTS if only in (None, fault.name)]
    jobs: list[tuple[str, bool]] = [(name, quick) for name in names]
    if only is None:
        jobs += [(f"rollbacks {refused}", quick) for refused in (0, 30)]
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
    """Run number `number` of a fault again."""
    return _runs(name, quick)[number]()


def _tally(job: tuple[str, bool]) -> Tally:
    name, quick = job
    tally = Tally(name)
    for number, run in enumerate(_runs(name, quick)):
        _add(tally, number, run, run(), quick)
    return tally


def _runs(name: str, quick: bool) -> Sequence[Run]:
    if name.startswith("rollbacks"):
        return list(rollbacks(ROLLBACKS // (20 if quick else 1), int(name.split()[1]) / 100))
    return list(_fault(name).runs(quick))


def _fault(name: str) -> Fault:
    return next(fault for fault in FAULTS if fault.name == name)


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


def rows(found: dict[str, Tally]) -> list[Row]:
    """The targets, then one row for each fault."""
    runs = sum(tally.runs for tally in found.values())
    blamed = found["F9"].ends["RolledBack"] / found["F9"].runs
    return [
        at_least("fault runs in virtual time", runs, 1500, HOW),
        at_most("fault runs: stuck states", _sum(found, lambda t: t.stuck), 0, HOW),
        at_most("fault runs: promotions without proof", _sum(found, lambda t: t.unproven), 0, f"{HOW}; {_PROOF}"),
        at_most("fault runs: violations of anything promised", _sum(found, lambda t: len(t.bad)), 0, HOW),
        at_most("shared incident: candidates blamed, share", blamed, 0.05, f"F9, {found['F9'].runs} runs"),
        *_zero(found["rollbacks 0"], "", 2.0),
        *_zero(found["rollbacks 30"], " with 30 % API errors", 10.0),
        *(_row(fault, found[fault.name]) for fault in FAULTS),
    ]


_PROOF = "proofs computed anew from what was really answered"


def _zero(tally: Tally, when: str, most: float) -> list[Row]:
    seconds = sorted(tally.seconds_to_zero)
    p99 = seconds[min(int(0.99 * len(seconds)), len(seconds) - 1)]
    return [at_most(f"decision to weight 0{when}, p99, virtual seconds", p99, most, f"{len(seconds)} rollbacks")]


def _row(fault: Fault, tally: Tally) -> Row:
    ends = ", ".join(f"{n} {end}" for end, n in sorted(tally.ends.items()))
    how = f"{tally.runs} runs: {ends}; expected: {fault.expected}"
    return at_most(f"{fault.name} {fault.title}: violations", len(tally.bad), 0, how)


def _sum(found: dict[str, Tally], count: Callable[[Tally], int]) -> int:
    return sum(count(tally) for tally in found.values())


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
