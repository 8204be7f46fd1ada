"""What each column may hold while there is no schema yet: a first contract, for a person to read and to tighten."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot
from holdfast.modality import modality_of

MARGIN = 0.5
"""Share of the observed range by which a number column may leave it on either side."""


@dataclass(frozen=True)
class NumberDomain:
    """A number column stays within, ends included."""

    lower: float
    upper: float


@dataclass(frozen=True)
class CategoryDomain:
    """A category column is one of these, sorted."""

    names: tuple[str, ...]


Domain = NumberDomain | CategoryDomain


def domains(snapshot: Snapshot, table: Mapping[str, NDArray[Any]]) -> dict[str, Domain]:
    """A domain for each column of the table view: what images can be, what numbers and categories were."""
    found: dict[str, Domain] = {}
    modality = modality_of(snapshot.modality)
    for name, values in table.items():
        if name == snapshot.label:
            found[name] = CategoryDomain(tuple(sorted(snapshot.classes)))
        elif known := modality.known_range(name, snapshot):
            found[name] = NumberDomain(*known)
        elif values.dtype.kind == "f":
            found[name] = _number(values, natural=modality.natural)
        else:
            found[name] = CategoryDomain(_sorted(values))
    return found


def _number(values: NDArray[Any], *, natural: bool) -> NumberDomain:
    lower, upper = float(values.min()), float(values.max())
    margin = MARGIN * ((upper - lower) or max(1.0, abs(upper)))
    return NumberDomain(0.0 if natural else lower - margin, upper + margin)


def _sorted(values: NDArray[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values}))


def stack(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The rows of several tables with the same columns, one below the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in _names(parts)}


def _names(parts: Sequence[Mapping[str, NDArray[Any]]]) -> Iterable[str]:
    return parts[0].keys()
