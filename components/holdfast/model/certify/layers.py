"""A network as a chain of affine layers and ReLUs, which bounds can be pushed through in both directions.

Reads the networks that Holdfast builds (`Cnn`, `Mlp`), a user's own as it comes from `program.pt2`, and any module made
of linear layers, convolutions, ReLU, flattening, batch normalization in eval mode, and arithmetic with constants.
The chain shares the network's parameters: gradients flow through it.

c, r: centre and radius of a box; A: the coefficients of linear functions of a layer's output, float[M, *out].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import conv2d, linear
from torch.nn.grad import conv2d_input

from holdfast.errors import ModelError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Relu:
    """max(x, 0), entry by entry."""


@dataclass(frozen=True)
class Linear:
    """A fully connected layer, W x + b.

    As all affine layers it has `forward` (W x + b), `spread` (|W| r: the radius of a box's image) and `back`: linear
    functions A of its output, float[M, *out], as functions A W of its input, float[M, *shape].
    """

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """float[N, ..., out]."""
        return linear(x, self.weight, self.bias)

    def spread(self, r: Tensor) -> Tensor:
        """float[N, ..., out]."""
        return linear(r, self.weight.abs())

    def back(self, A: Tensor, shape: Shape) -> Tensor:
        """float[M, ..., in]."""
        return A @ self.weight


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W]."""
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def spread(self, r: Tensor) -> Tensor:
        """float[N, C, H, W]."""
        return conv2d(r, self.weight.abs(), None, self.stride, self.padding, self.dilation, self.groups)

    def back(self, A: Tensor, shape: Shape) -> Tensor:
        """float[M, C, H, W]."""
        size = (len(A), *shape)
        found: Tensor = conv2d_input(size, self.weight, A, self.stride, self.padding, self.dilation, self.groups)
        return found


@dataclass(frozen=True)
class Scale:
    """factor * x + shift with constants of one example's shape, or broadcastable to it."""

    factor: Tensor
    shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """As x."""
        return x * self.factor + self.shift

    def spread(self, r: Tensor) -> Tensor:
        """As r."""
        return r * self.factor.abs()

    def back(self, A: Tensor, shape: Shape) -> Tensor:
        """As A."""
        return A * self.factor


@dataclass(frozen=True)
class Reshape:
    """Another shape of one example; -1 at most once."""

    shape: Shape

    def forward(self, x: Tensor) -> Tensor:
        """`[N, *shape]`."""
        return x.reshape(len(x), *self.shape)

    spread = forward

    def back(self, A: Tensor, shape: Shape) -> Tensor:
        """`[M, *shape]` of the input."""
        return A.reshape(len(A), *shape)


Affine = Linear | Convolution | Scale | Reshape
Layer = Affine | Relu


@dataclass(frozen=True)
class Chain:
    """Layers in order; `shapes[i]` is the shape of one example before layer i, the last one that of the logits."""

    layers: tuple[Layer, ...]
    shapes: tuple[Shape, ...]

    @property
    def relus(self) -> tuple[int, ...]:
        """The positions of the ReLUs."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer, Relu))


def read_chain(net: nn.Module, x: Tensor) -> Chain:
    """The chain of a network for inputs like x `[N, ...]`, on x's device and in x's precision.

    Raises:
        ModelError: a layer that bounds do not know, by its name, or layers that are not in one line.
    """
    layers = tuple(_in_precision(layer, x) for layer in _Reader(net, tuple(x.shape[1:])).read())
    return Chain(layers, _shapes(layers, x))


def _shapes(layers: Sequence[Layer], x: Tensor) -> tuple[Shape, ...]:
    value, shapes = torch.zeros_like(x[:1]), [tuple(x.shape[1:])]
    with torch.no_grad():
        for layer in layers:
            before, value = value, value if isinstance(layer, Relu) else layer.forward(value)
            if isinstance(layer, Scale) and value.shape != before.shape:
                raise ModelError(
                    f"bounds: expected constants of the shape {shapes[-1]}, found {tuple(layer.shift.shape)}"
                )
            shapes.append(tuple(value.shape[1:]))
    return tuple(shapes)


def _in_precision(layer: Layer, x: Tensor) -> Layer:
    if isinstance(layer, Scale):
        return Scale(layer.factor.to(x), layer.shift.to(x))
    if isinstance(layer, Linear | Convolution) and layer.weight.dtype != x.dtype:
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return replace(layer, weight=layer.weight.to(x.dtype), bias=bias)
    return layer


class _Reader:
    """Walks the traced graph; `tip` is the node that the chain has come to."""

    def __init__(self, net: nn.Module, shape: Shape) -> None:
        self.net = net
        self.spatial = len(shape) == 3
        self.constants: dict[fx.Node, Tensor] = {}
        self.tip: fx.Node | None = None

    def read(self) -> list[Layer]:
        layers: list[Layer] = []
        for node in _graph(self.net).nodes:
            if node.op == "placeholder":
                self.tip = node
            elif node.op == "get_attr":
                self.constants[node] = _attribute(self.net, node.target)
            elif node.op == "output":
                self._expect_tip(node)
            elif not node.users:
                _expect_no_effect(node)
            elif self.tip in node.all_input_nodes and _name(node) not in _SIZES:
                layers += self._layer(node)
        return layers

    def _layer(self, node: fx.Node) -> list[Layer]:
        if node.op == "call_module":
            found = _module(self.net.get_submodule(str(node.target)), str(node.target))
        else:
            found = self._function(node)
        self.tip = node
        for layer in found:
            self.spatial = not isinstance(layer, Reshape) and (self.spatial or isinstance(layer, Convolution))
        return found

    def _expect_tip(self, node: fx.Node) -> None:
        answer = node.args[0]
        if isinstance(answer, tuple | list) and len(answer) == 1:
            answer = answer[0]
        if answer is not self.tip:
            raise _unknown(node, "which is not in line with the others")

    def _function(self, node: fx.Node) -> list[Layer]:
        name = _name(node)
        arguments = [self._value(a) for a in node.args]
        named = {k: self._value(v) for k, v in node.kwargs.items()}
        match name:
            case "relu" | "relu_":
                return [Relu()]
            case "contiguous" | "detach" | "clone" | "float":
                return []
            case "dropout" if (arguments[2:] or [named.get("training", True)])[0] is False:
                return []
            case "flatten" if _flattened(arguments, named):
                return [Reshape((-1,))]
            case "view" | "reshape":
                return self._reshaped(node, arguments)
            case "linear":
                return [Linear(*self._parameters(node, arguments, named))]
            case "conv2d":
                return [_convolution(arguments, named)]
            case "batch_norm" if isinstance(node.target, torch._ops.OpOverload) and arguments[5] is False:
                return [_normalized(arguments, spatial=self.spatial)]
            case "add" | "sub" | "mul" | "div" | "truediv" if not named:
                return [self._arithmetic(node, name, arguments)]
        return self._refuse(node)

    def _value(self, argument: object) -> object:
        if isinstance(argument, fx.Node):
            return self.constants.get(argument, _TIP if argument is self.tip else argument)
        return argument

    def _parameters(
        self, node: fx.Node, arguments: list[object], named: Mapping[str, object]
    ) -> tuple[Tensor, Tensor | None]:
        weight, bias = arguments[1], (arguments[2:] or [named.get("bias")])[0]
        if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
            raise _unknown(node, "with weights that are not parameters")
        return weight, bias

    def _reshaped(self, node: fx.Node, arguments: list[object]) -> list[Layer]:
        sizes = arguments[1] if isinstance(arguments[1], list | tuple) else arguments[1:]
        rest = tuple(sizes)[1:]
        if not rest or not all(isinstance(size, int) for size in rest):
            return self._refuse(node)
        return [Reshape(rest)]

    def _arithmetic(self, node: fx.Node, name: str, arguments: list[object]) -> Layer:
        left, right = arguments[:2]
        constant = right if left is _TIP else left
        if not isinstance(constant, Tensor | float | int):
            raise _unknown(node, "of two values that both depend on the input")
        value = torch.as_tensor(constant, dtype=torch.float32) if not isinstance(constant, Tensor) else constant
        return _scaled(name, value, constant_first=right is _TIP) or self._refuse(node)[0]

    def _refuse(self, node: fx.Node) -> list[Layer]:
        raise _unknown(node)


_TIP = object()
_CHECKS = ("_assert", "_guards", "sym_")
"""How the names of checks of an exported program begin; they change nothing."""
_SIZES = {"size", "sym_size", "getattr", "getitem", "dim"}
"""Questions about a shape, such as those in `x.view(x.size(0), -1)`."""
_TRACED: WeakKeyDictionary[nn.Module, dict[bool, fx.Graph]] = WeakKeyDictionary()
"""What a network calls, in evaluation and in training: tracing takes a tenth of a training step."""


def _expect_no_effect(node: fx.Node) -> None:
    """A result that is never read may still change a tensor in place."""
    if not _name(node).startswith(_CHECKS) and _name(node) not in _SIZES:
        raise _unknown(node, "whose result is never read")


def _flattened(arguments: list[object], named: Mapping[str, object]) -> bool:
    """Whether a call of flatten leaves the batch and one axis."""
    start = (arguments[1:] or [named.get("start_dim", 0)])[0]
    end = (arguments[2:] or [named.get("end_dim", -1)])[0]
    return (start, end) == (1, -1)


def _scaled(name: str, value: Tensor, *, constant_first: bool) -> Scale | None:
    one, zero = torch.ones_like(value), torch.zeros_like(value)
    match name:
        case "add":
            return Scale(one, value)
        case "mul":
            return Scale(value, zero)
        case "sub":
            return Scale(-one, value) if constant_first else Scale(one, -value)
        case "div" | "truediv" if not constant_first:
            return Scale(1 / value, zero)
    return None


def _graph(net: nn.Module) -> fx.Graph:
    if isinstance(net, fx.GraphModule):
        return net.graph
    known = _TRACED.setdefault(net, {})
    if net.training not in known:
        known[net.training] = _traced(net)
    return known[net.training]


def _traced(net: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(net)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"bounds: expected layers in one line, found {type(net).__name__}: {first}") from None


def _attribute(net: nn.Module, target: object) -> Tensor:
    found: object = net
    for name in str(target).split("."):
        found = getattr(found, name)
    if not isinstance(found, Tensor):
        raise ModelError(f"bounds: expected a tensor of the network, found {target}: {type(found).__name__}")
    return found


def _name(node: fx.Node) -> str:
    """`relu` for torch.relu, x.relu() and aten.relu.default."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return {"true_divide": "div", "subtract": "sub", "multiply": "mul"}.get(name.split(".")[0], name.split(".")[0])


def _module(module: nn.Module, name: str) -> list[Layer]:
    match module:
        case nn.ReLU():
            return [Relu()]
        case nn.Identity() | nn.Dropout():
            return []
        case nn.Flatten(start_dim=1, end_dim=-1):
            return [Reshape((-1,))]
        case nn.Linear():
            return [Linear(module.weight, module.bias)]
        case nn.Conv2d(padding_mode="zeros") if not isinstance(module.padding, str):
            options = (module.stride, module.padding, module.dilation, module.groups)
            return [Convolution(module.weight, module.bias, *options)]
        case nn.BatchNorm1d() | nn.BatchNorm2d() if module.running_var is not None and not module.training:
            return [_normalization(module)]
    raise ModelError(f"bounds: expected linear, convolution, ReLU or flatten layers, found {name}: {module}")


def _normalization(module: nn.BatchNorm1d | nn.BatchNorm2d) -> Scale:
    statistics = (module.weight, module.bias, module.running_mean, module.running_var)
    return _normalized([None, *statistics, False, None, module.eps], spatial=isinstance(module, nn.BatchNorm2d))


def _normalized(arguments: Sequence[object], *, spatial: bool) -> Scale:
    """The layer of aten.batch_norm(input, weight, bias, mean, variance, training, momentum, eps)."""
    weight, bias, mean, variance = arguments[1:5]
    eps = arguments[7]
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or not isinstance(eps, float):
        raise ModelError("bounds: expected batch normalization with running statistics")
    factor = (variance + eps).rsqrt() * (weight if isinstance(weight, Tensor) else 1)
    shift = (bias if isinstance(bias, Tensor) else 0) - mean * factor
    size = (-1, 1, 1) if spatial else (-1,)
    return Scale(factor.reshape(size), shift.reshape(size))


def _convolution(arguments: list[object], named: Mapping[str, object]) -> Convolution:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = {**dict(zip(names, arguments, strict=False)), **named}
    weight, bias = given["weight"], given.get("bias")
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise ModelError("bounds: expected a convolution with parameters for weights")
    stride, padding, dilation = (_pair(given.get(n, d)) for n, d in (("stride", 1), ("padding", 0), ("dilation", 1)))
    groups = given.get("groups", 1)
    return Convolution(weight, bias, stride, padding, dilation, groups if isinstance(groups, int) else 1)


def _pair(value: object) -> tuple[int, ...]:
    if isinstance(value, str):
        raise ModelError(f"bounds: expected a convolution's padding in numbers, found {value!r}")
    values = tuple(value) if isinstance(value, list | tuple) else (value, value)
    return values if len(values) == 2 else values * 2


def _unknown(node: fx.Node, why: str = "") -> ModelError:
    return ModelError(
        f"bounds: expected linear, convolution, ReLU, flatten or constants in one line, found {_name(node)} "
        f"({node.name}){' ' + why if why else ''}"
    )


def entries(shape: Shape) -> int:
    """How many numbers one example of that shape has."""
    return prod(shape)
