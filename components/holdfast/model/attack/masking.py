"""Signs that robustness is overestimated because the attack cannot see, not because the model holds.

The signs are those of Carlini et al. 2019 (https://arxiv.org/abs/1902.06705) and of AutoAttack's warnings.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.artifacts.documents import Count, MaskingCheck, Verdict
from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import attacks_on
from holdfast.model.attack.losses import correct
from holdfast.model.attack.plan import AttackPlan
from holdfast.model.attack.suite import Measured, correct_in_batches, in_batches, survivors
from holdfast.model.networks import is_probabilities

TOLERATED = 0.02
"""Share of the examples that a weaker or other attack may gain."""
TOLERATED_AGREEMENT = 0.03
"""Share of the examples in which a second implementation may break more."""
TOLERATED_ZERO = 0.01
ABOVE_CHANCE = 0.10


@dataclass(frozen=True)
class Signs:
    """What the signs are counted from, for each of N examples."""

    remaining: Tensor
    """bool[N]: correct under every attack, and under one with several times the budget."""
    right: Tensor
    """bool[N]: correct without any attack."""
    vanished: Tensor
    """bool[N]: correct, and its gradient is exactly zero."""
    apart: Tensor
    """float32[N]: the most that two answers of the network differ by."""
    size: Tensor
    """float32[N]: the largest logit of the first of them, without its sign."""
    unlimited: Tensor | None
    """bool[N]: correct under an unlimited budget; None where some features can never be changed."""


def look(
    net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, measured: Measured, stronger: AttackPlan, seed: int
) -> Signs:
    """Looks for all signs on these examples `[N, ...]`."""
    generator = torch.Generator(x.device).manual_seed(seed)
    left, right = measured.worst, correct_in_batches(net, x, y)
    remaining, vanished = left.clone(), torch.zeros_like(right)
    if bool(left.any()):
        remaining[left] = survivors(net, x[left], y[left], ball, stronger, seed=seed)
    if bool(right.any()):
        vanished[right] = _vanished(net, x[right], y[right], ball).to(right.device)
    first, second = _logits(net, x), _logits(net, x)
    unlimited = _under_unlimited(net, x, y, ball, generator)
    return Signs(remaining, right, vanished, (first - second).abs().amax(1), first.abs().amax(1), unlimited)


def check(
    net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, measured: Measured, stronger: AttackPlan, seed: int
) -> tuple[MaskingCheck, ...]:
    """All signs that can be looked for on these examples `[N, ...]`; none on a network with one answer for all."""
    if answers_constantly(measured):
        return (constant_answer(len(y)),)
    signs = look(net, x, y, ball, measured=measured, stronger=stronger, seed=seed)
    return judge(measured, signs, stronger=stronger, epsilon=ball.unlimited(x))


def judge(measured: Measured, signs: Signs, *, stronger: AttackPlan, epsilon: float) -> tuple[MaskingCheck, ...]:
    """Judges what was seen of N examples; `epsilon` is the unlimited budget."""
    if answers_constantly(measured):
        return (constant_answer(len(measured.clean)),)
    return (
        *one_step_check(measured),
        black_box_check(measured),
        stronger_check(measured, signs, stronger),
        zero_gradient_check(signs),
        determinism_check(signs),
        output_check(measured.logits),
        *huge_check(signs, classes=measured.logits.shape[1], epsilon=epsilon),
    )


def answers_constantly(measured: Measured) -> bool:
    """Whether all of two examples or more are answered with one class."""
    return len(measured.logits) > 1 and len(measured.logits.argmax(1).unique()) == 1


def constant_answer(examples: int) -> MaskingCheck:
    """What is known of a network that answers one class always: no attack can be too weak for it, or strong enough."""
    detail = f"all {examples} examples get the same answer: the network separates no classes"
    return MaskingCheck(name="constant-answer", verdict=Verdict.INCONCLUSIVE, detail=detail)


def one_step_check(measured: Measured) -> tuple[MaskingCheck, ...]:
    """A single step must not break more than many steps do; nothing to say without a one-step attack."""
    one = [o.survived for o in measured.outcomes if o.plan.family == "one-step"]
    many = measured.clean
    for outcome in measured.outcomes:
        fair = outcome.plan.family == "white-box" and not outcome.cumulative
        many = many & outcome.survived if fair else many
    if not one:
        return ()
    n, fewer, more = len(many), int(many.sum()), int(one[0].sum())
    detail = f"{more} of {n} survive one step, {fewer} survive many"
    return (_judged("one-step-beats-many", fewer - more <= 0.01 * n, detail),)


def black_box_check(measured: Measured) -> MaskingCheck:
    """An attack without gradients must not break what gradients could not."""
    white, both = measured.under({"one-step", "white-box"}), measured.under({"one-step", "white-box", "black-box"})
    n, gained = len(white), int(white.sum()) - int(both.sum())
    searched_only = not any(o.plan.family == "white-box" for o in measured.outcomes)
    detail = f"black-box attacks broke {gained} of {n} examples that white-box attacks did not"
    if searched_only:
        return MaskingCheck(
            name="black-box-beats-white-box",
            verdict=Verdict.INCONCLUSIVE,
            detail="no white-box attack fits this network: it shows no gradient, or no embed and forward_embedded",
        )
    return _judged("black-box-beats-white-box", gained <= TOLERATED * n, detail)


def stronger_check(measured: Measured, signs: Signs, plan: AttackPlan) -> MaskingCheck:
    """Several times the budget must not break much more."""
    n, gained = len(signs.remaining), int(measured.worst.sum()) - int(signs.remaining.sum())
    detail = f"an attack with {plan.steps} steps broke {gained} of {n} examples more"
    return _judged("more-steps-gain", gained <= TOLERATED * n, detail)


def zero_gradient_check(signs: Signs) -> MaskingCheck:
    """The gradient must not be exactly zero where the network is right."""
    zero, n = int(signs.vanished.sum()), int(signs.right.sum())
    return _judged("zero-gradients", zero <= TOLERATED_ZERO * n, f"{zero} of {n} examples have a gradient of zero")


def has_gradients(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> bool:
    """Whether any of the examples `[N, ...]` has a gradient: without one, attacks that follow it say nothing."""
    return bool((~_vanished(net, x, y, ball)).any())


def determinism_check(signs: Signs) -> MaskingCheck:
    """Two calls must answer the same: a randomized defence needs attacks that average over its randomness."""
    apart, size = (float(values.max()) if len(values) else 0.0 for values in (signs.apart, signs.size))
    return _judged("random-answers", apart <= 1e-6 * (1 + size), f"two calls differ by {apart:.2g}")


def output_check(logits: Tensor) -> MaskingCheck:
    """Attacks on logit margins mean nothing on probabilities."""
    return _judged(
        "probabilities", not is_probabilities(logits.cpu().numpy()), "the network returns logits[N, classes]"
    )


def huge_check(signs: Signs, *, classes: int, epsilon: float) -> tuple[MaskingCheck, ...]:
    """Judges an unlimited budget, under which nothing can hold; left out where some features can never be changed."""
    if signs.unlimited is None:
        return ()
    held = Count(k=int(signs.unlimited.sum()), n=len(signs.unlimited))
    limit = 1 / classes + ABOVE_CHANCE
    detail = f"{held.k} of {held.n} survive epsilon {epsilon:g}; at most {limit:.0%} can be chance"
    return (_judged("unlimited-budget", held.share <= limit, detail),)


def _under_unlimited(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor | None:
    attacks = attacks_on(ball)
    if not attacks.can_be_unlimited(net, ball):
        return None
    limits = ball.resized(ball.unlimited(x))

    def still_correct(rows: Tensor, labels: Tensor) -> Tensor:
        return correct(net, attacks.unlimited(net, rows, labels, limits, generator), labels)

    return in_batches(still_correct, x, y)


def second_opinion_check(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], *, library: str) -> MaskingCheck:
    """Another implementation of the same attack must not break clearly more (or clearly less) than ours."""
    n, more, less = len(ours), int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    apart = int(ours.sum()) - int(theirs.sum())
    detail = f"of {n} examples {library} broke {more} that ours did not, ours {less} that it did not"
    return _judged("second-opinion", abs(apart) <= max(TOLERATED_AGREEMENT * n, 1), detail)


def _vanished(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """bool[N]: where no entry that an attacker changes has a gradient."""
    attacks = attacks_on(ball)
    return in_batches(lambda rows, labels: attacks.vanished(net, rows, labels, ball), x, y)


def _logits(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return in_batches(lambda rows, _: net(rows).float(), x, x)


def _judged(name: str, good: bool, detail: str) -> MaskingCheck:
    return MaskingCheck(name=name, verdict=Verdict.PASS if good else Verdict.FAIL, detail=detail)
