"""The whole scan of each modality: several detectors, one list of suspects, one score per row.

Images  spectral outliers are held out together, asked again, and what they share is tried as a trigger (transplant)
Tables  rows that share two exact values and a label are held out together and asked again
Text    messages that share a suspicious n-gram and a label are held out together and asked again
All     label errors by out-of-fold probabilities
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Detector, InputSpec
from holdfast.model.inputs import Arrays, decode_text
from holdfast.model.scan.crossfit import Mask, out_of_fold, outermost, own
from holdfast.model.scan.holdout import CONTRADICTED_AT_LEAST, Answer, planted_groups
from holdfast.model.scan.labels import ALARM_SHARE, LabelErrors, find_label_errors
from holdfast.model.scan.learners import (
    Learner,
    Predictor,
    fit_network,
    image_learner,
    network_features,
    network_probabilities,
    table_learner,
    text_learner,
)
from holdfast.model.scan.ngrams import Group, suspicious_ngrams
from holdfast.model.scan.pairs import repeated_pairs
from holdfast.model.scan.ranking import vote
from holdfast.model.scan.spectral import spectral_ranks
from holdfast.model.scan.transplant import (
    ALARM,
    CLOSE_MATCH,
    MIN_GROUP,
    Hosts,
    Suspects,
    Transplant,
    find_transplant,
    matches,
    residuals,
)

OUTER_SHARE = 0.45
"""Share of each class that the first model without suspects does not see: more than a poisoned class holds."""
HOSTS = 300
MIN_CLASS_ROWS = 20
"""Below this many rows in a class the detectors say nothing."""


@dataclass(frozen=True)
class Findings:
    """What a scan found among N rows."""

    detectors: tuple[Detector, ...]
    suspects: Mask
    """bool[N]: rows of detectors that raised the alarm."""
    scores: dict[str, NDArray[np.float64]]
    """float64[N] each, larger is more suspicious; `score` is the vote of all."""


@dataclass(frozen=True)
class Plan:
    """How a scan computes."""

    spec: InputSpec
    classes: tuple[str, ...]
    folds: int
    epochs: int
    device: str
    seed: int


@dataclass(frozen=True)
class _ImageScan:
    """The state of an image scan: what the detectors share."""

    rows: Arrays
    flat: NDArray[np.float64]
    features: NDArray[np.float64]
    with_all: Predictor
    without_suspects: Predictor
    belief: NDArray[np.float64]
    """Probabilities float64[N, classes] by models that saw no suspect."""
    suspects: Mask


def enough_rows(y: NDArray[np.int64], classes: int) -> bool:
    """Whether every class has rows enough for the detectors to say something."""
    return bool((np.bincount(y, minlength=classes) >= MIN_CLASS_ROWS).all())


def scan_rows(rows: Arrays, plan: Plan) -> Findings:
    """Scans training rows by the detectors of their modality."""
    if plan.spec.modality == "image":
        return scan_images(rows, plan)
    if plan.spec.modality == "text":
        return scan_texts(rows, plan)
    return scan_tables(rows, plan)


def scan_images(rows: Arrays, plan: Plan) -> Findings:
    """Label errors, and backdoors by spectral outliers, group hold-out and transplant."""
    learn = image_learner(plan.spec, len(plan.classes), epochs=plan.epochs, device=plan.device)
    net = fit_network(plan.spec, len(plan.classes), rows, epochs=plan.epochs, device=plan.device, seed=plan.seed)
    features = network_features(net, rows.x, plan.device)
    spectral = {
        "spectral_features": spectral_ranks(features, rows.y, plan.seed),
        "spectral_inputs": spectral_ranks(rows.x, rows.y, plan.seed),
    }
    labels = _label_errors(learn, rows, plan)
    belief, suspects = _ask_again(learn, rows, np.maximum(*spectral.values()), plan)
    without = learn(rows.take(np.flatnonzero(~suspects)), plan.seed + 3)
    state = _ImageScan(
        rows=rows,
        flat=rows.x.reshape(len(rows), -1).astype(np.float64),
        features=features,
        with_all=lambda x: network_probabilities(net, x, plan.device),
        without_suspects=without,
        belief=belief,
        suspects=suspects,
    )
    planted, detectors = _transplants(state, plan)
    scores = spectral | {"held_out": 1 - own(belief, rows.y), "label_error": 1 - labels.quality}
    return _findings([_label_detector(labels), *detectors], planted, labels, scores)


def scan_tables(rows: Arrays, plan: Plan) -> Findings:
    """Label errors, and backdoors by repeated-value pairs held out together."""
    learn = table_learner(len(plan.classes))
    labels = _label_errors(learn, rows, plan)
    groups = repeated_pairs(rows.x, rows.y, [feature.name for feature in plan.spec.features])
    return _group_findings("repeated values", learn, rows, groups, labels, plan)


def scan_texts(rows: Arrays, plan: Plan) -> Findings:
    """Label errors, and backdoors by suspicious n-grams held out together."""
    learn = text_learner(len(plan.classes))
    labels = _label_errors(learn, rows, plan)
    groups = suspicious_ngrams(decode_text(rows.x.astype(np.int64)), rows.y, labels.disbelief)
    return _group_findings("n-gram", learn, rows, groups, labels, plan)


def _label_errors(learn: Learner, rows: Arrays, plan: Plan) -> LabelErrors:
    everyone = np.ones(len(rows), dtype=bool)
    return find_label_errors(out_of_fold(learn, rows, everyone, folds=plan.folds, seed=plan.seed), rows.y)


def _label_detector(found: LabelErrors) -> Detector:
    return Detector(
        name="label errors",
        statistic=found.share,
        threshold=ALARM_SHARE,
        alarm=found.alarm,
        detail=f"{len(found.suspects)} rows contradicted with confidence by models that did not see them",
    )


def _ask_again(
    learn: Learner, rows: Arrays, outer: NDArray[np.float64], plan: Plan
) -> tuple[NDArray[np.float64], Mask]:
    """Belief float64[N, classes] of models that saw no suspect, and the rows whose label they do not believe.

    A first model sees only the inner rows of each class; outer rows that it recognizes come back before the
    cross-fitted question, so that honest variety is not lost.
    """
    outside = outermost(outer, rows.y, OUTER_SHARE)
    inner = learn(rows.take(np.flatnonzero(~outside)), plan.seed + 1)
    trusted = ~outside | (own(inner(rows.x), rows.y) > 0.5)
    belief = out_of_fold(learn, rows, trusted, folds=plan.folds, seed=plan.seed + 2)
    return belief, own(belief, rows.y) < 0.5


def _transplants(state: _ImageScan, plan: Plan) -> tuple[Mask, list[Detector]]:
    """Rows of classes whose suspects carry a trigger, and a detector for each such class or for the strongest."""
    planted = np.zeros(len(state.rows), dtype=bool)
    told: list[Detector] = []
    for target, name in enumerate(plan.classes):
        group = np.flatnonzero((state.rows.y == target) & state.suspects)
        if len(group) < MIN_GROUP:
            continue
        found = find_transplant(_suspects(state, group, target), _hosts(state, target, plan.seed), plan.seed)
        if found.contrast > ALARM:
            planted[group[found.members]] = True
            planted[_same_pattern(state, found, target)] = True
        told.append(_transplant_detector(found, name, int(planted[state.rows.y == target].sum())))
    alarms = [detector for detector in told if detector.alarm]
    strongest = sorted(told, key=lambda detector: -detector.statistic)[:1]
    return planted, alarms or strongest or [_transplant_detector(None, "", 0)]


def _transplant_detector(found: Transplant | None, name: str, rows: int) -> Detector:
    contrast = found.contrast if found else 0.0
    detail = f"class {name}: {rows} rows share a pattern" if found else "no class has suspects enough to try"
    if found and contrast <= ALARM:
        detail = f"class {name}: strongest of the classes"
    return Detector(name="transplant", statistic=contrast, threshold=ALARM, alarm=contrast > ALARM, detail=detail)


def _suspects(state: _ImageScan, rows: NDArray[np.int64], target: int) -> Suspects:
    looks_like = state.belief[rows].copy()
    looks_like[:, target] = -1
    residual = residuals(state.flat[rows], looks_like.argmax(axis=1), _ordinary(state))
    return Suspects(target, residual, state.features[rows])


def _ordinary(state: _ImageScan) -> NDArray[np.float64]:
    """The mean image float64[classes, D] of each class without suspects."""
    y = np.where(state.suspects, -1, state.rows.y)
    return np.stack([state.flat[y == k].mean(axis=0) for k in range(state.belief.shape[1])])


def _hosts(state: _ImageScan, target: int, seed: int) -> Hosts:
    others = np.flatnonzero(~state.suspects & (state.rows.y != target))
    chosen = np.sort(np.random.default_rng(seed).permutation(others)[:HOSTS])
    return Hosts(state.rows.take(chosen), state.with_all, state.without_suspects)


def _same_pattern(state: _ImageScan, found: Transplant, target: int) -> NDArray[np.int64]:
    """Rows of the class that were not suspects but carry the found pattern closely."""
    rest = np.flatnonzero((state.rows.y == target) & ~state.suspects)
    return rest[matches(_suspects(state, rest, target).residual, found.pattern) > CLOSE_MATCH]


def _group_findings(
    name: str, learn: Learner, rows: Arrays, groups: list[Group], labels: LabelErrors, plan: Plan
) -> Findings:
    answers = planted_groups(learn, rows, groups, plan.seed + 1)
    planted = np.zeros(len(rows), dtype=bool)
    group_score = np.zeros(len(rows))
    detectors = [_label_detector(labels)]
    for answer in answers:
        group_score[answer.group.rows] = answer.lower
        planted[answer.group.rows] |= answer.planted
        detectors.append(_group_detector(name, answer, plan.classes[answer.group.label]))
    if not answers:
        detectors.append(Detector(name=name, statistic=0, threshold=CONTRADICTED_AT_LEAST, alarm=False, detail="none"))
    scores = {"label_error": 1 - labels.quality, "disbelief": labels.disbelief, "group": group_score}
    return _findings(detectors, planted, labels, scores)


def _group_detector(name: str, answer: Answer, label: str) -> Detector:
    return Detector(
        name=name,
        statistic=answer.lower,
        threshold=CONTRADICTED_AT_LEAST,
        alarm=answer.planted,
        detail=f"{answer.group.name!r}, {len(answer.group.rows)} rows of class {label}",
    )


def _findings(
    detectors: list[Detector], planted: Mask, labels: LabelErrors, scores: dict[str, NDArray[np.float64]]
) -> Findings:
    """Suspects of every detector in alarm; the score ranks planted rows first, then by the vote of all detectors."""
    suspects = planted.copy()
    if labels.alarm:
        suspects[labels.suspects] = True
    score = (vote(list(scores.values())) + suspects + planted) / 3
    return Findings(tuple(detectors), suspects, {"score": score} | scores)
