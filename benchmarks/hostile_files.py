"""Files from strangers: every kind of tests/hostile, given to the command that reads it, and what it took.

Each kind is a private folder with the file and what belongs around it. The command runs in a fork of this process,
which has the libraries loaded, in the way that a process of its own would run it. `python -m benchmarks.hostile_files
WORD...` prints the trials of the kinds that have a word in their names, as JSON; without words those that went wrong.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.progress import say
from tests.hostile.kinds import Kind
from tests.hostile.readers import READERS, write_all
from tests.hostile.trial import MEGABYTES, SECONDS, Trial, measure, preload

KINDS = 150
_SHOWN = 20


def run(bench: Bench) -> list[Row]:
    """All kinds, one after the other."""
    del bench
    return rows(list(trials()))


def trials(chosen: Callable[[Kind], bool] = lambda kind: True) -> Iterator[Trial]:
    """What came of each kind that is chosen."""
    preload()
    with tempfile.TemporaryDirectory(prefix="holdfast-hostile-") as place:
        cases = write_all(chosen, Path(place))
        for number, case in enumerate(cases, start=1):
            found = measure(case.name, case.expected, case.folder, case.work)
            if found.bad:
                say(f"hostile_files: {json.dumps(asdict(found))}")
            yield found
            if number % 100 == 0:
                say(f"hostile_files: {number} of {len(cases)}")


def rows(found: Sequence[Trial]) -> list[Row]:
    """Of everything that was measured."""
    hostile = [one for one in found if one.expected == "refused"]
    harmless = [one for one in found if one.expected == "accepted"]
    how = f"{len(READERS)} readers, each by its command, in a fork of a process with the libraries loaded"
    slowest, largest = max(found, key=lambda one: one.seconds), max(found, key=lambda one: one.megabytes)
    return [
        at_least("kinds of hostile files, by reader", len(hostile), KINDS, how),
        shown("kinds, whoever reads them", len({one.name.partition(": ")[2] for one in hostile}), how),
        _none("files whose code ran", [one for one in found if one.ran], how),
        _none(f"files that took over {SECONDS:g} s", [one for one in found if one.seconds > SECONDS], how),
        _none(f"files that took over {MEGABYTES:g} MB", [one for one in found if one.megabytes > MEGABYTES], how),
        _none("tracebacks, crashes, exit codes that are none", [one for one in found if one.traceback], how),
        _none("hostile files that were accepted", [one for one in hostile if one.outcome != "refused"], how),
        _none(
            f"clean and odd, but harmless files that were refused, of {len(harmless)}",
            [one for one in harmless if one.outcome != "accepted"],
            how,
        ),
        shown("longest, s", slowest.seconds, slowest.name),
        shown("most memory, MB, of which the libraries are about 270", largest.megabytes, largest.name),
    ]


def _none(what: str, wrong: Sequence[Trial], how: str) -> Row:
    return at_most(what, float(len(wrong)), 0, how, note="; ".join(one.name for one in wrong[:_SHOWN]))


if __name__ == "__main__":
    words = sys.argv[1:]
    for one in trials(lambda kind: not words or any(word in kind.name for word in words)):
        if words or one.bad:
            sys.stdout.write(json.dumps(asdict(one)) + "\n")
            sys.stdout.flush()
