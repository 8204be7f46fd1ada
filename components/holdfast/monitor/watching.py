"""Hours of a served model, stage by stage: the evidence after each, and what it means."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import MonitoredColumn, MonitoredStage, Verdict
from holdfast.monitor.binned import BinnedWindows, Bins
from holdfast.monitor.kernels import Features, scores
from holdfast.monitor.limits import limit
from holdfast.monitor.losses import LossEvidence
from holdfast.monitor.ranks import MixedRanks, quickest
from holdfast.monitor.shapes import ChangePoint, change

PERIOD = 720
"""Hours over which the false alarms are counted: a month."""
SHOWN = 12
"""Columns that a report lists."""
SELECTED = "the labels were selected: they show nothing about rows of other kinds"
"""Why labels that are no random sample raise no alarm."""

Series = NDArray[np.float64]
Next = Literal["none", "record", "repair", "retrain", "review"]


@dataclass(frozen=True)
class MonitorSettings:
    """What is allowed, and what counts as stable."""

    alarms: float = 0.01
    """Expected false alarms in 720 windows at most, in (0, 1)."""
    stable: int = 168
    """The first windows, which a person vouches for: later ones are compared with them."""
    season: int = 1
    """24: each hour is compared with those of the same hour."""


@dataclass(frozen=True)
class Watched:
    """The windows so far, T of them."""

    bins: tuple[Bins, ...]
    features: Features
    hours: NDArray[np.int64]
    """Hours since 1970, int64[T], rising."""
    counts: NDArray[np.int64]
    """int64[T, bins]."""
    means: Series
    """Mean kernel features of the probabilities, float64[T, 64]."""
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Course:
    """A stage over all windows after the stable ones."""

    evidence: Series
    """After each window; it starts again with 1 in each period."""
    scores: Series
    """Of every window, the stable ones too, float64[T]."""
    distances: Series
    """Of every column of every window in units of the column's median, float64[T, columns]."""

    def highest(self, period: int = PERIOD) -> float:
        """The most evidence in the period that is running; 1 before its first window."""
        start = (len(self.evidence) - 1) // period * period if len(self.evidence) else 0
        return float(max(self.evidence[start:], default=1.0))


def inputs_course(watched: Watched, settings: MonitorSettings) -> Course:
    """Stage one."""
    windows, found, evidence = (
        BinnedWindows([b.size for b in watched.bins], settings.season),
        MixedRanks.of(2, PERIOD),
        [],
    )
    for t, counts in enumerate(watched.counts):
        windows.add(counts)
        if t >= settings.stable:
            found = MixedRanks.of(2, PERIOD) if (t - settings.stable) % PERIOD == 0 else found
            found = found.add(windows.scores)
            evidence.append(found.value)
    if not len(windows):
        return Course(np.zeros(0), np.zeros(0), np.zeros((0, len(watched.bins))))
    scaled = windows.distances / np.maximum(np.median(windows.distances, axis=0), 1.0)
    return Course(np.array(evidence), windows.scores[:, 1], scaled)


def model_course(watched: Watched, settings: MonitorSettings) -> Course:
    """Stage two."""
    found, evidence, last = MixedRanks.of(2, PERIOD), [], np.zeros((0, 2))
    for end in range(settings.stable + 1, len(watched.hours) + 1):
        found = MixedRanks.of(2, PERIOD) if (end - 1 - settings.stable) % PERIOD == 0 else found
        last = scores(watched.means[:end], watched.rows[:end], watched.features)
        found = found.add(last)
        evidence.append(found.value)
    return Course(np.array(evidence), last[:, 0], np.zeros((len(last), 0)))


def stage_of_windows(name: Literal["inputs", "model"], course: Course, settings: MonitorSettings) -> MonitoredStage:
    """The line of a stage that looks at windows."""
    highest, least = course.highest(), limit(name, settings.alarms)
    return MonitoredStage(
        stage=name,
        evidence=highest,
        limit=least,
        seen=len(course.evidence),
        alarm=highest >= least,
        reason=f"after {settings.stable} stable windows a change that none of them resembles takes "
        f"{quickest(settings.stable, 1 / least, PERIOD)}",
    )


def stage_of_labels(evidence: LossEvidence | None, settings: MonitorSettings, *, selected: bool) -> MonitoredStage:
    """The line of the stage that looks at labels; selected labels raise no alarm."""
    value, least = (1.0 if evidence is None else evidence.value), limit("labels", settings.alarms)
    why = "no labels yet" if evidence is None else SELECTED if selected else f"bound of the gate {evidence.bound:.4g}"
    return MonitoredStage(
        stage="labels",
        evidence=value,
        limit=least,
        seen=0 if evidence is None else evidence.labels,
        alarm=value >= least and not selected,
        reason=why,
    )


def changed(course: Course, settings: MonitorSettings) -> ChangePoint:
    """Where and how the inputs changed, for a course with an alarm."""
    return change(np.sqrt(course.scores), settings.stable)


def columns(watched: Watched, course: Course, began: int, stable: int) -> tuple[MonitoredColumn, ...]:
    """The columns that moved most from window `began` on, at most 12."""
    starts = np.cumsum([0, *(b.size for b in watched.bins)])
    found = []
    for i, one in enumerate(watched.bins):
        own = watched.counts[:, starts[i] : starts[i + 1]]
        before, now = own[:stable].sum(axis=0), own[began:].sum(axis=0)
        moved = np.abs(before / max(before.sum(), 1) - now / max(now.sum(), 1)).sum() / 2
        missing = now[-1] / max(now.sum(), 1)
        distance, usual = course.distances[began:, i].mean(), course.distances[:stable, i].max()
        found.append(
            MonitoredColumn(
                column=one.column,
                distance=float(distance),
                usual=float(usual),
                moved=float(moved),
                unknown=float(missing),
            )
        )
    return tuple(sorted(found, key=lambda column: (-column.distance, column.column))[:SHOWN])


def judge(stages: tuple[MonitoredStage, ...], windows: int, settings: MonitorSettings) -> tuple[Verdict, str]:
    """The verdict and one sentence: fail for any alarm, inconclusive while too little was recorded."""
    alarms = [stage.stage for stage in stages if stage.alarm]
    if alarms:
        return Verdict.FAIL, f"{' and '.join(alarms)}: evidence above the limit"
    if windows <= settings.stable:
        return Verdict.INCONCLUSIVE, f"{windows} windows recorded, expected more than the {settings.stable} stable ones"
    return Verdict.PASS, "no stage has evidence above its limit"


def next_step(stages: tuple[MonitoredStage, ...], how: str, verdict: Verdict) -> tuple[Next, str]:
    """What to do, and why."""
    alarm = {stage.stage for stage in stages if stage.alarm}
    if "labels" in alarm:
        return "retrain", "the model is worse than what the gate approved: retrain, or roll back to the version before"
    if alarm and how == "sudden":
        return "repair", "a step: look for a broken feed, a new unit or a new client before anything is trained on it"
    if alarm:
        return "review", "inputs change while no label shows harm: draw labels, and retrain when they show a loss"
    if verdict is Verdict.INCONCLUSIVE:
        return "record", "go on recording; nothing can be concluded yet"
    return "none", "nothing to do"
