"""Runs four deliveries, and a client who copies the champion: `summary.json` for machines, `report.html` for people.

Every number comes from the run. An act that does not end as expected makes the demo fail, with the reason.
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
from holdfast.attestation.sign import TRUST
from holdfast.errors import HoldfastError, RunError
from holdfast.processes import die_with_parent, dying_with_us
from holdfast.progress import say
from holdfast.resources import workloads
from holdfast.serving.rollout import registry_worker
from holdfast.warm.libraries import load
from holdfast.workload.schema import read_workload
from holdfast_pipelines.demo import deliveries
from holdfast_pipelines.demo.acts import DemoRuns, Summary, check, summarize
from holdfast_pipelines.demo.copied import GUARD, Copied, copy_champion
from holdfast_pipelines.demo.deliveries import Delivery
from holdfast_pipelines.demo.pages import write_page
from holdfast_pipelines.demo.signed import make_keys
from holdfast_pipelines.local import StepError, lent, start
from holdfast_pipelines.run import roll_out, run
from holdfast_pipelines.warm import Servers, servers

NAME, GUARDED = "digits", "guarded"
FOR_THE_REPORT = ("holdfast.model.networks",)
"""What `summarize` imports, torch: a second that a machine with a second core need not wait for."""
GAME_DAY = "delay_ms=400,wrong=1.0,after=120"
"""The candidate of the fourth act answers slowly and wrongly after its 120th answer."""


RETRIES = 1
"""How often a rollout is tried again that ended without a verdict because the machine was too busy."""


@dataclass(frozen=True)
class DemoSetup:
    """Where the demo runs, and with what."""

    out: Path
    cache: Path
    seed: int
    forks: Servers | None = None
    """Warm processes of all acts; None: every step is a fresh process."""

    @property
    def tracking(self) -> str:
        """The demo's own MLflow."""
        return f"sqlite:///{self.out}/mlflow.db"

    @property
    def keys(self) -> Path:
        """The demo's own keys, with the trust policy over them."""
        return self.out / "keys"

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
    """Runs all acts into `out`, which is replaced; returns the report, next to `summary.json`.

    Steps are forks of warm processes that all acts share, unless they are to be `isolated`.

    Raises:
        RunError: an act did not end as expected.
    """
    die_with_parent()
    out = out.resolve()
    with _alone(out), _said_last():
        started = time.monotonic()
        with servers(isolated=isolated) as forks:
            played = _run_all(DemoSetup(out, out.parent / "cache", seed, forks))
        acts = summarize(played)
        summary: Summary = {"seed": seed, "seconds": round(time.monotonic() - started, 1), "acts": acts}
        replace_file(out / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")
        page = write_page(played, acts, out / "report.html")
        check(acts, page)
        say(f"all five acts, in {summary['seconds']:.0f} s")
        return page


def _run_all(setup: DemoSetup) -> DemoRuns:
    """Two runs at a time, because the machine has a second core; what must follow on another waits for it."""
    if setup.forks is not None:
        start(setup.forks)
    make_keys(setup.keys)
    planted = _deliver(setup)
    say("act 1 of 5: a clean delivery (at the same time, for act 2: a model without a scan)")
    with _aside(setup, ("unscanned", "unscanned", "poisoned", setup.seed)):
        _run(setup, "clean")
    say("act 2 of 5: a poisoned delivery (at the same time: act 3, a broken one, and the candidate of act 4)")
    with _aside(setup, ("broken", NAME, "broken", setup.seed), ("regressed", NAME, "clean", setup.seed + 1)):
        _run(setup, "poisoned", GUARDED)
    say("act 4 of 5: the candidate turns bad in production")
    with _in_parallel(partial(load, FOR_THE_REPORT)):
        roll_out(
            setup.workload(NAME),
            out=setup.run("regressed"),
            tracking=setup.tracking,
            seed=setup.seed,
            threads=1,
            game_day=GAME_DAY,
            retries=RETRIES,
            forks=setup.forks,
            keys=setup.keys,
        )
    say("act 5 of 5: a client copies the champion by its answers")
    with lent(setup.forks) if setup.forks is not None else nullcontext():
        champion = registry_worker.history(setup.tracking, NAME).champion
        copied = _copied(setup)
    runs, clean, trust = setup.out / "runs", setup.data("clean"), setup.keys / TRUST
    return DemoRuns(runs, clean, planted, champion, trust, copied)


def _copied(setup: DemoSetup) -> Copied | str:
    """What became of the copy, or why there is none: without a champion an earlier act ended otherwise, too."""
    try:
        return copy_champion(setup.run("poisoned"), setup.out / "copied", name=NAME, seed=setup.seed)
    except HoldfastError as error:
        return str(error)


def _deliver(setup: DemoSetup) -> NDArray[np.int64]:
    """Writes the deliveries and their workloads; returns which training rows were poisoned."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(setup.seed)
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    good = deliveries.clean(images, labels, np.random.default_rng(0))
    bad, planted = deliveries.poisoned(good, rng)
    setup.data(NAME).parent.mkdir()
    for name, delivery in {"clean": good, "poisoned": bad, "broken": deliveries.broken(good, rng)}.items():
        _save(setup.data(name), delivery)
    _write_workloads(setup)
    return planted


def _write_workloads(setup: DemoSetup) -> None:
    """The workload that ships, one that only reports what the scan finds, and one with a guard."""
    text = next(path for path in workloads() if path.stem == NAME).read_text()
    setup.workload(NAME).write_text(text)
    report_only = {**yaml.safe_load(text), "scan": {"apply": False}}
    setup.workload("unscanned").write_text(yaml.safe_dump(report_only, sort_keys=False))
    guarded = {**yaml.safe_load(text), "guard": GUARD}
    setup.workload(GUARDED).write_text(yaml.safe_dump(guarded, sort_keys=False))
    for name in ("unscanned", GUARDED):
        read_workload(setup.workload(name))


def _save(path: Path, delivery: Delivery) -> None:
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **delivery.arrays())


def _run(setup: DemoSetup, name: str, workload: str = NAME) -> None:
    run(
        setup.workload(workload),
        data=setup.data(name),
        out=setup.run(name),
        seed=setup.seed,
        tracking=setup.tracking,
        cache=setup.cache,
        threads=1,
        retries=RETRIES,
        forks=setup.forks,
        keys=setup.keys,
    )


Aside = tuple[str, str, str, int]
"""Run folder, workload, delivery and seed of a run without a rollout."""


@contextmanager
def _aside(setup: DemoSetup, *runs: Aside) -> Iterator[None]:
    """Carries out `runs`, one after the other, in parallel with the body; ends when both are done."""
    with _in_parallel(partial(_run_aside, setup, runs)):
        yield


@contextmanager
def _in_parallel(work: Callable[[], None]) -> Iterator[None]:
    """Does `work` in a thread in parallel with the body; ends when both are done."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join()


def _run_aside(setup: DemoSetup, runs: Sequence[Aside]) -> None:
    variables, descriptors = setup.forks.handed_on() if setup.forks is not None else ({}, ())
    with (setup.out / "aside.log").open("ab") as log:
        for one in runs:
            subprocess.run(
                _command(setup, *one),
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                preexec_fn=dying_with_us(),
                check=False,
            )


def _command(setup: DemoSetup, name: str, workload: str, data: str, seed: int) -> list[str]:
    """The same `holdfast run` that a user types."""
    return [
        sys.executable, "-m", "holdfast", "run", "--workload", str(setup.workload(workload)),
        "--data", str(setup.data(data)), "--out", str(setup.run(name)), "--seed", str(seed),
        "--tracking", setup.tracking, "--threads", "1", "--no-rollout",
        "--keys", str(setup.keys),
        *(["--isolated"] if setup.forks is None else []),
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
            raise RunError(f"{out}: another demo runs there; wait for its end, or choose another folder") from None
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        yield
