"""Attacks as a user brings them, good and bad."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.modality.ball import Ball


def momentum(net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """MI-FGSM: Dong et al. 2018, https://arxiv.org/abs/1710.06081, algorithm 1 with 20 steps and mu = 1; linf."""
    moved, velocity = x, torch.zeros_like(x)
    for _ in range(20):
        point = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(net(point), y, reduction="sum"), point)
        velocity = velocity + gradient / gradient.abs().flatten(1).sum(1).clamp_min(1e-12)[:, None, None, None]
        moved = (moved + epsilon / 10 * velocity.sign()).clamp(x - epsilon, x + epsilon).clamp(0, 1)
    return moved.detach()


def idle(x: Tensor) -> Tensor:
    return x


def too_far(x: Tensor, ball: Ball) -> Tensor:
    return x + 2 * ball.epsilon * (x[:, :1].flatten(1).sum(1) > 18)[:, None, None, None]


def short(x: Tensor) -> Tensor:
    return x[:1]


def nothing(x: Tensor) -> None:
    return None


def nan(x: Tensor) -> Tensor:
    return torch.full_like(x, float("nan"))


def needy(x: Tensor, temperature: float) -> Tensor:
    return x * temperature


def broken(x: Tensor) -> Tensor:
    raise KeyError("a mistake in the user's code")


def spoils(x: Tensor, y: Tensor) -> Tensor:
    y.zero_()
    return x.mul_(0.99)
