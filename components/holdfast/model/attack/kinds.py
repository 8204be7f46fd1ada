"""The attacks that fit each kind of perturbation set: those that follow a gradient, and those that replace characters.

pr: FGSM, PGD-20 with 2 restarts on two losses, Square with 200 queries. nightly: PGD-50 with 5 restarts, Auto-PGD,
Square with 1,000. release: the members of AutoAttack (Croce and Hein 2020): Auto-PGD on cross-entropy and on the
targeted DLR loss, a minimum-norm attack (FMN in FAB's place) and Square with 5,000.
Text: HotFlip at once and greedy, and a random search over edits, with budgets that grow in the same way.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as mean_cross_entropy

from holdfast.artifacts.documents import Norm
from holdfast.modality.ball import Ball
from holdfast.modality.edits import random_edits
from holdfast.modality.norms import ball_class
from holdfast.model.attack.apgd import apgd
from holdfast.model.attack.decision import hop_skip_jump
from holdfast.model.attack.edits import search_edits
from holdfast.model.attack.fgsm import fgsm
from holdfast.model.attack.fmn import fmn
from holdfast.model.attack.hotflip import Embedding, flip_at_once, hotflip
from holdfast.model.attack.losses import Ascent, Loss, climb_direction, correct, cross_entropy, dlr, margin
from holdfast.model.attack.pgd import perturb, pgd
from holdfast.model.attack.plan import AttackPlan, Tier
from holdfast.model.attack.square import square
from holdfast.model.attack.targeted import APGD_STEPS, targeted_apgd

MOST_TARGETS = 9
SELECTION_STEPS = 10
"""PGD steps of the accuracy that chooses the best epoch."""
_PGD = {"pr": (20, 2), "nightly": (50, 5), "release": (20, 1)}
_STRONGER = {"pr": 80, "nightly": 200, "release": 200}
_QUERIES = {"pr": 200, "nightly": 1000, "release": 5000}
_HOTFLIP = {"pr": (16, 4), "nightly": (32, 8), "release": (64, 16)}
_ROUNDS = 8
"""Gradients that an attack with an unlimited number of edits takes."""


class AttackKind(Protocol):
    """The attacks on one kind of perturbation set; `embedding`: whether a text network shows its embedding."""

    def plans(self, tier: Tier, classes: int, *, embedding: bool, gradients: bool) -> tuple[AttackPlan, ...]:
        """The attacks of a tier; `gradients`: whether the network has any at all."""

    def curve(self, *, embedding: bool) -> AttackPlan:
        """The attack of the accuracy curve."""

    def stronger(self, tier: Tier, *, embedding: bool) -> AttackPlan:
        """An attack with a multiple of the tier's budget."""

    def inner(
        self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator
    ) -> Tensor:
        """The attack of adversarial training."""

    def selection(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """The attack that chooses the best epoch."""

    def vanished(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """bool[N]: where no entry that an attacker changes has a gradient."""

    def can_be_unlimited(self, net: nn.Module, ball: Ball) -> bool:
        """Whether an attack with an unlimited budget can reach everything."""

    def unlimited(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """An attack in a ball so large that no model can hold."""


class GradientAttacks:
    """Walks along gradients in a convex ball, and searches that see answers alone."""

    def plans(self, tier: Tier, classes: int, *, embedding: bool, gradients: bool) -> tuple[AttackPlan, ...]:
        """The attacks of a tier; without gradients, what is left are Square and HopSkipJump."""
        if not gradients:
            return (_square_plan(_QUERIES[tier]), _decision_plan(_QUERIES[tier]))
        steps, restarts = _PGD[tier]
        first = (
            AttackPlan("fgsm", "one-step", 1, 1, lambda net, x, y, ball, generator: fgsm(net, x, y, ball)),
            pgd_plan("pgd-ce", steps, restarts, cross_entropy),
        )
        then: dict[Tier, tuple[AttackPlan, ...]] = {
            "pr": (pgd_plan("pgd-margin", steps, restarts, margin),),
            "nightly": (_apgd_plan("apgd-dlr", dlr),),
            "release": (_apgd_plan("apgd-ce", cross_entropy), _targeted_plan(classes), _fmn_plan()),
        }
        return (*first, *then[tier], _square_plan(_QUERIES[tier]))

    def curve(self, *, embedding: bool) -> AttackPlan:
        """PGD-20."""
        return pgd_plan("curve", 20, 1, margin)

    def stronger(self, tier: Tier, *, embedding: bool) -> AttackPlan:
        """PGD with a multiple of the tier's steps."""
        return pgd_plan("stronger", _STRONGER[tier], 1, margin)

    def inner(
        self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator
    ) -> Tensor:
        """PGD."""
        return perturb(net, x, y, ball, steps=steps, generator=generator)

    def selection(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """PGD-10."""
        return pgd(net, x, y, ball, Ascent(cross_entropy, SELECTION_STEPS), generator=generator)

    def vanished(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """bool[N]: where every mutable entry has a gradient of zero."""
        gradient, _, _ = climb_direction(net, x, y, cross_entropy)
        return torch.as_tensor((gradient * ball.mutable).flatten(1).abs().amax(1) == 0)

    def can_be_unlimited(self, net: nn.Module, ball: Ball) -> bool:
        """Only where every feature can be changed."""
        return bool((ball.mutable > 0).all())

    def unlimited(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """PGD-40 with two restarts."""
        return pgd(net, x, y, ball, Ascent(margin, 40, restarts=2), generator=generator)


class CharacterAttacks:
    """Characters replaced where the gradient at a text network's embedding points, or at random without one."""

    def plans(self, tier: Tier, classes: int, *, embedding: bool, gradients: bool) -> tuple[AttackPlan, ...]:
        """HotFlip and a random search; the search alone without an embedding."""
        search = _search_plan("random-edits", _QUERIES[tier])
        if not embedding:
            return (search,)
        return (
            AttackPlan("hotflip-at-once", "one-step", 1, 1, _flip_all),
            _hotflip_plan("hotflip", *_HOTFLIP[tier]),
            search,
        )

    def curve(self, *, embedding: bool) -> AttackPlan:
        """HotFlip with few candidates, or a short search."""
        return _hotflip_plan("curve", 4, 1) if embedding else _search_plan("curve", 100)

    def stronger(self, tier: Tier, *, embedding: bool) -> AttackPlan:
        """HotFlip with four times the candidates, or a search twice as long."""
        if embedding:
            return _hotflip_plan("stronger", 4 * _HOTFLIP[tier][0], 1)
        return _search_plan("stronger", 2 * _QUERIES[tier])

    def inner(
        self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator
    ) -> Tensor:
        """Characters flipped one after another, or at random without an embedding."""
        edits = round(ball.epsilon)
        if not isinstance(net, Embedding):
            return random_edits(x, edits, generator)
        point = x
        for _ in range(edits):
            point = flip_at_once(net, point, y, 1)
        return ball.resized(edits).project(point, x)

    def selection(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """The attack of the training."""
        return self.inner(net, x, y, ball, steps=1, generator=generator)

    def vanished(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """bool[N]: where the embedding has a gradient of zero; nowhere without an embedding."""
        if not isinstance(net, Embedding):
            return torch.zeros(len(x), dtype=torch.bool)
        embedded = net.embed(x).detach().requires_grad_()
        loss = mean_cross_entropy(net.forward_embedded(embedded).float(), y, reduction="sum")
        gradient = torch.autograd.grad(loss, embedded)[0]
        return torch.as_tensor(gradient.flatten(1).abs().amax(1) == 0)

    def can_be_unlimited(self, net: nn.Module, ball: Ball) -> bool:
        """Only with an embedding."""
        return isinstance(net, Embedding)

    def unlimited(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Flips as many characters as the ball has edits, in a few rounds."""
        point = x
        for _ in range(_ROUNDS):
            moved = flip_at_once(_shown(net), point, y, int(ball.epsilon) // _ROUNDS)
            point = torch.where(correct(net, point, y)[:, None], moved, point)
        return point


ATTACK_KINDS: dict[Literal["gradient", "characters"], AttackKind] = {
    "gradient": GradientAttacks(),
    "characters": CharacterAttacks(),
}


def attacks_on(ball: Ball | type[Ball]) -> AttackKind:
    """The attacks that fit a perturbation set, or all those of a norm."""
    return ATTACK_KINDS[ball.attacks]


def plans(tier: Tier, norm: Norm, classes: int, *, embedding: bool, gradients: bool = True) -> tuple[AttackPlan, ...]:
    """The attacks of a tier.

    `embedding`: whether a text network shows its embedding, which HotFlip needs; `gradients`: whether the network has
    any at all.
    """
    return attacks_on(ball_class(norm)).plans(tier, classes, embedding=embedding, gradients=gradients)


def cheap_plan(norm: Norm, *, embedding: bool) -> AttackPlan:
    """The attack of the accuracy curve."""
    return attacks_on(ball_class(norm)).curve(embedding=embedding)


def stronger_plan(tier: Tier, norm: Norm, *, embedding: bool) -> AttackPlan:
    """An attack with a multiple of the tier's budget: what it still gains shows how far the tier's falls short."""
    return attacks_on(ball_class(norm)).stronger(tier, embedding=embedding)


def inner_attack(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator) -> Tensor:
    """The attack of the training: PGD; characters are flipped one after another, or at random without an embedding."""
    return attacks_on(ball).inner(net, x, y, ball, steps=steps, generator=generator)


def selection_attack(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """The attack that chooses the best epoch."""
    return attacks_on(ball).selection(net, x, y, ball, generator)


def pgd_plan(name: str, steps: int, restarts: int, loss: Loss) -> AttackPlan:
    """PGD with that budget on that loss."""

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return pgd(net, x, y, ball, Ascent(loss, steps, restarts=restarts), generator=generator)

    return AttackPlan(name, "white-box", steps, restarts, run)


def _apgd_plan(name: str, loss: Loss) -> AttackPlan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return apgd(net, x, y, ball, Ascent(loss, APGD_STEPS), generator=generator)

    return AttackPlan(name, "white-box", APGD_STEPS, 1, run)


def _targeted_plan(classes: int) -> AttackPlan:
    """Auto-PGD towards each of the most likely wrong classes; with 3 classes and fewer, on the plain DLR."""
    targets = min(MOST_TARGETS, classes - 1) if classes > 3 else 0
    if not targets:
        return _apgd_plan("apgd-dlr", dlr)

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return targeted_apgd(net, x, y, ball, targets=targets, generator=generator)

    return AttackPlan("apgd-dlr-targeted", "white-box", APGD_STEPS, targets, run)


def _fmn_plan() -> AttackPlan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return fmn(net, x, y, ball, steps=APGD_STEPS)

    return AttackPlan("fmn", "white-box", APGD_STEPS, 1, run)


def _square_plan(queries: int) -> AttackPlan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return square(net, x, y, ball, queries=queries, generator=generator)

    return AttackPlan("square", "black-box", queries, 1, run)


def _decision_plan(queries: int) -> AttackPlan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return hop_skip_jump(net, x, y, ball, queries=queries, generator=generator)

    return AttackPlan("hop-skip-jump", "black-box", queries, 1, run)


def _flip_all(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    moved = flip_at_once(_shown(net), x, y, int(ball.epsilon))
    return torch.where(correct(net, x, y)[:, None], moved, x)


def _hotflip_plan(name: str, candidates: int, restarts: int) -> AttackPlan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return hotflip(net, x, y, ball, candidates=candidates, restarts=restarts, generator=generator)

    return AttackPlan(name, "white-box", candidates, restarts, run)


def _search_plan(name: str, queries: int) -> AttackPlan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return search_edits(net, x, y, ball, queries=queries, generator=generator)

    return AttackPlan(name, "black-box", queries, 1, run)


def _shown(net: nn.Module) -> Embedding:
    if not isinstance(net, Embedding):
        raise TypeError(f"{type(net).__name__} has no embed and forward_embedded")
    return net
