"""The guard: how quiet it is over users, how soon it sees those who are none, and what it costs.

Users' rows are neither trained on nor calibrated with. Each attacker is a new client with five seeds; the figure is the
median of the queries until the alarm, with the latest in the note.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.guard_clients import Pool, quiet
from benchmarks.guard_scenes import Guarded, Make, among, of_images, of_table, strangers
from benchmarks.scenes import Bench
from benchmarks.table import Row, at_most, shown
from holdfast.serving.guard.calibration import Samples
from holdfast.serving.guard.features import Tap
from holdfast.serving.guard.guard import IN_MEMORY, Guard, GuardLimits
from holdfast.serving.guard.store import SqliteStore
from holdfast.serving.guard.trial import alarm_at

ALPHA, SEEDS = 1e-4, 5
CLIENTS, QUERIES, MANY = 100, 3_000, 10_000
"""Users, what each asks, and clients in the file, for each of --seeds (10)."""
POOL, REQUESTS = 10_000, 3_000
"""Rows that users draw from, and requests whose time is taken."""
NEVER = 10**9
REQUIRED = {
    "noise": 25, "foreign images (digits)": 25, "flipped images": 25, "mixed images": 70, "Jacobian augmentation": 250,
    "search around one row (Square)": 50,
}  # fmt: skip
LENGTHS = {"Jacobian augmentation": 700}
Work = Callable[[], object]


def run(bench: Bench) -> list[Row]:
    """Images, a table, and the cost."""
    images = of_images(bench)
    parts = [*_rows(images, bench.seeds), *_rows(of_table(bench), bench.seeds)]
    return [*parts, *_one_class(images), *_cost(images, MANY * bench.seeds)]


def _rows(scene: Guarded, scale: int) -> list[Row]:
    return [_quiet(scene, CLIENTS * scale, QUERIES * scale), *_strangers(scene), *_few(scene)]


def _quiet(scene: Guarded, clients: int, queries: int) -> Row:
    chance = np.random.default_rng(0)
    pool = Pool.of(scene.calibration, scene.seen(scene.some(POOL, chance)))
    how = f"{clients:,} clients x {queries:,} queries drawn from {len(pool.p_far):,} rows, alpha {ALPHA:g}"
    alarmed, highest = quiet(scene.calibration, pool, clients=clients, queries=queries, alpha=ALPHA, seed=1)
    limit = -np.log(ALPHA)
    note = f"largest log wealth {highest:.2f}, an alarm is at {limit:.2f}"
    return at_most(f"guard, {scene.name}: users alarmed", alarmed, 0, how, note=note)


def _strangers(scene: Guarded) -> list[Row]:
    rows = []
    for name, make in strangers(scene).items():
        rows.append(_until(scene, name, make, REQUIRED.get(name), LENGTHS.get(name, 500)))
        if "images" in name or "each value" in name:
            required = 70 if "images" in name and "mixed" not in name else None
            rows.append(_until(scene, f"half {name}, half a user's", among(scene, make, 0.5), required, 2_000))
    return rows


def _few(scene: Guarded) -> list[Row]:
    name = "foreign images (digits)" if "foreign images (digits)" in strangers(scene) else "each value from another row"
    make = among(scene, strangers(scene)[name], 0.1)
    return [_until(scene, f"a tenth {name}, the rest a user's", make, None, 3_000)]


def _until(scene: Guarded, name: str, make: Make, required: int | None, length: int) -> Row:
    found = []
    for seed in range(SEEDS):
        samples = scene.seen(make(length, np.random.default_rng(seed)))
        found.append(alarm_at(scene.calibration, samples, ALPHA) or NEVER)
    seen = [at for at in found if at < NEVER]
    how = f"{SEEDS} seeds of {length:,} queries, median; alpha {ALPHA:g}"
    note = f"alarmed {len(seen)} of {SEEDS}" + (f", the latest after {max(seen):,}" if seen else "")
    what = f"guard, {scene.name}: queries until the alarm, {name}"
    middle = statistics.median(found)
    if required is None:
        return shown(what, middle if middle < NEVER else "none", how, note=note)
    return at_most(what, middle, required, how, note=note)


def _one_class(scene: Guarded) -> list[Row]:
    """Users who only ask about one class."""
    seen = scene.seen(scene.users)
    found = []
    for label in range(scene.classes):
        rows = np.flatnonzero(seen.labels == label)[:3_000]
        found.append(alarm_at(scene.calibration, seen.take(rows), ALPHA))
    alarmed = sum(at is not None for at in found)
    how = f"{scene.classes} clients, up to 3,000 rows of one class each, none twice"
    return [at_most(f"guard, {scene.name}: users of one class alarmed", alarmed, 0, how)]


def _cost(scene: Guarded, clients: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        seen = scene.seen(scene.some(2_000, np.random.default_rng(3)))
        times = _times(scene, seen, Path(folder) / "times.db")
        held, size = _held(scene, seen, Path(folder) / "many.db", clients)
    how = f"{REQUESTS:,} requests of one row by 500 clients, admit and judge with the file, one thread"
    (p50, p99), (cpu50, cpu99) = ([float(np.quantile(one, q) * 1000) for q in (0.5, 0.99)] for one in times)
    many = f"{clients:,} clients, of whom {IN_MEMORY:,} with all their last queries; growth of the process"
    return [
        at_most("guard: milliseconds of a request, p50", p50, 0.5, how),
        at_most(
            "guard: milliseconds of a request, p99", p99, 2.0, how, note=f"load of the machine {os.getloadavg()[0]:.1f}"
        ),
        shown("guard: CPU-milliseconds of a request, p50", cpu50, how),
        shown("guard: CPU-milliseconds of a request, p99", cpu99, how),
        shown("guard: milliseconds of keeping the features of a row", _tap(scene), "with the hook - without, least"),
        at_most("guard: MB in memory", held / 1e6, 100, many),
        shown("guard: MB on disk", size / 1e6, many),
    ]


def _times(scene: Guarded, seen: Samples, path: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of each request, and CPU-seconds of this thread."""
    guard, times = Guard(scene.calibration, GuardLimits(), SqliteStore(path, "0" * 64)), list[tuple[float, float]]()
    for number in range(REQUESTS):
        one = seen.take(np.array([number % len(seen)]))
        start, worked = time.perf_counter(), time.thread_time()
        guard.admit(str(number % 500), 1, 0.0)
        guard.judge(str(number % 500), one, [number], 0.0)
        times.append((time.perf_counter() - start, time.thread_time() - worked))
    wall, cpu = zip(*times[500:], strict=True)
    return wall, cpu


def _tap(scene: Guarded) -> float:
    """Milliseconds that the hook adds to a forward pass of one row."""
    import torch

    x = scene.users[:1]
    row = torch.from_numpy(x)

    def work() -> None:
        scene.network(row).argmax(1).numpy()

    with torch.inference_mode():
        plain = min(_seconds(work) for _ in range(300))
        tap = Tap(scene.network, scene.spec)

        def seen() -> None:
            work()
            tap.samples(x, np.zeros(1, np.int64))

        found = min(_seconds(seen) for _ in range(300))
        tap.close()
    return (found - plain) * 1000


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _held(scene: Guarded, seen: Samples, path: Path, clients: int) -> tuple[int, int]:
    """Bytes by which the process grows with so many clients, and those of the file."""
    guard = Guard(scene.calibration, GuardLimits(), SqliteStore(path, "0" * 64))
    guard.judge("warm", seen.take(np.arange(200)), range(200), 0.0)
    before = _resident()
    for number in range(clients):
        guard.judge(str(number), seen.take(np.array([number % len(seen)])), [number], 0.0)
    for number in range(clients - IN_MEMORY, clients):
        rows = np.arange(number, number + 150) % len(seen)
        guard.judge(str(number), seen.take(rows), [int(row) + 7 for row in rows], 0.0)
    held = max(_resident() - before, _arrays(guard))
    guard.close()
    return held, path.stat().st_size


def _arrays(guard: Guard) -> int:
    """Bytes of what clients in memory remember; what the process had freed before does not show in its growth."""
    parts = [part for client, _ in guard._clients.values() for part in (client.older, client.newer) if part is not None]
    return sum(part.sketches.nbytes + part.digests.nbytes + part.nearest.nbytes for part in parts)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
