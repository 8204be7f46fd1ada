"""How one batch is turned into a loss: the recipes of adversarial training.

standard    cross-entropy on the rows as they are
pgd         on rows moved to where the network errs most (Madry et al. 2018, https://arxiv.org/abs/1706.06083)
curriculum  pgd whose attack grows from one step to all of them (Cai et al. 2018, https://arxiv.org/abs/1805.04807)
fgsm-rs     a step or two, as long as epsilon, from a random start (Wong, Rice, Kolter 2020,
            https://arxiv.org/abs/2001.03994)
trades      cross-entropy on clean rows plus the distance to moved ones (Zhang et al. 2019,
            https://arxiv.org/abs/1901.08573)
awp         pgd on weights that were moved to where the loss is higher (Wu et al. 2020,
            https://arxiv.org/abs/2004.05884)
multi-norm  pgd in two balls; each row is fitted where it is worse (Tramer and Boneh 2019,
            https://arxiv.org/abs/1904.13000)
finetune    pgd from the weights of the champion, with the whole epsilon from the first batch
ibp         the worst logits that interval bounds allow in the ball (interval.py): what is trained can be certified
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import inner_attack
from holdfast.model.attack.losses import climb_direction
from holdfast.model.attack.losses import cross_entropy as climbed
from holdfast.model.attack.pgd import STEP_FACTOR
from holdfast.model.train.interval import interval_loss, weighted_mean
from holdfast.workload.fit import known_classes
from holdfast.workload.schema import RecipeConfig

FAST_STEP, FAST_STEPS = 1.25, 1.0
"""fgsm-rs: length of a single step (Wong et al. 2020, section 4), and of each of several, in units of epsilon."""
TRADES_START = 1e-3
"""trades: deviation of the first Gaussian move, in units of scale; from x itself the gradient is zero."""
_NOISY = 0.5
"""Share of a batch that gets noise when the recipe has any."""


@dataclass(frozen=True)
class Moment:
    """The attack at this point of the training: `ball` with its warmed-up epsilon, and how many steps it takes."""

    ball: Ball
    second: Ball | None
    steps: int
    generator: torch.Generator
    kappa: float = 0.0
    """ibp: the share of the clean loss."""
    class_weights: Tensor | None = None
    """float32[classes]: how much a row of each class counts; None: all alike."""


@contextmanager
def batch_loss(net: nn.Module, x: Tensor, y: Tensor, moment: Moment, config: RecipeConfig) -> Iterator[Tensor]:
    """The scalar that a batch x `[N, ...]`, y int64[N] is fitted by; its gradient is to be taken within the context."""
    if config.recipe == "trades":
        yield _trades(net, x, y, moment, config)
        return
    if config.recipe == "ibp":
        net.train()
        yield interval_loss(net, x, y, moment.ball, kappa=moment.kappa, class_weights=moment.class_weights)
        return
    net.eval()
    with frozen_weights(net) if config.compile else nullcontext():
        moved = _hardened(net, x, y, moment, config)
    x = with_noise(moved, config.noise, moment.ball, moment.generator)
    net.train()
    with moved_weights(net, x, y, config.weight_step) if config.recipe == "awp" else nullcontext():
        yield weighted_mean(cross_entropy(net(x).float(), y, reduction="none"), y, moment.class_weights)


def class_weights(y: Tensor, classes: Sequence[str], asked: str | Mapping[str, float]) -> Tensor | None:
    """float32[classes]: the weights of `train.class_weights` for training rows of the classes y, with mean 1 over them.

    Raises:
        WorkloadError: a weight for a class that the data does not have.
    """
    if isinstance(asked, str) and asked != "balanced":
        return None
    counts = torch.bincount(y, minlength=len(classes)).float()
    if isinstance(asked, str):
        weights = counts.clamp_min(1).reciprocal()
    else:
        known_classes(asked, classes)
        weights = torch.tensor([float(asked.get(name, 1.0)) for name in classes], device=y.device)
    return weights * (len(y) / (weights * counts).sum())


@contextmanager
def frozen_weights(net: nn.Module) -> Iterator[None]:
    """Within: gradients are those of inputs alone; kernels of torch.compile would compute those of all weights too."""
    fitted = [p for p in net.parameters() if p.requires_grad]
    for parameter in fitted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in fitted:
            parameter.requires_grad_(True)


def fast_attack(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, steps: int, generator: torch.Generator) -> Tensor:
    """One step or a few from a random start in the linf ball; one is what the original code of Wong et al. does.

    Gradients are taken at points that are cut to the ball and *not* to the limits of the input; only what comes out is.
    Cutting them to the limits first makes the training collapse on MNIST: the network learns to hide its gradients
    at the limits. Steps as long as epsilon reach every corner of the ball from anywhere.
    """
    free, length = ball.without_limits(), (FAST_STEP if steps == 1 else FAST_STEPS) * ball.epsilon
    start = torch.rand(x.shape, generator=generator, device=x.device) * 2 - 1
    point = x + ball.epsilon * start * ball.scale * ball.mutable
    for _ in range(steps):
        gradient, _, _ = climb_direction(net, point, y, climbed)
        point = free.project(ball.ascend(point, gradient, length), x)
    return ball.settle(ball.project(point, x), x)


def divergent(net: nn.Module, x: Tensor, ball: Ball, *, steps: int, generator: torch.Generator) -> Tensor:
    """The point in the ball around x whose answer differs most from that at x, by KL divergence (TRADES)."""
    with torch.no_grad():
        here = softmax(net(x).float(), 1)
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    point = x + TRADES_START * noise * ball.scale * ball.mutable
    for _ in range(steps):
        leaf = point.detach().requires_grad_()
        apart = kl_div(log_softmax(net(leaf).float(), 1), here, reduction="sum")
        (gradient,) = torch.autograd.grad(apart, leaf)
        point = ball.project(ball.ascend(point, gradient, STEP_FACTOR * ball.epsilon / steps), x)
    return ball.settle(point, x)


@contextmanager
def moved_weights(net: nn.Module, x: Tensor, y: Tensor, gamma: float) -> Iterator[None]:
    """Moves every weight matrix by gamma times its norm along the ascent of the loss at x, and back at the end."""
    weights = [p for p in net.parameters() if p.requires_grad and p.dim() > 1]
    gradients = torch.autograd.grad(cross_entropy(net(x).float(), y), weights)
    before = [p.detach().clone() for p in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(gradient, alpha=gamma * float(weight.norm() / gradient.norm().clamp_min(1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


def with_noise(x: Tensor, noise: float, ball: Ball, generator: torch.Generator) -> Tensor:
    """Half of the rows with Gaussian noise of that many units of scale, or with that share of characters hidden."""
    if not noise:
        return x
    chosen = torch.rand(len(x), generator=generator, device=x.device) < _NOISY
    return ball.with_noise(x, noise, chosen.reshape(-1, *([1] * (x.dim() - 1))), generator)


def _hardened(net: nn.Module, x: Tensor, y: Tensor, moment: Moment, config: RecipeConfig) -> Tensor:
    """The batch with the share that the recipe attacks moved."""
    attacked = 0 if config.recipe == "standard" else round(len(y) * config.adversarial_share)
    if not attacked:
        return x
    moved = _attacked(net, x[:attacked], y[:attacked], moment, config)
    return torch.cat([moved, x[attacked:]])


def _attacked(net: nn.Module, x: Tensor, y: Tensor, moment: Moment, config: RecipeConfig) -> Tensor:
    if config.recipe == "fgsm-rs":
        return fast_attack(net, x, y, moment.ball, steps=moment.steps, generator=moment.generator)
    moved = inner_attack(net, x, y, moment.ball, steps=moment.steps, generator=moment.generator)
    if moment.second is None:
        return moved
    other = inner_attack(net, x, y, moment.second, steps=moment.steps, generator=moment.generator)
    with torch.no_grad():
        worse = climbed(net(other).float(), y) > climbed(net(moved).float(), y)
    return torch.where(worse.reshape(-1, *([1] * (x.dim() - 1))), other, moved)


def _trades(net: nn.Module, x: Tensor, y: Tensor, moment: Moment, config: RecipeConfig) -> Tensor:
    net.eval()
    with frozen_weights(net) if config.compile else nullcontext():
        moved = divergent(net, x, moment.ball, steps=moment.steps, generator=moment.generator)
    x = with_noise(x, config.noise, moment.ball, moment.generator)
    net.train()
    z, z_moved = net(x).float(), net(moved).float()
    apart = kl_div(log_softmax(z_moved, 1), log_softmax(z, 1), reduction="none", log_target=True).sum(1)
    return weighted_mean(cross_entropy(z, y, reduction="none") + config.beta * apart, y, moment.class_weights)
