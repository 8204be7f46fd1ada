"""Certified training by interval bounds (Gowal et al. 2018, https://arxiv.org/abs/1810.12715).

The loss is the cross-entropy of the worst logits that IBP allows inside the ball, mixed with the clean one. How it
starts is from Shi et al. 2021, https://arxiv.org/abs/2103.17268: weights so small that a box keeps its width from layer
to layer, and epsilon that grows smoothly from 0.

kappa: the share of the clean loss.
"""

from math import pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.modality.ball import Ball
from holdfast.model.certify.bounds import before_relus, box, certified, last_margins, other_classes
from holdfast.model.certify.layers import read_chain

WARM_UP, RAMP_END = 0.02, 0.5
"""Shares of the training after which epsilon begins to grow, and after which it is whole."""
LAST_KAPPA = 0.0


def interval_loss(
    net: nn.Module, x: Tensor, y: Tensor, ball: Ball, *, kappa: float, class_weights: Tensor | None = None
) -> Tensor:
    """kappa times the clean cross-entropy plus 1 - kappa times that of the worst logits in the ball; one number.

    Raises:
        ModelError: a layer that bounds do not know, or a ball that is not linf.
    """
    none = torch.zeros(len(y), device=x.device)
    worst = cross_entropy_of(worst_margins(net, x, y, ball)) if kappa < 1 else none
    clean = cross_entropy(net(x).float(), y, reduction="none") if kappa > 0 else none
    return weighted_mean(kappa * clean + (1 - kappa) * worst, y, class_weights)


def weighted_mean(losses: Tensor, y: Tensor, class_weights: Tensor | None) -> Tensor:
    """The mean over N of losses float32[N], each times the weight of its class y."""
    return losses.mean() if class_weights is None else (losses * class_weights[y]).mean()


def worst_margins(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """IBP's lower bounds float[N, classes - 1] of z_y - z_j, with gradients for the network's parameters."""
    chain, start = read_chain(net, x), box(ball, x)
    return last_margins(chain, before_relus(chain, start), start, other_classes(chain.shapes[-1], y)).lower


def cross_entropy_of(margins: Tensor) -> Tensor:
    """The cross-entropy float[N] of logits whose margins z_y - z_j are float[N, classes - 1]."""
    zero = torch.zeros_like(margins[:, :1])
    return torch.cat([zero, -margins], dim=1).logsumexp(dim=1)


def interval_holds(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """bool[N]: which rows are certified; chooses the epoch, as attacks do for the other recipes."""
    return certified(net, x, y, ball)


def interval_schedule(progress: float) -> tuple[float, float]:
    """(share of epsilon, kappa) at `progress` in [0, 1]: epsilon grows smoothly, kappa falls from 1 with it."""
    t = min(1.0, max(0.0, (progress - WARM_UP) / (RAMP_END - WARM_UP)))
    share = t * t * (3 - 2 * t)
    return share, 1 - (1 - LAST_KAPPA) * t


def interval_start(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network with new initial weights, N(0, 2 pi / n^2) for n inputs, so that boxes neither grow nor shrink.

    Biases are 0. Shi et al. 2021, section 4.1.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            inputs = module.weight[0].numel()
            with torch.no_grad():
                module.weight.normal_(0, sqrt(2 * pi) / inputs, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    return net
