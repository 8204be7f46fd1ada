"""The backdoor step: is there a small trigger that sends any input to one class?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import BackdoorReport, Count, Model, Snapshot, TriggerResult, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.modality import modality_of
from holdfast.modality.protocol import TriggerSearch
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.backdoor.judge import FEWEST_ROWS, RecoveredTrigger, conclude, judge, judge_insertions
from holdfast.model.examples import check_answers, open_network
from holdfast.model.inputs import Arrays, read_split
from holdfast.progress import track
from holdfast.steps import by_role
from holdfast.workload.schema import BackdoorConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holdfast.model.backdoor.cleanse import Triggers

ROWS_PER_STEP = 160
"""Rows of all classes together: with few classes each sees more rows, and its success is measured better."""


def backdoor(
    model: Ref, snapshot: Ref, out: Path, *, config: BackdoorConfig, settings: Compute
) -> Artifact[BackdoorReport]:
    """Inverts a trigger for each class on training rows, tries it on held-out rows and writes the report to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
    """
    judged, data = load(model, Model), load(snapshot, Snapshot)
    scene = _scene(judged, data, config, settings)
    method = modality_of(judged.document.input.modality).trigger_search
    found = _SEARCHES[method](scene) if _enough(scene) else _NOTHING
    report = BackdoorReport(
        method=method,
        triggers=found.results,
        flagged=tuple(result.target for result in found.results if result.flagged),
        verdict=found.verdict,
        inputs=by_role(judged, data),
    )
    return save(out, report, {"triggers.npz": npz(**found.arrays)})


@dataclass(frozen=True)
class _Scene:
    """What is inverted, on which rows."""

    net: "nn.Module"
    document: Model
    data: Artifact[Snapshot]
    made_from: Arrays
    """Training rows."""
    tried_on: Arrays
    """Held-out rows."""
    config: BackdoorConfig
    seed: int
    device: str

    @property
    def classes(self) -> tuple[str, ...]:
        return self.document.classes


@dataclass(frozen=True)
class _Found:
    """The judged triggers and the arrays that show them."""

    results: tuple[TriggerResult, ...]
    verdict: Verdict
    arrays: Mapping[str, NDArray[np.generic]]


_NOTHING = _Found((), Verdict.INCONCLUSIVE, {})


def _scene(judged: Artifact[Model], data: Artifact[Snapshot], config: BackdoorConfig, settings: Compute) -> _Scene:
    document, device = judged.document, settings.prepare()
    net = open_network(judged, data, device)
    rng = np.random.default_rng(settings.seed)
    made_from, tried_on = (
        _some(read_split(data, split, document.input), config.examples, rng) for split in ("train", "test")
    )
    check_answers(net, judged, tried_on, device)
    return _Scene(net, document, data, made_from, tried_on, config, settings.seed, device)


def _some(rows: Arrays, count: int, rng: np.random.Generator) -> Arrays:
    return rows.take(rng.permutation(len(rows))[:count])


def _enough(scene: _Scene) -> bool:
    """Whether every class has rows of others to make a trigger from."""
    y = scene.made_from.y
    return all(int((y != target).sum()) >= FEWEST_ROWS for target in range(len(scene.classes)))


def _cleanse(scene: _Scene) -> _Found:

    from holdfast.modality.ball import Ball
    from holdfast.model.backdoor.cleanse import BATCH, invert

    limits = Ball.of(scene.document.threat, scene.document.input, scene.device)
    if not bool(limits.mutable.any()):
        return _NOTHING
    x, y = scene.made_from.tensors(scene.device)
    triggers = invert(
        scene.net,
        (x, y),
        limits,
        targets=range(len(scene.classes)),
        goal=1 - (1 - scene.config.attack_success) / modality_of(scene.document.input.modality).trigger_headroom,
        steps=track(range(scene.config.steps), "backdoor"),
        seed=scene.seed,
        batch=max(BATCH, ROWS_PER_STEP // len(scene.classes)),
    )
    findings = _try(scene, triggers)
    results = judge(findings, scene.config, cells=_cells(limits.mutable, scene.document.input.shape))
    return _Found(results, conclude(results, findings), _show(triggers))


def _cells(mutable: "Tensor", shape: Sequence[int]) -> float:
    """How many cells of an example can change: pixels with all their channels, or features."""
    from holdfast.model.backdoor.cleanse import mask_shape

    return float(mutable.expand(mask_shape(shape)).sum())


def _try(scene: _Scene, triggers: "Triggers") -> list[RecoveredTrigger]:
    """Each class's trigger on the held-out rows of the other classes."""
    import torch

    from holdfast.model.backdoor.cleanse import stamp
    from holdfast.model.networks import logits

    findings = []
    for target, name in enumerate(scene.classes):
        x = torch.from_numpy(scene.tried_on.x[scene.tried_on.y != target]).to(scene.device)
        marked = stamp(x, triggers.mask[target], triggers.pattern[target]).cpu().numpy()
        hits = logits(scene.net, marked, device=scene.device).argmax(axis=1) == target
        findings.append(
            RecoveredTrigger(
                target=name,
                size=float(triggers.sizes[target]),
                success=Count(k=int(hits.sum()), n=len(hits)),
                reached=bool(triggers.reached[target]),
            )
        )
    return findings


def _show(triggers: "Triggers") -> dict[str, NDArray[np.generic]]:
    mask, pattern = triggers.mask.cpu().numpy(), triggers.pattern.cpu().numpy()
    places = mask.shape[2:]
    return {"mask": mask[:, 0] if places else mask, "pattern": pattern}


def _insert(scene: _Scene) -> _Found:
    from holdfast.model.backdoor.insertion import MAX_CHARACTERS, mine

    candidates = mine(decode_text(_ids(read_split(scene.data, "train", scene.document.input))))
    if not candidates:
        return _NOTHING
    targets = track(range(len(scene.classes)), "backdoor")
    tried = [_insert_for(scene, candidates, target) for target in targets]
    findings = [finding for finding, _ in tried]
    results = judge_insertions(findings, scene.config)
    arrays = {"inserted": encode_text([ngram for _, ngram in tried], MAX_CHARACTERS)}
    return _Found(results, conclude(results, findings), arrays)


def _insert_for(scene: _Scene, candidates: Sequence[str], target: int) -> tuple[RecoveredTrigger, str]:
    """The strongest n-gram for a class, chosen on training messages and counted on held-out ones."""
    from holdfast.model.backdoor.insertion import ROUNDS, rank, rival, shrink, try_on

    net, device = scene.net, scene.device
    made_from, tried_on = (_ids(rows)[rows.y != target] for rows in (scene.made_from, scene.tried_on))
    order = rank(net, candidates, made_from, target=target, rounds=ROUNDS, device=device)
    enough = scene.config.attack_success
    trigger = shrink(net, order[0], made_from, target=target, enough=enough, device=device)
    other = rival(order, trigger, longest=len(trigger) / scene.config.relative_norm)

    def hits(ngram: str) -> Count:
        found = try_on(net, ngram, tried_on, target=target, device=device)
        return Count(k=int(found.sum()), n=len(found))

    share = 0.0 if other is None else hits(other).share
    return RecoveredTrigger(scene.classes[target], float(len(trigger)), hits(trigger), rival=share), trigger


def _ids(rows: Arrays) -> NDArray[np.int64]:
    """Character ids int64[N, L] of messages."""
    return rows.x.astype(np.int64, copy=False)


_SEARCHES: dict[TriggerSearch, Callable[[_Scene], _Found]] = {
    "neural-cleanse": _cleanse,
    "n-gram-insertion": _insert,
}
