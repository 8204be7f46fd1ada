"""The pull-request gate on a repository of the digits: what it costs, what it refuses, and its workflows' linters.

`python -m benchmarks pr_gate`. Each gate is `holdfast pr-gate`, a process of its own in a repository made for it, on
two cores. The first one has no cache: it trains head and base branch. actionlint is in no lock; it is run where it is
on PATH, and otherwise its row reads "not run".
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import linters
from benchmarks.process_tree import Spent, spent
from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.errors import RunError
from holdfast.resources import workloads
from holdfast_pipelines.pull_request.report import PullRequestReport
from holdfast_pipelines.pull_request.results import read_report

MINUTES = 10.0
CORES = 2
VERDICTS = {0: "pass", 3: "fail", 4: "inconclusive"}
SECONDS = 3600.0
BIN = Path(sys.executable).parent
_AUTHOR = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class Head:
    """A pull request: what it changes, in words and in the workload file."""

    what: str
    edits: tuple[tuple[str, str], ...]


WEAKER = ("recipe: pgd", "recipe: standard")
WIDER = (("margin: 0.05", "margin: 1"), ("margin: 0.12", "margin: 1"))
FEW_ATTACKED = ("attack_steps: 5", "attack_steps: 5\n  adversarial_share: 0.01")
BAD = (
    Head("trained without attacks", (WEAKER,)),
    Head("one epoch", (("epochs: 20", "epochs: 1"),)),
    Head("trained without attacks, by margins of 1", (WEAKER, *WIDER)),
    Head("trained without attacks, at an epsilon of 1/1000", (WEAKER, ("epsilon: 1/10 ", "epsilon: 1/1000 "))),
    Head("trained without attacks, and 20 examples attacked", (WEAKER, ("examples: 360", "examples: 20"))),
    Head("one row in a hundred attacked in training", (FEW_ATTACKED,)),
)
"""None may pass; the third to the fifth try to hide what they lost by other rules."""


def run(bench: Bench) -> list[Row]:
    """What the gate costs, the unchanged head, the bad ones, and the linters."""
    del bench
    with TemporaryDirectory(prefix="holdfast-bench-") as place:
        folder = Path(place)
        _repository(folder)
        rows = [*_cost(folder), *_unchanged(folder), *_bad(folder)]
    return [*rows, linters.zizmor(), linters.actionlint(), linters.checkov()]


def _cost(folder: Path) -> list[Row]:
    first = _gate(folder, _branch(folder, Head("a larger learning rate", (("0.005", "0.0055"),))))
    again = _gate(folder, "main")
    how = f"holdfast pr-gate on {CORES} cores, one thread a step; head and base branch are trained, attacked, compared"
    return [
        at_most("digits: minutes until the verdict, nothing cached", first.wall / 60, MINUTES, how),
        shown("digits: CPU-minutes of that gate", first.cpu / 60, "of the whole process tree"),
        shown("digits: seconds of a gate whose steps are all cached", again.wall, "the head is the base branch"),
    ]


def _unchanged(folder: Path) -> list[Row]:
    found = _verdict(_gate(folder, "main"), folder)
    same = [check for check in found.checks if check.difference is not None]
    how = "holdfast pr-gate --base main --head main"
    return [
        at_least("an unchanged head passes (1: yes)", float(found.verdict == "pass"), 1, how),
        at_least("its comparisons with the base branch, all of them without a difference", len(same), 2, how),
    ]


def _bad(folder: Path) -> list[Row]:
    verdicts = {head.what: _of_bad(folder, head) for head in BAD}
    passed = [what for what, verdict in verdicts.items() if verdict == "pass"]
    listed = "; ".join(f"{what}: {verdict}" for what, verdict in verdicts.items())
    return [at_most(f"bad heads that passed, of {len(BAD)}", len(passed), 0, listed)]


def _of_bad(folder: Path, head: Head) -> str:
    return str(_verdict(_gate(folder, _branch(folder, head)), folder).verdict)


def _verdict(ended: Spent, folder: Path) -> PullRequestReport:
    found = read_report(folder / "out")
    if found.verdict != VERDICTS[ended.code]:
        raise RunError(f"expected the exit code of the verdict {found.verdict}, found {ended.code}")
    return found


# --- the repository ---------------------------------------------------------------------------------------------------


def _repository(folder: Path) -> None:
    workload = next(path for path in workloads() if path.stem == "digits")
    shutil.copy(workload, folder / "workload.yaml")
    (folder / ".gitignore").write_text(".holdfast/\nout/\n*.log\n")
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "digits")


def _branch(folder: Path, head: Head) -> str:
    name = re.sub(r"\W+", "-", head.what)
    _git(folder, "checkout", "-q", "-b", name, "main")
    text = (folder / "workload.yaml").read_text()
    for old, new in head.edits:
        if old not in text:
            raise RunError(f"workload.yaml: expected {old!r} to replace, found none")
        text = text.replace(old, new)
    (folder / "workload.yaml").write_text(text)
    _git(folder, "commit", "-q", "-a", "-m", head.what)
    _git(folder, "checkout", "-q", "main")
    return name


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *_AUTHOR, *words], cwd=folder, check=True, capture_output=True)


def _gate(folder: Path, head: str) -> Spent:
    command = [str(BIN / "holdfast"), "pr-gate", "--base=main", f"--head={head}", f"--out={folder / 'out'}"]
    log = folder / f"{head}.log"
    found = spent([*_on_cores(), *command], cwd=folder, log=log, seconds=SECONDS)
    if found.code not in VERDICTS:
        raise RunError(f"holdfast pr-gate of {head}: expected a verdict, found: {log.read_text()[-500:]}")
    return found


def _on_cores() -> Sequence[str]:
    """Keeps the gate to two of this machine's cores."""
    mine = sorted(os.sched_getaffinity(0))[:CORES]
    taskset = shutil.which("taskset")
    if taskset is None:
        raise RunError("expected taskset (util-linux), which keeps the gate to two cores, found none")
    return [taskset, "--cpu-list", ",".join(map(str, mine))]
