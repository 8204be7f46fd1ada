"""Progress of long work: a bar when standard error is a terminal, otherwise one line per tenth for a pod's log."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from holdfast.wording import printable_lines

T = TypeVar("T")


def track(items: Sequence[T], label: str) -> Iterator[T]:
    """Yields `items` and shows on standard error how far it got."""
    total = len(items)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, description=label, console=Console(stderr=True), transient=True)
        return
    told = 0
    for done, item in enumerate(items, start=1):
        yield item
        if done * 10 // total > told:
            told = done * 10 // total
            say(f"{label}: {done}/{total}")


def say(message: str) -> None:
    """One line for people, on standard error; control characters in it are escaped."""
    sys.stderr.write(printable_lines(message) + "\n")
    sys.stderr.flush()
