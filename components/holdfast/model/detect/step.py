"""The detect step: what detectors of single adversarial inputs find for this model, and what knowing them costs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from holdfast.artifacts.documents import (
    CaughtAttack,
    Count,
    DetectionReport,
    InputDetector,
    Model,
    Purifier,
    Snapshot,
)
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.protocol import Squeezing
from holdfast.modality.text import decode_text
from holdfast.model.examples import Examples, draw
from holdfast.model.inputs import Arrays, read_split
from holdfast.progress import track
from holdfast.steps import by_role
from holdfast.workload.schema import DetectConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from holdfast.model.attack.plan import AttackPlan
    from holdfast.model.detect.detector import SqueezeDetector
    from holdfast.model.detect.evasion import AttackedRows
    from holdfast.model.detect.squeezers import Squeezer

_TO_LEARN, _NOISE_IMAGE, _NOISE_ROW = 8_000, 0.1, 0.25
"""Training rows of an autoencoder, and its noise: of an image's range, and in standard deviations of a feature."""


@dataclass(frozen=True)
class _Scene:
    """One model and what attacks made of rows of it, which know the model and no detector."""

    network: "nn.Module"
    rows: "AttackedRows"
    held: "Tensor"
    """bool[N]: the rows that it answers correctly without any attack."""
    plans: "tuple[AttackPlan, ...]"
    moved: "dict[str, Tensor]"
    """The rows as each attack left them."""
    seed: int
    generator: "torch.Generator"


def detect(
    model: Ref, snapshot: Ref, out: Path, *, config: DetectConfig, settings: Compute
) -> Artifact[DetectionReport]:
    """Calibrates detectors on held-out rows, attacks the others, and writes what was noticed to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
        InputError: too few held-out rows for the rate of false alarms.
    """
    from holdfast.model.detect.detector import calibrated

    judged, data = load(model, Model), load(snapshot, Snapshot)
    drawn = draw(judged, data, min(config.examples, data.document.test_rows // 2), settings)
    usual = _others(data, drawn, judged.document, config, settings)
    scene = _scene(judged.document, data, drawn, settings)
    squeezers = _squeezers(judged.document, data, scene)
    limited = calibrated(drawn.net, squeezers, usual.tensors(drawn.device)[0], config.false_alarms)
    unbroken = _held(drawn.net, scene, scene.moved.values())
    document = DetectionReport(
        name=judged.document.name,
        threat=judged.document.threat,
        rate=config.false_alarms,
        calibration_rows=len(usual),
        seed=settings.seed,
        clean=_count(scene.held),
        attacked=_count(unbroken),
        detectors=tuple(_judged(one, scene) for one in track(limited, "detectors")),
        purifiers=tuple(_purified(one, scene) for one in track(squeezers, "purifiers")),
        inputs=by_role(judged, data),
    )
    return save(out, document, {})


def _others(
    data: Artifact[Snapshot], drawn: Examples, document: Model, config: DetectConfig, settings: Compute
) -> Arrays:
    """Held-out rows outside the sample, drawn like it, which set the limits: files may be in order of class or time."""
    from holdfast.model.detect.detector import fewest

    test, sample = read_split(data, "test", document.input), drawn.index[: drawn.sampled]
    rest = np.random.default_rng(settings.seed).permutation(np.setdiff1d(np.arange(len(test)), sample))
    least = 2 * fewest(config.false_alarms)
    if len(rest) < least:
        raise InputError(
            f"{data.folder}: expected at least {least} held-out rows besides the {len(sample)} that are attacked "
            f"for detect.false_alarms {config.false_alarms:g}, found {len(rest)}"
        )
    return test.take(rest[: config.calibration_rows])


def _scene(document: Model, data: Artifact[Snapshot], drawn: Examples, settings: Compute) -> _Scene:
    import torch

    from holdfast.modality.ball import Ball
    from holdfast.model.attack.suite import correct_in_batches
    from holdfast.model.detect.evasion import AttackedRows

    sample = drawn.rows.take(np.arange(drawn.sampled))
    (x, y), ball = sample.tensors(drawn.device), Ball.of(document.threat, document.input, drawn.device)
    rows, plans = AttackedRows(x, y, ball), _plans(document, data, drawn)
    moved = {plan.name: _moved(drawn.net, rows, plan, settings.seed) for plan in track(plans, "attacks")}
    generator = torch.Generator(drawn.device).manual_seed(settings.seed)
    return _Scene(drawn.net, rows, correct_in_batches(drawn.net, x, y), plans, moved, settings.seed, generator)


def _plans(document: Model, data: Artifact[Snapshot], drawn: Examples) -> "tuple[AttackPlan, ...]":
    """Those of the tier `pr`; with `threat.typing` also typing errors."""
    from holdfast.model.attack.hotflip import has_embedding
    from holdfast.model.attack.kinds import plans
    from holdfast.model.attack.typos import typo_plan, word_list

    found = plans("pr", document.threat.norm, len(document.classes), embedding=has_embedding(drawn.net))
    if not document.threat.typing:
        return found
    return (*found, typo_plan("pr", word_list(_messages(data, document))))


def _moved(network: "nn.Module", rows: "AttackedRows", plan: "AttackPlan", seed: int) -> "Tensor":
    """The rows as an attack leaves them."""
    import torch

    from holdfast.model.attack.suite import KEPT, attempted

    parts = zip(rows.x.split(KEPT), rows.y.split(KEPT), strict=True)
    return torch.cat([attempted(network, x, y, rows.ball, plan, seed=seed).moved for x, y in parts])


def _squeezers(document: Model, data: Artifact[Snapshot], scene: _Scene) -> "tuple[Squeezer, ...]":
    """What fits the kind of input."""
    from holdfast.model.detect.spelling import Spelling
    from holdfast.model.detect.squeezers import Spelled

    makers: dict[Squeezing, Callable[[], tuple[Squeezer, ...]]] = {
        "pixels": lambda: _of_images(document, data, scene),
        "features": lambda: _of_tables(document, data, scene),
        "words": lambda: (Spelled(Spelling(_messages(data, document))),),
    }
    return makers[modality_of(document.input.modality).squeezing]()


def _of_images(document: Model, data: Artifact[Snapshot], scene: _Scene) -> "tuple[Squeezer, ...]":
    from holdfast.model.detect.autoencoder import ImageAutoencoder, trained
    from holdfast.model.detect.squeezers import BitDepth, Denoised, Median

    spec, x = document.input, _trained(document, data, scene)
    noise = x.new_tensor((spec.upper - spec.lower) * _NOISE_IMAGE)
    made = trained(lambda: ImageAutoencoder(x.shape[1]), x, noise, scene.generator)
    return (BitDepth(spec.lower, spec.upper), Median(), Denoised(made, x.amin(0), x.amax(0)))


def _of_tables(document: Model, data: Artifact[Snapshot], scene: _Scene) -> "tuple[Squeezer, ...]":
    from holdfast.model.detect.autoencoder import RowAutoencoder, trained
    from holdfast.model.detect.squeezers import Denoised, FeatureBins

    x = _trained(document, data, scene)
    made = trained(lambda: RowAutoencoder(x), x, x.std(0).clamp_min(1e-6) * _NOISE_ROW, scene.generator)
    return (FeatureBins.of(x), Denoised(made, x.amin(0), x.amax(0)))


def _trained(document: Model, data: Artifact[Snapshot], scene: _Scene) -> "Tensor":
    """Some training rows."""
    rows = read_split(data, "train", document.input)
    chosen = np.random.default_rng(scene.seed).permutation(len(rows))[:_TO_LEARN]
    return rows.take(chosen).tensors(scene.rows.x.device)[0]


def _messages(data: Artifact[Snapshot], document: Model) -> list[str]:
    return decode_text(read_split(data, "train", document.input).x.astype(np.int64))


def _judged(detector: "SqueezeDetector", scene: _Scene) -> InputDetector:
    """What it notices, and how often an attacker who knows it goes unnoticed."""
    import torch

    from holdfast.model.detect.evasion import AttackedRows, evade, evaded

    rows, held = scene.rows, scene.held
    usual, unseen, caught = detector.suspects(rows.x), torch.zeros_like(held), []
    for name, moved in scene.moved.items():
        wrong = held & ~_held(detector.network, scene, (moved,))
        noticed = wrong & detector.suspects(moved)
        caught.append(CaughtAttack(attack=name, caught=Count(k=int(noticed.sum()), n=int(wrong.sum()))))
        unseen |= wrong & ~noticed
    known = AttackedRows(rows.x[held], rows.y[held], rows.ball)
    unseen[held] |= evaded(detector, evade(detector, known, scene.generator), known.y)
    return InputDetector(
        name=detector.name,
        limit=detector.limit,
        false_alarms=_count(usual),
        caught=tuple(caught),
        evaded=_count(unseen[held]),
    )


def _purified(squeezer: "Squeezer", scene: _Scene) -> Purifier:
    """The model behind a squeezer: without attacks, under those that do not know it, and under those that do."""
    from holdfast.model.detect.squeezers import Through

    behind = Through(scene.network, squeezer).eval()
    known = [_moved(behind, scene.rows, plan, scene.seed) for plan in scene.plans if plan.family != "black-box"]
    unaware = _held(behind, scene, scene.moved.values())
    return Purifier(
        name=squeezer.name,
        clean=_count(_held(behind, scene, ())),
        attacked=_count(unaware),
        adaptive=_count(unaware & _held(behind, scene, known)),
    )


def _held(network: "nn.Module", scene: _Scene, attacks: "Iterable[Tensor]") -> "Tensor":
    """bool[N]: the rows that a network answers correctly without attacks, and as each of these attacks left them."""
    from holdfast.model.attack.suite import correct_in_batches

    found = correct_in_batches(network, scene.rows.x, scene.rows.y)
    for moved in attacks:
        found &= correct_in_batches(network, moved, scene.rows.y)
    return found


def _count(flags: "Tensor") -> Count:
    return Count(k=int(flags.sum()), n=len(flags))
