"""Deterministic certificates: what a network can answer anywhere inside a box, by IBP and CROWN.

* IBP (Gowal et al. 2018, https://arxiv.org/abs/1810.12715) pushes the box through the network layer by layer.
* CROWN (Zhang et al. 2018, https://arxiv.org/abs/1811.00866) bounds each ReLU by two lines and pushes linear functions
  of the answer back to the input. Both merge the layers after the last ReLU with the margins z_y - z_j ("elision").

l <= z <= u: what a ReLU receives; its output lies above a z, with a in [0, 1], and below s (z - l), with
s = u / (u - l), when l < 0 < u; it is 0 when u <= 0 and z when l >= 0. A: coefficients of the margins.

Certificates are computed in float64. The served network rounds to float32: for that, which is not part of the proof, a
margin counts as positive only above `SLACK` times the size of what is added up, and the box is widened by `WIDER`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from holdfast.errors import ModelError
from holdfast.modality.ball import Ball
from holdfast.modality.norms import BOXES
from holdfast.model.certify.layers import Chain, Relu, entries, read_chain
from holdfast.model.certify.smoothing import ABSTAIN, Certified

Bound = Literal["ibp", "crown-ibp", "crown"]
"""IBP; CROWN for the margins on IBP's bounds inside; CROWN for every layer (slow: one pass per unstable neuron)."""
Box = tuple[Tensor, Tensor]
"""Centre and radius, each `[N, ...]`."""

SLACK = 1e-5
WIDER = 1e-6
_TOGETHER: dict[Bound, int] = {"ibp": 256, "crown-ibp": 64, "crown": 1}
"""The bounds from quick to tight, and how many examples go through them at once."""
_ENTRIES = 2**24
"""Numbers in one block of linear functions: 64 MiB in float32."""


def box(ball: Ball, x: Tensor) -> Box:
    """The smallest box around the ball around each x `[N, ...]`; entries that cannot change have radius 0.

    Raises:
        ModelError: a ball that is not linf.
    """
    if not ball.is_box:
        raise ModelError(f"bounds: expected the norm {' or '.join(BOXES)}, found {ball.norm}")
    reach = ball.epsilon * ball.scale * ball.mutable
    low = torch.maximum(x - reach, torch.minimum(ball.lower, x))
    high = torch.minimum(x + reach, torch.maximum(ball.upper, x))
    return (low + high) / 2, (high - low) / 2 * (1 + WIDER)


def certified(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, bound: Bound = "ibp") -> Tensor:
    """bool[N]: whether the answer is proven to be y everywhere in the ball around x."""
    return (margins(net, x, y, ball, bound) > 0).all(1)


@dataclass(frozen=True)
class Proven(Certified):
    """What is proven of one example, and by which bound."""

    bound: Bound = "ibp"


def certify_radii(net: nn.Module, x: Tensor, ball: Ball, radii: Sequence[float]) -> list[Proven]:
    """The largest of these epsilons, for each example x `[N, ...]`, within which its answer is proven not to change.

    Each bound is asked only where the quicker ones prove nothing. An example for which nothing is proven, not even at
    the smallest epsilon, has the radius `ABSTAIN`.
    """
    with torch.no_grad():
        labels = net(x).argmax(1)
    found = [Proven(int(label), ABSTAIN) for label in labels]
    active = torch.arange(len(x), device=x.device)
    for radius in sorted(set(radii)):
        proven = prove(net, x[active], labels[active], ball.resized(radius))
        for i, bound in zip(active.tolist(), proven, strict=True):
            if bound is not None:
                strongest = bound if found[i].bound == "ibp" else found[i].bound
                found[i] = Proven(int(labels[i]), radius, 0, strongest)
        active = active[torch.tensor([bound is not None for bound in proven], dtype=torch.bool, device=x.device)]
    return found


def prove(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> list[Bound | None]:
    """The quickest bound, for each example, that proves the answer y in the ball around x; None: none does."""
    found: list[Bound | None] = [None] * len(x)
    rest = list(range(len(x)))
    for bound, together in _TOGETHER.items():
        for part in (rest[start : start + together] for start in range(0, len(rest), together)):
            proven = certified(net, x[part], y[part], ball, bound).tolist()
            for i in (i for i, holds in zip(part, proven, strict=True) if holds):
                found[i] = bound
        rest = [i for i in rest if found[i] is None]
    return found


def margins(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, bound: Bound = "ibp") -> Tensor:
    """Lower bounds float64[N, classes - 1] of z_y - z_j over the ball, for the classes j other than y, less the slack.

    Raises:
        ModelError: a layer that bounds do not know, or a ball that is not linf.
    """
    x = x.double()
    chain, start = read_chain(net, x), box(ball, x)
    others = other_classes(chain.shapes[-1], y)
    with torch.no_grad():
        boxes = before_relus(chain, start)
        merged = last_margins(chain, boxes, start, others)
        found = merged.lower
        if bound != "ibp":
            if bound == "crown":
                boxes = _tightened(chain, start, boxes)
            found = torch.maximum(found, _backward(chain, others, len(chain.layers), start, boxes))
    return found - SLACK * (1 + merged.size)


def other_classes(shape: tuple[int, ...], y: Tensor) -> Tensor:
    """Row j of float[N, classes - 1, classes] is e_y - e_j for the j-th class other than y."""
    classes = shape[0]
    eye = torch.eye(classes, device=y.device)
    differences = eye[y][:, None] - eye[None]
    rest = torch.arange(classes, device=y.device)[None] != y[:, None]
    return differences[rest].reshape(len(y), classes - 1, classes)


def before_relus(chain: Chain, start: Box) -> dict[int, Box]:
    """IBP's box of what each ReLU receives, by its position."""
    boxes: dict[int, Box] = {}
    c, r = start
    for i, layer in enumerate(chain.layers[: max(chain.relus, default=-1) + 1]):
        if isinstance(layer, Relu):
            boxes[i] = (c, r)
            c, r = rectified(c, r)
        else:
            c, r = layer.forward(c), layer.spread(r)
    return boxes


def rectified(c: Tensor, r: Tensor) -> Box:
    """The box of max(z, 0) for z in a box."""
    low, high = (c - r).relu(), (c + r).relu()
    return (low + high) / 2, (high - low) / 2


def last_margins(chain: Chain, boxes: dict[int, Box], start: Box, others: Tensor) -> "Margins":
    """The functions `others` float[N, K, classes] of the logits, over IBP's box after the last ReLU."""
    last = max(chain.relus, default=-1)
    c, r = rectified(*boxes[last]) if boxes else start
    A, constant = others.to(c.dtype), torch.zeros_like(others[..., 0], dtype=c.dtype)
    for i in range(len(chain.layers) - 1, last, -1):
        A, constant = _through(chain, i, A, constant)
    return Margins(A.flatten(2), constant, c, r)


@dataclass(frozen=True)
class Margins:
    """Linear functions A x + constant, float[N, K], of x in a box."""

    A: Tensor
    constant: Tensor
    c: Tensor
    r: Tensor

    @property
    def lower(self) -> Tensor:
        """Their least values, float[N, K]."""
        return self.constant + _dot(self.A, self.c) - _dot(self.A.abs(), self.r)

    @property
    def size(self) -> Tensor:
        """The size of what is added up, float[N, K]."""
        return self.constant.abs() + _dot(self.A.abs(), self.c.abs() + self.r)


def _backward(chain: Chain, A: Tensor, end: int, start: Box, boxes: dict[int, Box]) -> Tensor:
    """CROWN's lower bounds float[N, K] over the box `start` of linear functions A float[N, K, *] before layer `end`."""
    c, r = start
    A = A.to(c.dtype)
    constant = torch.zeros_like(A.flatten(2)[..., 0])
    for i in range(end - 1, -1, -1):
        if isinstance(chain.layers[i], Relu):
            A, constant = _relaxed(A, constant, boxes[i])
        else:
            A, constant = _through(chain, i, A, constant)
    flat = A.flatten(2)
    return constant + _dot(flat, c) - _dot(flat.abs(), r)


def _through(chain: Chain, i: int, A: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """Functions of an affine layer's output as functions of its input."""
    layer, shape = chain.layers[i], chain.shapes[i]
    if isinstance(layer, Relu):
        raise TypeError(f"layer {i} is a ReLU")
    bias = layer.forward(torch.zeros(1, *shape, dtype=A.dtype, device=A.device))
    constant = constant + (A * bias).flatten(2).sum(2)
    return layer.back(A.flatten(0, 1), shape).reshape(*A.shape[:2], *shape), constant


def _relaxed(A: Tensor, constant: Tensor, received: Box) -> tuple[Tensor, Tensor]:
    """Lower bounds in terms of a ReLU's output as lower bounds in terms of what it receives."""
    c, r = received
    low, high = c - r, c + r
    unstable = (low < 0) & (high > 0)
    s = torch.where(unstable, high / (high - low).clamp_min(1e-30), (low >= 0).to(c.dtype))
    a = torch.where(unstable, (high > -low).to(c.dtype), s)
    t = torch.where(unstable, -s * low, 0.0)
    above, below = A.clamp_min(0), A.clamp_max(0)
    constant = constant + (below * t[:, None]).flatten(2).sum(2)
    return above * a[:, None] + below * s[:, None], constant


def _tightened(chain: Chain, start: Box, boxes: dict[int, Box]) -> dict[int, Box]:
    """The boxes with CROWN's bounds for neurons that IBP leaves undecided; the first ReLU's are exact already."""
    found: dict[int, Box] = {}
    for i, (c, r) in boxes.items():
        low, high = (c - r).flatten(1), (c + r).flatten(1)
        if found:
            undecided = ((low < 0) & (high > 0)).any(0).nonzero()[:, 0]
            low, high = low.clone(), high.clone()
            for rows in undecided.split(_rows_at_once(chain, len(c))):
                A = _units(chain.shapes[i], rows, c)
                low[:, rows] = torch.maximum(low[:, rows], _backward(chain, A, i, start, found))
                high[:, rows] = torch.minimum(high[:, rows], -_backward(chain, -A, i, start, found))
        # Rounding may cross bounds that meet.
        high = torch.maximum(low, high)
        found[i] = (((low + high) / 2).reshape(c.shape), ((high - low) / 2).reshape(c.shape))
    return found


def _units(shape: tuple[int, ...], rows: Tensor, like: Tensor) -> Tensor:
    """float[N, len(rows), *shape]: each picks one neuron."""
    units = torch.zeros(len(rows), entries(shape), dtype=like.dtype, device=like.device)
    units[torch.arange(len(rows)), rows] = 1
    return units.reshape(1, len(rows), *shape).expand(len(like), -1, *(-1 for _ in shape))


def _rows_at_once(chain: Chain, n: int) -> int:
    return max(1, _ENTRIES // (n * max(map(entries, chain.shapes))))


def _dot(A: Tensor, x: Tensor) -> Tensor:
    """float[N, K] of coefficients float[N, K, D] and values `[N, ...]` of D entries."""
    return torch.bmm(A, x.flatten(1)[..., None])[..., 0]
