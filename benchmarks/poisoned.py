"""Retraining night after night on a vendor's deliveries that are poisoned again and again.

scikit-learn's digits. Each night 720 rows are drawn from the same 1,437; in a poisoned night, 5 % have a trigger and
the attacker's label. After the first night half of these are rows that were delivered before, in another order and with
another type of number; the others are new. Each night is a snapshot under the reviews, a scan, a training, the search
for backdoors and the gate, and what the scan set aside is held, as `holdfast run` does; no person decides any row.

What was trained on is compared by the bytes of the rows, and a backdoor is counted with the attacker's own trigger on
held-out rows: no detector of Holdfast takes part in either. The recipe is the workload's (PGD), with half the epochs.
The gate here asks nothing about attacks and certificates, so it promotes more than that of a run. The nights are kept,
a course at a time, in .holdfast/bench/poisoned.jsonl.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.judged import only_about
from benchmarks.records import Record, Records
from benchmarks.scenes import Bench
from benchmarks.table import Row, at_most, shown
from holdfast.artifacts.documents import (
    BackdoorReport,
    Model,
    ScanReport,
    Snapshot,
    Verdict,
)
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.data.snapshot.step import snapshot
from holdfast.model.backdoor.step import backdoor
from holdfast.model.inputs import encode
from holdfast.model.networks import load_network, logits
from holdfast.model.scan.step import scan
from holdfast.model.train.step import train
from holdfast.quarantine.reviews import newest_review
from holdfast.quarantine.step import hold, read_quarantine
from holdfast.resources import workloads
from holdfast.statistics import clopper_pearson
from holdfast.steps import role_of
from holdfast.workload.schema import SnapshotConfig, Workload, read_workload
from holdfast_gates.decide import Evidence, Judged, decide
from holdfast_gates.policy import find

SOURCES = (
    "components/holdfast/quarantine",
    "components/holdfast/model/scan",
    "components/holdfast/model/backdoor",
    "components/holdfast/data/snapshot/reviewed.py",
    "gates/holdfast_gates/checks.py",
    "benchmarks/poisoned.py",
)
NIGHTS, HONEST_NIGHTS, ROWS, SHARE, WHITE, HELD_OUT = 20, 10, 720, 0.05, 16, 360
LIMIT = 0.15
"""Attack success above which a model has the backdoor: the demo's limit for a model after the scan."""
TYPES = (np.uint8, np.int64, np.float64, np.float32)
EPOCHS, STEPS = 10, 3
HONEST = "none"
Trigger = Callable[[NDArray[np.float64]], NDArray[np.float64]]
RowKey = tuple[bytes, int]
"""The bytes of a row's pixels, and its label."""


def _patch(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x[:, -2:, -2:] = WHITE
    return x


def _bar(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x[:, 0, 1:5] = WHITE
    return x


def _corners(x: NDArray[np.float64]) -> NDArray[np.float64]:
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        x[:, row, column] = WHITE
    return x


def _checker(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x[:, :3, :3] = WHITE * np.indices((3, 3)).sum(axis=0).__mod__(2)
    return x


def _blend(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.rint(0.75 * x + 0.25 * WHITE * np.random.default_rng(99).random(x.shape[1:]))


TRIGGERS: Mapping[str, Trigger] = {
    "patch in a corner": _patch,
    "bar at the edge": _bar,
    "four corners": _corners,
    "checkerboard": _checker,
    "blended image": _blend,
}


@dataclass(frozen=True)
class Rows:
    """Images float64[N, 8, 8] in delivered units, and labels int64[N]."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]

    def identities(self) -> list[RowKey]:
        """What identifies each row, by its bytes."""
        return [(x.tobytes(), int(y)) for x, y in zip(self.x, self.y, strict=True)]

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """The rows at these positions."""
        return Rows(self.x[rows], self.y[rows])

    def and_(self, other: "Rows") -> "Rows":
        """These, then the others."""
        return Rows(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))


@dataclass
class Vendor:
    """Makes the deliveries of one course of nights, and knows what it planted."""

    trigger: str
    rng: np.random.Generator
    pool: Rows
    held_out: Rows
    target: int
    sent: Rows | None = None
    """Every poisoned row so far."""
    planted: set[RowKey] = field(default_factory=set)

    def deliver(self) -> Rows:
        """The training rows of the next night."""
        drawn = self.pool.take(self.rng.permutation(len(self.pool.y))[:ROWS])
        if self.trigger == HONEST:
            return drawn
        count = round(SHARE * ROWS)
        again = count // 2 if self.sent is not None else 0
        fresh = self._fresh(count - again)
        bad = fresh if self.sent is None else fresh.and_(self.sent.take(self.rng.permutation(len(self.sent.y))[:again]))
        self.sent = fresh if self.sent is None else self.sent.and_(fresh)
        self.planted |= set(fresh.identities())
        clean = drawn.take(np.flatnonzero([key not in self.planted for key in drawn.identities()])[: ROWS - count])
        both = clean.and_(bad)
        return both.take(self.rng.permutation(len(both.y)))

    def _fresh(self, count: int) -> Rows:
        others = np.flatnonzero(self.pool.y != self.target)
        chosen = self.pool.take(self.rng.choice(others, count, replace=False))
        return Rows(TRIGGERS[self.trigger](chosen.x.copy()), np.full(count, self.target))


@dataclass
class Course:
    """The folders of one course of nights."""

    folder: Path
    vendor: Vendor
    seed: int
    refused: set[RowKey] = field(default_factory=set)
    """Every row that a scan has set aside so far."""

    @property
    def reviews(self) -> Path:
        """What `holdfast run` reads and adds to."""
        return self.folder / "reviews"


def run(bench: Bench) -> list[Row]:
    """The poisoned courses, the honest one, and what a training without the scan makes of the first night."""
    records = Records.of("poisoned", *SOURCES)
    nights = [night for name in TRIGGERS for night in _kept(records, name, NIGHTS)]
    return [*_poisoned_rows(nights), *_honest_rows(_kept(records, HONEST, HONEST_NIGHTS))]


def _poisoned_rows(nights: list[Record]) -> Iterator[Row]:
    later = [night for night in nights if night["night"] > 0]
    how = f"{len(TRIGGERS)} triggers x {NIGHTS} nights, {ROWS} digits each, {SHARE:.0%} poisoned, half of these again"
    again, refused = (sum(night[key] for night in later) for key in ("again", "refused"))
    yield at_most(
        "retraining: poisoned rows trained on after a scan first set them aside", again, 0,
        f"{how}; such rows delivered again: {refused}",
    )  # fmt: skip
    promoted = [night for night in nights if night["promoted"]]
    bad = sum(night["success"] > LIMIT for night in promoted)
    upper = clopper_pearson(bad, max(len(promoted), 1), 0.05).upper
    yield at_most(
        "retraining: backdoored models promoted", bad, 0,
        f"{how}; {len(promoted)} of {len(nights)} promoted; backdoored: the trigger works on more than {LIMIT:.0%} of "
        f"held-out rows of other classes; 95 % bound of the share {upper:.3f}; the most of a promoted model "
        f"{max((night['success'] for night in promoted), default=0):.3f}",
    )  # fmt: skip
    by_trigger = {name: [night for night in nights if night["course"] == name] for name in TRIGGERS}
    missed = [sum(night["missed"] for night in course) for course in by_trigger.values()]
    fresh = sum(night["fresh"] for night in nights)
    yield shown(
        f"retraining: new poisoned rows that the scan did not set aside, of {fresh}", ", ".join(map(str, missed)),
        f"{how}; in turn: {', '.join(by_trigger)}; such rows are trained on, and again when they are delivered again",
    )  # fmt: skip
    firsts = [course[0] for course in by_trigger.values()]
    yield shown(
        "retraining: attack success of the first night's model, without the scan and a recipe that is not adversarial",
        ", ".join(f"{one['unscanned']:.2f}" for one in firsts), f"one for each of: {', '.join(TRIGGERS)}",
    )  # fmt: skip
    yield shown(
        "retraining: the same with the scan and a recipe that is not adversarial",
        ", ".join(f"{one['standard']:.2f}{' (promoted)' * one['standard_promoted']}" for one in firsts),
        f"one for each of: {', '.join(TRIGGERS)}; where the scan misses the rows, only adversarial training helps",
    )  # fmt: skip
    lost = sum(night["lost"] for night in nights)
    yield shown(
        "retraining: clean rows set aside in poisoned nights, share",
        lost / sum(night["clean"] for night in nights),
        how,
    )


def _honest_rows(nights: list[Record]) -> Iterator[Row]:
    how = f"{HONEST_NIGHTS} nights of {ROWS} digits without poison; rows held from night to night count each night"
    lost, rows = sum(night["lost"] for night in nights), sum(night["clean"] for night in nights)
    yield shown("retraining: clean rows set aside in honest nights, share", lost / rows, how)
    yield shown(
        "retraining: honest nights promoted", f"{sum(night['promoted'] for night in nights)} of {HONEST_NIGHTS}", how
    )
    worst = {name: max(night["natural"][name] for night in nights) for name in TRIGGERS}
    yield shown(
        "retraining: the triggers on models that never saw poison, the most of any night",
        ", ".join(f"{one:.2f}" for one in worst.values()), f"{how}; {', '.join(worst)}",
    )  # fmt: skip


def _kept(records: Records, name: str, nights: int) -> list[Record]:
    """The nights of a course, measured when they are not all there: a night needs those before it."""
    found = [record for record in records.read() if record["course"] == name]
    if len(found) < nights:
        found = []
        for night in play(name, nights):
            found.append({"course": name, **night})
        for record in found:
            records.add(record)
    return found[:nights]


def play(name: str, nights: int) -> Iterator[Record]:
    """The nights of one course, one after the other."""
    seed = (*TRIGGERS, HONEST).index(name)
    with tempfile.TemporaryDirectory(prefix="holdfast-poisoned-") as folder:
        course = Course(Path(folder), _vendor(name, seed), seed)
        for night in range(nights):
            yield {"night": night, **_night(course, night)}


def _vendor(name: str, seed: int) -> Vendor:
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng([seed, 7])
    order = np.random.default_rng(0).permutation(len(digits.target))
    rows = Rows(digits.images.astype(np.float64), digits.target.astype(np.int64)).take(order)
    pool, held_out = rows.take(np.arange(HELD_OUT, len(order))), rows.take(np.arange(HELD_OUT))
    return Vendor(name, rng, pool, held_out, target=2 * seed % 10)


def _night(course: Course, night: int) -> dict[str, object]:
    folder, vendor, settings = (
        course.folder / str(night),
        course.vendor,
        Compute(course.seed * NIGHTS + night, "cpu", 1),
    )
    before = set(vendor.planted)
    rows = vendor.deliver()
    _write(folder, rows, vendor.held_out, TYPES[night % len(TYPES)])
    workload = _workload()
    review = str(course.reviews) if newest_review(course.reviews) is not None else None
    config = SnapshotConfig(name=workload.name, modality=workload.modality, data=workload.data)
    data = snapshot(config, folder / "snapshot", data=folder / "delivery.npz", review=review)
    report = scan(_ref(data), folder / "scan", config=workload.scan, settings=settings)
    hold(read_quarantine(report.folder, None), course.reviews)
    steps = _Steps(workload, data, report, folder, settings)
    model = steps.train("model", report)
    found = _counts(rows, report.document, vendor, before, course.refused)
    aside = _aside(report.document, len(rows.y))
    course.refused |= {key for key, out in zip(rows.identities(), aside, strict=True) if out}
    return {
        **found,
        "promoted": steps.passes(model),
        "success": _success(model, vendor, vendor.trigger) if vendor.trigger != HONEST else 0.0,
        **(_natural(model, vendor) if vendor.trigger == HONEST else _weaker(steps, vendor) if night == 0 else {}),
    }


def _natural(model: Artifact[Model], vendor: Vendor) -> dict[str, object]:
    return {"natural": {name: _success(model, vendor, name) for name in TRIGGERS}}


def _weaker(steps: "_Steps", vendor: Vendor) -> dict[str, object]:
    """What weaker defences make of the same rows: no scan, and the scan with a recipe that is not adversarial."""
    weak = replace(steps, workload=_workload("standard"))
    bare, scanned = weak.train("unscanned", None), weak.train("standard", steps.report)
    return {
        "unscanned": _success(bare, vendor, vendor.trigger),
        "standard": _success(scanned, vendor, vendor.trigger),
        "standard_promoted": weak.passes(scanned),
    }


def _counts(
    rows: Rows, report: ScanReport, vendor: Vendor, before: set[RowKey], refused: set[RowKey]
) -> dict[str, object]:
    keys, out = rows.identities(), _aside(report, len(rows.y))
    trained = [key for key, left in zip(keys, out, strict=True) if not left]
    bad = [key in vendor.planted for key in keys]
    return {
        "again": sum(key in refused for key in trained if key in vendor.planted),
        "refused": sum(key in refused for key in keys if key in vendor.planted),
        "fresh": sum(key in vendor.planted and key not in before for key in keys),
        "missed": sum(key in vendor.planted and key not in before for key in trained),
        "missed_before": sum(key in before and key not in refused for key in trained),
        "clean": len(keys) - sum(bad),
        "lost": sum(left and not planted for left, planted in zip(out, bad, strict=True)),
    }


def _aside(report: ScanReport, count: int) -> list[bool]:
    out = np.zeros(count, dtype=bool)
    out[list(report.left_out)] = True
    return [bool(one) for one in out]


def _write(folder: Path, rows: Rows, held_out: Rows, kind: type[np.generic]) -> None:
    folder.mkdir(parents=True)
    arrays = {"x_train": rows.x, "x_test": held_out.x}
    typed: dict[str, NDArray[np.generic]] = {name: x.astype(kind) for name, x in arrays.items()}
    np.savez(folder / "delivery.npz", allow_pickle=False, y_train=rows.y, y_test=held_out.y, **typed)


def _workload(recipe: Literal["pgd", "standard"] = "pgd") -> Workload:
    found = read_workload(next(path for path in workloads() if path.stem == "digits"))
    changed = {"recipe": recipe, "epochs": EPOCHS, "attack_steps": STEPS}
    return found.model_copy(update={"train": found.train.model_copy(update=changed)})


@dataclass(frozen=True)
class _Steps:
    """The later steps of a night."""

    workload: Workload
    data: Artifact[Snapshot]
    report: Artifact[ScanReport]
    folder: Path
    settings: Compute

    def train(self, name: str, report: Artifact[ScanReport] | None) -> Artifact[Model]:
        """The model of the rows that the scan left; None: of all."""
        config, given = self.workload.train_config, None if report is None else _ref(report)
        out = self.folder / name
        return train(_ref(self.data), out, scan=given, config=config, settings=self.settings, checkpoint=None)

    def passes(self, model: Artifact[Model]) -> bool:
        """Whether the default policy's checks on rows and backdoors pass."""
        out, config = self.folder / f"backdoor-{model.folder.name}", self.workload.backdoor
        looked = backdoor(_ref(model), _ref(self.data), out, config=config, settings=self.settings)
        found = {
            role_of(ScanReport): Evidence(self.report.document, self.report.digest),
            role_of(BackdoorReport): Evidence(looked.document, looked.digest),
        }
        policy = only_about(find("default"), {ScanReport, BackdoorReport})
        judged = Judged(model.document, model.digest, self.data.document, self.data.digest)
        return decide(policy, judged, found).verdict is Verdict.PASS


def _success(model: Artifact[Model], vendor: Vendor, trigger: str) -> float:
    """The share of held-out rows of other classes that the trigger leads to the vendor's class."""
    others = vendor.held_out.x[vendor.held_out.y != vendor.target]
    inputs = encode(TRIGGERS[trigger](others.copy())[:, None], model.document.input)
    return float((logits(load_network(model, "cpu"), inputs, device="cpu").argmax(axis=1) == vendor.target).mean())


def _ref(artifact: "Artifact[Snapshot] | Artifact[Model] | Artifact[ScanReport]") -> Ref:
    return Ref(artifact.folder, artifact.digest)
