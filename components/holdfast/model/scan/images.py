"""Images: suspects are held out together, asked again, and what they share is tried as a trigger.

Robust spectral scores name the outer rows of each class. A network that saw only the inner rows recognizes the honest
ones among them; a second network learns from all but those that it did not recognize. Rows whose label only the
network with the suspects supports rest on one another: that difference ranks backdoored rows. The trigger transfer test
shows whether they plant a trigger, and taking the trigger off each row shows which rows do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Detector
from holdfast.model.inputs import Arrays
from holdfast.model.learners import (
    Learner,
    PredictProba,
    fit_network,
    image_learner,
    network_features,
    network_probabilities,
)
from holdfast.model.scan.crossfit import Mask, out_of_fold, outermost, own
from holdfast.model.scan.findings import Findings, ScanSettings, gather
from holdfast.model.scan.labels import find_label_errors, label_suspicion
from holdfast.model.scan.spectral import spectral_ranks
from holdfast.model.scan.trigger_transfer import (
    ALARM,
    MIN_GROUP,
    Hosts,
    Suspects,
    TransferResult,
    carriers,
    residuals,
    transfer_test,
)

OUTER_SHARE = 0.45
"""Share of each class that the first model without suspects does not see: more than a poisoned class holds."""
MOST_OF_CLASS = 0.5
"""Suspects that are more than this share of their class are the class: the network without them does not know it."""
HOSTS = 300


@dataclass(frozen=True)
class _Scene:
    """What the search for triggers works on."""

    rows: Arrays
    ordinary: NDArray[np.float64]
    """The mean image float64[classes, D] of each class without suspects."""
    features: NDArray[np.float64]
    with_all: PredictProba
    without_suspects: PredictProba
    belief: NDArray[np.float64]
    """Probabilities float64[N, classes] by the network without suspects."""
    suspects: Mask


def scan_images(rows: Arrays, plan: ScanSettings) -> Findings:
    """Label errors, and backdoors by spectral outliers, group hold-out and trigger transfer tests."""
    learn = image_learner(plan.spec, len(plan.classes), epochs=plan.epochs, device=plan.device)
    everyone = np.ones(len(rows), dtype=bool)
    belief = out_of_fold(learn, rows, everyone, folds=plan.folds, seed=plan.seed)
    labels = find_label_errors(belief, rows.y)
    net = fit_network(plan.spec, len(plan.classes), rows, epochs=plan.epochs, device=plan.device, seed=plan.seed)
    features = network_features(net, rows.x, plan.device)
    spectral = {
        "spectral_features": spectral_ranks(features, rows.y, plan.seed),
        "spectral_inputs": spectral_ranks(rows.x, rows.y, plan.seed),
    }
    without, suspects = _without_suspects(learn, rows, np.maximum(*spectral.values()), plan.seed)
    scene = _Scene(
        rows=rows,
        ordinary=_ordinary(rows, suspects, len(plan.classes)),
        features=features,
        with_all=lambda x: network_probabilities(net, x, plan.device),
        without_suspects=without,
        belief=without(rows.x),
        suspects=suspects,
    )
    planted, detectors = _transfer_tests(scene, plan)
    rests = label_suspicion(scene.belief, rows.y) - labels.suspicion
    return gather(detectors, planted, labels, backdoor=rests, others=spectral, classes=plan.classes)


def _without_suspects(learn: Learner, rows: Arrays, outer: NDArray[np.float64], seed: int) -> tuple[PredictProba, Mask]:
    """A network that saw no suspect, and the rows whose label it does not believe.

    A first network sees only the inner rows of each class; outer rows that it recognizes come back, so that honest
    variety is not lost.
    """
    outside = outermost(outer, rows.y, OUTER_SHARE)
    inner = learn(rows.take(np.flatnonzero(~outside)), seed + 1)
    trusted = ~outside | (own(inner(rows.x), rows.y) > 0.5)
    predict = learn(rows.take(np.flatnonzero(trusted)), seed + 2)
    return predict, own(predict(rows.x), rows.y) < 0.5


def _transfer_tests(scene: _Scene, plan: ScanSettings) -> tuple[Mask, list[Detector]]:
    """Rows of classes whose suspects carry a trigger, and a detector for each such class or for the strongest."""
    planted = np.zeros(len(scene.rows), dtype=bool)
    told: list[Detector] = []
    for target, name in enumerate(plan.classes):
        group = np.flatnonzero((scene.rows.y == target) & scene.suspects)
        if not MIN_GROUP <= len(group) <= MOST_OF_CLASS * (scene.rows.y == target).sum():
            continue
        found = transfer_test(_suspects(scene, group, target), _hosts(scene, target, plan.seed), plan.seed)
        if found.contrast > ALARM:
            planted[_carriers(scene, found, target)] = True
        told.append(_detector(found, name, int(planted[scene.rows.y == target].sum())))
    alarms = [detector for detector in told if detector.alarm]
    strongest = sorted(told, key=lambda detector: -detector.statistic)[:1]
    return planted, alarms or strongest or [_detector(None, "", 0)]


def _detector(found: TransferResult | None, name: str, rows: int) -> Detector:
    contrast = found.contrast if found else 0.0
    detail = f"class {name}: {rows} rows share a pattern" if found else "no class has suspects enough to try"
    if found and contrast <= ALARM:
        detail = f"class {name}: strongest of the classes"
    return Detector(name="trigger transfer", statistic=contrast, threshold=ALARM, alarm=contrast > ALARM, detail=detail)


def _suspects(scene: _Scene, rows: NDArray[np.int64], target: int) -> Suspects:
    looks_like = scene.belief[rows].copy()
    looks_like[:, target] = -1
    flat = np.asarray(scene.rows.x[rows], dtype=np.float64).reshape(len(rows), -1)
    return Suspects(target, residuals(flat, looks_like.argmax(axis=1), scene.ordinary), scene.features[rows])


def _ordinary(rows: Arrays, suspects: Mask, classes: int) -> NDArray[np.float64]:
    flat = rows.x.reshape(len(rows), -1)
    means = []
    for label in range(classes):
        mine = rows.y == label
        honest = mine & ~suspects
        means.append(flat[honest if honest.any() else mine].mean(axis=0, dtype=np.float64))
    return np.stack(means)


def _hosts(scene: _Scene, target: int, seed: int) -> Hosts:
    others = np.flatnonzero(~scene.suspects & (scene.rows.y != target))
    chosen = np.sort(np.random.default_rng(seed).permutation(others)[:HOSTS])
    return Hosts(scene.rows.take(chosen), scene.ordinary[target], scene.with_all, scene.without_suspects)


def _carriers(scene: _Scene, found: TransferResult, target: int) -> NDArray[np.int64]:
    """Rows of the class that carry the found pattern, suspects or not."""
    rows = np.flatnonzero(scene.rows.y == target)
    seen, suspect = _suspects(scene, rows, target), scene.suspects[rows]
    return rows[carriers(scene.rows.take(rows), seen, suspect, found, scene.with_all)]
