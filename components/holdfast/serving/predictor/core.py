"""What serving a model means, without any server: admit, load, check, answer.

A model is admitted only with the gate decision that judged its very bytes and passed them. Everything here works on
folders and arrays; `runtime` puts MLServer's protocol around it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec, Model
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.errors import InputError, ModelError
from holdfast.serving.predictor.admission import admit

if TYPE_CHECKING:
    from torch import nn

MAX_ROWS = 1024
"""Most rows in one request."""
SYMBOLS = 258
"""Character ids lie below it (`holdfast.model.inputs`)."""


@dataclass(frozen=True)
class Answer:
    """One answer: label int64[N] (index into the classes), probabilities float32[N, classes]."""

    label: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Predictor:
    """One loaded model."""

    model: Artifact[Model]
    network: "nn.Module"

    @property
    def spec(self) -> InputSpec:
        """What one row looks like."""
        return self.model.document.input

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.model.document.classes

    def answer(self, x: NDArray[np.generic]) -> Answer:
        """Labels and probabilities of rows that `check_rows` let through.

        Raises:
            ModelError: the network gave another shape, NaN or infinity.
        """
        import torch

        with torch.inference_mode():
            logits = self.network(torch.from_numpy(x))
            probabilities = torch.softmax(logits.float(), dim=1).numpy()
        if probabilities.shape != (len(x), len(self.classes)) or not np.isfinite(probabilities).all():
            expected = (len(x), len(self.classes))
            raise ModelError(f"{self.model.folder}: expected finite logits {expected}, found {probabilities.shape}")
        return Answer(probabilities.argmax(axis=1), probabilities)


def load_predictor(model: Ref, decision: Ref) -> Predictor:
    """Admits the model, then loads it on the CPU with one thread, and answers once to see that it can.

    Raises:
        RefusedError: as `admit`.
        ModelError: the network does not behave as its document says.
    """
    import torch

    from holdfast.model.networks import load_network

    artifact = admit(model, decision)
    torch.set_num_threads(1)
    predictor = Predictor(artifact, load_network(artifact, "cpu"))
    spec = artifact.document.input
    predictor.answer(np.zeros((1, *spec.shape), dtype=spec.dtype))
    return predictor


def check_rows(x: NDArray[np.generic], spec: InputSpec) -> NDArray[np.generic]:
    """The rows as `dtype[N, *shape]`, after shape, kind, finiteness and bounds were found right.

    Images keep to the spec's limits, character ids to the alphabet. Table values are only required to be finite:
    the limits in the document are those of the training rows, and live rows may lie beyond.

    Raises:
        InputError: says what was expected and what came.
    """
    if x.ndim != len(spec.shape) + 1 or x.shape[1:] != spec.shape or not 1 <= len(x) <= MAX_ROWS:
        raise InputError(f"input: expected shape [1..{MAX_ROWS}, {_join(spec.shape)}], found [{_join(x.shape)}]")
    if x.dtype.kind != np.dtype(spec.dtype).kind:
        raise InputError(f"input: expected {spec.dtype}, found {x.dtype}")
    rows = np.ascontiguousarray(x, dtype=spec.dtype)
    if not np.isfinite(rows).all():
        raise InputError("input: expected finite numbers, found NaN or infinity")
    bounds = _bounds(spec)
    if bounds and (rows.min() < bounds[0] or rows.max() > bounds[1]):
        raise InputError(
            f"input: expected values in [{bounds[0]:g}, {bounds[1]:g}], found [{rows.min():g}, {rows.max():g}]"
        )
    return rows


def _bounds(spec: InputSpec) -> tuple[float, float] | None:
    if spec.modality == "image":
        return spec.lower, spec.upper
    return (0, SYMBOLS - 1) if spec.modality == "text" else None


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)
