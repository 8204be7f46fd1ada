"""Which attacks a tier runs, and what each of them leaves standing.

pr: FGSM, PGD-20 with 2 restarts on two losses, Square with 200 queries. nightly: PGD-50 with 5 restarts, Auto-PGD,
Square with 1,000. release: the members of AutoAttack (Croce and Hein 2020): Auto-PGD on cross-entropy and on the
targeted DLR loss, a minimum-norm attack (FMN in FAB's place) and Square with 5,000.
Text: HotFlip at once and greedy, and a random search over edits, with budgets that grow in the same way.

The first attack of a kind takes on every example, so that one step and many can be compared; all others take on what
still stands, because the headline is the worst case of each example.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from holdfast import __version__
from holdfast.artifacts.documents import Norm
from holdfast.errors import ModelError
from holdfast.model.attack.apgd import apgd
from holdfast.model.attack.decision import hop_skip_jump
from holdfast.model.attack.edits import search_edits
from holdfast.model.attack.fgsm import fgsm
from holdfast.model.attack.fmn import fmn
from holdfast.model.attack.hotflip import Embedding, flip_at_once, hotflip
from holdfast.model.attack.losses import Loss, TargetedDlr, correct, cross_entropy, dlr, logits_at, margin
from holdfast.model.attack.pgd import pgd
from holdfast.model.attack.square import square
from holdfast.model.attack.typos import type_badly
from holdfast.model.threat import Ball

Tier = Literal["pr", "nightly", "release"]
Family = Literal["one-step", "white-box", "black-box"]
Run = Callable[[nn.Module, Tensor, Tensor, Ball, torch.Generator], Tensor]
"""(net, x, y, ball, generator) -> adversarial examples in the ball."""

OURS = f"holdfast {__version__}"
BATCH = {"cpu": 256, "cuda": 4096}
"""Rows at a time: what fits a CPU's cache, what fills a GPU."""
MOST_TARGETS = 9
KEPT = 128
"""So many of the first examples are kept as the attacks left them."""
_PGD = {"pr": (20, 2), "nightly": (50, 5), "release": (20, 1)}
_STRONGER = {"pr": 80, "nightly": 200, "release": 200}
_QUERIES = {"pr": 200, "nightly": 1000, "release": 5000}
_HOTFLIP = {"pr": (16, 4), "nightly": (32, 8), "release": (64, 16)}
_FOCUS = {"pr": 3, "nightly": 6, "release": 12}
_APGD_STEPS = 100
SCOUT_STEPS, LIKELY_TARGETS = 25, 3
"""Targeted Auto-PGD: steps towards each class, and to how many of the nearest classes all steps are then taken."""
_PAIRED = ("fgsm", "pgd-ce", "hotflip-at-once", "hotflip")
"""Attacks that take on every example."""


@dataclass(frozen=True)
class Plan:
    """One attack with its budget; black-box attacks count queries as steps."""

    name: str
    family: Family
    steps: int
    restarts: int
    run: Run

    @property
    def takes_all(self) -> bool:
        """Whether it takes on every example, rather than those that still stand."""
        return self.name in _PAIRED


@dataclass(frozen=True)
class Outcome:
    """Which examples stand after an attack: bool[N]; `cumulative`: those broken before it are broken here too."""

    plan: Plan
    survived: Tensor
    cumulative: bool = False


@dataclass(frozen=True)
class Measured:
    """A network under a suite; `clean` and `worst` are bool[N]."""

    clean: Tensor
    outcomes: tuple[Outcome, ...]
    adversarial: Tensor
    """The first `KEPT` examples: as the first attack that broke them left them, else as the last one did.

    An example that is answered wrongly without any attack is not perturbed.
    """

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


def plans(tier: Tier, norm: Norm, classes: int, *, embedding: bool, gradients: bool = True) -> tuple[Plan, ...]:
    """The attacks of a tier.

    `embedding`: whether a text network shows its embedding, which HotFlip needs; `gradients`: whether the network has
    any at all. Without, what is left are Square and HopSkipJump.
    """
    if norm == "edits":
        return _text_plans(tier, embedding=embedding)
    if not gradients:
        return (_square_plan(_QUERIES[tier]), _decision_plan(_QUERIES[tier]))
    steps, restarts = _PGD[tier]
    first = (
        Plan("fgsm", "one-step", 1, 1, lambda net, x, y, ball, generator: fgsm(net, x, y, ball)),
        pgd_plan("pgd-ce", steps, restarts, cross_entropy),
    )
    then: dict[Tier, tuple[Plan, ...]] = {
        "pr": (pgd_plan("pgd-margin", steps, restarts, margin),),
        "nightly": (_apgd_plan("apgd-dlr", dlr),),
        "release": (_apgd_plan("apgd-ce", cross_entropy), _targeted_plan(classes), _fmn_plan()),
    }
    return (*first, *then[tier], _square_plan(_QUERIES[tier]))


def typo_plan(tier: Tier, words: frozenset[str]) -> Plan:
    """Typing errors, which no gradient knows: for threat models with `typing`."""
    focus = _FOCUS[tier]

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return type_badly(net, x, y, edits=int(ball.epsilon), words=words, focus=focus)

    return Plan("typing-errors", "black-box", focus, 1, run)


def measure(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, attacks: Iterable[Plan], *, seed: int) -> Measured:
    """Runs every attack on the examples `[N, ...]` that it takes on, each with its own stream of the seed."""
    clean = correct_in_batches(net, x, y)
    standing, outcomes, kept = clean, [], x[:KEPT].clone()
    for plan in attacks:
        taken = clean if plan.takes_all else standing
        survived = taken.clone()
        if bool(taken.any()):
            attempt = attempted(net, x[taken], y[taken], ball, plan, seed=seed)
            survived[taken] = attempt.survived
            first = taken[:KEPT]
            still = standing[:KEPT][first]
            kept[first & standing[:KEPT]] = attempt.moved[: len(still)][still]
        outcomes.append(Outcome(plan, survived, cumulative=not plan.takes_all))
        standing = standing & survived
    return Measured(clean, tuple(outcomes), kept)


def survivors(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, plan: Plan, *, seed: int) -> Tensor:
    """bool[N]: which examples are answered correctly after the attack.

    Raises:
        RuntimeError: the attack left the ball, which is a mistake of ours.
    """
    return attempted(net, x, y, ball, plan, seed=seed).survived


@dataclass(frozen=True)
class Attempt:
    """What one attack did to N examples."""

    survived: Tensor
    """bool[N]: which of them are answered correctly after it."""
    moved: Tensor
    """The first `KEPT` of them, or fewer when there are fewer, as it left them."""


def attempted(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, plan: Plan, *, seed: int) -> Attempt:
    """One attack on all examples, with its own stream of the seed.

    Raises:
        RuntimeError: the attack left the ball, which is a mistake of ours.
    """
    first = x[:KEPT].clone()
    stream = np.random.SeedSequence([seed, *plan.name.encode()])
    generator = torch.Generator(x.device).manual_seed(int(stream.generate_state(1)[0]))
    done = 0

    def stand(rows: Tensor, labels: Tensor) -> Tensor:
        nonlocal done
        moved = plan.run(net, rows, labels, ball, generator)
        if not bool(ball.contains(moved, rows).all()):
            raise RuntimeError(f"{plan.name} left the ball of {ball.norm} {ball.epsilon}")
        standing = correct(net, moved, labels)
        first[done : done + len(moved)] = moved[: max(len(first) - done, 0)]
        done += len(moved)
        return standing

    return Attempt(in_batches(stand, x, y), first)


def correct_in_batches(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """bool[N]: whether the network answers y."""
    return in_batches(lambda rows, labels: correct(net, rows, labels), x, y)


def in_batches(work: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The results of `work` on batches of x `[N, ...]` and y; halves the batch where it does not fit the memory.

    Raises:
        ModelError: not even one row fits.
    """
    size, done, parts = BATCH.get(x.device.type, BATCH["cpu"]), 0, []
    while done < len(y):
        try:
            parts.append(work(x[done : done + size], y[done : done + size]))
        except torch.OutOfMemoryError:
            if size == 1:
                raise ModelError("expected memory for one row at a time, found too little") from None
            size = max(1, size // 2)
            continue
        done += size
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool, device=x.device)


def cheap_plan(norm: Norm, *, embedding: bool) -> Plan:
    """The attack of the accuracy curve."""
    if norm != "edits":
        return pgd_plan("curve", 20, 1, margin)
    return _hotflip_plan("curve", 4, 1) if embedding else _search_plan("curve", 100)


def stronger_plan(tier: Tier, norm: Norm, *, embedding: bool) -> Plan:
    """An attack with a multiple of the tier's budget: what it still gains shows how far the tier's falls short."""
    if norm != "edits":
        return pgd_plan("stronger", _STRONGER[tier], 1, margin)
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
    if not targets:
        return _apgd_plan("apgd-dlr", dlr)

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return targeted_apgd(net, x, y, ball, targets=targets, generator=generator)

    return Plan("apgd-dlr-targeted", "white-box", _APGD_STEPS, targets, run)


def targeted_apgd(
    net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, targets: int, generator: torch.Generator
) -> Tensor:
    """Auto-PGD towards the `targets` most likely wrong classes of each example.

    Few steps towards every class show which ones come near; all steps are taken towards the nearest.
    """
    found = x.clone()
    order = ranked_targets(net, x, y, targets)
    near = torch.full(order.shape, -torch.inf, device=x.device)
    alive = correct(net, x, y).nonzero()[:, 0]
    for rank in range(targets):
        alive = _towards(net, (x, y, found), ball, alive, order[:, rank], SCOUT_STEPS, generator)
        near[alive, rank] = _closeness(net, found[alive], y[alive], order[alive, rank])
    for rank in range(min(LIKELY_TARGETS, targets)):
        likely = order.gather(1, near.argsort(1, descending=True))[:, rank]
        alive = _towards(net, (x, y, found), ball, alive, likely, _APGD_STEPS, generator)
    return found


def ranked_targets(net: nn.Module, x: Tensor, y: Tensor, targets: int) -> Tensor:
    """int64[N, targets]: the wrong classes with the largest logits at x, the most likely first."""
    with torch.no_grad():
        z = logits_at(net, x)
    order: Tensor = z.scatter(1, y[:, None], -torch.inf).topk(targets, dim=1).indices
    return order


def _towards(
    net: nn.Module,
    batch: tuple[Tensor, Tensor, Tensor],
    ball: Ball,
    alive: Tensor,
    target: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Auto-PGD of the examples `alive` towards their targets; writes what it found, returns those that still stand."""
    x, y, found = batch
    if len(alive) == 0:
        return alive
    loss = TargetedDlr(target[alive])
    point = apgd(net, x[alive], y[alive], ball, steps=steps, restarts=1, loss=loss, generator=generator)
    found[alive] = point
    standing: Tensor = alive[correct(net, point, y[alive])]
    return standing


def _closeness(net: nn.Module, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """float32[N]: how far the logit of the target is below that of y, negative."""
    with torch.no_grad():
        z = logits_at(net, x)
    below: Tensor = (z.gather(1, target[:, None]) - z.gather(1, y[:, None]))[:, 0]
    return below


def _fmn_plan() -> Plan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return fmn(net, x, y, ball, steps=_APGD_STEPS)

    return Plan("fmn", "white-box", _APGD_STEPS, 1, run)


def _square_plan(queries: int) -> Plan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return square(net, x, y, ball, queries=queries, generator=generator)

    return Plan("square", "black-box", queries, 1, run)


def _decision_plan(queries: int) -> Plan:
    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return hop_skip_jump(net, x, y, ball, queries=queries, generator=generator)

    return Plan("hop-skip-jump", "black-box", queries, 1, run)


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
