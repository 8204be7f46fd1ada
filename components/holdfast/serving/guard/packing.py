"""A calibration as named arrays, and back."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import ArtifactError
from holdfast.serving.guard.calibration import Calibration, ClassScale, Far, Near, Sketcher

_TYPES = {
    "groups": "int64", "reference": "float32", "middle": "float64", "spread": "float64", "scores": "float64",
    "far_tails": "float64", "near_rows": "int8", "near_starts": "int64", "near_tails": "float64", "turn": "float32",
    "sketch_scale": "float64",
}  # fmt: skip


def pack(calibration: Calibration) -> dict[str, NDArray[np.generic]]:
    """The arrays of a calibration, by name."""
    far, near = calibration.far, calibration.near
    return {
        "groups": calibration.groups,
        "reference": far.reference,
        "middle": far.scale.middle,
        "spread": far.scale.spread,
        "scores": far.scores,
        "far_tails": far.tails,
        "near_rows": near.rows,
        "near_starts": near.starts,
        "near_tails": np.concatenate(near.tails),
        "turn": calibration.sketcher.turn,
        "sketch_scale": np.array([calibration.sketcher.scale]),
    }


def unpack(arrays: Mapping[str, NDArray[np.generic]], classes: int, name: str) -> Calibration:
    """A calibration for a model of so many classes.

    Raises:
        ArtifactError: an array is missing, has another type, or does not fit the others.
    """
    found = {key: (str(arrays[key].dtype) if key in arrays else "no such array") for key in _TYPES}
    wrong = next((key for key, kind in _TYPES.items() if found[key] != kind), None)
    if wrong is not None:
        raise ArtifactError(f"{name}: {wrong}: expected an array of {_TYPES[wrong]}, found {found[wrong]}")
    misfit = _misfit(arrays, classes)
    if misfit is not None:
        raise ArtifactError(f"{name}: expected arrays of one calibration, found {misfit}")
    return _calibration(arrays)


def _calibration(arrays: Mapping[str, NDArray[np.generic]]) -> Calibration:
    a: dict[str, NDArray[np.generic]] = dict(arrays)
    starts = np.asarray(a["near_starts"], np.int64)
    ends = np.cumsum(np.diff(starts) + 1)[:-1]
    near_tails = tuple(np.split(np.asarray(a["near_tails"], np.float64), ends))
    scale = ClassScale(np.asarray(a["middle"], np.float64), np.asarray(a["spread"], np.float64))
    scores, far_tails = np.asarray(a["scores"], np.float64), np.asarray(a["far_tails"], np.float64)
    far = Far(np.asarray(a["reference"], np.float32), scale, scores, far_tails)
    near = Near(np.asarray(a["near_rows"], np.int8), starts, near_tails)
    sketcher = Sketcher(np.asarray(a["turn"], np.float32), float(np.asarray(a["sketch_scale"], np.float64)[0]))
    return Calibration(np.asarray(a["groups"], np.int64), far, near, sketcher)


def _misfit(a: Mapping[str, NDArray[np.generic]], classes: int) -> str | None:
    """What does not fit together; None: all does."""
    groups, starts, tails = (np.asarray(a[key]) for key in ("groups", "near_starts", "near_tails"))
    count = len(starts) - 1
    fits = {
        "groups": groups.shape == (classes,) and count >= 1 and groups.min() >= 0 and groups.max() < count,
        "middle, spread": a["middle"].shape == a["spread"].shape == (classes,) and _are_positive(a["spread"]),
        "scores, far_tails": len(a["far_tails"]) == len(a["scores"]) + 1,
        "near_starts": starts[0] == 0 and starts[-1] == len(a["near_rows"]) and bool((np.diff(starts) >= 0).all()),
        "near_tails": len(tails) == len(a["near_rows"]) + count and _are_chances(tails),
        "far_tails": _are_chances(np.asarray(a["far_tails"])),
        "turn": a["turn"].shape == (a["reference"].shape[1], a["near_rows"].shape[1]),
        "sketch_scale": a["sketch_scale"].shape == (1,) and _are_positive(a["sketch_scale"]),
    }
    return next((f"others in {name}" for name, good in fits.items() if not good), None)


def _are_positive(values: NDArray[np.generic]) -> bool:
    return bool((np.asarray(values, np.float64) > 0).all())


def _are_chances(values: NDArray[np.generic]) -> bool:
    chances = np.asarray(values, np.float64)
    return bool((chances > 0).all() and (chances <= 1).all())
