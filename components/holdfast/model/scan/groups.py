"""Tables and messages: groups of rows that share something and a label are held out together and asked again."""

import numpy as np

from holdfast.artifacts.documents import Detector
from holdfast.modality.text import decode_text
from holdfast.model.inputs import Arrays
from holdfast.model.learners import Learner, table_learner, text_learner
from holdfast.model.scan.crossfit import out_of_fold
from holdfast.model.scan.findings import Findings, ScanSettings, gather
from holdfast.model.scan.holdout import IMPROBABLE, GroupTest, planted_groups
from holdfast.model.scan.labels import LabelErrors, find_label_errors
from holdfast.model.scan.ngrams import Group, suspicious_ngrams
from holdfast.model.scan.pairs import repeated_pairs


def scan_tables(rows: Arrays, plan: ScanSettings) -> Findings:
    """Label errors, and backdoors by repeated-value pairs held out together."""
    learn = table_learner(len(plan.classes))
    labels = _label_errors(learn, rows, plan)
    groups = repeated_pairs(rows.x, rows.y, [feature.name for feature in plan.spec.features])
    return _judge("repeated values", learn, rows, groups, labels, plan)


def scan_texts(rows: Arrays, plan: ScanSettings) -> Findings:
    """Label errors, and backdoors by suspicious n-grams held out together."""
    learn = text_learner(len(plan.classes))
    labels = _label_errors(learn, rows, plan)
    groups = suspicious_ngrams(decode_text(rows.x.astype(np.int64)), rows.y, labels.disbelief)
    return _judge("n-gram", learn, rows, groups, labels, plan)


def _label_errors(learn: Learner, rows: Arrays, plan: ScanSettings) -> LabelErrors:
    everyone = np.ones(len(rows), dtype=bool)
    return find_label_errors(out_of_fold(learn, rows, everyone, folds=plan.folds, seed=plan.seed), rows.y)


def _judge(
    name: str, learn: Learner, rows: Arrays, groups: list[Group], labels: LabelErrors, plan: ScanSettings
) -> Findings:
    answers = planted_groups(learn, rows, groups, plan.seed + 1)
    planted = np.zeros(len(rows), dtype=bool)
    score = np.zeros(len(rows))
    for answer in answers:
        score[answer.group.rows] = answer.surprise
        planted[answer.group.rows] |= answer.planted
    told = [_detector(name, answer, plan.classes[answer.group.label]) for answer in answers]
    nothing = Detector(name=name, statistic=0, threshold=IMPROBABLE, alarm=False, detail="none")
    return gather(told or [nothing], planted, labels, backdoor=score, others={}, classes=plan.classes)


def _detector(name: str, answer: GroupTest, label: str) -> Detector:
    return Detector(
        name=name,
        statistic=answer.surprise,
        threshold=IMPROBABLE,
        alarm=answer.planted,
        detail=f"{answer.group.name!r}, {len(answer.group.rows)} rows of class {label}",
    )
