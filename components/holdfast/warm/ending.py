"""The end of a warm process and of its forks: that of any process, without taking apart what it has imported.

An interpreter that ends clears its modules one by one. With every library of a run imported that is 0.4 s, most of it
spent on copying memory which a fork had shared until then. A fork has no need to: as in `multiprocessing`, threads are
waited for, functions registered with `atexit` are called and output is flushed; then the process is gone. What is still
open and was never closed is closed by the kernel, as it is: what Python held back of a file's last lines is lost.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator

_UNWRITTEN = 120
"""The interpreter's own exit code when its last output cannot be written."""
_codes: list[int] = []
"""The exit code, once it is known."""


def arrange() -> None:
    """To be called before anything else is registered with `atexit`: the first one is called last."""
    atexit.register(_leave)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """What is inside is the last that this process does. After a traceback or an error in words it ends as always."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.code, int | None):
            _codes.append(error.code or 0)
        raise
    _codes.append(0)


def _leave() -> None:
    if _codes:
        os._exit(_codes[-1] & 0xFF if _flushed() else _UNWRITTEN)


def _flushed() -> bool:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"expected to write what was printed, found {error}\n")
            sys.stderr.flush()
        return False
    return True
