"""What the main job costs on this machine: wall and CPU-seconds of everything that it starts; compares checkouts.

    python -m benchmarks.local --baseline ../before          the demo, a run, the same run again; in turns, three times
    python -m benchmarks.local --load a --load b --seeds 5   the demo under load: does it end as told?

Every job runs in a new empty folder with the checkout's own environments. What was measured is kept, so that the same
command goes on where it was stopped; measurements of other code are not counted.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.load import WORDS, Kind, loaded, watched
from benchmarks.process_tree import Spent, spent
from benchmarks.records import Record, Records, keep_failed
from benchmarks.table import ROOT, Row, at_least, at_most, keep, shown
from holdfast.errors import HoldfastError, InputError, RunError

if TYPE_CHECKING:
    from benchmarks.scenes import Bench

NAME = "local"
CODE = ("components", "gates", "pipelines", "pyproject.toml", "benchmarks/load.py", "benchmarks/load_workers.py")
TIMES, SEEDS = 3, 5
OURS, BEFORE = "this", "baseline"
BASELINE = ROOT / ".holdfast" / "bench" / "baseline"
"""Where a checkout to compare with is looked for when none is named."""
MOST: Mapping[str, float] = {"demo": 0.5, "run": 0.5, "again": 0.3}
"""Of each job, the share of the baseline's seconds that ours may need."""
ABOUT = {"demo": "make demo", "run": "breast-cancer run", "again": "unchanged second breast-cancer run"}
PARTS = {"demo": ("demo",), "run": ("run", "again")}
"""Jobs that share a folder, one after the other."""
MOST_SECONDS = 3 * 3600.0


@dataclass(frozen=True)
class Checkout:
    """A clone with its environments."""

    name: str
    root: Path

    def command(self, job: str, folder: Path, seed: int) -> list[str]:
        """What a job runs."""
        holdfast = [str(self.root / ".venv" / "bin" / "python"), "-m", "holdfast"]
        if job == "demo":
            return [*holdfast, "demo", f"--seed={seed}", f"--out={folder / 'demo'}"]
        tracking = f"--tracking=sqlite:///{folder / 'mlflow.db'}"
        return [*holdfast, "run", "--workload=breast-cancer", f"--out={folder / 'run'}", tracking, f"--seed={seed}"]

    @property
    def commit(self) -> str:
        """The commit, with a + when files differ from it; empty outside of git."""
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=+"],
            cwd=self.root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return told.stdout.strip()


def checkout(name: str, root: Path) -> Checkout:
    """A clone that can run jobs.

    Raises:
        InputError: there is none, or it has no environments.
    """
    for environment in (".venv", ".venv-data"):
        python = root / environment / "bin" / "python"
        if not python.exists():
            raise InputError(
                f"{python}: expected a checkout with its environments, found none; make one with git clone and make "
                "setup, and name it with --baseline"
            )
    return Checkout(name, root.absolute())


def run(bench: "Bench") -> list[Row]:
    """What is still missing, then the table."""
    records = Records.of(NAME, *CODE)
    compare(records, BASELINE, TIMES, tuple(PARTS))
    for kind in Kind:
        under_load(records, kind, SEEDS)
    return rows(records.read())


def compare(records: Records, baseline: Path, times: int, parts: Sequence[str]) -> None:
    """Runs both checkouts in turns until `records` has every job of `parts` so many times."""
    both = [checkout(BEFORE, baseline), checkout(OURS, ROOT)]
    for part in parts:
        have = min(len(_of(records.read(), job, one.name)) for job in PARTS[part] for one in both)
        for _ in range(have, times):
            for one in both:
                play(records, one, part)


def under_load(records: Records, kind: Kind, seeds: int, at_once: int = 1) -> None:
    """Plays the demo under a load until `records` has each of so many seeds; `at_once` of them share one load."""
    done = {record["seed"] for record in _of(records.read(), "demo", OURS, kind)}
    missing = sorted(set(range(seeds)) - done)
    for first in range(0, len(missing), at_once):
        play(records, checkout(OURS, ROOT), "demo", seeds=missing[first : first + at_once], load=kind)


def play(records: Records, one: Checkout, part: str, *, seeds: Sequence[int] = (0,), load: Kind | None = None) -> None:
    """Runs the jobs of one part, each seed in a new folder, and keeps what each of them cost and how it ended."""
    with loaded(load, seeds[0]) if load else watched() as machine, ThreadPoolExecutor(len(seeds)) as pool:
        found = list(pool.map(partial(_jobs, one, part, load), seeds))
    for record in chain.from_iterable(found):
        records.add({**record, "wanted_core": machine.seen})
        _say(record)


def _jobs(one: Checkout, part: str, load: Kind | None, seed: int) -> list[Record]:
    found: list[Record] = []
    with TemporaryDirectory(prefix="hf-") as folder:
        for job in PARTS[part]:
            cost = _measured(one, job, Path(folder), seed)
            found.append({**_facts(one, job, cost, Path(folder)), "seed": seed, "load": load})
            if not _as_told(found[-1]):
                keep_failed(Path(folder), f"{one.name}-{job}-{load or 'quiet'}-{seed}")
    return found


def _measured(one: Checkout, job: str, folder: Path, seed: int) -> Spent | None:
    """What a job cost; None when it did not end."""
    try:
        return spent(one.command(job, folder, seed), cwd=folder, log=folder / f"{job}.log", seconds=MOST_SECONDS)
    except RunError as error:
        sys.stderr.write(f"{error}\n")
        return None


def _facts(one: Checkout, job: str, cost: Spent | None, folder: Path) -> Record:
    lines = (folder / f"{job}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    facts = {"checkout": one.name, "commit": one.commit, "job": job, "last_line": lines[-1] if lines else ""}
    if cost is None:
        return {**facts, "wall": MOST_SECONDS, "cpu": 0.0, "code": None, "left": []}
    return {**facts, "wall": cost.wall, "cpu": cost.cpu, "code": cost.code, "left": list(cost.left)}


def _as_told(record: Record) -> bool:
    """Exit code 0, and nothing is left running."""
    return record["code"] == 0 and not record["left"]


def _of(records: Sequence[Record], job: str, name: str, load: Kind | None = None) -> list[Record]:
    return [r for r in records if (r["job"], r["checkout"], r["load"]) == (job, name, load)]


def rows(records: Sequence[Record]) -> list[Row]:
    """The demo under load, the ratios, and the seconds behind them."""
    return [
        *(_loaded(_of(records, "demo", OURS, kind), kind) for kind in Kind),
        *(row for job in MOST for row in _ratios(records, job)),
        *(row for job in MOST for name in (BEFORE, OURS) for row in _seconds(_of(records, job, name))),
    ]


def _loaded(found: Sequence[Record], kind: Kind) -> Row:
    ended = sum(_as_told(record) for record in found)
    how = f"seeds {', '.join(str(record['seed']) for record in found)}; {_spread(found)}" if found else "not run yet"
    what = f"make demo under load ({kind}), {WORDS[kind]}: runs that end as told, of {max(SEEDS, len(found))}"
    return at_least(what, ended, max(SEEDS, len(found)), how, note=_failed(found))


def _failed(found: Sequence[Record]) -> str:
    return " / ".join(
        f"seed {r['seed']}: exit code {r['code']}: " + "; ".join([r["last_line"], *(f"left: {x}" for x in r["left"])])
        for r in found
        if not _as_told(r)
    )


def _ratios(records: Sequence[Record], job: str) -> list[Row]:
    """Wall and CPU, each the median over the rounds of ours by the baseline's."""
    turns = zip(*(_of(records, job, name) for name in (BEFORE, OURS)), strict=False)
    rounds = [(before, ours) for before, ours in turns if _as_told(before) and _as_told(ours)]
    if not rounds:
        return [Row(f"{ABOUT[job]}: seconds, share of the baseline's", "not run yet", "", MOST[job], met=False)]
    how = f"median of {len(rounds)} rounds in turns, both in new folders; baseline {rounds[0][0]['commit']}"
    return [
        at_most(
            f"{ABOUT[job]}: {words}, share of the baseline's",
            median(ours[key] / before[key] for before, ours in rounds),
            MOST[job],
            how,
        )
        for key, words in (("wall", "wall seconds"), ("cpu", "CPU-seconds of all processes"))
    ]


def _seconds(found: Sequence[Record]) -> list[Row]:
    if not found:
        return []
    what = f"{ABOUT[found[0]['job']]}, {'baseline' if found[0]['checkout'] == BEFORE else 'this checkout'}: seconds"
    ended = [record for record in found if _as_told(record)]
    how = f"commit {found[0]['commit']}; {len(ended)} of {len(found)} runs ended with exit code 0"
    return [shown(what, _spread(found), how, note=_failed(found))]


def _spread(found: Sequence[Record]) -> str:
    walls, cpus = ([record[key] for record in found] for key in ("wall", "cpu"))
    wanted = median(record["wanted_core"] for record in found)
    return (
        f"wall {median(walls):.0f} ({min(walls):.0f} to {max(walls):.0f}), "
        f"CPU {median(cpus):.0f} ({min(cpus):.0f} to {max(cpus):.0f}); processes that wanted a core: {wanted:.1f}"
    )


def _say(record: Record) -> None:
    under = f", load {record['load']}, seed {record['seed']}" if record["load"] else ""
    ended = f"exit code {record['code']}, wall {record['wall']:.0f} s, CPU {record['cpu']:.0f} s"
    words = "" if _as_told(record) else f": {record['last_line']} {record['left'] or ''}"
    sys.stderr.write(f"{record['job']} of {record['checkout']}{under}: {ended}{words}\n")


def main(
    baseline: Annotated[Path | None, typer.Option(help="A checkout with its environments; compares with it.")] = None,
    times: Annotated[int, typer.Option(help="Rounds of the comparison.")] = TIMES,
    part: Annotated[list[str] | None, typer.Option(help="demo, run, or both when left out: compared.")] = None,
    kinds: Annotated[list[Kind] | None, typer.Option("--load", help="Plays the demo under load a, b.")] = None,
    seeds: Annotated[int, typer.Option(help="Under each load: seeds 0, 1, ...")] = SEEDS,
    at_once: Annotated[int, typer.Option(help="So many demos share one load: a harder test in less time.", min=1)] = 1,
    fresh: Annotated[bool, typer.Option(help="Forget what is kept.")] = False,
) -> None:
    """Measures what is asked for; writes benchmarks/results/local.json and docs/benchmarks.md from all that is kept.

    Exit code 1 when a target is missed or was not measured yet.
    """
    unknown = sorted(set(part or ()) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"--part: expected demo or run, found {unknown[0]}")
    records = Records.of(NAME, *CODE)
    if fresh:
        records.clear()
    try:
        if baseline is not None:
            compare(records, baseline, times, part or tuple(PARTS))
        for kind in kinds or ():
            under_load(records, kind, seeds, at_once)
    except HoldfastError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        raise typer.Exit(error.exit_code) from None
    table = rows(records.read())
    keep(NAME, table)
    raise typer.Exit(0 if all(row.met is not False for row in table) else 1)


if __name__ == "__main__":
    typer.run(main)
