"""Fast gradient sign method: Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572."""

from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import climb_direction, cross_entropy


def fgsm(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """One step of length eps from x `[N, ...]`; x itself where the network is wrong already."""
    gradient, _, z = climb_direction(net, x, y, cross_entropy)
    moved = ball.settle(ball.project(ball.ascend(x, gradient, ball.epsilon), x), x)
    wrong = (z.argmax(1) != y).reshape(-1, *([1] * (x.dim() - 1)))
    return moved.where(~wrong, x)
