"""Rollouts while hostile clients do all they can: no verdict changes, no other client loses a request, no server grows.

Real Envoy, two real MLServers, the real controller, honest clients at a steady rate, and `tests.faults.live.hostiles`
on the same port. `python -m benchmarks hostile --seeds 20`: twenty rollouts of a healthy candidate, and one
each of a candidate that fails and of one that is slow, which must go out all the same.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.errors import RolloutError
from holdfast.processes import dying_with_us
from holdfast.serving.rollout.contract.arms import CANDIDATE, STABLE
from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.workload.schema import RolloutPlan
from tests.faults.live import bundles
from tests.faults.live.bundles import NAME, Bundles
from tests.faults.live.hostiles import MANNERS
from tests.faults.live.scene import Kind, Scene, playing

PLAN = RolloutPlan(
    shadow_requests=100,
    steps=(20, 50, 100),
    step_requests=100,
    max_step_seconds=120,
    latency_limit_ms=1000,
    latency_floor_ms=1000,
    max_blind_seconds=30,
)
RATE, CLIENTS = 60.0, 6
BAD = {"fails": "error=0.5,after=30", "is slow": "delay_ms=1500,after=30"}
IDLE_SECONDS = 5.0
"""Of honest traffic alone, before the idle memory of the servers is read."""
PER_SITE = 5
"""Healthy rollouts on one site, one after the other."""


@dataclass
class Found:
    """What came of all rollouts."""

    ends: list[tuple[str, str]] = field(default_factory=list)
    """Wanted and found end of each."""
    others: int = 0
    lost: int = 0
    """Requests of honest clients, and those without a whole answer."""
    malformed: int = 0
    kinds: set[str] = field(default_factory=set)
    half_open: int = 0
    dropped: int = 0
    headers: int = 0
    """Valid requests with headers that choose an arm, a timeout or retries."""
    wrong: dict[str, str] = field(default_factory=dict)
    growth: float = 0.0
    """Largest peak of a server's memory, over its own idle."""
    idle_mb: float = 0.0
    said: list[str] = field(default_factory=list)


def run(bench: Bench) -> list[Row]:
    """`bench.seeds` rollouts of a healthy candidate, and the bad ones."""
    found = Found()
    with TemporaryDirectory(prefix="hf-") as folder:
        made = bundles.make(Path(folder))
        left = bench.seeds
        while left > 0:
            _play(found, Path(folder) / f"healthy-{left}", _kind(made), ["Promoted"] * min(left, PER_SITE))
            left -= PER_SITE
        for name, day in BAD.items():
            kind = _kind(made)
            bad = replace(kind, candidate=replace(kind.candidate, game_day=day))
            _play(found, Path(folder) / name.replace(" ", "-"), bad, ["RolledBack"])
    return _rows(found)


def _kind(made: Bundles) -> Kind:
    served = served_arm(NAME, 1, made.champion).served, served_arm(NAME, 2, made.candidate).served
    return Kind(*served, made.candidate / "replay.npz", fast=False, rate=RATE, clients=CLIENTS, config=PLAN)


def _play(found: Found, folder: Path, kind: Kind, ends: list[str]) -> None:
    """Rollouts on one site, one after the other, under attack from the first to the last."""
    with playing(folder, kind) as scene:
        time.sleep(IDLE_SECONDS)
        servers = [scene.deployment.pids[arm] for arm in (STABLE, CANDIDATE)]
        idle = [_memory(pid, "VmRSS") for pid in servers]
        for pid in servers:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from now on
        with _attacked(folder, scene) as report:
            for number, wanted in enumerate(ends):
                found.ends.append((wanted, _roll(scene, folder / str(number), found)))
            growth = [_memory(pid, "VmHWM") / before for pid, before in zip(servers, idle, strict=True)]
        tally = scene.tally()
    _add(found, json.loads(report.read_text()))
    found.others, found.lost = found.others + tally.sent, found.lost + tally.failed
    found.growth, found.idle_mb = max(found.growth, *growth), max(found.idle_mb, *idle)
    found.said += [f"{folder.name}: {what}" for what in (*scene.wrong, *filter(None, [tally.first_failure]))]


def _roll(scene: Scene, state: Path, found: Found) -> str:
    """One driver with a journal of its own, from the shadow to the end."""
    state.mkdir()
    (state / "tally.json").symlink_to(scene.folder / "tally.json")
    began = time.monotonic()
    ended = scene.end_of(scene.drive(state), 300.0)
    end = str(ended.get("state", "no end"))
    line = f"{scene.folder.name} {state.name}: {end} after {time.monotonic() - began:.0f} s"
    found.said.append(f"{line}: {ended.get('reason', ended.get('error'))}")
    sys.stderr.write(f"hostile: {found.said[-1]}\n")
    return end


@contextmanager
def _attacked(folder: Path, scene: Scene) -> Iterator[Path]:
    """Hostile clients while the block runs; yields where their report will be."""
    report = folder / "hostiles.json"
    port = str(urlsplit(scene.deployment.url).port)
    command = [sys.executable, "-m", "tests.faults.live.hostiles", port, NAME, str(report)]
    with (folder / "hostiles.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dying_with_us(signal.SIGKILL)
        )
    try:
        yield report
    finally:
        process.terminate()
        process.wait(30)
    if not report.exists():
        raise RolloutError(f"hostile clients: expected a report, found {(folder / 'hostiles.log').read_text()[-500:]}")


def _add(found: Found, report: dict[str, dict[str, int]]) -> None:
    sent = report["sent"]
    apart = ("half-open post", "flood", *MANNERS)
    found.half_open += sent.get("half-open post", 0)
    found.dropped += sent.get("flood", 0)
    found.headers += sum(sent.get(name, 0) for name in MANNERS)
    found.malformed += sum(count for name, count in sent.items() if name not in apart)
    found.kinds |= set(sent) - set(apart)
    found.wrong |= {name: str(answer) for name, answer in report["wrong"].items()}


def _memory(pid: int, name: str) -> float:
    """Megabytes, by the kernel's count."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def _rows(found: Found) -> list[Row]:
    healthy = sum(wanted == "Promoted" for wanted, _ in found.ends)
    changed = sum(wanted != end for wanted, end in found.ends)
    attack = (
        f"{found.malformed:,} malformed requests of {len(found.kinds)} kinds, {found.half_open:,} half-open posts, "
        f"{found.dropped:,} connections in floods, {found.headers:,} requests that ask for an arm, a timeout or retries"
    )
    how = f"real processes, `python -m benchmarks hostile --seeds {healthy}`"
    name = f"hostile clients during {healthy} rollouts of a healthy candidate and {len(BAD)} of a bad one"
    said = "; ".join(found.said) if changed or found.lost else ""
    wrong = "; ".join(f"{kind}: {answer}" for kind, answer in sorted(found.wrong.items()))
    return [
        at_most(f"{name}: verdicts that they changed", changed, 0, f"{how}; {attack}", note=said),
        at_most(f"{name}: requests of others lost", found.lost, 0, f"{how}; of {found.others:,}"),
        at_most(
            f"{name}: a server's peak memory over its idle", found.growth, 2.0, f"{how}; idle {found.idle_mb:.0f} MB"
        ),
        at_most(f"{name}: kinds that got another answer than a 4xx of one line", len(found.wrong), 0, how, note=wrong),
        at_least(f"{name}: malformed requests", found.malformed, 1000, how),
        shown(f"{name}: kinds", len(found.kinds), how),
    ]
