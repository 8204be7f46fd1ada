"""Reads the log of a served model, its labels and the report before; writes the next report and requests for labels."""

import io
import json
import time
from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast import registry
from holdfast.artifacts.documents import Count, GateDecision, Model, MonitorReport, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load, replace_file, save, strict_json
from holdfast.artifacts.regular import read_at_most
from holdfast.attestation.demands import Demands
from holdfast.errors import ArtifactError, InputError
from holdfast.modality.frames import harden_pyarrow
from holdfast.monitor.binned import Bins, count
from holdfast.monitor.kept import keep, newest
from holdfast.monitor.kernels import Features
from holdfast.monitor.losses import Labelled, LossEvidence, chances
from holdfast.monitor.metrics import exposition
from holdfast.monitor.page import page
from holdfast.monitor.watching import (
    Course,
    MonitorSettings,
    Watched,
    changed,
    columns,
    inputs_course,
    judge,
    model_course,
    next_step,
    stage_of_labels,
    stage_of_windows,
)
from holdfast.serving.predictor.samples import HOUR, INPUT, MODEL
from holdfast.workload.schema import MonitorConfig

if TYPE_CHECKING:
    import pyarrow as pa

LEARNED_ROWS = 2000
"""The first hours with so many rows give the bins; they are no windows."""
_MAX_BYTES = 2**28
_WIDE = 64
"""An input with more numbers is watched by its mean, deviation, least and largest."""
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
CHECK = "clean_accuracy"
"""The gate's check whose lower bound is what was approved."""


@dataclass(frozen=True)
class LoggedHour:
    """The sampled rows of one hour, of all servers."""

    hour: int
    names: tuple[str, ...]
    columns: tuple[NDArray[np.float64], ...]
    probabilities: NDArray[np.float64]
    answers: NDArray[np.int64]
    requests: tuple[str, ...]


@dataclass(frozen=True)
class LabelAnswers:
    """What came back for the rows that were asked for, or for others."""

    files: tuple[Path, ...]
    requests: tuple[Path, ...] = ()
    """In the order in which they were drawn."""
    wait_hours: int = 0
    """A request without all of its answers is waited for, and those after it, while it is younger than this."""


class TooFewHoursError(InputError):
    """Nothing can be compared yet."""


@dataclass(frozen=True)
class LabelledLosses:
    """What the labels show so far."""

    evidence: LossEvidence | None = None
    """None: there are no labels."""
    wrong: Count | None = None
    selected: bool = False


def monitor(
    log: Path,
    out: Path,
    *,
    model: Ref,
    decision: Ref,
    settings: MonitorSettings,
    labels: LabelAnswers | None = None,
    previous: Ref | None = None,
) -> Artifact[MonitorReport]:
    """Judges all complete hours of the log that are of this model; the newest hour may still be written.

    Raises:
        ArtifactError: model, decision or the report before are altered or of another model.
        InputError: the log or the labels cannot be read, or hold too little to begin with.
    """
    served, judged = load(model, Model), load(decision, GateDecision)
    before = load(previous, MonitorReport) if previous is not None else None
    _require_one_model(served, judged, before)
    watched = _watched(read_hours(log, served.digest), before)
    found = _losses(judged.document, served.document.classes, labels, log, served.digest, int(watched.hours[-1]))
    courses = {"inputs": inputs_course(watched, settings), "model": model_course(watched, settings)}
    report = _report(watched, courses, found, settings)
    read: dict[str, Artifact[Any] | None] = {"model": served, "decision": judged, "previous": before}
    digests = {role: one.digest for role, one in read.items() if one is not None}
    report = report.model_copy(update={"name": served.document.name, "model": served.digest, "inputs": digests})
    html = page(report, served.document.name, {stage: course.evidence for stage, course in courses.items()})
    pages = {"report.html": html.encode(), "metrics.prom": exposition(report, served.document.name).encode()}
    return save(out, report, _state(watched) | pages)


def watch(
    out: Path, *, name: str, tracking: str, config: MonitorConfig, trust: Path | None = None
) -> Artifact[MonitorReport]:
    """As `monitor`, for the champion of `name`, from the newest report in `config.kept`, where the new one goes, too.

    While too little is recorded, the report is inconclusive and has no window.

    Raises:
        InputError: the section names no log, or there is no champion.
        RegistryError, IntegrityError, RefusedError: as `registry.fetch`.
    """
    if config.log is None or config.kept is None:
        raise InputError("monitor.log: expected the folder of a sample_log in the workload, found none")
    place = Path(config.kept) / name
    with registry.fetched(tracking, name, registry.CHAMPION, Demands.of(trust, incumbent=True)) as bundle:
        if bundle is None:
            raise InputError(f"{name}: expected a champion in the registry, found none: nothing is served yet")
        served = bundle.model
        before = newest(place, MonitorReport, lambda one: one.model == served.digest and one.windows > 0)
        try:
            found = monitor(
                Path(config.log),
                out,
                model=Ref(served.folder, served.digest),
                decision=Ref(bundle.decision.folder, bundle.decision.digest),
                settings=MonitorSettings(config.alarms, config.stable, config.season),
                labels=_labels_in(config, served.digest),
                previous=Ref(before.folder, before.digest) if before is not None else None,
            )
        except TooFewHoursError as error:
            return _nothing_yet(served, str(error), out)
    keep(found, place, found.document.last)
    return found


def _labels_in(config: MonitorConfig, model: str) -> LabelAnswers | None:
    """What lies in the folder of labels about this model; None: nothing."""
    if config.labels is None:
        return None
    folder = Path(config.labels.source)
    answers = tuple(sorted(folder.glob("*.csv")))
    about = [path for path in folder.glob("*.json") if _request_facts(path).get("model") == model]
    drawn = sorted(about, key=lambda path: (str(_request_facts(path).get("drawn", "")), path.name))
    return LabelAnswers(answers, tuple(drawn), 24 * config.labels.delay_days) if answers and drawn else None


def _request_facts(path: Path) -> dict[str, Any]:
    found = strict_json(read_at_most(path, _MAX_BYTES, "a request for labels"), str(path))
    return found if isinstance(found, dict) else {}


def _nothing_yet(served: Artifact[Model], reason: str, out: Path) -> Artifact[MonitorReport]:
    """The report while no window can be compared."""
    next_, advice = next_step((), "none", Verdict.INCONCLUSIVE)
    report = MonitorReport(
        inputs={"model": served.digest}, name=served.document.name, model=served.digest, first=utc(0), last=utc(0),
        windows=0, stages=(), columns=(), change="none", began=None, loss=None, selected=False, next=next_,
        advice=advice, reason=reason, verdict=Verdict.INCONCLUSIVE,
    )  # fmt: skip
    html = page(report, served.document.name, {})
    return save(out, report, {"report.html": html.encode()})


def _report(
    watched: Watched, courses: Mapping[str, Course], found: LabelledLosses, settings: MonitorSettings
) -> MonitorReport:
    """The document without what it was made from."""
    inputs = courses["inputs"]
    stages = (
        stage_of_windows("inputs", inputs, settings),
        stage_of_windows("model", courses["model"], settings),
        stage_of_labels(found.evidence, settings, selected=found.selected),
    )
    verdict, reason = judge(stages, len(watched.hours), settings)
    point = changed(inputs, settings) if stages[0].alarm else None
    next_, advice = next_step(stages, point.shape if point else "none", verdict)
    return MonitorReport(
        configuration={"alarms": settings.alarms, "stable": settings.stable, "season": settings.season},
        name="",
        model="0" * 64,
        first=utc(int(watched.hours[0])),
        last=utc(int(watched.hours[-1])),
        windows=len(watched.hours),
        stages=stages,
        columns=columns(watched, inputs, point.began if point else len(watched.hours) - 1, settings.stable),
        change=point.shape if point else "none",
        began=utc(int(watched.hours[point.began])) if point else None,
        loss=found.wrong,
        selected=found.selected,
        next=next_,
        advice=advice,
        reason=reason,
        verdict=verdict,
    )


def draw_labels(log: Path, model: Ref, out: Path, *, draws: int, hours: int, seed: int) -> int:
    """Writes a request for labels of rows drawn from the last hours of the log; returns how many rows it names.

    Raises:
        InputError: the log holds no rows of this model.
    """
    served = load(model, Model)
    last = list(read_hours(log, served.digest))[-hours:]
    if not last:
        raise InputError(f"{log}: expected rows of model {served.digest[:12]}…, found none")
    probabilities = np.concatenate([hour.probabilities for hour in last])
    answers = np.concatenate([hour.answers for hour in last])
    ids = [one for hour in last for one in hour.requests]
    guesses = 1 - probabilities.max(axis=1)
    drawn = np.random.default_rng(seed).choice(len(ids), draws, p=chances(guesses))
    batch = Labelled.drawn(np.zeros(draws), drawn, guesses)
    rows = [
        {
            "request": ids[row],
            "answer": served.document.classes[int(answers[row])],
            "guess": float(batch.guesses[i]),
            "factor": float(batch.factors[i]),
        }
        for i, row in enumerate(drawn)
    ]
    facts = {
        "model": served.digest,
        "drawn": utc(last[-1].hour),
        "mean_guess": batch.mean_guess,
        "reach": batch.reach,
        "draws": rows,
    }
    replace_file(out, json.dumps(facts, indent=1).encode(), private=True)
    return len({row["request"] for row in rows})


def read_hours(log: Path, model: str) -> Iterator[LoggedHour]:
    """The complete hours of a log with rows of this model, oldest first; the newest hour is left out.

    Raises:
        InputError: no folder, or a file that is no log.
    """
    if not log.is_dir():
        raise InputError(f"{log}: expected the folder of a sample_log, found none")
    files = sorted(log.glob("*.parquet"), key=lambda path: path.name)
    newest = files[-1].name[:13] if files else ""
    for name, group in groupby(files, key=lambda path: path.name[:13]):
        if name < newest:
            tables = [table for path in group if (table := _sampled(path, model)) is not None]
            if any(table.num_rows for table in tables):
                yield _logged(name, tables)


def utc(hour: int) -> str:
    """The start of an hour since 1970."""
    return time.strftime(_STAMP, time.gmtime(hour * HOUR))


def _require_one_model(
    served: Artifact[Model], judged: Artifact[GateDecision], before: Artifact[MonitorReport] | None
) -> None:
    if judged.document.inputs.get("model") != served.digest:
        raise ArtifactError(f"{judged.folder}: expected a decision on model {served.digest[:12]}…, found another")
    if before is not None and before.document.model != served.digest:
        raise ArtifactError(f"{before.folder}: expected a report on model {served.digest[:12]}…, found another")


# --- the log --------------------------------------------------------------------------------------------------------


def _sampled(path: Path, model: str) -> "pa.Table | None":
    """The sampled rows of a file, None of another model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    harden_pyarrow()
    data = read_at_most(path, _MAX_BYTES, "a file of a sample_log", links=False)
    try:
        table = pq.read_table(io.BytesIO(data))
        if (table.schema.metadata or {}).get(MODEL) != model.encode():
            return None
        return table.filter(table["sampled"])
    except (pa.ArrowException, KeyError, OSError) as error:
        raise InputError(f"{path}: expected a file of a sample_log, found {str(error)[:120]}") from None


def _logged(name: str, tables: "Sequence[pa.Table]") -> LoggedHour:
    import pyarrow as pa

    table = pa.concat_tables(tables)
    missing = [column for column in ("at", "label", "probabilities") if column not in table.column_names]
    if missing:
        raise InputError(f"{name}: expected the column {missing[0]} in the log, found none; is it redacted?")
    names, values = _features(table)
    requests = table["request"].to_pylist() if "request" in table.column_names else [""] * len(table)
    rows = table["row"].to_pylist()
    return LoggedHour(
        int(table["at"][0].as_py()) // HOUR,
        names,
        values,
        np.array(table["probabilities"].to_pylist(), dtype=np.float64),
        table["label"].to_numpy().astype(np.int64),
        tuple(f"{one}#{row}" for one, row in zip(requests, rows, strict=True)),
    )


def _features(table: "pa.Table") -> tuple[tuple[str, ...], tuple[NDArray[np.float64], ...]]:
    if INPUT not in table.column_names:
        names = tuple(name for name in table.column_names if name.startswith(f"{INPUT}."))
        return names, tuple(table[name].to_numpy().astype(np.float64) for name in names)
    values = np.array(table[INPUT].to_pylist(), dtype=np.float64)
    if values.shape[1] <= _WIDE:
        return tuple(f"{INPUT}.{i}" for i in range(values.shape[1])), tuple(values.T)
    return ("mean", "deviation", "least", "largest"), (
        values.mean(axis=1),
        values.std(axis=1),
        values.min(axis=1),
        values.max(axis=1),
    )


# --- the state ------------------------------------------------------------------------------------------------------


def _watched(hours: Iterator[LoggedHour], before: Artifact[MonitorReport] | None) -> Watched:
    held = _read_state(before) if before is not None else _begin(hours)
    last = int(held.hours[-1]) if len(held.hours) else -1
    new = [hour for hour in hours if hour.hour > last]
    for hour in new:
        if hour.names != tuple(one.column for one in held.bins):
            raise InputError(f"hour {utc(hour.hour)}: expected the columns of the hours before, found {hour.names[:9]}")
    counts = [count(held.bins, hour.columns) for hour in new]
    means = [held.features.mean(hour.probabilities) for hour in new]
    found = Watched(
        held.bins,
        held.features,
        np.concatenate([held.hours, np.array([hour.hour for hour in new], np.int64)]),
        np.concatenate([held.counts, np.array(counts, np.int64).reshape(len(new), held.counts.shape[1])]),
        np.concatenate([held.means, np.array(means).reshape(len(new), held.means.shape[1])]),
        np.concatenate([held.rows, np.array([len(hour.probabilities) for hour in new], np.int64)]),
    )
    if not len(found.hours):
        raise TooFewHoursError(
            f"expected hours after the first {LEARNED_ROWS} rows in the log, found none; go on recording"
        )
    return found


def _begin(hours: Iterator[LoggedHour]) -> Watched:
    """Bins and features from the first hours, which are used up."""
    first: list[LoggedHour] = []
    while sum(len(hour.probabilities) for hour in first) < LEARNED_ROWS and (hour := next(hours, None)):
        first.append(hour)
    if not first:
        raise TooFewHoursError("expected complete hours of this model in the log, found none; go on recording")
    names = first[0].names
    joined = [np.concatenate([hour.columns[i] for hour in first]) for i in range(len(names))]
    bins = tuple(Bins.of_numbers(name, values) for name, values in zip(names, joined, strict=True))
    features = Features.of("mmd", np.concatenate([hour.probabilities for hour in first]), 0)
    nothing, size = np.zeros(0, np.int64), sum(one.size for one in bins)
    means = np.zeros((0, len(features.points)))
    return Watched(bins, features, nothing, np.zeros((0, size), np.int64), means, nothing)


def _state(watched: Watched) -> dict[str, bytes]:
    arrays, features = io.BytesIO(), watched.features
    np.savez(
        arrays, hours=watched.hours, counts=watched.counts, means=watched.means, rows=watched.rows,
        points=features.points, phases=features.phases, scale=np.array(features.scale),
    )  # fmt: skip
    bins = [{"column": one.column, "edges": one.edges} for one in watched.bins]
    return {"windows.npz": arrays.getvalue(), "bins.json": json.dumps(bins, indent=1).encode()}


def _read_state(before: Artifact[MonitorReport]) -> Watched:
    bins = json.loads(before.open("bins.json").read())
    with np.load(before.open("windows.npz"), allow_pickle=False) as held:
        return Watched(
            tuple(Bins(one["column"], edges=tuple(one["edges"])) for one in bins),
            Features("mmd", float(held["scale"]), held["points"], held["phases"]),
            held["hours"], held["counts"], held["means"], held["rows"],
        )  # fmt: skip


# --- labels ---------------------------------------------------------------------------------------------------------


def _losses(
    judged: GateDecision, classes: tuple[str, ...], labels: LabelAnswers | None, log: Path, model: str, now: int
) -> LabelledLosses:
    if labels is None:
        return LabelledLosses()
    lower = next((check.lower for check in judged.checks if check.name == CHECK), None)
    if lower is None or not 0 < lower < 1:
        raise InputError(f"expected a lower bound of {CHECK} in the gate's decision, found {lower}")
    given: dict[str, str] = {}
    for file in labels.files:
        given |= _read_labels(file, classes)
    batches, selected = _answered([_read_request(path, model) for path in labels.requests], given, labels, now)
    if selected:
        batches = [_alone(given, classes, log, model)]
    losses: list[float] = []
    evidence = LossEvidence(1 - lower)
    for batch in batches:
        evidence = evidence.add(batch)
        losses += batch.losses.tolist()
    return LabelledLosses(evidence, Count(k=int(sum(losses)), n=len(losses)), selected) if losses else LabelledLosses()


def _answered(
    requests: list["_LabelRequest"], given: Mapping[str, str], labels: LabelAnswers, now: int
) -> tuple[list[Labelled], bool]:
    """The labels of requests, in their order up to one that is waited for; and whether any came selected."""
    found: list[Labelled] = []
    for one in requests:
        batch = one.labelled(given)
        if batch is None and now - one.hour < labels.wait_hours:
            return found, False
        if batch is None:
            return [], True
        found.append(batch)
    return found, not requests


def _read_labels(path: Path, classes: tuple[str, ...]) -> dict[str, str]:
    """`request#row` -> class, from a CSV with the columns request, row (0 when left out) and label."""
    import csv

    text = read_at_most(path, _MAX_BYTES, "a CSV of labels").decode("utf-8-sig", errors="replace")
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or not {"request", "label"} <= set(rows[0]):
        raise InputError(f"{path}: expected the columns request and label, found {list(rows[0]) if rows else 'no row'}")
    strange = next((row["label"] for row in rows if row["label"] not in classes), None)
    if strange is not None:
        raise InputError(f"{path}: expected labels among {', '.join(classes[:9])}, found {str(strange)[:60]!r}")
    return {f"{row['request']}#{row.get('row') or 0}": row["label"] for row in rows}


@dataclass(frozen=True)
class _LabelRequest:
    """Rows that people were asked to label."""

    draws: Sequence[Mapping[str, Any]]
    mean_guess: float
    reach: float
    hour: int
    """The last hour that they were drawn from, since 1970; 0 in a file that does not name it."""

    def labelled(self, given: Mapping[str, str]) -> Labelled | None:
        """Its labels; None when not every drawn row has one."""
        if not all(row["request"] in given for row in self.draws):
            return None
        losses = np.array([float(given[row["request"]] != row["answer"]) for row in self.draws])
        guesses, factors = (np.array([float(row[key]) for row in self.draws]) for key in ("guess", "factor"))
        return Labelled(losses, guesses, factors, self.mean_guess, self.reach)


def _read_request(path: Path, model: str) -> _LabelRequest:
    facts: Any = strict_json(read_at_most(path, _MAX_BYTES, "a request for labels"), str(path))
    try:
        if facts["model"] != model:
            raise InputError(f"{path}: expected a request about model {model[:12]}…, found {str(facts['model'])[:12]}…")
        rows = [{**row, "guess": float(row["guess"]), "factor": float(row["factor"])} for row in facts["draws"]]
        _ = [(row["request"], row["answer"]) for row in rows]
        drawn = timegm(time.strptime(facts["drawn"], _STAMP)) // HOUR if "drawn" in facts else 0
        return _LabelRequest(rows, float(facts["mean_guess"]), float(facts["reach"]), drawn)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a request for labels, found {str(error)[:120]!r}") from None


def _alone(given: Mapping[str, str], classes: tuple[str, ...], log: Path, model: str) -> Labelled:
    answers: dict[str, str] = {}
    for hour in read_hours(log, model):
        answers |= {one: classes[label] for one, label in zip(hour.requests, hour.answers.tolist(), strict=True)}
    found = [float(label != answers[one]) for one, label in given.items() if one in answers]
    if not found:
        raise InputError("expected labels of logged requests, found none whose request is in the log")
    return Labelled.alone(np.array(found))
