"""What a warm process imports, and how it stays calm enough to be forked."""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast.processes import CALM
from holdfast.steps import STEPS

OTHERS = (
    "holdfast_pipelines.demo", "holdfast_pipelines.report", "holdfast_pipelines.retrain", "holdfast_pipelines.rollout",
    "kfp.local", "kfp.local.orchestrator.enhanced_dag_orchestrator", "sklearn.datasets",
)  # fmt: skip
"""What a run imports outside its steps, or only when it is asked to."""


def threads() -> tuple[str, ...]:
    """The names of the threads of this process, those that no Python code knows of included."""
    return tuple(path.read_text().strip() for path in sorted(Path("/proc/self/task").glob("*/comm")))


def load(libraries: Sequence[str]) -> None:
    """Imports each MODULE, or calls each MODULE:FUNCTION; one that is not installed here is left out."""
    for name in libraries:
        module, _, function = name.partition(":")
        with contextlib.suppress(ImportError):
            found = importlib.import_module(module)
            if function:
                getattr(found, function)()


def write_bytecode() -> None:
    """Imports everything once, so that its bytecode is there: installing with uv leaves none, and many steps are short.

    As pip does: PYTHONDONTWRITEBYTECODE is about files that change.
    """
    sys.dont_write_bytecode = False
    os.environ.update(CALM)
    load([name for step in STEPS for name in (*step.libraries, *step.libraries_if_changed)])
    load(OTHERS)
