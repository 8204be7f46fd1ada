"""What each column may hold when nobody wrote a schema yet: a first contract, for a person to read and to tighten."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot

MARGIN = 0.5
"""Share of the observed range by which a number column may leave it on either side."""
_SLACK = 1e-4
"""Share of an image's value range for rounding: the schema's bounds are float32."""


@dataclass(frozen=True)
class Interval:
    """A number column stays within, ends included."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Values:
    """A category column is one of these, sorted."""

    names: tuple[str, ...]


Domain = Interval | Values


def domains(snapshot: Snapshot, table: Mapping[str, NDArray[Any]]) -> dict[str, Domain]:
    """A domain for each column of the table view: what images can be, what numbers and categories were."""
    found: dict[str, Domain] = {}
    for name, values in table.items():
        if name == snapshot.label:
            found[name] = Values(tuple(sorted(snapshot.classes)))
        elif snapshot.modality == "image":
            found[name] = _image(name, snapshot.lower, snapshot.upper)
        elif values.dtype.kind == "f":
            found[name] = _number(values, natural=snapshot.modality == "text")
        else:
            found[name] = Values(_sorted(values))
    return found


def _image(column: str, lower: float, upper: float) -> Interval:
    slack = _SLACK * (upper - lower)
    if column == "contrast":
        return Interval(0.0, (upper - lower) / 2 + slack)
    return Interval(lower - slack, upper + slack)


def _number(values: NDArray[Any], *, natural: bool) -> Interval:
    lower, upper = float(values.min()), float(values.max())
    margin = MARGIN * ((upper - lower) or max(1.0, abs(upper)))
    return Interval(0.0 if natural else lower - margin, upper + margin)


def _sorted(values: NDArray[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values}))


def stack(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The rows of several tables with the same columns, one below the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in _names(parts)}


def _names(parts: Sequence[Mapping[str, NDArray[Any]]]) -> Iterable[str]:
    return parts[0].keys()
