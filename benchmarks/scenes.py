"""What benchmarks run on: the images, tables and messages, and networks trained once and kept in .holdfast/bench."""

import hashlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.table import ROOT, cpu_seconds
from holdfast.artifacts.documents import InputSpec, ThreatModel
from holdfast.errors import InputError
from holdfast.modality.ball import Ball
from holdfast.model.inputs import Arrays
from holdfast.model.networks import build
from holdfast.workload.schema import NetworkConfig

CACHE = ROOT / ".holdfast" / "bench"


@dataclass(frozen=True)
class Images:
    """An image set in [0, 1] and the threat model: x float32[N, C, H, W], y int64[N]."""

    name: str
    train: Arrays
    test: Arrays
    epsilon: Fraction

    @classmethod
    def read(cls, path: Path, epsilon: Fraction) -> "Images":
        """An NPZ with x_train, y_train, x_test, y_test: uint8[N, H, W] or [N, C, H, W].

        Raises:
            InputError: there is no such file, or an array is missing.
        """
        if not path.is_file():
            raise InputError(f"{path}: expected an NPZ of images, found no file; give one with --images")
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays.files)
            if missing:
                raise InputError(f"{path}: expected the array {min(missing)}, found {arrays.files}")
            train, test = (
                Arrays(_scaled(arrays[f"x_{s}"]), arrays[f"y_{s}"].astype(np.int64)) for s in ("train", "test")
            )
        return cls(path.stem, train, test, epsilon)

    @cached_property
    def spec(self) -> InputSpec:
        """What a network takes."""
        return InputSpec(modality="image", shape=tuple(self.train.x.shape[1:]), dtype="float32", raw_upper=255.0)

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.train.y.max()) + 1

    @property
    def ball(self) -> Ball:
        """What the attacker reaches."""
        unit = "input units [0, 1]"
        return Ball.of(ThreatModel(norm="linf", epsilon=self.epsilon, unit=unit), self.spec, "cpu")

    def tensors(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` held-out rows."""
        return torch.from_numpy(self.test.x[:count]), torch.from_numpy(self.test.y[:count])

    def network(self, architecture: str = "cnn", *, seed: int = 0, **arguments: int) -> nn.Module:
        """A built-in network with initial weights; `cnn` has 167 thousand parameters at 28 x 28."""
        config = NetworkConfig(architecture=architecture, arguments=dict(arguments))
        return build(config, self.spec, self.classes, seed)

    def trained(self, name: str, make: Callable[[], nn.Module], empty: nn.Module) -> tuple[nn.Module, float]:
        """The network that `make` trains, or its weights from the last run that had the same code and data.

        Returns the network in eval mode, frozen, and the CPU-seconds of its training, measured when it was trained.
        """
        source = inspect.getsource(make) + f"{self.epsilon} {training_code()}"
        data = hashlib.sha256(self.train.x[:1000].tobytes() + self.train.y.tobytes()).hexdigest()
        return kept(name, f"{name} {source} {data}", make, empty)


def kept(name: str, made_from: str, make: Callable[[], nn.Module], empty: nn.Module) -> tuple[nn.Module, float]:
    """The network that `make` trains, or its weights from the last run in which `made_from` was the same.

    Returns the network in eval mode, frozen, and the CPU-seconds of its training, measured when it was trained.
    """
    path = CACHE / f"{name}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.safetensors"
    if not path.is_file():
        made: list[nn.Module] = []
        seconds = cpu_seconds(lambda: made.append(make()))
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {k: v.contiguous() for k, v in made[0].state_dict().items()}
        save_file(weights, path, metadata={"cpu_seconds": f"{seconds:.1f}"})
    with safe_open(path, "pt") as file:
        empty.load_state_dict({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118
        seconds = float(file.metadata()["cpu_seconds"])
    for parameter in empty.parameters():
        parameter.requires_grad_(False)
    return empty.eval(), seconds


@dataclass(frozen=True)
class Bench:
    """What every benchmark gets."""

    images_path: Path
    epsilon: Fraction
    folder: Path
    """Of the tables and messages."""
    seeds: int
    """How many seeds a rate over seeds takes."""

    @cached_property
    def images(self) -> Images:
        """The image set."""
        return Images.read(self.images_path, self.epsilon)

    def file(self, name: str) -> Path:
        """A table or a message file.

        Raises:
            InputError: it is not there.
        """
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path}: expected the data set {name}, found no file; give its folder with --data")
        return path


def default_folder() -> Path:
    """Where the data sets lie unless told otherwise."""
    return Path(os.environ.get("HOLDFAST_SHARED", ROOT.parent / "shared")) / "data"


def training_code() -> str:
    """Digest of the code that decides the weights: another loop trains another network."""
    product = ROOT / "components" / "holdfast"
    files = [product / "model" / "networks.py", *sorted((product / "modality").glob("*.py"))]
    files += [product / "model" / "train" / f"{name}.py" for name in ("adversarial", "recipes", "interval")]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _scaled(x: np.ndarray) -> np.ndarray:
    images = x[:, None] if x.ndim == 3 else x
    return images.astype(np.float32) / 255
