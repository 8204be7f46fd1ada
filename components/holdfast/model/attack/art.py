"""The second opinion: PGD of the Adversarial Robustness Toolbox on the same network with the same budget.

ART's wrapper takes every layer's output from an `nn.Sequential` and feeds doubles under numpy 2; a plain module that
casts its input avoids both. Coordinates are in units of scale, so that one epsilon serves all features. ART knows which
features are immutable (its mask). Whole numbers, categories and directions it does not know: it walks in front of a
network that answers for the nearest row that exists (`Feasible`), so that it is held to them in every step. There a
walk goes in jumps, and its last point may be right after wrong ones: every row that it asked about counts.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import correct
from holdfast.model.attack.pgd import STEP_FACTOR

MOST_EXAMPLES = 200


def load() -> None:
    """Imports what the second opinion needs; takes seconds."""
    # The narrow modules save nothing: art/__init__ imports every attack; about 4 s of CPU.
    import art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch
    import art.estimators.classification.pytorch  # noqa: F401


def library() -> str:
    """The name and version that are reported with its numbers."""
    return f"adversarial-robustness-toolbox {version('adversarial-robustness-toolbox')}"


def second_opinion(
    net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, classes: int, steps: int, restarts: int, seed: int
) -> Tensor:
    """bool[N]: which examples `[N, ...]` stay correct under ART's PGD on cross-entropy; norms linf and l2."""
    # The narrow modules save nothing: art/__init__ imports every attack; about 4 s of CPU.
    from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
        ProjectedGradientDescentPyTorch,
    )

    scaled = (x / ball.scale).cpu().numpy()
    facing = _facing(net, x, y, ball)
    attack = ProjectedGradientDescentPyTorch(
        _classifier(facing, scaled, ball, classes),
        norm=ball.order,
        eps=ball.epsilon,
        eps_step=STEP_FACTOR * ball.epsilon / steps,
        max_iter=steps,
        num_random_init=restarts,
        batch_size=len(x),
        verbose=False,
    )
    mask = np.broadcast_to(ball.mutable.cpu().numpy(), scaled.shape).astype(np.float32)
    moved = _generate(attack, scaled, y.cpu().numpy(), mask, seed)
    # ART clips to one box for all rows; ours is the box of each row.
    point = ball.settle(ball.project(torch.from_numpy(moved).to(x.device) * ball.scale, x), x)
    survived = correct(net, point, y) & correct(net, x, y)
    return survived & ~facing.broken if isinstance(facing, Feasible) else survived


def _facing(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> nn.Module:
    """What ART attacks in place of the network."""
    restricted = ball.whole is not None or ball.choices or ball.down is not None
    return Feasible(net, x, y, ball) if restricted else Scaled(lambda rows: net(rows), ball.scale)


def _classifier(net: nn.Module, scaled: NDArray[np.float32], ball: Ball, classes: int) -> Any:
    """ART's wrapper of a network on inputs in units of scale, within the limits of these rows."""
    from art.estimators.classification.pytorch import PyTorchClassifier

    low = np.minimum(scaled.min(0), (ball.lower / ball.scale).cpu().numpy())
    high = np.maximum(scaled.max(0), (ball.upper / ball.scale).cpu().numpy())
    return PyTorchClassifier(
        model=net,
        loss=nn.CrossEntropyLoss(),
        input_shape=scaled.shape[1:],
        nb_classes=classes,
        clip_values=(np.float32(low), np.float32(high)),
        device_type="gpu" if ball.scale.is_cuda else "cpu",
    )


class Scaled(nn.Module):
    """A network on inputs in units of scale, for ART.

    ART calls `train()`, which a network loaded from program.pt2 refuses: such a network goes in as a function, so that
    it is no child module.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], scale: Tensor) -> None:
        super().__init__()
        self.net = net
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        out: Tensor = self.net(z.float() * self.scale)
        return out


class Feasible(nn.Module):
    """A network that answers for the row that exists nearest to each point, among those in reach of given rows.

    The gradient is that at this row (straight through), as in our own attacks. Points are in units of scale and come
    all together, one for each row. `broken` bool[N] are the rows x of class y for which a wrong answer was given.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, ball: Ball) -> None:
        super().__init__()
        self.net = lambda rows: net(rows)  # a function, as in `Scaled`
        self.x, self.y, self.ball = x, y, ball
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def forward(self, z: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        if len(z) != len(self.x):
            raise RuntimeError(f"expected all {len(self.x)} points at once, found {len(z)}")
        point = z.float() * self.ball.scale
        nearest = self.ball.settle(self.ball.project(point.detach(), self.x), self.x)
        out: Tensor = self.net(nearest + (point - point.detach()))
        self.broken |= out.detach().argmax(1) != self.y
        return out


def _generate(
    attack: object, x: NDArray[np.float32], y: NDArray[np.int64], mask: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """ART draws from numpy's global generator: it is set for this call and put back."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        moved: NDArray[np.float32] = attack.generate(x=x, y=y, mask=mask).astype(np.float32)  # type: ignore[attr-defined]
    finally:
        np.random.set_state(before)
    return moved
