"""Faults in real processes: Envoy, MLServer, the deployment, drivers killed, stopped, doubled; clients all the time.

Where a model matters the servers are MLServers with a network trained on the digits; where it does not, upstreams that
answer in the same shape from memory, so that hundreds of thousands of requests can be counted.
"""

import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.serving.rollout.engine.controller import Ask, OperatorRequest
from holdfast.serving.rollout.engine.requests import ask
from holdfast.workload.schema import RolloutPlan
from tests.faults.live.bundles import NAME, Bundles
from tests.faults.live.scene import Kind, Played, Scene, fast, kill, playing
from tests.faults.live.upstream import KINDS

SLOW_STEPS = RolloutPlan(
    shadow_requests=800, steps=(20, 50, 100), step_requests=600, max_step_seconds=60, max_blind_seconds=6.0
)
"""Steps that take seconds, so that faults find them under way."""
OUT = ("RolledBack", "Inconclusive")


@dataclass(frozen=True)
class Live:
    """One scene: what runs, and what is done to it; returns how it ended."""

    name: str
    kind: Kind
    play: Callable[[Scene], str]
    excused: bool = False
    """The champion itself is killed: what it cannot answer is not lost by the rollout."""


def play(live: Live, folder: Path) -> Played:
    """Plays one scene and notes what was wrong with it."""
    began = time.monotonic()
    with playing(folder, live.kind) as scene:
        end = live.play(scene)
    tally = scene.tally()
    broken = tally.failures.get("shape", 0)
    lost = tally.failed - broken
    zero = _seconds_to_zero(scene)
    if lost and not live.excused:
        scene.wrong.append(f"{lost} client requests lost: {tally.first_failure}")
    if broken and "shape" not in str(live.kind.candidate.game_day) and "nan" not in str(live.kind.candidate.game_day):
        scene.wrong.append(f"{broken} answers in another shape: {tally.first_failure}")
    _say(
        f"faults: live: {live.name}: {end}, {tally.sent} requests, {lost} lost, {time.monotonic() - began:.0f} s"
        + (f": {'; '.join(scene.wrong)}" if scene.wrong else "")
    )
    counts = (tally.sent, lost, broken, tally.first_failure)
    return Played(live.name, tuple(scene.wrong), *counts, zero, not live.kind.fast, end, live.excused)


def _seconds_to_zero(scene: Scene) -> float | None:
    """From the moment at which the intent was to be written until Envoy had weight 0, by the same driver."""
    decided = next(iter(scene.acts("decided")), None)
    zero = next((a for a in scene.acts("zero") if decided and a["fence"] == decided["fence"]), None)
    return None if decided is None or zero is None else float(zero["at"] - decided["at"])


# --- what is done -----------------------------------------------------------------------------------------------------


def to_the_end(scene: Scene, wanted: tuple[str, ...]) -> str:
    """One driver, undisturbed."""
    return _wants(scene, scene.end_of(scene.drive()), wanted)


def _wants(scene: Scene, ended: Mapping[str, Any], wanted: tuple[str, ...]) -> str:
    state = str(ended.get("state", "no end"))
    if state not in wanted:
        scene.wrong.append(f"expected {' or '.join(wanted)}, found {ended}")
    scene.wants_weight(100 if state == "Promoted" else 0)
    return state


def killed(scene: Scene, times: int, seed: int, wanted: tuple[str, ...]) -> str:
    """SIGKILL at moments by chance; another driver goes on with the journal."""
    chance = np.random.default_rng(seed)
    for _ in range(times):
        driver = scene.drive()
        time.sleep(float(chance.uniform(0.4, 2.5)))
        kill(driver.pid)
        driver.communicate()
        time.sleep(float(chance.choice([0.0, 0.5, 4.0])))
    return to_the_end(scene, wanted)


def killed_at(scene: Scene, state: str, wanted: tuple[str, ...]) -> str:
    """SIGKILL as soon as a state's intent is in the journal."""
    driver = scene.drive()
    journal = scene.folder / "journal.jsonl"
    wording = f'"after": "{state}'.encode()
    scene.until(lambda: driver.poll() is not None or (journal.exists() and wording in journal.read_bytes()), state)
    kill(driver.pid)
    driver.communicate()
    return to_the_end(scene, wanted)


def stopped(scene: Scene, seconds: float, wanted: tuple[str, ...]) -> str:
    """SIGSTOP in the canary for longer than the time to live: weight 0 without the driver, then it goes on."""
    driver = scene.drive()
    scene.until(scene.entered("Canary"), "a canary step")
    kill(driver.pid, signal.SIGSTOP)
    time.sleep(seconds)
    if seconds > scene.kind.ttl + 0.5:
        scene.wants_weight(0)
    kill(driver.pid, signal.SIGCONT)
    return _wants(scene, scene.end_of(driver), wanted)


def gone(scene: Scene) -> str:
    """The driver is killed in the canary and none follows: weight 0 in time, then the deployment ends by itself."""
    driver = scene.drive()
    scene.until(scene.entered("Canary"), "a canary step")
    kill(driver.pid)
    driver.communicate()
    at = time.monotonic()
    if scene.until(lambda: scene.look().weight == 0, "weight 0", scene.kind.ttl + 5):
        _say(f"faults: live: weight 0 {time.monotonic() - at:.1f} s after the driver was gone")
    scene.wants_weight(0)
    scene.replay.terminate()
    scene.replay.wait(30)
    scene.until(scene.deployment.gone, "the end of the deployment", scene.kind.linger + 15)
    return "weight 0"


def twice(scene: Scene, wanted: tuple[str, ...]) -> str:
    """A second driver on the same journal is refused; one with a copy of it takes over, and the first stops."""
    first = scene.drive()
    scene.until(scene.entered("Canary"), "a canary step")
    refused = scene.end_of(scene.drive())
    if "another rollout is running here" not in str(refused.get("error")):
        scene.wrong.append(f"expected the second driver to be refused, found {refused}")
    copy = scene.folder / "copy"
    copy.mkdir()
    for name in ("journal.jsonl", "journal.checkpoint.json"):
        if (scene.folder / name).exists():
            shutil.copyfile(scene.folder / name, copy / name)
    (copy / "tally.json").symlink_to(scene.folder / "tally.json")
    second = scene.drive(copy)
    fenced = scene.end_of(first)
    if "FencedError" not in str(fenced.get("error")):
        scene.wrong.append(f"expected the first driver to be fenced, found {fenced}")
    return _wants(scene, scene.end_of(second), wanted)


def full(scene: Scene, wanted: tuple[str, ...]) -> str:
    """No file of the driver can grow (RLIMIT_FSIZE) from the canary on: the candidate goes out all the same."""
    driver = scene.drive()
    scene.until(scene.entered("Canary"), "a canary step")
    journal = scene.folder / "journal.jsonl"
    before = resource.prlimit(driver.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    lines = journal.read_bytes().count(b'"intent"')
    time.sleep(4.0)
    if journal.read_bytes().count(b'"intent"') != lines:
        scene.wrong.append("a step was announced on a full disk")
    scene.until(lambda: scene.look().weight == 0, "weight 0 on a full disk", 40)
    resource.prlimit(driver.pid, resource.RLIMIT_FSIZE, before)
    return _wants(scene, scene.end_of(driver), wanted)


def aborted(scene: Scene, when: str, wanted: tuple[str, ...]) -> str:
    """A person aborts in a state; every other time the driver is killed at the same moment."""
    driver = scene.drive()
    scene.until(scene.entered(when), when)
    ask(scene.folder, OperatorRequest(Ask.ABORT, "a person aborts"))
    if int(scene.folder.name.split("-")[0]) % 2:
        kill(driver.pid)
        driver.communicate()
        driver = scene.drive()
    return _wants(scene, scene.end_of(driver), wanted)


def server_killed(scene: Scene, arm: str, number: int, wanted: tuple[str, ...]) -> str:
    """A signal to a server in the canary."""
    driver = scene.drive()
    scene.until(scene.entered("Canary"), "a canary step")
    kill(scene.deployment.pids[arm], number)
    ended = scene.end_of(driver)
    if arm == "stable" and not any("champion" in act["about"] for act in scene.acts("paged")):
        scene.wrong.append("no person was paged")
    state = str(ended.get("state", "no end"))
    if state not in wanted:
        scene.wrong.append(f"expected {' or '.join(wanted)}, found {ended}")
    return state


def registry_down(scene: Scene) -> str:
    """MLflow is down while the candidate is promoted, for longer than the driver waits; the next run writes it once."""
    flag = scene.folder / "registry-down"
    flag.touch()
    driver = scene.drive()
    scene.until(scene.entered("Promoted"), "Promoted")
    kill(driver.pid)
    driver.communicate()
    again = scene.drive()
    time.sleep(1.5)
    flag.unlink()
    state = _wants(scene, scene.end_of(again), ("Promoted",))
    scene.end_of(scene.drive())
    told = (scene.folder / "registry").read_text() if (scene.folder / "registry").exists() else ""
    if told != "champion: candidate\n":
        scene.wrong.append(f"expected the registry to be told once, found {told!r}")
    return state


def ground_gone(scene: Scene, what: str) -> str:
    """The router, or everything on the machine's side, is gone at once: the rollout ends, nothing is left running."""
    driver = scene.drive()
    scene.until(scene.entered("Canary"), "a canary step")
    scene.replay.terminate()
    scene.replay.wait(30)
    kill(scene.deployment.pid if what == "site" else scene.deployment.pids[what])
    ended = scene.end_of(driver)
    if what == "site":
        shutil.rmtree(scene.deployment.socket.parent, ignore_errors=True)
    if ended.get("state") not in OUT:
        scene.wrong.append(f"expected {' or '.join(OUT)}, found {ended}")
    return str(ended.get("state", "no end"))


# --- the scenes -------------------------------------------------------------------------------------------------------


def scenes(bundles: Bundles, quick: bool) -> Iterator[Live]:
    """All of them."""
    rows = bundles.candidate / "replay.npz"
    models = list(_with_models(bundles))
    yield from models[3:4] if quick else models
    yield from _fast(rows, quick)


def more(bundles: Bundles, number: int) -> Live:
    """One more rollout whose driver is killed again and again, until enough requests were counted."""
    kind = fast(bundles.candidate / "replay.npz", config=SLOW_STEPS)
    play = partial(killed, times=10, seed=number, wanted=("Promoted",))
    return Live(f"driver killed ten times ({number})", kind, play)


def _with_models(bundles: Bundles) -> Iterator[Live]:
    stable = served_arm(NAME, 1, bundles.champion).served
    config = RolloutPlan(shadow_requests=60, steps=(20, 60, 100), step_requests=60, max_step_seconds=60)
    kind = Kind(
        stable,
        served_arm(NAME, 2, bundles.candidate).served,
        bundles.candidate / "replay.npz",
        fast=False,
        rate=200.0,
        clients=8,
        config=config,
    )

    def day(text: str) -> Kind:
        return replace(kind, candidate=replace(kind.candidate, game_day=text))

    slow = replace(kind, config=config.model_copy(update={"step_requests": 2000}))
    yield Live("MLServer, driver killed three times", kind, partial(killed, times=3, seed=0, wanted=("Promoted",)))
    yield Live(
        "MLServer, candidate SIGKILL", slow, partial(server_killed, arm="candidate", number=9, wanted=("RolledBack",))
    )
    yield Live(
        "MLServer, champion SIGKILL", slow, partial(server_killed, arm="stable", number=9, wanted=OUT), excused=True
    )
    for name, text in (
        ("5xx", "error=1,after=40"),
        ("slow", "delay_ms=400,after=40"),
        ("NaN", "nan=1,after=40"),
        ("wrong shape", "shape=1,after=40"),
        ("crash", "crash=1,after=40"),
        ("wrong labels", "wrong=1,after=40"),
        ("10 % errors", "error=0.1,after=0"),
    ):
        wanted = OUT if name == "10 % errors" else ("RolledBack",)
        yield Live(f"MLServer, candidate: {name}", day(text), partial(to_the_end, wanted=wanted))


def _fast(rows: Path, quick: bool) -> Iterator[Live]:
    slow = partial(fast, rows, config=SLOW_STEPS)
    good, bad = ("Promoted",), ("RolledBack",)
    yield Live("driver gone for ever", slow(linger=6.0), gone)
    yield Live("driver stopped for 6 s", slow(), partial(stopped, seconds=6.0, wanted=good))
    longer = SLOW_STEPS.model_copy(update={"step_requests": 3000})
    yield Live("two drivers", fast(rows, config=longer), partial(twice, wanted=good))
    if quick:
        return
    yield Live("disk full", slow(), partial(full, wanted=OUT))
    yield Live("registry down", fast(rows), registry_down)
    yield Live("site killed", slow(), partial(ground_gone, what="site"))
    yield Live("router killed", slow(), partial(ground_gone, what="envoy"))
    for state in ("Canary 10 %", "Canary 50 %", "Promoting"):
        yield Live(f"driver killed at {state}", fast(rows), partial(killed_at, state=state, wanted=good))
    back = partial(killed_at, state="RollingBack", wanted=bad)
    yield Live("driver killed at RollingBack", fast(rows, "error@300"), back)
    for when in ("Shadow", "Canary 20 %", "Canary 50 %", "Canary 100 %"):
        yield Live(f"abort in {when}", slow(), partial(aborted, when=when, wanted=("Inconclusive",)))
    for seed in range(6):
        yield Live(f"driver killed five times ({seed})", slow(), partial(killed, times=5, seed=seed, wanted=good))
    for number in range(24):
        fault = KINDS[number % 6]
        kind = fast(rows, f"{fault}@{(50, 400, 900, 1500)[number // 6]}", config=SLOW_STEPS)
        yield Live(f"candidate: {fault} ({number // 6})", kind, partial(to_the_end, wanted=bad))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
