"""What serving a model means, without any server: admit, load, check, answer.

A model is admitted only with the gate decision that judged its very bytes and passed them. Everything here works on
folders and arrays; `runtime` puts MLServer's protocol around it, `seldon_face` that of Seldon's wrapper.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec, Model
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.errors import InputError, IntegrityError, ModelError, RefusedError
from holdfast.modality import modality_of
from holdfast.serving.predictor.admission import admit
from holdfast.serving.predictor.options import MAX_ROWS, Options

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Answer:
    """One answer to N rows."""

    label: NDArray[np.int64]
    """int64[N], indices into the classes: where the logit is largest."""
    probabilities: NDArray[np.floating]
    """float32[N, classes], or float64 where they are rounded, so that 0.1 is written as 0.1."""


@dataclass(frozen=True)
class Predictor:
    """One loaded model, and how its answers are given."""

    model: Artifact[Model]
    network: "nn.Module"
    options: Options = field(default_factory=Options)

    @property
    def spec(self) -> InputSpec:
        """What one row looks like."""
        return self.model.document.input

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.model.document.classes

    def check(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """The rows of one request, found right by `check_rows`.

        Raises:
            InputError: names what was expected and what came.
        """
        return check_rows(x, self.spec, self.options.max_rows)

    def answer(self, x: NDArray[np.generic]) -> Answer:
        """Labels and probabilities of rows that `check` let through.

        Raises:
            ModelError: the network gave another shape, NaN or infinity.
        """
        import torch

        options, expected = self.options, (len(x), len(self.classes))
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(x)).float()
            cooled = logits if options.temperature == 1 else logits / options.temperature
            probabilities = torch.softmax(cooled, dim=1).numpy()
        # What a softmax gives is in [0, 1] or NaN, and the maximum of an array with a NaN is NaN.
        if probabilities.shape != expected or not math.isfinite(probabilities.max()):
            raise ModelError(f"{self.model.folder}: expected finite logits {expected}, found {probabilities.shape}")
        label = logits.numpy().argmax(axis=1)
        if options.decimals is not None:
            probabilities = probabilities.astype(np.float64).round(options.decimals)
        return Answer(label, probabilities)


def load_predictor(model: Ref, decision: Ref, options: Options | None = None, trust: Path | None = None) -> Predictor:
    """Admits the model, then loads it on the CPU with one thread, and answers once to see that it can.

    Raises:
        RefusedError: as `admit`.
        ModelError: the network does not behave as its document promises.
    """
    return load_admitted(admit(model, decision, trust), options or Options())


def load_admitted(artifact: Artifact[Model], options: Options) -> Predictor:
    """Loads as `load_predictor` a model that `admit` let through; its bytes are hashed once more as they are read.

    Raises:
        RefusedError: a file was altered since.
        ModelError: the network does not behave as its document promises.
    """
    import torch

    from holdfast.model.networks import load_network

    torch.set_num_threads(1)
    try:
        network = load_network(artifact, "cpu")
    except IntegrityError as error:
        raise RefusedError(f"{error}; the model is not served") from error
    predictor = Predictor(artifact, network, options)
    spec = artifact.document.input
    predictor.answer(np.zeros((1, *spec.shape), dtype=spec.dtype))
    return predictor


def check_rows(x: NDArray[np.generic], spec: InputSpec, max_rows: int = MAX_ROWS) -> NDArray[np.generic]:
    """The rows as `dtype[N, *shape]`, after shape, kind, finiteness and bounds were found right.

    Images keep to the spec's limits, character ids to the alphabet. Table values are only required to be finite:
    the limits in the document are those of the training rows, and live rows may lie beyond.

    Raises:
        InputError: names what was expected and what came.
    """
    # Every operation counts here: between two requests a server evicts this code from the processor's caches.
    shape = x.shape
    if shape[1:] != spec.shape or not 1 <= shape[0] <= max_rows:
        raise InputError(f"input: expected shape [1..{max_rows}, {_join(spec.shape)}], found [{_join(shape)}]")
    rows = x if x.dtype == spec.dtype and x.flags.c_contiguous else _converted(x, spec.dtype)
    low, high = float(rows.min()), float(rows.max())
    # The minimum of an array with a NaN is NaN, which is within no bounds.
    if not (-math.inf < low and high < math.inf):
        raise InputError("input: expected finite numbers, found NaN or infinity")
    bounds = modality_of(spec.modality).value_range(spec)
    if bounds and (low < bounds[0] or high > bounds[1]):
        raise InputError(f"input: expected values in [{bounds[0]:g}, {bounds[1]:g}], found [{low:g}, {high:g}]")
    return rows


def from_doubles(x: object, spec: InputSpec) -> NDArray[np.generic]:
    """Rows from a protocol that knows one kind of number, in the kind that the spec asks for; not checked further.

    Raises:
        InputError: no array of numbers, or fractions where whole numbers are expected.
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "iuf":
        found = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InputError(f"input: expected an array of numbers, found {found}")
    if spec.dtype != "int64" or x.dtype.kind != "f":
        return x.astype(np.float64 if spec.dtype != "int64" else np.int64, copy=False)
    if not ((np.abs(x) < 2**53) & (x == np.trunc(x))).all():
        raise InputError("input: expected whole numbers, found others")
    return x.astype(np.int64)


def _converted(x: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    if x.dtype.kind != np.dtype(dtype).kind:
        raise InputError(f"input: expected {dtype}, found {x.dtype}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and infinity is refused
        return np.ascontiguousarray(x, dtype=dtype)


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)
