"""The rows of the faults' benchmark, from what tests/faults found."""

from collections.abc import Callable, Sequence

from benchmarks.table import Row, at_least, at_most, shown
from tests.faults.everything import REQUESTS, Found, counted
from tests.faults.live.scene import Played
from tests.faults.live.watching import Watched
from tests.faults.live.withdrawn import Withdrawn
from tests.faults.races.race import Raced
from tests.faults.simulator.matrix import FAULTS, Fault
from tests.faults.simulator.virtual import Tally

REAL = "F11 in real processes, models whose proof was withdrawn"
HOW, VIRTUAL = "real processes, `make faults`", "virtual time, the real controller; `make faults`"


def rows(found: Found, quick: bool) -> list[Row]:
    """The targets and one row for each fault, then those of the real processes."""
    return [
        *_virtual_rows(found.tallies, quick),
        *_race_rows(found.loads, found.naive, found.servers),
        *withdrawn_rows(found.withdrawn),
        *_watch_rows(found.watched),
        *live_rows(found.played, quick),
    ]


def _virtual_rows(found: dict[str, Tally], quick: bool) -> list[Row]:
    runs = sum(tally.runs for tally in found.values())
    blamed = found["F9"].ends["RolledBack"] / found["F9"].runs
    return [
        at_least("fault runs in virtual time", runs, 150 if quick else 1500, VIRTUAL),
        at_most("fault runs: stuck states", _sum(found, lambda t: t.stuck), 0, VIRTUAL),
        at_most("fault runs: promotions without proof", _sum(found, lambda t: t.unproven), 0, f"{VIRTUAL}; {_PROOF}"),
        at_most("fault runs: violations of anything promised", _sum(found, lambda t: len(t.bad)), 0, VIRTUAL),
        at_most("shared incident: candidates blamed, share", blamed, 0.05, f"F9, {found['F9'].runs} runs"),
        *_zero(found["rollbacks 0"], "", 2.0),
        *_zero(found["rollbacks 30"], " with 30 % API errors", 10.0),
        *(_row(fault, found[fault.name]) for fault in FAULTS),
    ]


_PROOF = "proofs computed again from what was really answered"


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


def _race_rows(loads: Raced, naive: Raced, servers: Raced) -> list[Row]:
    counts = ", ".join(f"{r.races} {n}: {r.served} served" for n, r in (("loads", loads), ("server starts", servers)))
    return [
        at_most(
            "unverified bytes served while a hostile writer swaps the files",
            loads.unverified + servers.unverified,
            0,
            f"{HOW}; {counts}, the others refused",
        ),
        shown(
            "the same races against hash-by-name, then open-by-name",
            naive.unverified,
            f"unverified of {naive.served} served of {naive.races}: what the races can find",
        ),
    ]


def withdrawn_rows(found: Sequence[Withdrawn]) -> list[Row]:
    """F11 in real processes."""
    before, after = [taken for one in found for taken in one.before], [taken for one in found for taken in one.after]
    how = f"{HOW}; arms of a rollout and MLServers with a trust policy: {'; '.join(one.kind for one in found)}"
    return [
        at_least(f"{REAL}: taken in before it was withdrawn", sum(before), len(before), how),
        at_most(f"{REAL}: taken in afterwards", sum(after), 0, f"of {len(after)} tries; {how}"),
    ]


def renewed(kept: Sequence[Row], again: Sequence[Row]) -> list[Row]:
    """The rows that were kept, with those of F11 in real processes as they are now."""
    place = next((i for i, row in enumerate(kept) if row.target.startswith(REAL)), None)
    if place is None:
        place = next(i for i, row in enumerate(kept) if row.target.startswith("controller"))
    others = [row for row in kept if not row.target.startswith(REAL)]
    return [*others[:place], *again, *others[place:]]


def _watch_rows(watched: Watched) -> list[Row]:
    how = f"`holdfast rollout start`, {watched.seconds:.0f} s of watching at 4 looks a second"
    return [
        at_most("controller: peak RSS, MB", watched.peak_mb, 60, f"{how}; VmHWM of its process alone"),
        at_most("controller: CPU while watching, share of a core", watched.share, 0.02, how),
    ]


def live_rows(played: Sequence[Played], quick: bool) -> list[Row]:
    """The results of the scenes."""
    held = [one for one in played if not one.excused]
    sent, lost = counted(held), sum(one.lost for one in held)
    real = sum(one.sent for one in held if one.real)
    seconds = sorted(one.seconds_to_zero for one in played if one.seconds_to_zero is not None)
    wrong = [f"{one.name}: {'; '.join(one.wrong)}" for one in played if one.wrong]
    bound = f"95 % upper bound {3 / max(sent, 1):.1e}" if not lost else "see the scenes"
    split = f"{real} answered by MLServer with a model, {sent - real} by upstreams without one"
    return [
        at_least("client requests over all live runs", sent, 1000 if quick else REQUESTS, f"{HOW}; {split}"),
        at_most("client requests lost on the stable path over all live runs", lost, 0, f"of {sent}; {bound}"),
        at_most("decision to weight 0, p99, seconds", _at(0.99, seconds), 2, f"{HOW}; {len(seconds)} rollbacks"),
        shown("decision to weight 0, p50, seconds", _at(0.5, seconds), f"the same {len(seconds)} rollbacks"),
        at_most("live scenes in which a promise did not hold", len(wrong), 0, _scenes(played), note=" / ".join(wrong)),
    ]


def _scenes(played: Sequence[Played]) -> str:
    return f"{len(played)} scenes: " + ", ".join(f"{one.name}: {one.end}" for one in played)


def _at(share: float, values: Sequence[float]) -> float:
    return values[min(int(share * len(values)), len(values) - 1)] if values else float("nan")
