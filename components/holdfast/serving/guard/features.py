"""Where the guard measures distances: what the network makes of a row before it decides."""

import threading
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from holdfast.artifacts.documents import InputSpec
from holdfast.serving.guard.calibration import FeatureRows, Samples

FeatureKind = Literal["penultimate", "columns", "logits"]
_AT_ONCE = 512


def kind_of(network: nn.Module, spec: InputSpec) -> FeatureKind:
    """Scaled columns for a table, activations before the last layer of a built-in network, logits of any other."""
    if spec.features:
        return "columns"
    return "penultimate" if isinstance(getattr(network, "last", None), nn.Linear) else "logits"


class Tap:
    """Keeps what a network makes of the rows that it is asked about, for the thread that asks; costs no second pass."""

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        self.kind, self._kept = kind_of(network, spec), threading.local()
        self._columns = _scales(spec)
        self._hook: RemovableHandle | None = None
        if self.kind == "penultimate":
            self._hook = network.last.register_forward_hook(self._keep_input)  # type: ignore[union-attr]
        elif self.kind == "logits":
            self._hook = network.register_forward_hook(self._keep_output)

    def close(self) -> None:
        """Leaves the network as it was."""
        if self._hook is not None:
            self._hook.remove()

    def samples(self, x: NDArray[np.generic], labels: NDArray[np.int64]) -> Samples:
        """The rows as the guard sees them, right after this thread's network gave x these labels."""
        return Samples(self._features(x), labels)

    def _features(self, x: NDArray[np.generic]) -> FeatureRows:
        if self.kind == "columns":
            mean, scale = self._columns
            scaled: FeatureRows = ((x.reshape(len(x), -1).astype(np.float32) - mean) / scale).astype(np.float32)
            return scaled
        kept: FeatureRows = self._kept.features
        return kept

    def _keep_input(self, _: nn.Module, given: tuple[torch.Tensor, ...], __: torch.Tensor) -> None:
        self._kept.features = given[0].detach().float().cpu().numpy()

    def _keep_output(self, _: nn.Module, __: tuple[torch.Tensor, ...], found: torch.Tensor) -> None:
        self._kept.features = found.detach().float().cpu().numpy()


def see(network: nn.Module, spec: InputSpec, x: NDArray[np.generic], device: str) -> Samples:
    """What the guard sees of network inputs, many at once."""
    tap, parts = Tap(network, spec), []
    with torch.inference_mode():
        for start in range(0, len(x), _AT_ONCE):
            rows = np.ascontiguousarray(x[start : start + _AT_ONCE])
            labels = network(torch.from_numpy(rows).to(device)).argmax(1).cpu().numpy()
            parts.append(tap.samples(rows, labels))
    tap.close()
    features = np.concatenate([part.features for part in parts])
    return Samples(features, np.concatenate([part.labels for part in parts]))


def _scales(spec: InputSpec) -> tuple[FeatureRows, FeatureRows]:
    mean = np.array([feature.mean for feature in spec.features], dtype=np.float32)
    return mean, np.array([feature.scale for feature in spec.features], dtype=np.float32)
