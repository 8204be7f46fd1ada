"""Loops that wait for what takes time, each bounded by a number of seconds."""

import time
from collections.abc import Callable
from typing import TypeVar

from holdfast.errors import HoldfastError

T = TypeVar("T")


def poll(look: Callable[[], T], done: Callable[[T], bool], seconds: float, every: float) -> T:
    """The first result of `look` that is `done`, or its last one when `seconds` are over."""
    deadline = time.monotonic() + seconds
    while not done(found := look()) and time.monotonic() <= deadline:
        time.sleep(every)
    return found


def retry(
    act: Callable[[], T],
    pause: Callable[[HoldfastError], float | None],
    seconds: float,
    report: Callable[[HoldfastError], None] = lambda error: None,
) -> T:
    """The result of `act`, which is called again after an error that may pass.

    Args:
        act: what is to be done; idempotent.
        pause: how long to wait after an error, in seconds; None: it does not pass, and is raised.
        seconds: an error is raised too when its pause would end later than so many seconds from now.
        report: called with every other error, before the pause.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return act()
        except HoldfastError as error:
            wait = pause(error)
            if wait is None or time.monotonic() + wait > deadline:
                raise
            report(error)
        time.sleep(wait)
