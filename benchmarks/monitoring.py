"""The monitor of a served model: false alarms over simulated stable months, and how soon changes are found.

Hours of requests are rows of a table (credit default), drawn with replacement: alike in every hour; with a harmless
wobble (each hour prefers high or low values of one direction by chance); with a daily cycle of that preference. A month
has 720 hours and starts after a month that was recorded as stable. All three stages run: inputs per column every hour,
the model's vectors every six hours, ten labels an hour. A change begins at some hour of the month.

Months are kept one by one in .holdfast/bench/monitoring.jsonl, so a run that was stopped goes on where it ended.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.records import Record, Records
from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.monitor.binned import BinCounts, BinnedWindows, Bins
from holdfast.monitor.kernels import Features, scores
from holdfast.monitor.limits import limit
from holdfast.monitor.losses import Labelled, LossEvidence, chances
from holdfast.monitor.ranks import MixedRanks, quickest
from holdfast.monitor.shapes import change
from holdfast.statistics import clopper_pearson, upper_bound

SOURCES = (
    *(
        f"components/holdfast/monitor/{name}.py"
        for name in ("binned", "kernels", "limits", "losses", "ranks", "shapes")
    ),
    "benchmarks/monitoring.py",
)
HOURS, STABLE, EVERY = 720, 720, 6
ROWS, LABELS = 500, 10
ALARMS = 0.01
MONTHS, CHANGES, MODELS = 100, 20, 200
VECTORS = 100
MOVED, SHIFT, RISE = 6, 0.5, 240
WOBBLE = 0.15
HELD_OUT = 2_000

Kind = Literal["alike", "wobbling", "with a daily cycle"]
KINDS: tuple[Kind, ...] = ("alike", "wobbling", "with a daily cycle")
SEASON: dict[Kind, int] = {"alike": 1, "wobbling": 1, "with a daily cycle": 24}
Change = Literal["sudden", "gradual"]
CHANGE_KINDS: tuple[Change, ...] = ("sudden", "gradual")


@dataclass(frozen=True)
class World:
    """Rows that requests are drawn from, as the monitor counts them."""

    sizes: tuple[int, ...]
    places: NDArray[np.int64]
    """Bins of every row, int64[rows, columns]."""
    moved: NDArray[np.int64]
    """The same with the shift."""
    direction: NDArray[np.float64]
    """What an hour prefers high or low values of."""
    vectors: NDArray[np.float64]
    features: Features
    losses: NDArray[np.float64]
    bound: float


@dataclass(frozen=True)
class Found:
    """The most evidence of each stage in a month; for a change, the hours from its start to the alarm of stage one."""

    inputs: float
    model: float
    labels: float

    @property
    def alarm(self) -> bool:
        """Whether any stage raised one."""
        return (
            self.inputs >= limit("inputs", ALARMS)
            or self.model >= limit("model", ALARMS)
            or self.labels >= limit("labels", ALARMS)
        )


def run(bench: Bench) -> list[Row]:
    """Stable months, changed months, and labels."""
    records = Records.of("monitoring", *SOURCES)
    world = cache(lambda: _world(pd.read_csv(bench.file("credit_default.csv")).drop(columns="ID")))
    return [*_stable_rows(records, world), *_change_rows(records, world), *_label_rows(), _reaction()]


# --- hours of requests ----------------------------------------------------------------------------------------------


def _world(table: pd.DataFrame) -> World:
    from sklearn.linear_model import LogisticRegression

    table = table.sample(frac=1, random_state=0).reset_index(drop=True)
    x, y = table.drop(columns="Y").astype(float), table["Y"].to_numpy()
    half = len(table) // 2
    training, live = x.iloc[:half], x.iloc[half:]
    center, spread = training.mean().to_numpy(), training.std().to_numpy()
    vectors = (live.to_numpy() - center) / spread
    model = LogisticRegression(max_iter=500).fit((training.to_numpy() - center) / spread, y[:half])
    losses = (model.predict(vectors) != y[half:]).astype(float)
    bins = [Bins.of_numbers(name, training[name].to_numpy()) for name in training]
    wrong = round(float(losses.mean()) * HELD_OUT)
    return World(
        tuple(b.size for b in bins),
        _places(bins, live, spread, 0.0),
        _places(bins, live, spread, SHIFT),
        np.clip(vectors[:, 0], -2, 2),
        vectors,
        Features.of("mmd", (training.to_numpy()[:2000] - center) / spread, 0),
        losses,
        upper_bound(wrong, HELD_OUT, 0.05),
    )


def _places(bins: list[Bins], live: pd.DataFrame, spread: NDArray[np.float64], shift: float) -> NDArray[np.int64]:
    """Bins of every row with the last columns (amounts) moved by so many standard deviations."""
    moved = [shift * spread[i] * (i >= len(bins) - MOVED) for i in range(len(bins))]
    starts = np.cumsum([0, *(b.size for b in bins[:-1])])
    columns = [b.places(live[b.column].to_numpy() + m) + s for b, m, s in zip(bins, moved, starts, strict=True)]
    return np.stack(columns, axis=1)


def _rows(world: World, kind: Kind, hour: int, rng: np.random.Generator) -> NDArray[np.int64]:
    n = len(world.losses)
    if kind == "alike":
        return rng.integers(0, n, ROWS)
    lean = rng.normal(0, WOBBLE) if kind == "wobbling" else 2 * WOBBLE * np.sin(2 * np.pi * hour / 24)
    sums = np.cumsum(np.exp(lean * world.direction))
    return np.asarray(np.searchsorted(sums, rng.random(ROWS) * sums[-1]))


def _count(world: World, rows: NDArray[np.int64], moved: float = 0.0) -> BinCounts:
    """BinCounts of an hour in which the first rows, a share of `moved`, have the shift."""
    many = round(moved * len(rows))
    places = np.concatenate([world.moved[rows[:many]], world.places[rows[many:]]])
    return np.bincount(places.ravel(), minlength=sum(world.sizes))


# --- stable months --------------------------------------------------------------------------------------------------


def _stable_month(found: Callable[[], World], kind: Kind, seed: int) -> dict[str, object]:
    world = found()
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    windows, inputs = BinnedWindows(world.sizes, SEASON[kind]), MixedRanks.of(2, HOURS)
    labels = LossEvidence(world.bound)
    means: list[NDArray[np.float64]] = []
    highest = [0.0, 0.0]
    for hour in range(STABLE + HOURS):
        rows = _rows(world, kind, hour, rng)
        windows.add(_count(world, rows))
        means.append(world.features.mean(world.vectors[rows[:VECTORS]]))
        if hour >= STABLE:
            inputs = inputs.add(windows.scores)
            labels = labels.add(Labelled.alone(world.losses[rows[:LABELS]]))
            highest = [max(highest[0], inputs.value), max(highest[1], labels.value)]
    return {"inputs": highest[0], "model": _model_stage(world, np.array(means)), "labels": highest[1]}


def _model_stage(world: World, means: NDArray[np.float64]) -> float:
    """The most evidence of stage two, on windows of six hours."""
    joined = means.reshape(-1, EVERY, means.shape[1]).mean(axis=1)
    rows, evidence, highest = np.full(len(joined), EVERY * VECTORS), MixedRanks.of(2, HOURS // EVERY), 0.0
    for end in range(STABLE // EVERY + 1, len(joined) + 1):
        evidence = evidence.add(scores(joined[:end], rows[:end], world.features))
        highest = max(highest, evidence.value)
    return highest


def _stable_rows(records: Records, world: Callable[[], World]) -> Iterator[Row]:
    found: list[Found] = []
    for month in range(MONTHS):
        kind = KINDS[month % len(KINDS)]
        kept = _kept(records, f"stable, {kind}", month, partial(_stable_month, world, kind))
        found.append(Found(kept["inputs"], kept["model"], kept["labels"]))
    alarms = sum(one.alarm for one in found)
    upper = clopper_pearson(alarms, MONTHS, 0.025).upper
    highest = (max(one.inputs for one in found), max(one.model for one in found), max(one.labels for one in found))
    limits = (limit("inputs", ALARMS), limit("model", ALARMS), limit("labels", ALARMS))
    reached = ", ".join(f"{one:.0f} of {most:.0f}" for one, most in zip(highest, limits, strict=True))
    how = (
        f"{HOURS} hours each, in turn alike, wobbling, with a daily cycle; {ROWS} rows and {LABELS} labels "
        f"an hour, {STABLE} stable hours before; stated: at most {ALARMS:g} a month; 95 % interval up to {upper:.3f}; "
        f"the most evidence of a month: {reached} (inputs, model, labels)"
    )
    yield at_most(f"monitor: stable months with a false alarm of any stage, of {MONTHS}", alarms, 1, how)


# --- months with a change -------------------------------------------------------------------------------------------


def _changed_month(found: Callable[[], World], kind: Kind, how: Change, seed: int) -> dict[str, object]:
    """The hours from the change to the alarm (all of them when there was none), and how the change was called."""
    world = found()
    rng = np.random.default_rng([seed, KINDS.index(kind), 1])
    windows, inputs, began = (
        BinnedWindows(world.sizes, SEASON[kind]),
        MixedRanks.of(2, HOURS),
        STABLE + rng.integers(24, 240),
    )
    for hour in range(STABLE + HOURS):
        moved = float(hour >= began) if how == "sudden" else min(max((hour - began + 1) / RISE, 0), 1)
        windows.add(_count(world, _rows(world, kind, hour, rng), moved))
        if hour >= STABLE:
            inputs = inputs.add(windows.scores)
            if hour >= began and inputs.value >= limit("inputs", ALARMS):
                break
    called = change(np.sqrt(windows.scores[:, 1]), STABLE)
    return {"hours": int(hour - began + 1), "called": called.shape}


def _change_rows(records: Records, world: Callable[[], World]) -> Iterator[Row]:
    for kind in KINDS:
        sudden, gradual = (
            [
                _kept(records, f"{how}, {kind}", seed, partial(_changed_month, world, kind, how))
                for seed in range(CHANGES)
            ]
            for how in CHANGE_KINDS
        )
        what = f"{SHIFT} sd in {MOVED} of 23 columns, {CHANGES} months of hours {kind}"
        delays = [month["hours"] for month in sudden]
        yield at_most(
            f"monitor, hours {kind}: windows until a sudden shift is found, 95th percentile",
            float(np.quantile(delays, 0.95, method="higher")), 2, f"{what}; median {np.median(delays):g}",
        )  # fmt: skip
        slow = [month["hours"] for month in gradual]
        yield shown(
            f"monitor, hours {kind}: hours until a shift of ever more rows is found, median (95th percentile)",
            f"{np.median(slow):g} ({np.quantile(slow, 0.95, method='higher'):g})", f"{what}; all moved after {RISE} h",
        )  # fmt: skip
        yield shown(
            f"monitor, hours {kind}: sudden and gradual changes called so at the alarm",
            f"{_called(sudden, 'sudden')} and {_called(gradual, 'gradual')}", what,
        )  # fmt: skip


def _called(months: list[Record], how: Change) -> str:
    return f"{sum(month['called'] == how for month in months)} of {len(months)}"


def _reaction() -> Row:
    alpha = 1 / limit("inputs", ALARMS)
    least = next(stable for stable in range(1, 10**6) if quickest(stable, alpha, HOURS) <= 2)
    return shown(
        "monitor: stable hours recorded before, so that two changed windows can be enough", least,
        f"computed; {ALARMS:g} false alarms a month, half of them for the inputs",
    )  # fmt: skip


def _kept(records: Records, name: str, seed: int, measure: Callable[[int], dict[str, object]]) -> Record:
    """The record of this month, measured when there is none."""
    for record in _read(records):
        if record["name"] == name and record["seed"] == seed:
            return record
    record = {"name": name, "seed": seed, **measure(seed)}
    records.add(record)
    _read(records).append(record)
    return record


@cache
def _read(records: Records) -> list[Record]:
    return records.read()


# --- labels ---------------------------------------------------------------------------------------------------------

_APPROVED, _FALLEN, _BATCH = 0.95, 0.90, 50


def _label_rows() -> Iterator[Row]:
    bound = upper_bound(round((1 - _APPROVED) * HELD_OUT), HELD_OUT, 0.05)
    approved = f"accuracy {_APPROVED:.0%}, lower bound of the gate {1 - bound:.1%} on {HELD_OUT:,} rows"
    how = f"{approved}; falls to {_FALLEN:.0%}; {MODELS} models, found at {limit('labels', ALARMS):g}"
    plain = [_labels_needed(bound, seed, _alone) for seed in range(MODELS)]
    seen = [_labels_needed(bound, seed, _drawn) for seed in range(MODELS)]
    unseen = [_labels_needed(bound, seed, _unseen) for seed in range(MODELS)]
    stable = [_labels_needed(bound, seed, _as_approved, most=10_000) for seed in range(MODELS)]
    yield at_least(
        "monitor: 5 points of accuracy lost, found within 1,500 labels, share of models", _within(plain, 1500), 0.95,
        f"{how}; median {np.median(plain):g}",
    )  # fmt: skip
    yield at_least(
        "monitor: the same with predictions, within 400 random labels", _within(seen, 400), 0.95,
        f"{how}; drawn half alike, half by the confidence, which sees the new errors; median {np.median(seen):g}",
    )  # fmt: skip
    yield shown(
        "monitor: the same where the confidence sees none of the new errors, within 400 (within 1,500)",
        f"{_within(unseen, 400):.2f} ({_within(unseen, 1500):.2f})", how,
    )  # fmt: skip
    yield at_most(
        "monitor: models accused that are at the gate's bound, share", _within(stable, 10_000), ALARMS,
        f"{approved}; true loss at the bound; 10,000 drawn labels; stated: at most {ALARMS * 0.4:g}",
    )  # fmt: skip


Draw = Callable[[np.random.Generator, float], Labelled]


def _labels_needed(bound: float, seed: int, draw: Draw, most: int = 3000) -> float:
    rng, evidence = np.random.default_rng([seed, 2]), LossEvidence(bound)
    while evidence.labels < most:
        evidence = evidence.add(draw(rng, bound))
        if evidence.value >= limit("labels", ALARMS):
            return evidence.labels
    return np.inf


def _calibrated(rng: np.random.Generator, loss: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses and guesses of 5,000 rows: a confidence that is right on average."""
    guesses = rng.beta(loss, 1 - loss, 5000)
    return (rng.random(5000) < guesses).astype(float), guesses


def _alone(rng: np.random.Generator, bound: float) -> Labelled:
    return Labelled.alone(_calibrated(rng, 1 - _FALLEN)[0][:_BATCH])


def _drawn(rng: np.random.Generator, bound: float, loss: float = 1 - _FALLEN) -> Labelled:
    return _draw(rng, *_calibrated(rng, loss))


def _unseen(rng: np.random.Generator, bound: float) -> Labelled:
    losses, guesses = _calibrated(rng, 1 - _APPROVED)
    new = rng.random(len(losses)) < (_APPROVED - _FALLEN) / _APPROVED
    return _draw(rng, np.maximum(losses, new), guesses)


def _as_approved(rng: np.random.Generator, bound: float) -> Labelled:
    return _drawn(rng, bound, loss=bound)


def _draw(rng: np.random.Generator, losses: NDArray[np.float64], guesses: NDArray[np.float64]) -> Labelled:
    rows = rng.choice(len(guesses), _BATCH, p=chances(guesses))
    return Labelled.drawn(losses[rows], rows, guesses)


def _within(needed: list[float], labels: int) -> float:
    return float(np.mean(np.array(needed) <= labels))
