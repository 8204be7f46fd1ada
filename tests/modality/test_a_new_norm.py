"""A norm is one class: every attack that follows a gradient, or asks for answers, works in a ball that it never saw."""

from dataclasses import fields
from math import prod
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball, Corners, column
from holdfast.modality.lp import LpBall
from holdfast.model.attack.kinds import attacks_on, inner_attack, selection_attack
from holdfast.model.attack.suite import measure


class L1(LpBall):
    """The sum of all moves is at most epsilon: in no list of the product."""

    norm: ClassVar[str] = "l1"  # type: ignore[assignment]
    order: ClassVar[float] = 1

    def cut(self, delta: Tensor, bound: float | Tensor) -> Tensor:
        return delta * (bound / column(self.length(delta.flatten(1)), delta).clamp_min(1e-12)).clamp_max(1.0)

    def length(self, delta: Tensor) -> Tensor:
        return delta.abs().sum(1)

    def within_rounding(self, delta: Tensor, rounding: Tensor) -> Tensor:
        return self.length(delta.flatten(1)) <= self.epsilon + rounding.flatten(1).sum(1)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().amax(1)

    def steepest(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        best = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, best, flat.gather(1, best).sign()).reshape(gradient.shape)

    def random_move(self, x: Tensor, generator: torch.Generator) -> Tensor:
        move = torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1
        return self.cut(move, 1.0)

    def diagonal(self, x: Tensor) -> float:
        return float(prod(x.shape[1:]))

    def push(self, point: Tensor, x: Tensor, *, window: Tensor, up: Tensor, corners: Corners) -> Tensor:
        rest = ((point - x) / self.scale).masked_fill(window, 0.0) / 2
        room = (self.epsilon - self.length(rest.flatten(1))).clamp_min(0)
        cells = window.expand(x.shape).flatten(1).sum(1).clamp_min(1)
        delta = rest + window * (up.to(x.dtype) * 2 - 1) * column(room / cells, x)
        return self.project(x + delta * self.scale, x)


def scene(epsilon: float) -> tuple[nn.Module, Tensor, Tensor, L1, Tensor]:
    """A linear network, examples, their classes, the ball, and how far each is from a mistake in l1."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Linear(12, 2).requires_grad_(False)
    net.weight.copy_(torch.randn(2, 12, generator=generator))
    net.bias.zero_()
    x = torch.randn(64, 12, generator=generator)
    z, w = net(x), net.weight
    # Closed form (Hoelder): the boundary is |z_0 - z_1| / ||w_0 - w_1||_inf away in l1.
    away = (z[:, 0] - z[:, 1]).abs() / (w[0] - w[1]).abs().max()
    wide, one = torch.tensor(100.0), torch.tensor(1.0)
    return net, x, z.argmax(1), L1(epsilon=epsilon, lower=-wide, upper=wide, scale=one, mutable=one), away


@pytest.mark.parametrize("gradients", [True, False])
def test_the_attacks_find_what_the_closed_form_allows_and_nothing_more(gradients: bool) -> None:
    net, x, y, ball, away = scene(epsilon=1.0)
    plans = attacks_on(ball).plans("release", 2, embedding=False, gradients=gradients)
    standing = measure(net, x, y, ball, plans, seed=0).worst
    # `measure` raises where a point left the ball. Beyond epsilon nothing falls; gradients reach the whole of it.
    assert standing[away > 1.001].all()
    share = 0.9 if gradients else 0.2
    assert not standing[away < share].any()


def test_training_attacks_stay_in_the_ball_and_err_more() -> None:
    net, x, y, ball, away = scene(epsilon=1.0)
    generator = torch.Generator().manual_seed(0)
    for moved in (
        inner_attack(net, x, y, ball, steps=20, generator=generator),
        selection_attack(net, x, y, ball, generator),
    ):
        assert ball.contains(moved, x).all()
        assert (net(moved).argmax(1) != y)[away < 0.5].all()


def test_the_class_holds_what_is_asked_of_a_ball_and_no_field_of_its_own() -> None:
    assert {field.name for field in fields(L1)} == {field.name for field in fields(Ball)}
    assert not L1.__abstractmethods__
