"""Plays the four acts and writes what happened: `summary.json` for machines, `report.html` for people.

Every number comes from the run. An act that does not end as told makes the demo fail and say so.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RunError
from holdfast.processes import die_with_parent, dying_with_us
from holdfast.progress import say
from holdfast.resources import workloads
from holdfast.serving.rollout import registry_worker
from holdfast.warm.libraries import load
from holdfast.workload.schema import read_workload
from holdfast_pipelines.demo import deliveries
from holdfast_pipelines.demo.acts import Played, Summary, check, summarize
from holdfast_pipelines.demo.deliveries import Delivery
from holdfast_pipelines.demo.pages import write_page
from holdfast_pipelines.local import StepError, lent, start
from holdfast_pipelines.run import roll_out, run
from holdfast_pipelines.warm import Servers, servers

NAME = "digits"
FOR_THE_REPORT = ("holdfast.model.networks",)
"""What `summarize` imports, torch: a second that a machine with a second core need not wait for."""
GAME_DAY = "delay_ms=400,wrong=1.0,after=120"
"""The candidate of the fourth act answers slowly and wrongly after its 120th answer."""


RETRIES = 1
"""How often a rollout is tried again that ended without a verdict because the machine was too busy."""


@dataclass(frozen=True)
class Stage:
    """Where the demo plays."""

    out: Path
    cache: Path
    seed: int
    forks: Servers | None = None
    """Warm processes of all acts; None: every step is a fresh process."""

    @property
    def tracking(self) -> str:
        """The demo's own MLflow."""
        return f"sqlite:///{self.out}/mlflow.db"

    def run(self, name: str) -> Path:
        """The run folder of a delivery."""
        return self.out / "runs" / name

    def data(self, name: str) -> Path:
        """The file of a delivery."""
        return self.out / "deliveries" / f"{name}.npz"

    def workload(self, name: str) -> Path:
        """A workload file."""
        return self.out / "deliveries" / f"{name}.yaml"


def demo(out: Path, *, seed: int, isolated: bool = False) -> Path:
    """Plays the story into `out`, which is replaced; returns the report, beside which `summary.json` lies.

    Steps are forks of warm processes that all acts share, unless they are to be `isolated`.

    Raises:
        RunError: an act did not end as told.
    """
    die_with_parent()
    out = out.resolve()
    with _alone(out), _said_last():
        started = time.monotonic()
        with servers(isolated=isolated) as forks:
            played = _play(Stage(out, out.parent / "cache", seed, forks))
        acts = summarize(played)
        summary: Summary = {"seed": seed, "seconds": round(time.monotonic() - started, 1), "acts": acts}
        replace_file(out / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")
        page = write_page(played, acts, out / "report.html")
        check(acts, page)
        say(f"all four acts, in {summary['seconds']:.0f} s")
        return page


def _play(stage: Stage) -> Played:
    """Two runs at a time, because the machine has a second core; what must follow on another waits for it."""
    if stage.forks is not None:
        start(stage.forks)
    planted = _deliver(stage)
    say("act 1 of 4: a clean delivery (beside it, for act 2: the model that nobody scanned for)")
    with _aside(stage, ("unscanned", "unscanned", "poisoned", stage.seed)):
        _run(stage, "clean")
    say("act 2 of 4: a poisoned delivery (beside it: act 3, a broken one, and the candidate of act 4)")
    with _aside(stage, ("broken", NAME, "broken", stage.seed), ("regressed", NAME, "clean", stage.seed + 1)):
        _run(stage, "poisoned")
    say("act 4 of 4: the candidate turns bad in production")
    with _beside(partial(load, FOR_THE_REPORT)):
        roll_out(
            stage.workload(NAME),
            out=stage.run("regressed"),
            tracking=stage.tracking,
            seed=stage.seed,
            threads=1,
            game_day=GAME_DAY,
            retries=RETRIES,
            forks=stage.forks,
        )
    return Played(stage.out / "runs", stage.data("clean"), planted, _champion(stage))


def _champion(stage: Stage) -> int | None:
    with lent(stage.forks) if stage.forks is not None else nullcontext():
        return registry_worker.history(stage.tracking, NAME).champion


def _deliver(stage: Stage) -> NDArray[np.int64]:
    """Writes the deliveries and their workloads; returns which training rows were poisoned."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(stage.seed)
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    good = deliveries.clean(images, labels, np.random.default_rng(0))
    bad, planted = deliveries.poisoned(good, rng)
    stage.data(NAME).parent.mkdir()
    for name, delivery in {"clean": good, "poisoned": bad, "broken": deliveries.broken(good, rng)}.items():
        _save(stage.data(name), delivery)
    _write_workloads(stage)
    return planted


def _write_workloads(stage: Stage) -> None:
    """The workload that ships, and one that only reports what the scan finds."""
    text = next(path for path in workloads() if path.stem == NAME).read_text()
    stage.workload(NAME).write_text(text)
    report_only = {**yaml.safe_load(text), "scan": {"apply": False}}
    stage.workload("unscanned").write_text(yaml.safe_dump(report_only, sort_keys=False))
    read_workload(stage.workload("unscanned"))


def _save(path: Path, delivery: Delivery) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **delivery.arrays())


def _run(stage: Stage, name: str) -> None:
    run(
        stage.workload(NAME),
        data=stage.data(name),
        out=stage.run(name),
        seed=stage.seed,
        tracking=stage.tracking,
        cache=stage.cache,
        threads=1,
        retries=RETRIES,
        forks=stage.forks,
    )


Aside = tuple[str, str, str, int]
"""Run folder, workload, delivery and seed of a run without a rollout."""


@contextmanager
def _aside(stage: Stage, *runs: Aside) -> Iterator[None]:
    """Plays `runs`, one after the other, beside what happens inside; ends when both are done."""
    with _beside(partial(_play_aside, stage, runs)):
        yield


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Does `work` in a thread beside what happens inside; ends when both are done."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join()


def _play_aside(stage: Stage, runs: Sequence[Aside]) -> None:
    variables, descriptors = stage.forks.handed_on() if stage.forks is not None else ({}, ())
    with (stage.out / "aside.log").open("ab") as log:
        for one in runs:
            subprocess.run(
                _command(stage, *one),
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                preexec_fn=dying_with_us(),
                check=False,
            )


def _command(stage: Stage, name: str, workload: str, data: str, seed: int) -> list[str]:
    """The same `holdfast run` that a user types."""
    return [
        sys.executable, "-m", "holdfast", "run", "--workload", str(stage.workload(workload)),
        "--data", str(stage.data(data)), "--out", str(stage.run(name)), "--seed", str(seed),
        "--tracking", stage.tracking, "--threads", "1", "--no-rollout",
        *(["--isolated"] if stage.forks is None else []),
    ]  # fmt: skip


@contextmanager
def _said_last() -> Iterator[None]:
    """A step that fails leaves its log's last words on the terminal; the last line is about the demo."""
    try:
        yield
    except StepError as error:
        last = f"the demo ended early: {str(error).splitlines()[-1]}"
        raise RunError(f"{error}\n{last}") from None


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """An empty `out`, for this process alone."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f"{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{out}: another demo plays there; wait for its end, or choose another folder") from None
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        yield
