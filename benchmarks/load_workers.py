"""`python -m benchmarks.load_workers KIND SEED`: one process of a load; it works until it is killed. Light."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from holdfast.processes import dying_with_us

LOOPS = 8
SHORTEST, LONGEST = 0.1, 3.0
"""Seconds that a loop in bursts runs, and then rests."""
BLOCK, PIECE = 64 * 2**20, 2**20
"""Bytes that the writer syncs at once, and those of one write."""


def spin(chance: random.Random) -> None:
    """Keeps one core busy."""
    while True:
        pass


def burst(chance: random.Random) -> None:
    """Keeps one core busy for a random time, rests for another, again and again."""
    while True:
        until = time.monotonic() + chance.uniform(SHORTEST, LONGEST)
        while time.monotonic() < until:
            pass
        time.sleep(chance.uniform(SHORTEST, LONGEST))


def bursts(chance: random.Random) -> None:
    """Eight processes that burst, in one session as those of one terminal are; ends when one of them does."""
    for _ in range(LOOPS):
        command = [sys.executable, "-m", "benchmarks.load_workers", burst.__name__, str(chance.getrandbits(32))]
        subprocess.Popen(command, preexec_fn=dying_with_us(signal.SIGKILL))
    os.wait()


def write(chance: random.Random) -> None:
    """Writes one block over the last one and syncs it, again and again.

    The file has no name (O_TMPFILE), so that its space is free again when this process ends, however it ends.
    """
    piece = chance.randbytes(PIECE)
    with tempfile.TemporaryFile(dir=".", buffering=0) as stream:
        while True:
            stream.seek(0)
            for _ in range(BLOCK // PIECE):
                stream.write(piece)
            os.fsync(stream.fileno())


def import_torch(chance: random.Random) -> None:
    """Starts a Python that imports torch, again and again."""
    while True:
        subprocess.run([sys.executable, "-c", "import torch"], check=True, preexec_fn=dying_with_us(signal.SIGKILL))


WORKERS: dict[str, Callable[[random.Random], None]] = {
    worker.__name__: worker for worker in (spin, burst, bursts, write, import_torch)
}

if __name__ == "__main__":
    WORKERS[sys.argv[1]](random.Random(int(sys.argv[2])))
