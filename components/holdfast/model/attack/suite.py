"""What the attacks of a suite leave correct; which attacks a tier runs is in kinds.py.

The first attack of a kind takes on every example, so that one step and many can be compared; all others take on what
is not yet misclassified, because the headline is the worst case of each example.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.errors import ModelError
from holdfast.modality.ball import Ball
from holdfast.model.attack.losses import answered, correct, margin
from holdfast.model.attack.plan import AttackPlan, Family

BATCH = {"cpu": 256, "cuda": 4096}
"""Rows at a time: what fits a CPU's cache, what fills a GPU."""
KEPT = 128
"""The number of first examples that are kept as the attacks left them."""


@dataclass(frozen=True)
class AttackOutcome:
    """The examples correct after an attack: bool[N]; `cumulative`: those broken before it are broken here too."""

    plan: AttackPlan
    survived: Tensor
    cumulative: bool = False


@dataclass(frozen=True)
class Measured:
    """A network under a suite; `clean` and `worst` are bool[N]."""

    clean: Tensor
    outcomes: tuple[AttackOutcome, ...]
    adversarial: Tensor
    """The first `KEPT` examples: as the first attack that broke them left them, else as the last one did.

    An example that is answered wrongly without any attack is not perturbed.
    """
    logits: Tensor
    """float32[N, classes] without any attack."""
    worst_logits: Tensor
    """float32[N, classes] of each example as the attack left it whose margin is largest (`losses.margin`).

    Of one that is answered wrongly without any attack: those without it.
    """

    def first(self, count: int) -> "Measured":
        """The same of the first `count` examples."""
        outcomes = (AttackOutcome(one.plan, one.survived[:count], one.cumulative) for one in self.outcomes)
        return Measured(
            self.clean[:count],
            tuple(outcomes),
            self.adversarial[:count],
            self.logits[:count],
            self.worst_logits[:count],
        )

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


def measure(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, attacks: Iterable[AttackPlan], *, seed: int) -> Measured:
    """Runs every attack on the examples `[N, ...]` that it takes on, each with its own stream of the seed."""
    logits = logits_in_batches(net, x, y)
    clean = logits.argmax(1) == y
    remaining, outcomes, kept, worst_logits = clean, [], x[:KEPT].clone(), logits.clone()
    for plan in attacks:
        taken = clean if plan.takes_all else remaining
        survived = taken.clone()
        if bool(taken.any()):
            attempt = attempted(net, x[taken], y[taken], ball, plan, seed=seed)
            survived[taken] = attempt.survived
            worst_logits[taken] = worse(worst_logits[taken], attempt.logits, y[taken])
            first = taken[:KEPT]
            still = remaining[:KEPT][first]
            kept[first & remaining[:KEPT]] = attempt.moved[: len(still)][still]
        outcomes.append(AttackOutcome(plan, survived, cumulative=not plan.takes_all))
        remaining = remaining & survived
    return Measured(clean, tuple(outcomes), kept, logits, worst_logits)


def worse(one: Tensor, other: Tensor, y: Tensor) -> Tensor:
    """Of two logits[N, classes] for the classes y, those of each row that are closer to a mistake, or further in it."""
    return torch.where((margin(other, y) > margin(one, y))[:, None], other, one)


def survivors(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, plan: AttackPlan, *, seed: int) -> Tensor:
    """bool[N]: which examples are answered correctly after the attack.

    Raises:
        RuntimeError: the attack left the ball, which is a mistake of ours.
    """
    return attempted(net, x, y, ball, plan, seed=seed).survived


@dataclass(frozen=True)
class Attempt:
    """What one attack did to N examples."""

    logits: Tensor
    """float32[N, classes] after it."""
    survived: Tensor
    """bool[N]: which of them are answered correctly after it."""
    moved: Tensor
    """The first `KEPT` of them, or fewer when there are fewer, as it left them."""


def attempted(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, plan: AttackPlan, *, seed: int) -> Attempt:
    """One attack on all examples, with its own stream of the seed.

    Raises:
        RuntimeError: the attack left the ball, which is a mistake of ours.
    """
    first = x[:KEPT].clone()
    stream = np.random.SeedSequence([seed, *plan.name.encode()])
    generator = torch.Generator(x.device).manual_seed(int(stream.generate_state(1)[0]))
    done = 0

    def logits_after(rows: Tensor, labels: Tensor) -> Tensor:
        nonlocal done
        moved = plan.run(net, rows, labels, ball, generator)
        if not bool(ball.contains(moved, rows).all()):
            raise RuntimeError(f"{plan.name} left the ball of {ball.norm} {ball.epsilon}")
        first[done : done + len(moved)] = moved[: max(len(first) - done, 0)]
        done += len(moved)
        return answered(net, moved)

    logits = in_batches(logits_after, x, y)
    return Attempt(logits, logits.argmax(1) == y if len(y) else logits, first)


def logits_in_batches(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """float32[N, classes]: what the network answers."""
    return in_batches(lambda rows, _: answered(net, rows), x, y)


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
