"""What would show that code of a file ran: it makes the canary in the working folder."""

import os
from typing import Any

from tests.hostile.trial import CANARY


class Touch:
    """Unpickles to a call that makes the canary."""

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return os.system, (f"touch {CANARY}",)


class Evaluate:
    """The same, by `eval`."""

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return eval, (f"open({CANARY!r}, 'w').close()",)


class Import:
    """The same, by a call that scanners know less."""

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        import runpy

        return runpy._run_code, (f"open({CANARY!r}, 'w').close()", {})  # type: ignore[attr-defined]


MODULE = f"open({CANARY!r}, 'w').close()\n"
"""A module that makes the canary when it is imported."""
