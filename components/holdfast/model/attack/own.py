"""The user's own attacks: functions that `attack.own` names, held to the threat model like every other attack."""

import hashlib
import inspect
import sys

import torch
from torch import Tensor, nn

from holdfast.errors import ModelError
from holdfast.modality.ball import Ball
from holdfast.model.attack.plan import AttackPlan
from holdfast.model.own_code import asked_for, find_function

PARAMETERS = ("net", "x", "y", "ball", "epsilon", "generator")
"""What a function is offered; it gets those that it has parameters for."""


def own_plan(name: str) -> AttackPlan:
    """The attack `module:function`; it takes on the examples that the attacks before it left.

    The function returns adversarial examples `[N, ...]` for the network `net`, inputs `x` `[N, ...]` and classes `y`
    int64[N]. What else it may ask for: the perturbation set `ball`, its `epsilon`, and a random `generator`. An
    exception that it raises keeps its traceback.

    Raises:
        ModelError: there is no such function, or it needs arguments that are not offered.
    """
    function = find_function(name, "attack")
    try:
        inspect.signature(function).bind(**asked_for(function, dict.fromkeys(PARAMETERS)))
    except (TypeError, ValueError) as error:
        raise ModelError(f"attack {name!r}: expected parameters among {', '.join(PARAMETERS)}; {error}") from None

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        given = (net, x.clone(), y.clone(), ball, ball.epsilon, generator)
        found = function(**asked_for(function, dict(zip(PARAMETERS, given, strict=True))))
        return _checked(found, x, ball, name)

    return AttackPlan(name, "white-box", 0, 1, run, library=_library(name))


def _checked(found: object, x: Tensor, ball: Ball, name: str) -> Tensor:
    if not isinstance(found, Tensor) or found.shape != x.shape or found.dtype != x.dtype:
        what = f"{found.dtype}{list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ModelError(f"attack {name!r}: expected adversarial examples {x.dtype}{list(x.shape)}, found {what}")
    moved = found.detach().to(x.device)
    outside = int((~ball.contains(moved, x)).sum())
    if outside:
        raise ModelError(
            f"attack {name!r}: expected examples in the {ball.norm} ball of epsilon {ball.epsilon:g}, "
            f"found {outside} of {len(x)} outside; return ball.settle(ball.project(moved, x), x)"
        )
    return moved


def _library(name: str) -> str:
    """The version of the code: the digest of the file that the name leads to."""
    source = inspect.getsource(sys.modules[name.partition(":")[0]])
    return f"own code, sha256 {hashlib.sha256(source.encode()).hexdigest()}"
