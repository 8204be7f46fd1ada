"""One attack with its budget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from holdfast import __version__
from holdfast.modality.ball import Ball

OURS = f"holdfast {__version__}"
Tier = Literal["pr", "nightly", "release"]
Family = Literal["one-step", "white-box", "black-box"]
AttackFunction = Callable[[nn.Module, Tensor, Tensor, Ball, torch.Generator], Tensor]
"""(net, x, y, ball, generator) -> adversarial examples in the ball."""
_PAIRED = ("fgsm", "pgd-ce", "hotflip-at-once", "hotflip")
"""Attacks that take on every example."""


@dataclass(frozen=True)
class AttackPlan:
    """One attack with its budget; black-box attacks count queries as steps."""

    name: str
    family: Family
    steps: int
    restarts: int
    run: AttackFunction
    library: str = OURS
    """Whose implementation, with its version."""

    @property
    def takes_all(self) -> bool:
        """Whether it takes on every example, rather than those that are not yet misclassified."""
        return self.name in _PAIRED
