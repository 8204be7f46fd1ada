"""What attacks climb: losses per example float32[N] of logits[N, classes], larger is closer to a mistake.

z are the logits, y the true class, z_pi1 >= z_pi2 >= ... the logits in order. DLR: Croce and Hein 2020,
https://arxiv.org/abs/2003.01690.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as _cross_entropy

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits[N, classes], y[N]) -> float32[N]."""
FULL_ROWS = 64
"""Rows of which attacks show a network a multiple, on a GPU."""


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy; its gradient vanishes where the network is very sure."""
    return _cross_entropy(z, y, reduction="none")


def margin(z: Tensor, y: Tensor) -> Tensor:
    """max over other classes of z minus z_y: positive exactly when the answer is wrong."""
    return _others(z, y).amax(1) - _true(z, y)


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """Difference-of-logits ratio: the margin in units of z_pi1 - z_pi3, so that scaling the logits changes nothing.

    With two classes there is no third logit and the plain margin is used.
    """
    if z.shape[1] < 3:
        return margin(z, y)
    ordered = z.sort(dim=1, descending=True).values
    return margin(z, y) / (ordered[:, 0] - ordered[:, 2]).clamp_min(1e-12)


@dataclass(frozen=True)
class TargetedDlr:
    """DLR towards given classes int64[N]; needs 4 classes."""

    target: Tensor

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        """float32[N] of logits[N, classes]."""
        ordered = z.sort(dim=1, descending=True).values
        scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
        return (_true(z, self.target) - _true(z, y)) / scale.clamp_min(1e-12)


@dataclass(frozen=True)
class Ascent:
    """Gradient ascent on a loss: how many steps a walk takes, and how many walks an example gets at most."""

    loss: Loss
    steps: int
    restarts: int = 1


def only(loss: Loss, flags: Tensor) -> Loss:
    """The loss for those of the examples that bool[N] names."""
    return TargetedDlr(loss.target[flags]) if isinstance(loss, TargetedDlr) else loss


def logits_at(net: nn.Module, x: Tensor) -> Tensor:
    """Logits float32[N, classes] at x `[N, ...]`, with their gradients.

    Examples leave an attack one by one, and cuDNN plans every convolution again for each number of images that it has
    not met. So on a GPU a network in eval mode, whose answers do not depend on the rest of the batch, gets few sizes.
    """
    places = x.shape[2:]
    if x.is_cuda and places and not net.training:
        return torch.as_tensor(net(filled(x)).float()[: len(x)])
    return torch.as_tensor(net(x).float())


def filled(x: Tensor) -> Tensor:
    """The rows of x `[N, ...]`, N > 0, and after them the first one until there are a multiple of `FULL_ROWS`."""
    missing = -len(x) % FULL_ROWS
    return torch.cat([x, x[:1].detach().expand(missing, *x.shape[1:])]) if missing else x


def answered(net: nn.Module, x: Tensor) -> Tensor:
    """Logits float32[N, classes] at x `[N, ...]`, without their gradients."""
    with torch.no_grad():
        return logits_at(net, x)


def correct(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """bool[N]: whether the network answers y."""
    return answered(net, x).argmax(1) == y


def climb_direction(net: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the loss at x `[N, ...]`, the loss float32[N] and the logits there, all detached.

    A network that cuts the path from its input gets a gradient of zero.
    """
    leaf = x.detach().requires_grad_()
    z = logits_at(net, leaf)
    values = loss(z, y)
    return slope(values, leaf), values.detach(), z.detach()


def slope(values: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of the sum of values at the leaf; zero where the network cuts the path from its input."""
    if not values.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def _true(z: Tensor, y: Tensor) -> Tensor:
    return z.gather(1, y[:, None])[:, 0]


def _others(z: Tensor, y: Tensor) -> Tensor:
    return z.scatter(1, y[:, None], -torch.inf)
