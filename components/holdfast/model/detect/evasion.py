"""An attacker who knows the detector: a wrong answer that is not suspicious (Carlini and Wagner 2017, 1705.07263).

Where inputs have gradients: projected gradient ascent, one walk until the model's answers with and without squeezers
are wrong in the same way (He et al. 2017, arXiv:1706.04701), two until one is wrong and the score is low; through
squeezers without a gradient as through the identity (BPDA). No squeezer draws at random, so there is nothing to take an
expectation of (EOT). Messages: characters flipped for the mean of the model's answers with and without squeezers, so
that both turn wrong together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.model.attack.hotflip import Embedding, has_embedding
from holdfast.model.attack.kinds import cheap_plan
from holdfast.model.attack.losses import margin, slope
from holdfast.model.attack.pgd import STEP_FACTOR
from holdfast.model.detect.detector import SqueezeDetector
from holdfast.model.detect.squeezers import Squeezer

STEPS = 40
_SURE, _SLACK = 0.2, 0.9
"""The margin beyond which an answer is wrong enough, and the share of the limit below which a score is low enough."""
Aim = Callable[[SqueezeDetector, Tensor, Tensor], Tensor]
"""(detector, its logits, y) -> float32[N], what a walk climbs."""


@dataclass(frozen=True)
class AttackedRows:
    """Rows x `[N, ...]` of classes y int64[N], and what the attacker reaches from them."""

    x: Tensor
    y: Tensor
    ball: Ball


def evade(detector: SqueezeDetector, rows: AttackedRows, generator: torch.Generator) -> Tensor:
    """Rows in the ball `[N, ...]`: where it was found, one with a wrong answer below the limit; else any."""
    if rows.ball.attacks == "characters":
        together = Together(detector.network, detector.squeezers)
        plan = cheap_plan(rows.ball.norm, embedding=has_embedding(together))
        return plan.run(together, rows.x, rows.y, rows.ball, generator)
    found, done = rows.x.clone(), torch.zeros(len(rows.y), dtype=torch.bool, device=rows.x.device)
    for aim in (_agreed, _pressed(1.0), _pressed(10.0)):
        left = (~done).nonzero()[:, 0]
        if len(left):
            known = AttackedRows(rows.x[left], rows.y[left], rows.ball)
            found[left], done[left] = _walk(detector, known, aim, generator)
    return found


def evaded(detector: SqueezeDetector, moved: Tensor, y: Tensor) -> Tensor:
    """bool[N]: wrong answers that are not suspicious."""
    with torch.no_grad():
        return _unnoticed(detector, detector.logits(moved), y)


def _unnoticed(detector: SqueezeDetector, logits: Tensor, y: Tensor) -> Tensor:
    return (logits[0].argmax(1) != y) & (detector.scores(logits) <= detector.limit)


def _agreed(detector: SqueezeDetector, logits: Tensor, y: Tensor) -> Tensor:
    """All answers wrong in the same way."""
    return margin(logits.mean(0), y)


def _pressed(pressure: float) -> Aim:
    """A wrong answer and, once there is one, a low score, which counts so much against the margin."""

    def aim(detector: SqueezeDetector, logits: Tensor, y: Tensor) -> Tensor:
        score = (detector.scores(logits) - _SLACK * detector.limit).clamp(min=0)
        return margin(logits[0], y).clamp(max=_SURE) - pressure * score

    return aim


def _walk(detector: SqueezeDetector, rows: AttackedRows, aim: Aim, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows where a walk found an unnoticed wrong answer, else as they were; and bool[N], where it did."""
    x, y, ball = rows.x, rows.y, rows.ball
    point, found = ball.random_start(x, generator), x.clone()
    done = torch.zeros(len(y), dtype=torch.bool, device=x.device)
    for _ in range(STEPS):
        leaf = ball.settle(point, x).detach().requires_grad_()
        logits = detector.logits(leaf)
        new = _unnoticed(detector, logits, y) & ~done
        found[new], done = leaf.detach()[new], done | new
        if bool(done.all()):
            break
        gradient = slope(aim(detector, logits, y), leaf)
        point = ball.project(ball.ascend(point, gradient, STEP_FACTOR * ball.epsilon / STEPS), x).detach()
    return found, done


class Together(nn.Module):
    """The mean of the model's logits with and without squeezers; of a text network, with its embedding."""

    def __init__(self, network: nn.Module, squeezers: tuple[Squeezer, ...]) -> None:
        super().__init__()
        self.network, self.squeezers = network, squeezers
        if isinstance(network, Embedding):
            self.embed, self.forward_embedded = network.embed, network.forward_embedded

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, classes]."""
        parts = [self.network(x), *(self.network(one(x)) for one in self.squeezers)]
        return torch.stack(parts).mean(0)
