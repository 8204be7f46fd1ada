"""Networks: the built-in ones, the user's own (`module:function`), and what every one of them must do.

A network takes a batch as `InputSpec` describes it and returns float32 logits[N, classes]. Built-in networks also give
`features(x)`, float32[N, F]: the activations before the last layer.
"""

import inspect
import io
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.artifacts.documents import InputSpec, Model, Scalar
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError, ModelError
from holdfast.modality import MODALITIES
from holdfast.modality.text import PAD, SYMBOLS
from holdfast.model.files import program, safetensors
from holdfast.model.own_code import asked_for, find_function, is_own

WEIGHTS, PROGRAM = "weights.safetensors", "program.pt2"
MAX_BYTES = 4 * 2**30
"""Of either file."""
SMALLEST_SIDE = 8
_SUM_TOLERANCE = 1e-3


class NetworkLike(Protocol):
    """A name and keyword arguments, as `NetworkConfig` has them."""

    @property
    def architecture(self) -> str:
        """`cnn`, `mlp`, `text` or `module:function`."""

    @property
    def arguments(self) -> dict[str, Scalar]:
        """Keyword arguments of the network."""


class Cnn(nn.Module):
    """Convolutions until the shorter side is at most 8, then two linear layers; images float32[N, C, H, W] in [0, 1].

    At 28 x 28 this is conv16(4, s2)-conv32(4, s2)-fc100 (Wong and Kolter 2018), 166 thousand parameters.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, width: int = 16, hidden: int = 100) -> None:
        super().__init__()
        channels, height, width_in = shape
        side = min(height, width_in)
        if side < SMALLEST_SIDE:
            raise ModelError(f"cnn: expected images of at least 8 x 8, found {height} x {width_in}")
        first = _conv(channels, width, 2 if side >= 2 * SMALLEST_SIDE else 1)
        convs = [first, nn.ReLU(), _conv(width, 2 * width, 2), nn.ReLU()]
        side = side // 4 if side >= 2 * SMALLEST_SIDE else side // 2
        while side > SMALLEST_SIDE:
            convs += [_conv(2 * width, 2 * width, 2), nn.ReLU()]
            side //= 2
        self.body = nn.Sequential(*convs, nn.Flatten())
        flat = self.body(torch.zeros(1, *shape)).shape[1]
        self.penultimate = nn.Linear(flat, hidden)
        self.last = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        """float32[N, hidden]: activations before the last layer."""
        return torch.relu(self.penultimate(self.body(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        out: Tensor = self.last(self.features(x))
        return out


class Mlp(nn.Module):
    """Linear layers on standardized features; the means and scales are part of the network."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: InputSpec, classes: int, *, hidden: int = 64, layers: int = 2) -> None:
        super().__init__()
        count = int(np.prod(spec.shape))
        self.register_buffer("mean", torch.tensor([f.mean for f in spec.features] or [0.5] * count))
        self.register_buffer("scale", torch.tensor([f.scale for f in spec.features] or [0.5] * count))
        widths = [count, *[hidden] * layers]
        self.body = nn.Sequential(*[part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())])
        self.last = nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        """float32[N, hidden]: activations before the last layer."""
        out: Tensor = self.body((x.flatten(1) - self.mean) / self.scale)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        out: Tensor = self.last(self.features(x))
        return out


class Text(nn.Module):
    """Characters int64[N, L]: embedding, convolutions of several lengths, their maximum over the message, one layer.

    Each filter finds a sequence of `shortest` to `longest` characters wherever it is (Kim 2014, arXiv:1408.5882).
    """

    def __init__(
        self,
        classes: int,
        *,
        embedding: int = 32,
        width: int = 64,
        shortest: int = 2,
        longest: int = 6,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        lengths = range(shortest, longest + 1)
        self.table = nn.Embedding(SYMBOLS, embedding, padding_idx=PAD)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, width, k, padding=k // 2) for k in lengths)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width * len(lengths), classes)

    def embed(self, ids: Tensor) -> Tensor:
        """float32[N, L, E]; padding is exactly zero."""
        out: Tensor = self.table(ids)
        return out

    def features_embedded(self, embedded: Tensor) -> Tensor:
        """float32[N, filters] of embedded characters float32[N, L, E]."""
        # Only padding is exactly zero, so the mask travels inside the embedding.
        there = (embedded != 0).any(2, keepdim=True).transpose(1, 2).to(embedded.dtype)
        channels, length = embedded.transpose(1, 2), embedded.shape[1]
        found = [torch.relu(convolution(channels))[..., :length] * there for convolution in self.convolutions]
        return torch.cat([activations.amax(2) for activations in found], dim=1)

    def forward_embedded(self, embedded: Tensor) -> Tensor:
        """Logits float32[N, classes] of embedded characters float32[N, L, E]."""
        out: Tensor = self.last(self.dropout(self.features_embedded(embedded)))
        return out

    def features(self, ids: Tensor) -> Tensor:
        """float32[N, filters]: activations before the last layer."""
        return self.features_embedded(self.embed(ids))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        return self.forward_embedded(self.embed(ids))


def build(network: NetworkLike, spec: InputSpec, classes: int, seed: int) -> nn.Module:
    """A network with initial weights that depend on `seed` alone, on the CPU.

    Raises:
        ModelError: the name or its arguments do not lead to a network for this input.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if is_builtin(network.architecture):
            return _build_builtin(network, spec, classes)
        return _build_own(network, spec, classes)


def is_builtin(architecture: str) -> bool:
    """Whether the name means one of Holdfast's networks."""
    return not is_own(architecture)


def load_network(artifact: Artifact[Model], device: str) -> nn.Module:
    """The network of a model artifact, for inference, its weights frozen; bytes are checked against their digests.

    Built-in networks come from `weights.safetensors`; the user's own from `program.pt2`, so that their code is not
    needed and not run. Either file is held to its format before its loader sees it (`holdfast.model.files`).

    Raises:
        ModelError: a file that is not well-formed, or asks for more than tensors and operators.
    """
    from safetensors.torch import load

    document = artifact.document
    if not is_builtin(document.architecture.name):
        data = _checked(artifact, PROGRAM, program.check)
        return _frozen(torch.export.load(io.BytesIO(data)).module()).to(device)
    network = build(_Named(document.architecture.name, document.architecture.arguments), *_sizes(document), seed=0)
    weights = load(_checked(artifact, WEIGHTS, safetensors.check))
    _load_weights(network, weights, f"{artifact.folder / WEIGHTS}")
    return _frozen(network.eval()).to(device)


def start_from(net: nn.Module, champion: Artifact[Model]) -> None:
    """Gives a network the weights of a model whose network is the same; they stay trainable.

    Raises:
        ModelError: a file that is not well-formed, or weights of another network.
    """
    from safetensors.torch import load

    weights = load(_checked(champion, WEIGHTS, safetensors.check))
    _load_weights(net, weights, f"{champion.folder / WEIGHTS}")


def logits(net: nn.Module, x: NDArray[np.generic], *, device: str, batch: int = 512) -> NDArray[np.float32]:
    """Logits float32[N, classes] of network inputs, without gradients."""
    parts: list[NDArray[np.float32]] = []
    with torch.no_grad():
        for start in range(0, len(x), batch):
            rows = torch.from_numpy(np.ascontiguousarray(x[start : start + batch])).to(device)
            parts.append(net(rows).float().cpu().numpy())
    return np.concatenate(parts)


def check_logits(found: "NDArray[np.float32] | Tensor", classes: int, *, name: str) -> None:
    """Refuses what is not a batch of logits[N, classes].

    Raises:
        ModelError: another shape, NaN or infinity, or probabilities where logits belong.
    """
    values = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
    if values.ndim != 2 or values.shape[1] != classes:
        raise ModelError(f"{name}: expected logits of shape (N, {classes}), found {values.shape}")
    if not np.isfinite(values).all():
        raise ModelError(f"{name}: expected finite logits, found NaN or infinity")
    if is_probabilities(values):
        raise ModelError(f"{name}: expected logits, found probabilities (rows sum to 1); leave out the softmax")


def is_probabilities(values: NDArray[np.floating[Any]]) -> bool:
    """Whether every row of values[N, classes] lies in [0, 1] and sums to 1."""
    inside = bool((values >= 0).all() and (values <= 1).all())
    return inside and bool(np.allclose(values.sum(axis=1), 1, atol=_SUM_TOLERANCE))


def parameters(net: nn.Module) -> int:
    """How many trained numbers the network has."""
    return sum(p.numel() for p in net.parameters())


class _Named:
    """An architecture by name and arguments."""

    def __init__(self, architecture: str, arguments: dict[str, Scalar]) -> None:
        self.architecture = architecture
        self.arguments = arguments


def _sizes(document: Model) -> tuple[InputSpec, int]:
    return document.input, len(document.classes)


def _conv(channels: int, out: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, out, 3 if stride == 1 else 4, stride=stride, padding=1)


def _build_builtin(network: NetworkLike, spec: InputSpec, classes: int) -> nn.Module:
    name = network.architecture
    fitting = [modality.name for modality in MODALITIES.values() if name in modality.networks]
    if not fitting:
        raise ModelError(f"network {name!r}: expected cnn, mlp, text or module:function")
    if spec.modality not in fitting:
        raise ModelError(f"network {name!r}: expected {' or '.join(fitting)} data, found {spec.modality}")
    makers: Mapping[str, Callable[..., nn.Module]] = {
        "cnn": lambda **arguments: Cnn(spec.shape, classes, **arguments),
        "mlp": lambda **arguments: Mlp(spec, classes, **arguments),
        "text": lambda **arguments: Text(classes, **arguments),
    }
    return _call(makers[name], name, network.arguments)


def _build_own(network: NetworkLike, spec: InputSpec, classes: int) -> nn.Module:
    name = network.architecture
    function = find_function(name, "network")
    offered = asked_for(function, {"shape": spec.shape, "classes": classes})
    net = _call(function, name, {**offered, **network.arguments})
    if not isinstance(net, nn.Module):
        raise ModelError(f"network {name!r}: expected a torch.nn.Module, found {type(net).__name__}")
    _try(net, spec, classes, name)
    return net


def _call(function: Callable[..., object], name: str, arguments: Mapping[str, object]) -> nn.Module:
    try:
        inspect.signature(function).bind(**arguments)
        return function(**arguments)  # type: ignore[return-value]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"network {name!r} with {dict(arguments)}: {error}") from None


def _try(net: nn.Module, spec: InputSpec, classes: int, name: str) -> None:
    """Runs two neutral inputs through a user's network."""
    dtype = torch.float32 if spec.dtype == "float32" else torch.int64
    x = torch.zeros(2, *spec.shape, dtype=dtype)
    if spec.features:
        x += torch.tensor([f.mean for f in spec.features])
    was, before = net.training, x.clone()
    try:
        with torch.no_grad():
            found = net.eval()(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"network {name!r}: expected to take {spec.dtype}{[2, *spec.shape]}, found {first}") from None
    net.train(was)
    if not torch.equal(x, before):
        raise ModelError(f"network {name!r}: expected its input to stay as it is, found it changed in place")
    if not isinstance(found, Tensor):
        raise ModelError(f"network {name!r}: expected a tensor of logits, found {type(found).__name__}")
    check_logits(found, classes, name=f"network {name!r}")


def _checked(artifact: Artifact[Model], name: str, check: Callable[[bytes], None]) -> bytes:
    pin = artifact.document.files.get(name)
    if pin is not None and pin.bytes > MAX_BYTES:
        found = f"found {pin.bytes}"
        raise ModelError(f"{artifact.folder / name}: expected at most {MAX_BYTES} bytes, {found}; it is not loaded")
    data = artifact.open(name).getvalue()
    try:
        check(data)
    except InputError as error:
        raise ModelError(f"{artifact.folder / name}: {error}; it is not loaded") from None
    return data


def _load_weights(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{name}: expected the weights of this architecture, found {_one_line(error)}") from None
    if not all(bool(torch.isfinite(w).all()) for w in weights.values()):
        raise ModelError(f"{name}: expected finite weights, found NaN or infinity")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _frozen(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net
