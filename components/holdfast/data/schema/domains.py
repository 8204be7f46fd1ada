"""What each column may hold while there is no schema yet: a first contract, for a person to read and to tighten."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    return domains_of(snapshot, observe(table))


def domains_of(snapshot: Snapshot, observed: Mapping[str, Domain]) -> dict[str, Domain]:
    """As `domains`, of what was observed in all blocks of a table."""
    return {name: _domain(name, values, snapshot) for name, values in observed.items()}


def observe(table: Mapping[str, NDArray[Any]]) -> dict[str, Domain]:
    """The lowest and highest number, or the values, of each column."""
    return {name: _observed(values) for name, values in table.items()}


def united(one: Mapping[str, Domain], other: Mapping[str, Domain]) -> dict[str, Domain]:
    """What was observed in either of two blocks with the same columns."""
    return {name: _united(one[name], other[name]) for name in one}


def _domain(name: str, values: Domain, snapshot: Snapshot) -> Domain:
    modality = modality_of(snapshot.modality)
    if name == snapshot.label:
        return CategoryDomain(tuple(sorted(snapshot.classes)))
    if known := modality.known_range(name, snapshot):
        return NumberDomain(*known)
    return _number(values, natural=modality.natural) if isinstance(values, NumberDomain) else values


def _observed(values: NDArray[Any]) -> Domain:
    if values.dtype.kind == "f":
        return NumberDomain(float(values.min()), float(values.max()))
    return CategoryDomain(_sorted(values))


def _united(one: Domain, other: Domain) -> Domain:
    if isinstance(one, NumberDomain) and isinstance(other, NumberDomain):
        return NumberDomain(min(one.lower, other.lower), max(one.upper, other.upper))
    assert isinstance(one, CategoryDomain)
    assert isinstance(other, CategoryDomain)
    return CategoryDomain(tuple(sorted({*one.names, *other.names})))


def _number(values: NumberDomain, *, natural: bool) -> NumberDomain:
    lower, upper = values.lower, values.upper
    margin = MARGIN * ((upper - lower) or max(1.0, abs(upper)))
    return NumberDomain(0.0 if natural else lower - margin, upper + margin)


def _sorted(values: NDArray[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in dict.fromkeys(values)}))
