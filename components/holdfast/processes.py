"""Child processes that never outlive their parent, not even a parent that is killed."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec a child must not take locks.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Asks the kernel to send `with_signal` to this process when its parent is gone (Linux, prctl(2))."""
    _PRCTL(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)


def dying_with_us(with_signal: int = signal.SIGTERM) -> Callable[[], None]:
    """A `preexec_fn`: the child gets `with_signal` when the thread that started it, or this process, is gone."""
    parent = os.getpid()

    def arrange() -> None:
        die_with_parent(with_signal)
        if os.getppid() != parent:  # we were gone before the arrangement stood
            os._exit(128 + int(with_signal))

    return arrange
