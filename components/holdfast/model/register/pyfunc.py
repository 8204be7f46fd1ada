"""The registered model as MLflow's pyfunc: `mlflow.pyfunc.load_model("models:/NAME@champion").predict(rows)`.

Rows as they are delivered go in (images in delivered units, a table, messages), the predictions that the gate judged
come out. Loading reads safetensors weights that were hashed against the gate's decision; nothing is unpickled and no
code is taken from the store: `holdfast` itself is the loader.
"""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column, InputSpec, Model
from holdfast.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature
    from torch import nn

NEEDED = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")


class Predictor:
    """A verified network with its way from rows to answers."""

    def __init__(self, network: "nn.Module", document: Model, device: str = "cpu") -> None:
        self.network, self.document, self.device = network, document, device

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """One line per row: `class`, then `probability_C` and `logit_C` for every class C."""
        from holdfast.model.inputs import encode
        from holdfast.model.networks import logits

        x = encode(rows(model_input, self.document.input), self.document.input)
        return answers(logits(self.network, x, device=self.device), self.document.classes)


def rows(model_input: Any, spec: InputSpec) -> Any:
    """What `encode` takes, from the kinds of input that MLflow hands over.

    Raises:
        InputError: a kind of input that does not fit the modality.
    """
    import pandas as pd

    if spec.modality == "text":
        return [str(message) for message in _messages(model_input, spec)]
    if spec.modality == "tabular":
        if not isinstance(model_input, pd.DataFrame):
            raise InputError(f"input: expected a DataFrame, found {type(model_input).__name__}")
        return model_input
    if not isinstance(model_input, np.ndarray):
        raise InputError(f"input: expected images as an array, found {type(model_input).__name__}")
    return model_input


def answers(values: NDArray[np.float32], classes: tuple[str, ...]) -> "pd.DataFrame":
    """The frame that `predict` gives, from logits float32[N, classes]."""
    import pandas as pd

    shares = softmax(values)
    frame = {"class": np.asarray(classes, dtype=object)[values.argmax(axis=1)]}
    frame |= {f"probability_{name}": shares[:, i] for i, name in enumerate(classes)}
    frame |= {f"logit_{name}": values[:, i] for i, name in enumerate(classes)}
    return pd.DataFrame(frame)


def softmax(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities float64[N, classes] of logits."""
    shifted = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def signature(document: Model, example: Any) -> "ModelSignature":
    """What MLflow shows and enforces: rows as delivered in, class names, probabilities and logits out."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    out = [ColSpec("string", "class")]
    out += [ColSpec("double", f"probability_{name}") for name in document.classes]
    out += [ColSpec("float", f"logit_{name}") for name in document.classes]
    return ModelSignature(inputs=_inputs(document.input, example), outputs=Schema(out))


def requirements() -> list[str]:
    """Pins of what loading needs, from what is installed: no index is asked."""
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED]
    return [f"holdfast=={version('holdfast')}", *pins]


def _inputs(spec: InputSpec, example: Any) -> Any:
    from mlflow.types.schema import ColSpec, Schema, TensorSpec

    if spec.modality == "image":
        return Schema([TensorSpec(example.dtype, (-1, *spec.shape))])
    if spec.modality == "text":
        # Without a name, so that a list or a Series of messages does.
        return Schema([ColSpec("string")])
    return Schema([ColSpec(_kind(column), column.name) for column in spec.columns])


def _kind(column: Column) -> str:
    if column.kind != "number":
        return "string"
    # MLflow takes whole numbers for a long and refuses them for a double.
    return "long" if column.integer else "double"


def _messages(model_input: Any, spec: InputSpec) -> Any:
    import pandas as pd

    if isinstance(model_input, pd.DataFrame):
        named = [column.name for column in spec.columns if column.kind == "text" and column.name in model_input]
        return model_input[named[0]] if named else model_input.iloc[:, 0]
    if isinstance(model_input, list | tuple | pd.Series | np.ndarray):
        return model_input
    raise InputError(f"input: expected messages as a list, Series or table, found {type(model_input).__name__}")


def _load_pyfunc(path: str) -> Predictor:
    """Called by MLflow with the folder of the bundle; every byte is verified before it is used."""
    from holdfast.model.networks import load_network
    from holdfast.registry import read_bundle

    bundle = read_bundle(Path(path), Path(path).name, 0)
    return Predictor(load_network(bundle.model, "cpu"), bundle.model.document)
