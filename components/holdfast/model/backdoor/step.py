"""The backdoor step: is there a small trigger that sends any input to one class?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from holdfast.modality.text import encode_text
from holdfast.model.backdoor.judge import FEWEST_FOR_INDEX, FEWEST_ROWS, RecoveredTrigger, conclude, judge
from holdfast.model.examples import check_answers, open_network
from holdfast.model.inputs import Arrays, read_split
from holdfast.progress import track
from holdfast.steps import by_role, made_from
from holdfast.workload.schema import BackdoorConfig

if TYPE_CHECKING:
    from torch import nn

    from holdfast.modality.ball import Ball
    from holdfast.model.backdoor.candidates import Content
    from holdfast.model.backdoor.cleanse import Triggers
    from holdfast.model.backdoor.few_classes import ClassFinding
    from holdfast.model.backdoor.search import Examined

ROWS_PER_STEP = 160
"""Rows of all classes together: with few classes each sees more rows, and its success is measured better."""


def backdoor(
    model: Ref, snapshot: Ref, out: Path, *, config: BackdoorConfig, settings: Compute
) -> Artifact[BackdoorReport]:
    """Searches for a trigger of each class on training rows, tries it on held-out rows and writes the report to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
    """
    judged, data = load(model, Model), load(snapshot, Snapshot)
    scene = _scene(judged, data, config, settings)
    method = modality_of(judged.document.input.modality).trigger_search
    found = _SEARCHES[method](scene)
    report = BackdoorReport(
        method=method,
        triggers=found.results,
        flagged=tuple(result.target for result in found.results if result.flagged),
        verdict=found.verdict,
        reason=found.reason,
        configuration=config.configuration,
        inputs=by_role(judged, data),
    )
    return save(out, report, {"triggers.npz": npz(**found.arrays)})


@dataclass(frozen=True)
class _Drawn:
    """Rows and the random order in which they are taken."""

    rows: Arrays
    order: NDArray[np.int64]

    def first(self, count: int) -> Arrays:
        """So many of them, or all."""
        return self.rows.take(self.order[:count])


@dataclass(frozen=True)
class _Scene:
    """What is inverted, on which rows."""

    net: "nn.Module"
    document: Model
    data: Artifact[Snapshot]
    rows: "_Drawn"
    """Training rows."""
    held_out: "_Drawn"
    config: BackdoorConfig
    seed: int
    device: str

    @property
    def classes(self) -> tuple[str, ...]:
        return self.document.classes

    @property
    def made_from(self) -> Arrays:
        """Training rows that a size is measured on."""
        return self.rows.first(self.config.examples)

    @property
    def tried_on(self) -> Arrays:
        """Held-out rows that a size is measured on."""
        return self.held_out.first(self.config.examples)

    @property
    def trained_on_these(self) -> bool:
        """Whether the training rows at hand are those of the model."""
        return made_from(self.document, Snapshot) == self.data.digest


@dataclass(frozen=True)
class _Found:
    """The judged triggers, the arrays that show them, and what decided."""

    results: tuple[TriggerResult, ...]
    verdict: Verdict
    arrays: Mapping[str, NDArray[np.generic]]
    reason: str = ""


_NOTHING = _Found((), Verdict.INCONCLUSIVE, {}, "too few rows, or nothing that could be a trigger")


def _scene(judged: Artifact[Model], data: Artifact[Snapshot], config: BackdoorConfig, settings: Compute) -> _Scene:
    document, device = judged.document, settings.prepare()
    net = open_network(judged, data, device)
    rng = np.random.default_rng(settings.seed)
    rows, held_out = (_drawn(read_split(data, split, document.input), rng) for split in ("train", "test"))
    scene = _Scene(net, document, data, rows, held_out, config, settings.seed, device)
    check_answers(net, judged, scene.tried_on, device)
    return scene


def _drawn(rows: Arrays, rng: np.random.Generator) -> _Drawn:
    return _Drawn(rows, rng.permutation(len(rows)))


def _of_each(rows: Arrays, count: int) -> Arrays:
    """The first rows of every class, `count` in all where there are as many."""
    classes = np.unique(rows.y)
    return rows.take(np.concatenate([np.flatnonzero(rows.y == k)[: count // len(classes)] for k in classes]))


def _cleanse(scene: _Scene) -> _Found:
    from holdfast.modality.ball import Ball

    limits = Ball.of(scene.document.threat, scene.document.input, scene.device)
    if not bool(limits.mutable.any()):
        return _NOTHING
    return (_by_size if len(scene.classes) >= FEWEST_FOR_INDEX else _by_carriers)(scene, limits)


def _by_size(scene: _Scene, limits: "Ball") -> _Found:
    """Many classes: a trigger is small compared with those of other classes."""
    made_from = scene.made_from
    if any(int((made_from.y != target).sum()) < FEWEST_ROWS for target in range(len(scene.classes))):
        return _NOTHING
    triggers = _inverted(scene, limits, made_from)
    findings = _try(scene, triggers)
    results, honest = _with_carriers(scene, triggers, judge(findings, scene.config))
    verdict, reason = conclude(results, findings)
    return _Found(results, verdict, _show(triggers), reason or honest)


def _with_carriers(
    scene: _Scene, triggers: "Triggers", results: Sequence[TriggerResult]
) -> tuple[tuple[TriggerResult, ...], str]:
    from holdfast.model.backdoor.few_classes import MAX_ROWS
    from holdfast.model.backdoor.planted import confirm

    if not scene.trained_on_these or not any(result.flagged for result in results):
        return tuple(results), ""
    return confirm(scene.net, scene.rows.first(MAX_ROWS).tensors(scene.device), triggers.mask, results)


def _inverted(scene: _Scene, limits: "Ball", rows: Arrays) -> "Triggers":
    from holdfast.model.backdoor.cleanse import BATCH, invert

    return invert(
        scene.net,
        rows.tensors(scene.device),
        limits,
        targets=range(len(scene.classes)),
        goal=1 - (1 - scene.config.attack_success) / modality_of(scene.document.input.modality).trigger_headroom,
        steps=track(range(scene.config.steps), "backdoor"),
        seed=scene.seed,
        batch=max(BATCH, ROWS_PER_STEP // len(scene.classes)),
    )


def _by_carriers(scene: _Scene, limits: "Ball") -> _Found:
    """Few classes: a planted trigger left training rows that carry it, and nothing else supports their label."""
    from holdfast.model.backdoor.few_classes import conclude as conclude_carriers
    from holdfast.model.backdoor.search import search_cells

    subject = _subject(scene)
    if subject is None:
        return _UNKNOWN_ROWS
    if len(np.unique(subject.rows.y)) < 2:
        return _NOTHING
    triggers = _inverted(scene, limits, _of_each(subject.rows, scene.config.examples))
    findings = search_cells(subject, limits.mutable, list(triggers.mask), scene.config)
    verdict, reason = conclude_carriers(findings)
    sizes = judge(_try(scene, triggers), scene.config)
    results = tuple(found.result(size) for found, size in zip(findings, sizes, strict=True))
    return _Found(results, verdict, _show(_with_contents(triggers, findings)), reason)


def _subject(scene: _Scene) -> "Examined | None":
    """What carriers are searched in; None when the model was trained on other rows than those at hand."""
    from holdfast.model.backdoor.few_classes import MAX_ROWS
    from holdfast.model.backdoor.search import Examined

    if not scene.trained_on_these:
        return None
    rows, held_out = scene.rows.first(MAX_ROWS), scene.held_out.first(MAX_ROWS)
    return Examined(scene.net, scene.document.input, scene.classes, rows, held_out, scene.seed, scene.device)


_UNKNOWN_ROWS = _Found((), Verdict.INCONCLUSIVE, {}, "the model was trained on other rows than those of this snapshot")


def _with_contents(triggers: "Triggers", findings: "Sequence[ClassFinding[Content]]") -> "Triggers":
    """The triggers, with the content of the candidate that was tested in place of what was inverted."""
    import torch

    mask, pattern = triggers.mask.clone(), triggers.pattern.clone()
    for target, found in enumerate(findings):
        if found.candidate is not None:
            place, values = list(found.candidate.trigger.place), found.candidate.trigger.values
            covered = torch.zeros_like(pattern[target])
            covered.view(-1)[place] = 1
            mask[target] = covered if covered.dim() == 1 else covered.amax(0, keepdim=True)
            pattern[target].view(-1)[place] = torch.tensor(values, device=pattern.device)
    return replace(triggers, mask=mask, pattern=pattern)


def _try(scene: _Scene, triggers: "Triggers") -> list[RecoveredTrigger]:
    """Each class's trigger on held-out rows of the other classes that are answered otherwise without it."""
    import torch

    from holdfast.model.backdoor.cleanse import stamp
    from holdfast.model.networks import logits

    findings = []
    for target, name in enumerate(scene.classes):
        x = scene.tried_on.x[scene.tried_on.y != target]
        otherwise = x[logits(scene.net, x, device=scene.device).argmax(axis=1) != target] if len(x) else x
        rows = torch.from_numpy(otherwise).to(scene.device)
        marked = stamp(rows, triggers.mask[target], triggers.pattern[target]).cpu().numpy()
        hits = logits(scene.net, marked, device=scene.device).argmax(axis=1) == target if len(marked) else np.zeros(0)
        findings.append(
            RecoveredTrigger(
                target=name,
                size=float(triggers.sizes[target]),
                success=Count(k=int(hits.sum()), n=len(hits)),
                reached=bool(triggers.reached[target]),
                led_anyway=len(x) - len(otherwise),
            )
        )
    return findings


def _show(triggers: "Triggers") -> dict[str, NDArray[np.generic]]:
    mask, pattern = triggers.mask.cpu().numpy(), triggers.pattern.cpu().numpy()
    places = mask.shape[2:]
    return {"mask": mask[:, 0] if places else mask, "pattern": pattern}


def _insert(scene: _Scene) -> _Found:
    """Messages: the n-grams that lead others to a class, and the training messages that hold them."""
    from holdfast.model.backdoor.few_classes import conclude as conclude_carriers
    from holdfast.model.backdoor.insertion import MAX_CHARACTERS
    from holdfast.model.backdoor.search import search_messages

    subject = _subject(scene)
    if subject is None:
        return _UNKNOWN_ROWS
    findings = search_messages(subject, scene.config)
    if not findings:
        return _NOTHING
    verdict, reason = conclude_carriers(findings)
    results = tuple(found.result(_nothing_found(found.target)) for found in findings)
    inserted = [found.candidate.trigger if found.candidate else "" for found in findings]
    return _Found(results, verdict, {"inserted": encode_text(inserted, MAX_CHARACTERS)}, reason)


def _nothing_found(target: str) -> TriggerResult:
    """A class without an n-gram that leads most messages to it and that training messages hold."""
    return TriggerResult(target=target, size=0.0, anomaly_index=0.0, success=Count(k=0, n=0), flagged=False)


_SEARCHES: dict[TriggerSearch, Callable[[_Scene], _Found]] = {
    "neural-cleanse": _cleanse,
    "n-gram-insertion": _insert,
}
