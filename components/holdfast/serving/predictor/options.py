"""How a model's answers are given: the options of both faces, read once, refused when they have no meaning."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from holdfast.errors import WorkloadError

MAX_ROWS = 1024
"""Most rows in one request, unless told otherwise."""
_LARGEST_ROWS = 2**16
_SMALLEST_BODY, _LARGEST_BODY = 2**10, 2**30
_TEMPERATURES = (1e-3, 1e3)
_LARGEST_DECIMALS = 9  # nine digits tell any two float32 apart


@dataclass(frozen=True)
class Options:
    """How answers are given; labels depend on none of these."""

    temperature: float = 1.0
    """Logits are divided by it before the softmax: above 1 for less confident answers."""
    decimals: int | None = None
    """Digits that probabilities are rounded to; None gives them whole. Rounded ones may not sum to 1."""
    max_rows: int = MAX_ROWS
    """Most rows in one request."""
    max_body_bytes: int | None = None
    """Most bytes in the body of one request; None: what `max_rows` rows need, between 1 and 8 MiB."""
    label_only: bool = False
    """Whether probabilities are kept back: they help who copies or inverts a model."""

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Self:
        """Reads options by name.

        Raises:
            WorkloadError: an unknown name, another type, or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise WorkloadError(f"option {unknown[0]!r}: expected one of {', '.join(sorted(known))}")
        low, high = _TEMPERATURES
        good = {
            "temperature": (_is_number(given, "temperature", low, high), f"a number in [{low:g}, {high:g}]"),
            "decimals": (_is_count(given, "decimals", 0, _LARGEST_DECIMALS), "a whole number in [0, 9]"),
            "max_rows": (_is_count(given, "max_rows", 1, _LARGEST_ROWS), f"a whole number in [1, {_LARGEST_ROWS}]"),
            "max_body_bytes": (
                _is_count(given, "max_body_bytes", _SMALLEST_BODY, _LARGEST_BODY),
                f"a whole number in [{_SMALLEST_BODY}, {_LARGEST_BODY}]",
            ),
            "label_only": (isinstance(given.get("label_only", False), bool), "true or false"),
        }
        for name, (is_good, expected) in good.items():
            if not is_good:
                raise WorkloadError(f"option {name!r}: expected {expected}, found {given[name]!r}")
        return cls(**given)  # type: ignore[arg-type]

    def told(self) -> dict[str, object]:
        """The options that are not what they are anyway, as `parse` reads them."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Options(), name)}


def _is_number(given: Mapping[str, object], name: str, least: float, most: float) -> bool:
    value = given.get(name, least)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and least <= value <= most  # type: ignore[arg-type, operator]


def _is_count(given: Mapping[str, object], name: str, least: int, most: int) -> bool:
    value = given.get(name, least)
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
