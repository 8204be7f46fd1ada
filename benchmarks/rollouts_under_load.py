"""Live rollouts on a busy machine: a healthy candidate is promoted and never blamed, a slow one goes out.

    python -m benchmarks.rollouts_under_load --load b --candidate healthy --rollouts 30

Each is a rollout as the product makes it, with the default plan: two MLServers with a network trained on the digits,
Envoy, `holdfast replay`, the controller, one rollout after the other. What was measured is kept, so that the same
command goes on where it was stopped; rollouts by other code are not counted.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.load import WORDS, Kind, Load, loaded, watched
from benchmarks.process_tree import spent
from benchmarks.records import Record, Records, keep_failed
from benchmarks.reliability import write_others
from benchmarks.table import ROOT, Row, at_least, at_most, keep, show, shown
from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import load
from holdfast.errors import RunError
from holdfast.workload.schema import RolloutPlan
from tests.faults.live import bundles

if TYPE_CHECKING:
    from benchmarks.scenes import Bench

NAME = "rollouts_under_load"
CODE = (
    *(f"components/holdfast/{part}" for part in ("serving", "artifacts", "warm", "processes.py", "workload.py")),
    *(f"benchmarks/{part}.py" for part in ("load", "load_workers", "one_rollout")),
)
"""What is measured, and the load: other code takes no part in a rollout."""
GAME_DAYS: Mapping[str, str | None] = {"healthy": None, "slow": "delay_ms=400"}
WANTED = {"healthy": ("promoted",), "slow": ("rolled-back", "inconclusive")}
HEALTHY, SLOW, PROMOTED = 30, 15, 0.9
"""Rollouts of each candidate under each load, and the share of the healthy ones that must be promoted."""
NO_END = "no end"
FACTS = {"outcome", "reason", "cause", "requests_sent", "requests_failed"}
"""Of a rollout's record, as far as it has them."""
MOST_SECONDS = 900.0
_LAST_WORDS = 400


@dataclass(frozen=True)
class Case:
    """Which candidate meets which load; `load` None: nothing but what runs on this machine anyway."""

    candidate: str
    load: Kind | None

    def of(self, records: Sequence[Record]) -> list[Record]:
        """The rollouts of this case."""
        return [r for r in records if (r["candidate"], r["load"]) == (self.candidate, self.load)]

    @property
    def wanted(self) -> int:
        """How many rollouts the targets ask for."""
        return 0 if self.load is None else HEALTHY if self.candidate == "healthy" else SLOW


CASES = [Case(candidate, load) for candidate, load in product(GAME_DAYS, Kind)]


def run(bench: "Bench") -> list[Row]:
    """As many rollouts as are still missing, then the table."""
    records = Records.of(NAME, *CODE)
    measure(records, {case: case.wanted for case in CASES}, RolloutPlan())
    return rows(records.read())


def measure(records: Records, counts: Mapping[Case, int], plan: RolloutPlan, at_once: int = 1) -> None:
    """Rolls out until `records` has so many of each case with this plan.

    Args:
        records: what is kept, and takes more.
        counts: of each case.
        plan: of all rollouts.
        at_once: how many share one load, each to the others one load more.
    """
    kept = _with_plan(records.read(), plan)
    missing = {case: range(len(case.of(kept)), count) for case, count in counts.items()}
    if not any(missing.values()):
        return
    with TemporaryDirectory(prefix="hf-") as folder:
        made = bundles.make(Path(folder))
        for case, seeds in missing.items():
            for first in seeds[::at_once]:
                for record in several(case, range(first, min(first + at_once, seeds.stop)), made, plan, Path(folder)):
                    records.add(record)
                    _say(record)


def several(
    case: Case, seeds: Sequence[int], made: bundles.Bundles, plan: RolloutPlan, folder: Path
) -> Iterator[Record]:
    """Rollouts at once under one load: how each ended, why, and what it took."""
    with _loaded(case.load, seeds[0]) as machine, ThreadPoolExecutor(len(seeds)) as pool:
        places = [folder / f"{case.candidate}-{case.load}-{seed}" for seed in seeds]
        found = list(pool.map(partial(_one, case, made, plan), seeds, places))
    for record, place in zip(found, places, strict=True):
        if not _as_expected(record):
            keep_failed(place, place.name)
        yield {**record, "wanted_core": machine.seen}


def _one(case: Case, made: bundles.Bundles, plan: RolloutPlan, seed: int, folder: Path) -> Record:
    folder.mkdir()
    spec = {
        "champion": str(made.champion),
        "candidate": str(made.candidate),
        "plan": plan.model_dump(mode="json"),
        "seed": seed,
        "game_day": GAME_DAYS[case.candidate],
    }
    command = [sys.executable, "-m", "benchmarks.one_rollout", json.dumps(spec), str(folder / "rollout")]
    return {
        "candidate": case.candidate,
        "load": case.load,
        "seed": seed,
        "plan": spec["plan"],
        **_ended(command, folder),
    }


def _loaded(kind: Kind | None, seed: int) -> AbstractContextManager[Load]:
    return watched() if kind is None else loaded(kind, seed)


def _ended(command: Sequence[str], folder: Path) -> Record:
    try:
        cost = spent(command, cwd=ROOT, log=folder / "log", seconds=MOST_SECONDS)
    except RunError as error:
        return {"outcome": NO_END, "reason": str(error), "wall": MOST_SECONDS, "left": []}
    about = {"wall": cost.wall, "cpu": cost.cpu, "left": list(cost.left)}
    if cost.code:
        return {"outcome": NO_END, "reason": _last_words(folder / "log"), **about}
    record = load(folder / "rollout", RolloutRecord).document
    facts = json.loads(record.model_dump_json(include=FACTS))
    return {**facts, "where": _where(record), **about}


def _where(record: RolloutRecord) -> str:
    """The state whose evidence decided: that of the last move before the way back, or the last of all."""
    back = [move.state_before for move in record.transitions if move.state_after.startswith("RollingBack")]
    return back[0] if back else record.transitions[-1].state_after


def _last_words(log: Path) -> str:
    """The end of what it printed, on one line."""
    return " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-_LAST_WORDS:]


def _as_expected(record: Record) -> bool:
    return record["outcome"] in WANTED[record["candidate"]] and not record["left"]


def _with_plan(records: Sequence[Record], plan: RolloutPlan) -> list[Record]:
    return [record for record in records if record["plan"] == plan.model_dump(mode="json")]


def rows(records: Sequence[Record], plan: RolloutPlan | None = None) -> list[Row]:
    """The targets over both loads, then each case for the reader."""
    kept = _with_plan(records, plan or RolloutPlan())
    healthy, slow = ([r for case in CASES if case.candidate == name for r in case.of(kept)] for name in GAME_DAYS)
    cases = [*CASES, *(Case(name, None) for name in GAME_DAYS)]
    return [
        *_healthy(healthy),
        *_slow(slow),
        *_others([*healthy, *slow]),
        *(_case(case, case.of(kept)) for case in cases if case.of(kept)),
    ]


def _healthy(found: Sequence[Record]) -> list[Row]:
    what, how, note = "healthy candidate under load (a) and (b)", _how(found), _unexpected(found)
    out, promoted = (_count(found, outcome) for outcome in ("rolled-back", "promoted"))
    least = ceil(PROMOTED * max(len(found), 2 * HEALTHY))
    return [
        at_least(f"{what}: live rollouts", len(found), 2 * HEALTHY, how),
        at_most(f"{what}: rolled back", out, 0, how),
        at_least(f"{what}: promoted", promoted, least, how, note=note),
    ]


def _slow(found: Sequence[Record]) -> list[Row]:
    what, how = "candidate that answers 400 ms later, under load (a) and (b)", _how(found)
    out = len(found) - _count(found, "promoted") - _count(found, NO_END)
    least = max(len(found), 2 * SLOW)
    return [at_least(f"{what}: live rollouts that took it out", out, least, how, note=_unexpected(found))]


def _others(found: Sequence[Record]) -> list[Row]:
    sent, lost = (sum(record.get(f"requests_{name}", 0) for record in found) for name in ("sent", "failed"))
    left = sum(len(record["left"]) for record in found)
    return [
        at_most("rollouts under load: processes left running", left, 0, f"{len(found)} rollouts"),
        shown("rollouts under load: client requests lost", lost, f"of {sent}"),
    ]


def _case(case: Case, found: Sequence[Record]) -> Row:
    under = f"load ({case.load}), {WORDS[case.load]}" if case.load else "no load of ours"
    ends = ", ".join(f"{outcome} {count}" for outcome, count in sorted(Counter(r["outcome"] for r in found).items()))
    wall = sorted(record["wall"] for record in found)
    busy = median(record["wanted_core"] for record in found)
    about = f"seconds: median {median(wall):.0f}, longest {wall[-1]:.0f}; processes that wanted a core: {busy:.1f}"
    return shown(f"{case.candidate} candidate, {under}: {len(found)} rollouts", ends, about, note=_reasons(found))


def _count(found: Sequence[Record], outcome: str) -> int:
    return sum(record["outcome"] == outcome for record in found)


def _how(found: Sequence[Record]) -> str:
    return f"{len(found)} rollouts, two MLServers, Envoy, the default plan; `python -m benchmarks.{NAME}`"


def _reasons(found: Sequence[Record]) -> str:
    """What ended those that were not promoted, most often first; figures in a reason are of its first one."""
    reasons = Counter(_cause(record) for record in found if record["outcome"] != "promoted")
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


def _cause(record: Record) -> str:
    """The reason without its figures, so that equal reasons are counted together."""
    words = str(record.get("cause") or record["reason"]).partition(" (game day")[0]
    return "".join("#" if letter.isdigit() else letter for letter in words)


def _unexpected(found: Sequence[Record]) -> str:
    """Every rollout that did not end as it should, with its own words."""
    return " / ".join(
        f"{r['candidate']}, load {r['load']}, seed {r['seed']}: {r['outcome']} in {r.get('where', 'no state')}: "
        + " ".join([r["reason"], *(f"left running: {line}" for line in r["left"])])
        for r in found
        if not _as_expected(r)
    )


def _say(record: Record) -> None:
    words = f"{record['candidate']}, load {record['load']}, seed {record['seed']}: {record['outcome']}"
    reason = "" if record["outcome"] == "promoted" else f" in {record.get('where')}: {record['reason']}"
    sys.stderr.write(f"{words}, {record['wall']:.0f} s, {record['wanted_core']:g} wanted a core{reason}\n")


def main(
    kinds: Annotated[list[Kind] | None, typer.Option("--load", help="Load a, b, or both when left out.")] = None,
    quiet: Annotated[bool, typer.Option(help="Without any load, to compare with; in place of --load.")] = False,
    candidate: Annotated[list[str] | None, typer.Option(help="healthy, slow, or both when left out.")] = None,
    rollouts: Annotated[int | None, typer.Option(help="Until so many of each are kept; 0: only the table.")] = None,
    plan: Annotated[str, typer.Option(help="JSON of a plan; rollouts are counted by their plan.")] = "{}",
    at_once: Annotated[int, typer.Option(help="So many share one load: a harder test in less time.", min=1)] = 1,
    fresh: Annotated[bool, typer.Option(help="Forget what is kept.")] = False,
) -> None:
    """Rolls out under load; writes benchmarks/results/rollouts_under_load.json and the tables of the two pages.

    With another plan the table is printed, and no page is written. Exit code 1 when a target is missed.
    """
    unknown = sorted(set(candidate or ()) - set(GAME_DAYS))
    if unknown:
        raise typer.BadParameter(f"--candidate: expected healthy or slow, found {unknown[0]}")
    records, planned = Records.of(NAME, *CODE), RolloutPlan.model_validate_json(plan)
    if fresh:
        records.clear()
    cases = [Case(name, kind) for name, kind in product(candidate or GAME_DAYS, [None] if quiet else kinds or Kind)]
    measure(records, {case: case.wanted if rollouts is None else rollouts for case in cases}, planned, at_once)
    table = rows(records.read(), planned)
    _keep(table) if planned == RolloutPlan() else show(NAME, table)
    raise typer.Exit(0 if all(row.met is not False for row in table) else 1)


def _keep(table: Sequence[Row]) -> None:
    keep(NAME, table)
    write_others()


if __name__ == "__main__":
    typer.run(main)
