"""What is seen of the examples of a block, one array per observation; the report is counted from these alone."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from holdfast.modality import modality_of
from holdfast.model.attack.scene import SECONDED
from holdfast.model.shards import ExampleBlock, Table

if TYPE_CHECKING:
    from torch import Tensor

    from holdfast.model.attack.masking import Signs
    from holdfast.model.attack.scene import Contender, Scene
    from holdfast.model.attack.suite import Measured


def observe(scene: "Scene", block: ExampleBlock) -> Table:
    """Attacks the examples of a block: `candidate/..`, `champion/..` and, for the sample, `sample/..`."""
    found = _measured(scene.candidate, block)
    table = _columns("candidate", found, block)
    if scene.champion is not None:
        table |= _columns("champion", _measured(scene.champion, block), block)
    if block.sampled:
        table |= {f"sample/{name}": values.cpu().numpy() for name, values in _sample(scene, block, found).items()}
    return table


def measured_of(whose: str, contender: "Contender", table: Mapping[str, NDArray[Any]]) -> "Measured":
    """What a table holds of a contender."""
    import torch

    from holdfast.model.attack.suite import AttackOutcome, Measured

    def column(name: str) -> "Tensor":
        return torch.from_numpy(table[f"{whose}/{name}"])

    outcomes = (
        AttackOutcome(plan, column(f"survived/{plan.name}"), cumulative=not plan.takes_all) for plan in contender.plans
    )
    return Measured(column("clean"), tuple(outcomes), column("moved"), column("logits"), column("worst_logits"))


def _measured(contender: "Contender", block: ExampleBlock) -> "Measured":
    from holdfast.model.attack.suite import measure

    x, y = contender.x[block.rows], contender.y[block.rows]
    return measure(contender.net, x, y, contender.ball, contender.plans, seed=block.seed)


def _columns(whose: str, found: "Measured", block: ExampleBlock) -> Table:
    from holdfast.model.attack.suite import KEPT

    kept = max(0, KEPT - block.start) if block.sampled else 0
    columns = {
        "clean": found.clean,
        "logits": found.logits,
        "worst_logits": found.worst_logits,
        "moved": found.adversarial[:kept],
        **{f"survived/{outcome.plan.name}": outcome.survived for outcome in found.outcomes},
    }
    return {f"{whose}/{name}": values.cpu().numpy() for name, values in columns.items()}


def _sample(scene: "Scene", block: ExampleBlock, found: "Measured") -> "dict[str, Tensor]":
    """What is asked of the examples of the sample alone."""
    return {
        **_signs(scene, block, found),
        **_second_opinion(scene, block, found),
        "curve": _curve(scene, block),
        **_corruptions(scene, block),
    }


def _signs(scene: "Scene", block: ExampleBlock, found: "Measured") -> "dict[str, Tensor]":
    from holdfast.model.attack.masking import look

    one = scene.candidate
    signs = look(
        one.net,
        one.x[block.rows],
        one.y[block.rows],
        one.ball,
        measured=found,
        stronger=scene.stronger,
        seed=block.seed,
    )
    return {name: values for name, values in vars(signs).items() if values is not None}


def signs_of(table: Mapping[str, NDArray[Any]]) -> "Signs":
    """What a table holds of the signs of masked gradients."""
    import torch

    from holdfast.model.attack.masking import Signs

    found = {one.name: table.get(f"sample/{one.name}") for one in fields(Signs)}
    signs: dict[str, Any] = {
        name: values if values is None else torch.from_numpy(values) for name, values in found.items()
    }
    return Signs(**signs)


def _second_opinion(scene: "Scene", block: ExampleBlock, found: "Measured") -> "dict[str, Tensor]":
    """ART's PGD on those of the first examples that are in the block, and what ours left of them."""
    from holdfast.model.attack import art

    rows = slice(block.start, min(block.stop, art.MOST_EXAMPLES))
    if scene.no_opinion or rows.stop <= rows.start:
        return {}
    one = scene.candidate
    ours = next(outcome for outcome in found.outcomes if outcome.plan.name == SECONDED)
    theirs = art.second_opinion(
        one.net,
        one.x[rows],
        one.y[rows],
        one.ball,
        classes=len(scene.judged.document.classes),
        steps=ours.plan.steps,
        restarts=ours.plan.restarts,
        seed=block.seed,
    )
    return {"ours": ours.survived[: len(theirs)], "theirs": theirs}


def _curve(scene: "Scene", block: ExampleBlock) -> "Tensor":
    """bool[N, epsilons]: correct at each epsilon of the curve."""
    import torch

    from holdfast.model.attack.hotflip import has_embedding
    from holdfast.model.attack.kinds import cheap_plan
    from holdfast.model.attack.suite import survivors

    one = scene.candidate
    plan, x, y = cheap_plan(scene.threat.norm, embedding=has_embedding(one.net)), one.x[block.rows], one.y[block.rows]
    balls = [one.ball.resized(float(epsilon)) for epsilon in scene.epsilons]
    return torch.stack([survivors(one.net, x, y, ball, plan, seed=block.seed) for ball in balls], dim=1)


def _corruptions(scene: "Scene", block: ExampleBlock) -> "dict[str, Tensor]":
    """bool[N, corruptions]: images under noise, blur and loss of contrast; nothing for tables and messages."""
    import torch

    from holdfast.model.attack.corruptions import EVERY, corrupt
    from holdfast.model.attack.suite import correct_in_batches

    if not modality_of(scene.judged.document.input.modality).corrupted:
        return {}
    one, generator = scene.candidate, torch.Generator(scene.device).manual_seed(block.seed)
    x, y = one.x[block.rows], one.y[block.rows]
    held = [correct_in_batches(one.net, corrupt(x, *given, generator), y) for given in EVERY]
    return {"corrupted": torch.stack(held, dim=1)}
