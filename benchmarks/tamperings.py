"""Tampering with a registered version: every way of tests/attestation/tamperings.py, 10,000 tries in all.

A try is a private copy of an honest version that one way changed, with random numbers of its own, and that is taken in
as a server or a rollout takes it in, with a trust policy. `the same`: what came out are the very bytes and claims that
were signed (an envelope can be written in several ways without changing what it holds).
"""

import random
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.progress import say
from tests.attestation.tamperings import World, tamperings
from tests.attestation.trials import make_world, tried
from tests.attestation.versions import StoredVersion

TRIES, HONEST = 10_000, 50


def run(bench: Bench) -> list[Row]:
    """How many of all tries were accepted, and by which way."""
    ways = sorted(tamperings())
    outcomes: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="holdfast-tamperings-") as folder:
        world, version = make_world(Path(folder))
        honest = sum(_is_taken_in(version.copy(Path(folder) / f"honest{n}"), world) for n in range(HONEST))
        for number in range(TRIES):
            name = ways[number % len(ways)]
            outcome = tried(world, version, name, random.Random(f"{number}"), Path(folder) / "try")
            outcomes[outcome] += 1
            accepted[name] += outcome == "accepted"
            if number % 1000 == 999:
                say(f"tamperings: {number + 1} of {TRIES}, {outcomes['accepted']} accepted")
    how = f"{len(ways)} ways, one after the other, in one process; seed: the number of the try"
    listed = ", ".join(f"{name} {count}" for name, count in accepted.items() if count)
    return [
        at_most("tampered versions that were accepted", float(outcomes["accepted"]), 0, how, note=listed),
        at_least("tries", float(sum(outcomes.values())), 10_000, how),
        at_least(f"honest copies that were taken in, of {HONEST}", float(honest), HONEST, "the same way in, unchanged"),
        shown("tries that changed nothing that was signed", float(outcomes["the same"]), how),
    ]


def _is_taken_in(copy: StoredVersion, world: World) -> bool:
    return copy.taken_in(world.demands).decision.document.verdict == "pass"
