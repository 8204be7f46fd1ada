"""Which attacks a tier runs, and what each of them leaves standing.

pr: FGSM, PGD-20 with 2 restarts on two losses, Square with 200 queries. nightly: PGD-50 with 5 restarts, Auto-PGD,
Square with 1,000. release: in addition an ensemble in the manner of AutoAttack (Croce and Hein 2020): Auto-PGD on
cross-entropy and on the targeted DLR loss, Square with 5,000; its minimal-norm member, FAB, is left out.
Text: HotFlip at once and greedy, and a random search over edits, with budgets that grow in the same way.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from holdfast import __version__
from holdfast.artifacts.documents import Norm
from holdfast.model.attack.apgd import apgd
from holdfast.model.attack.edits import search_edits
from holdfast.model.attack.fgsm import fgsm
from holdfast.model.attack.hotflip import Embedding, flip_at_once, hotflip
from holdfast.model.attack.losses import Loss, correct, cross_entropy, dlr, margin, targeted_dlr
from holdfast.model.attack.pgd import pgd
from holdfast.model.attack.square import square
from holdfast.model.threat import Ball

Tier = Literal["pr", "nightly", "release"]
Family = Literal["one-step", "white-box", "black-box", "ensemble"]
Run = Callable[[nn.Module, Tensor, Tensor, Ball, torch.Generator], Tensor]
"""(net, x, y, ball, generator) -> adversarial examples in the ball."""

OURS = f"holdfast {__version__}"
BATCH = 512
MOST_TARGETS = 9
_PGD = {"pr": (20, 2), "nightly": (50, 5), "release": (50, 5)}
_QUERIES = {"pr": 200, "nightly": 1000, "release": 5000}
_HOTFLIP = {"pr": (16, 4), "nightly": (32, 8), "release": (64, 16)}
_APGD_STEPS = 100
_MEMBERS = ("apgd-ce", "apgd-dlr-targeted", "square")


@dataclass(frozen=True)
class Plan:
    """One attack with its budget; black-box attacks count queries as steps."""

    name: str
    family: Family
    steps: int
    restarts: int
    run: Run


@dataclass(frozen=True)
class Outcome:
    """Which examples an attack leaves answered correctly: bool[N]."""

    plan: Plan
    survived: Tensor


@dataclass(frozen=True)
class Measured:
    """A network under a suite; `clean` and `worst` are bool[N]."""

    clean: Tensor
    outcomes: tuple[Outcome, ...]

    @property
    def worst(self) -> Tensor:
        """Correct without and under every attack."""
        return self.under({"one-step", "white-box", "black-box"})

    def under(self, families: set[Family]) -> Tensor:
        """Correct without any attack and under every attack of these families."""
        flags = self.clean
        for outcome in self.outcomes:
            if outcome.plan.family in families:
                flags = flags & outcome.survived
        return flags


def plans(tier: Tier, norm: Norm, classes: int, *, embedding: bool) -> tuple[Plan, ...]:
    """The attacks of a tier; `embedding`: whether a text network shows its embedding, which HotFlip needs."""
    if norm == "edits":
        return _text_plans(tier, embedding=embedding)
    steps, restarts = _PGD[tier]
    chosen = [
        Plan("fgsm", "one-step", 1, 1, lambda net, x, y, ball, generator: fgsm(net, x, y, ball)),
        pgd_plan("pgd-ce", steps, restarts, cross_entropy),
        pgd_plan("pgd-margin", steps, restarts, margin),
    ]
    if tier != "pr":
        chosen += [_apgd_plan("apgd-ce", cross_entropy), _apgd_plan("apgd-dlr", dlr)]
    if tier == "release":
        chosen.append(_targeted_plan(classes))
    return (*chosen, _square_plan(_QUERIES[tier]))


def measure(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, attacks: Iterable[Plan], *, seed: int) -> Measured:
    """Runs every attack on all examples `[N, ...]`, each with its own stream of the seed."""
    outcomes = [Outcome(plan, survivors(net, x, y, ball, plan, seed=seed)) for plan in attacks]
    return Measured(correct_in_batches(net, x, y), (*outcomes, *_ensemble(outcomes)))


def survivors(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, plan: Plan, *, seed: int) -> Tensor:
    """bool[N]: which examples are answered correctly after the attack."""
    stream = np.random.SeedSequence([seed, *plan.name.encode()])
    generator = torch.Generator(x.device).manual_seed(int(stream.generate_state(1)[0]))
    parts = []
    for rows, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        moved = plan.run(net, rows, labels, ball, generator)
        if not bool(ball.contains(moved, rows).all()):
            raise RuntimeError(f"{plan.name} left the ball of {ball.norm} {ball.epsilon}")
        parts.append(correct(net, moved, labels))
    return torch.cat(parts)


def correct_in_batches(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """bool[N]: whether the network answers y."""
    pairs = zip(x.split(BATCH), y.split(BATCH), strict=True)
    return torch.cat([correct(net, rows, labels) for rows, labels in pairs])


def cheap_plan(norm: Norm, *, embedding: bool) -> Plan:
    """The attack of the accuracy curve."""
    if norm != "edits":
        return pgd_plan("curve", 20, 1, margin)
    return _hotflip_plan("curve", 4, 1) if embedding else _search_plan("curve", 100)


def stronger_plan(tier: Tier, norm: Norm, *, embedding: bool) -> Plan:
    """An attack with a multiple of the tier's budget: what it still gains shows how far the tier's falls short."""
    if norm != "edits":
        return pgd_plan("stronger", 4 * _PGD[tier][0], 1, margin)
    candidates, _ = _HOTFLIP[tier]
    return _hotflip_plan("stronger", 4 * candidates, 1) if embedding else _search_plan("stronger", 2 * _QUERIES[tier])


def pgd_plan(name: str, steps: int, restarts: int, loss: Loss) -> Plan:
    """PGD with that budget on that loss."""

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return pgd(net, x, y, ball, steps=steps, restarts=restarts, loss=loss, generator=generator)

    return Plan(name, "white-box", steps, restarts, run)


def has_embedding(net: nn.Module) -> bool:
    """Whether HotFlip can be used on the network."""
    return isinstance(net, Embedding)


def _apgd_plan(name: str, loss: Loss) -> Plan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return apgd(net, x, y, ball, steps=_APGD_STEPS, restarts=1, loss=loss, generator=generator)

    return Plan(name, "white-box", _APGD_STEPS, 1, run)


def _targeted_plan(classes: int) -> Plan:
    """Auto-PGD towards each of the most likely wrong classes; with 3 classes and fewer, on the plain DLR."""
    targets = min(MOST_TARGETS, classes - 1) if classes > 3 else 0
    losses: list[Loss] = [targeted_dlr(rank) for rank in range(1, targets + 1)] or [dlr]

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        found = x.clone()
        for loss in losses:
            alive = correct(net, found, y).nonzero()[:, 0]
            if len(alive):
                found[alive] = apgd(
                    net, x[alive], y[alive], ball, steps=_APGD_STEPS, restarts=1, loss=loss, generator=generator
                )
        return found

    return Plan("apgd-dlr-targeted", "white-box", _APGD_STEPS, len(losses), run)


def _square_plan(queries: int) -> Plan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return square(net, x, y, ball, queries=queries, generator=generator)

    return Plan("square", "black-box", queries, 1, run)


def _text_plans(tier: Tier, *, embedding: bool) -> tuple[Plan, ...]:
    search = _search_plan("random-edits", _QUERIES[tier])
    if not embedding:
        return (search,)
    return (Plan("hotflip-at-once", "one-step", 1, 1, _flip_all), _hotflip_plan("hotflip", *_HOTFLIP[tier]), search)


def _flip_all(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    if not isinstance(net, Embedding):
        raise TypeError(f"{type(net).__name__} has no embed and forward_embedded")
    moved = flip_at_once(net, x, y, int(ball.epsilon))
    return torch.where(correct(net, x, y)[:, None], moved, x)


def _hotflip_plan(name: str, candidates: int, restarts: int) -> Plan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return hotflip(net, x, y, ball, candidates=candidates, restarts=restarts, generator=generator)

    return Plan(name, "white-box", candidates, restarts, run)


def _search_plan(name: str, queries: int) -> Plan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return search_edits(net, x, y, ball, queries=queries, generator=generator)

    return Plan(name, "black-box", queries, 1, run)


def _ensemble(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """What stands under all members of the AutoAttack-like ensemble; nothing where they did not all run."""
    members = [outcome for outcome in outcomes if outcome.plan.name in _MEMBERS]
    if len(members) < len(_MEMBERS):
        return ()
    survived = torch.stack([outcome.survived for outcome in members]).all(0)
    steps, restarts = sum(o.plan.steps for o in members), sum(o.plan.restarts for o in members)
    return (Outcome(Plan("autoattack-class", "ensemble", steps, restarts, members[0].plan.run), survived),)
