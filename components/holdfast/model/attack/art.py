"""The second opinion: PGD of the Adversarial Robustness Toolbox on the same network with the same budget.

ART's wrapper takes every layer's output from an `nn.Sequential` and feeds doubles under numpy 2; a plain module that
casts its input avoids both. Coordinates are in units of scale, so that one epsilon serves all features.
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
    attack = ProjectedGradientDescentPyTorch(
        _classifier(net, scaled, ball, classes),
        norm=ball.order,
        eps=ball.epsilon,
        eps_step=STEP_FACTOR * ball.epsilon / steps,
        max_iter=steps,
        num_random_init=restarts,
        batch_size=MOST_EXAMPLES,
        verbose=False,
    )
    mask = np.broadcast_to(ball.mutable.cpu().numpy(), scaled.shape).astype(np.float32)
    moved = _generate(attack, scaled, y.cpu().numpy(), mask, seed)
    # ART clips to one box for all rows; ours is the box of each row.
    point = ball.settle(ball.project(torch.from_numpy(moved).to(x.device) * ball.scale, x), x)
    return correct(net, point, y) & correct(net, x, y)


def _classifier(net: nn.Module, scaled: NDArray[np.float32], ball: Ball, classes: int) -> Any:
    """ART's wrapper of the network, for inputs in units of scale within the limits of these rows."""
    from art.estimators.classification.pytorch import PyTorchClassifier

    low = np.minimum(scaled.min(0), (ball.lower / ball.scale).cpu().numpy())
    high = np.maximum(scaled.max(0), (ball.upper / ball.scale).cpu().numpy())
    return PyTorchClassifier(
        model=Scaled(lambda x: net(x), ball.scale),
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
