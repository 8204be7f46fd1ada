"""The calibrate step: what the guard of one model compares queries with, and whether it is quiet and sees."""

from pathlib import Path

import numpy as np

from holdfast.artifacts.arrays import arrays_of, npz
from holdfast.artifacts.documents import Count, GuardCalibration, GuardStream, Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError, RefusedError
from holdfast.model.examples import check_answers, kept_apart, open_network
from holdfast.model.extract.queries import noise, shuffled
from holdfast.model.inputs import Arrays, read_split
from holdfast.serving.guard.calibration import CONFIDENCE, FEWEST, Calibration, Samples
from holdfast.serving.guard.calibration import calibrate as fit
from holdfast.serving.guard.packing import pack, unpack
from holdfast.serving.guard.trial import alarm_at
from holdfast.steps import by_role
from holdfast.workload.schema import GuardConfig

FILE = "calibration.npz"
_CLIENTS, _QUERIES = 20, 300


def calibrate(
    model: Ref, snapshot: Ref, out: Path, *, config: GuardConfig, settings: Compute
) -> Artifact[GuardCalibration]:
    """Measures training rows and held-out rows as the model sees them, and writes what the guard needs to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
        InputError: too few held-out rows.
    """
    from holdfast.serving.guard.features import kind_of, see

    judged, data = load(model, Model), load(snapshot, Snapshot)
    device, spec = settings.prepare(), judged.document.input
    network = open_network(judged, data, device)
    train, test = (read_split(data, split, spec) for split in ("train", "test"))
    if len(test) < FEWEST:
        raise InputError(f"{data.folder}: expected at least {FEWEST} held-out rows for a guard, found {len(test)}")
    check_answers(network, judged, test.take(np.arange(FEWEST)), device)
    checked, used = _parts(test, settings.seed)
    chance = np.random.default_rng(settings.seed)
    few = train.take(chance.permutation(len(train))[:_MOST_SEEN])
    reference, held_out, users = (see(network, spec, rows.x, device) for rows in (few, used, checked))
    classes = judged.document.classes
    found = fit(reference, held_out, len(classes), seed=settings.seed, delta=1 - CONFIDENCE)
    made = {name: make(checked.x, _QUERIES, chance) for name, make in (("noise", noise), ("shuffled", shuffled))}
    streams = {name: alarm_at(found, see(network, spec, x, device), config.alpha) for name, x in made.items()}
    document = GuardCalibration(
        name=judged.document.name,
        features=kind_of(network, spec),
        reference_rows=len(found.far.reference),
        held_out_rows=len(held_out),
        near_rows=len(found.near.rows),
        judged_together=_together(found, classes),
        alpha=config.alpha,
        confidence=CONFIDENCE,
        least_p=float(found.far.tails[0]),
        seed=settings.seed,
        benign=_benign(found, users, config.alpha, chance),
        streams=tuple(GuardStream(name=name, queries=_QUERIES, alarm_at=at) for name, at in streams.items()),  # type: ignore[arg-type]
        inputs=by_role(judged, data),
    )
    return save(out, document, {FILE: npz(**pack(found))})


def read_calibration(calibration: Ref, model: Artifact[Model]) -> tuple[GuardCalibration, Calibration]:
    """The calibration of this very model, its bytes checked.

    Raises:
        RefusedError: it was made for another model.
        ArtifactError: it is no calibration.
        IntegrityError: bytes were altered.
    """
    found = load(calibration, GuardCalibration)
    made_for = found.document.inputs.get("model", "")
    if made_for != model.digest:
        raise RefusedError(
            f"{found.folder}: expected a calibration for model {model.digest[:12]}…, found one for "
            f"{made_for[:12] or 'no model'}…; run `holdfast calibrate` for this model"
        )
    arrays = arrays_of(found.open(FILE))
    return found.document, unpack(arrays, len(model.document.classes), f"{found.folder / FILE}")


_MOST_SEEN = 20_000


def _parts(rows: Arrays, seed: int) -> tuple[Arrays, Arrays]:
    """Held-out rows to check with, and those to calibrate with."""
    kept = kept_apart(len(rows), seed)
    others = np.random.default_rng(seed).permutation(len(rows))[len(kept) :]
    return rows.take(kept), rows.take(others)


def _together(found: Calibration, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of the last group, where that is one of several."""
    last = found.groups == found.groups.max()
    return tuple(name for name, one in zip(classes, last, strict=True) if one) if last.sum() > 1 else ()


def _benign(found: Calibration, users: Samples, alpha: float, chance: np.random.Generator) -> Count:
    orders = [chance.permutation(len(users)) for _ in range(_CLIENTS)]
    return Count(k=sum(alarm_at(found, users.take(one), alpha) is not None for one in orders), n=_CLIENTS)
