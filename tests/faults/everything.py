"""All faults, one part after the other: virtual time, races for bytes, a controller that watches, live scenes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.live import bundles, scenes, watching, withdrawn
from tests.faults.live.bundles import Bundles
from tests.faults.live.scene import Played
from tests.faults.live.watching import Watched
from tests.faults.live.withdrawn import Withdrawn
from tests.faults.races import race
from tests.faults.races.race import Raced
from tests.faults.simulator import virtual
from tests.faults.simulator.virtual import Tally

REQUESTS, MOST_MORE = 300_000, 20
"""Client requests that the live scenes must count, and how many scenes may be added to reach them."""


@dataclass(frozen=True)
class Found:
    """The results of all parts."""

    tallies: dict[str, Tally]
    """By fault, and the timed rollbacks."""
    loads: Raced
    naive: Raced
    """The same races against a loader that hashes a file by its name, then opens it by its name."""
    servers: Raced
    watched: Watched
    withdrawn: list[Withdrawn]
    played: list[Played]


def inject(quick: bool) -> Found:
    """Virtual time first, on all cores; then real processes, one scene after the other."""
    tallies = virtual.run_all(quick)
    with TemporaryDirectory(prefix="hf-") as name:
        folder = Path(name)
        made = bundles.make(folder)
        # Races and the controller run at once: neither needs a quiet machine.
        with ThreadPoolExecutor(1) as pool:
            watched = pool.submit(watching.watch, made, folder / "watching", 10.0 if quick else 65.0)
            loads = _loads(made, folder, 50 if quick else 1000, "ours")
            naive = _loads(made, folder, 50 if quick else 1000, "naive")
            servers = race.race_servers(made, folder / "servers", 2 if quick else 24)
            seen = watched.result()
        taken = withdrawn.play(made, folder / "withdrawn", quick)
        return Found(tallies, loads, naive, servers, seen, taken, _play(made, folder, quick))


def withdraw_all() -> list[Withdrawn]:
    """F11 in real processes, alone."""
    with TemporaryDirectory(prefix="hf-") as name:
        return withdrawn.play(bundles.make(Path(name)), Path(name) / "withdrawn", quick=False)


def _loads(made: Bundles, folder: Path, count: int, how: str) -> Raced:
    (folder / how).mkdir()
    return race.race_loads(made, folder / how, count, how)


def _play(made: Bundles, folder: Path, quick: bool) -> list[Played]:
    played = []
    for number, scene in enumerate(scenes.scenes(made, quick)):
        played.append(scenes.play(scene, folder / f"{number}-scene"))
    for number in range(0 if quick else MOST_MORE):
        if counted(played) < REQUESTS:
            played.append(scenes.play(scenes.more(made, number), folder / f"{len(played)}-scene"))
    return played


def counted(played: Sequence[Played]) -> int:
    """Client requests of all scenes but those in which the champion itself was killed."""
    return sum(one.sent for one in played if not one.excused)
