"""The registered model: `holdfast.load_model("models:/NAME@champion").predict(rows)`; and the same as MLflow's pyfunc.

Rows as they are delivered go in (images in delivered units, a table, messages), the predictions that the gate judged
come out. Loading reads safetensors weights that were hashed against the gate's decision; nothing is unpickled.

`mlflow.pyfunc.load_model` trusts the store: before it calls Holdfast it imports the module, and the code, that the
version's `MLmodel` names. `load_model` reads neither.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Model
from holdfast.errors import RegistryError
from holdfast.model.answers import softmax

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature
    from torch import nn

    from holdfast.registry import Bundle

NEEDED = (
    "cryptography",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "securesystemslib",
    "torch",
)


class PyfuncModel:
    """A verified network with its way from rows to answers."""

    def __init__(self, network: "nn.Module", document: Model, device: str = "cpu") -> None:
        self.network, self.document, self.device = network, document, device

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """One line per row: `class`, then `probability_C` and `logit_C` for every class C; none for no rows.

        Raises:
            InputError: a column, or a value in one, that the model cannot read.
        """
        from holdfast.modality import modality_of
        from holdfast.model.networks import logits

        spec = self.document.input
        modality = modality_of(spec.modality)
        rows = modality.served(model_input, spec)
        if len(rows) == 0:
            return answers(np.empty((0, len(self.document.classes)), np.float32), self.document.classes)
        x = modality.encode(rows, spec)
        return answers(logits(self.network, x, device=self.device), self.document.classes)


def answers(values: NDArray[np.float32], classes: tuple[str, ...]) -> "pd.DataFrame":
    """The frame that `predict` gives, from logits float32[N, classes]."""
    import pandas as pd

    shares = softmax(values)
    frame = {"class": np.asarray(classes, dtype=object)[values.argmax(axis=1)]}
    frame |= {f"probability_{name}": shares[:, i] for i, name in enumerate(classes)}
    frame |= {f"logit_{name}": values[:, i] for i, name in enumerate(classes)}
    return pd.DataFrame(frame)


def signature(document: Model, example: Any) -> "ModelSignature":
    """What MLflow shows and enforces: rows as delivered in, class names, probabilities and logits out."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    from holdfast.modality import modality_of

    out = [ColSpec("string", "class")]
    out += [ColSpec("double", f"probability_{name}") for name in document.classes]
    out += [ColSpec("float", f"logit_{name}") for name in document.classes]
    rows = modality_of(document.input.modality).mlflow_schema(document.input, example)
    return ModelSignature(inputs=rows, outputs=Schema(out))


def requirements() -> list[str]:
    """Pins of what loading needs, from what is installed: no index is asked.

    Without Holdfast, which a version carries: who owns that name in an index must not matter.
    """
    return [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED]


def load_model(uri: str, *, tracking: str | None = None, trust: Path | None = None) -> PyfuncModel:
    """The model of `models:/NAME@ALIAS` or `models:/NAME/VERSION`, after every byte of it was verified.

    Args:
        uri: As MLflow writes it.
        tracking: MLflow's address; left out, the environment's `MLFLOW_TRACKING_URI`, and without that the project's
            own (`sqlite:///.holdfast/mlflow.db`).
        trust: A trust policy (`trust.yaml`): whose signatures must be behind the model.

    Raises:
        RegistryError: MLflow cannot be reached, or has no such version.
        IntegrityError: bytes are not those that were registered, or the tags that pin them are gone.
        RefusedError: no passing decision about these very bytes, or a signature that is demanded is not there.
        InputError: `uri` is written otherwise.
    """
    from holdfast import registry
    from holdfast.attestation.demands import Demands
    from holdfast.options import TRACKING

    name, version = registry.named(uri)
    store = tracking or os.environ.get("MLFLOW_TRACKING_URI") or TRACKING
    with registry.fetched(store, name, version, Demands.of(trust)) as bundle:
        if bundle is None:
            raise RegistryError(f"{uri}: expected a registered version, found none in {registry.public(store)}")
        return _loaded(bundle)


def _load_pyfunc(path: str) -> PyfuncModel:
    """Called by MLflow with the folder of the bundle; every byte is verified before it is used."""
    from holdfast.registry import read_bundle

    return _loaded(read_bundle(Path(path), Path(path).name, 0))


def _loaded(bundle: "Bundle") -> PyfuncModel:
    from holdfast.model.networks import load_network

    return PyfuncModel(load_network(bundle.model, "cpu"), bundle.model.document)
