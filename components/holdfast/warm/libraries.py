"""What a warm process imports, and how it stays calm enough to be forked."""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

CALM: dict[str, str] = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Without these, importing numpy, scipy and pyarrow starts threads. A step sets its own `--threads` in each library."""

_PARQUET = ("pandas", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.pandas_compat")
"""The last two are imported when the first table is read."""
_TABLES = ("holdfast.cli", "holdfast.tables", *_PARQUET)
_NETWORKS = (
    "holdfast.cli", "torch", "holdfast.model.networks", "holdfast.model.inputs", "scipy.special", "safetensors.torch",
    *_PARQUET,
)  # fmt: skip
_TRAINING = (*_NETWORKS, "torch._dynamo")
"""Making the first optimizer imports the latter: 3 s of CPU where its bytecode is not kept."""
_SERVERS = (
    "holdfast.serving.rollout.site.site", "holdfast.serving.rollout.replay.traffic",
    "holdfast.serving.predictor.intake", "holdfast.serving.predictor.runtime",
    "mlserver.cli.serve", "mlserver.server", "uvloop",
)  # fmt: skip
_REGISTRY = ("holdfast.cli", "holdfast.registry:library")
LIBRARIES: dict[str, tuple[str, ...]] = {
    "snapshot": ("holdfast.data.snapshot.step", *_TABLES, "sklearn.datasets"),
    "schema": ("holdfast.data.schema.step", *_TABLES, "holdfast.data.schema.contract:library"),
    "drift": ("holdfast.data.drift.step", *_TABLES),
    "baseline": ("holdfast.model.baseline.step", *_REGISTRY, *_NETWORKS),
    "scan": ("holdfast.model.scan.step", *_TRAINING, "holdfast.model.scan.learners:library"),
    "train": ("holdfast.model.train.step", *_TRAINING, "torch.export._trace", "holdfast.model.train.recipes"),
    "backdoor": ("holdfast.model.backdoor.step", *_NETWORKS),
    "attack": ("holdfast.model.attack.step", *_NETWORKS, "holdfast.model.attack.suite"),
    "certify": ("holdfast.model.certify.step", *_NETWORKS, "holdfast.model.certify.smoothing"),
    "gate": ("holdfast_gates.step", "holdfast.cli", "scipy.special"),
    "register": ("holdfast.model.register.step", *_REGISTRY, *_NETWORKS),
    "rollout": ("holdfast.serving.rollout.step", *_REGISTRY),
}
"""Step -> what it imports, as MODULE or as MODULE:FUNCTION that imports. What is missing here a step imports itself."""
UNLESS_UNCHANGED: dict[str, tuple[str, ...]] = {
    "attack": ("holdfast.model.attack.art:load",),
    "drift": ("holdfast.data.drift.evidently_report:library",),
    "rollout": (*_SERVERS, *_NETWORKS),
}
"""The same, as far as a step needs it only for a delivery or a model that is new."""
STARTING_OTHERS = frozenset({"rollout"})
"""Steps that start processes of their own which need the same libraries."""

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

    As pip does, whatever PYTHONDONTWRITEBYTECODE says of files that change.
    """
    sys.dont_write_bytecode = False
    os.environ.update(CALM)
    load([name for found in (LIBRARIES, UNLESS_UNCHANGED) for libraries in found.values() for name in libraries])
    load(OTHERS)
