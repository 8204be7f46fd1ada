"""How deliveries are named: a pattern whose dates and numbers put them in order.

`%Y-%m-%d/orders.csv` fits `2026-11-27/orders.csv` and gives it the order (2026, 11, 27).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

_CLOCK = "YmdHMS"
"""From the largest to the smallest; `n` is a number of its own."""
_DIRECTIVES = {"Y": "[0-9]{4}", **dict.fromkeys(_CLOCK[1:], "[0-9]{2}"), "n": "[0-9]{1,18}"}
_PARTS = re.compile(r"%(.)|(\*)|([^%*]+)")
_FIRST_MONTH_AND_DAY = (1, 1)
MAX_PATTERN = 200

Order = tuple[int, ...]
"""Of a delivery: year, month, day, hour, minute, second and number, as far as its name has them."""


@dataclass(frozen=True)
class NamePattern:
    """A path below the source, where `%Y %m %d %H %M %S` are parts of a date, `%n` is a number, `*` any text."""

    text: str

    def __post_init__(self) -> None:
        """Refuses a pattern that puts nothing in order.

        Raises:
            ValueError: no path below the source, or dates without their larger parts.
        """
        parts = self.text.split("/")
        if len(self.text) > MAX_PATTERN or any(part in ("", ".", "..") for part in parts):
            raise ValueError("expected a path below the source, such as %Y-%m-%d/train.csv")
        if not self.text.isprintable() or "**" in self.text:
            raise ValueError("expected printable text, and * once in a row")
        used = re.findall("%(.?)", self.text)
        if not set(used) <= set(_DIRECTIVES) or len(set(used)) < len(used):
            raise ValueError("expected %Y %m %d %H %M %S for a date or %n for a number, each once at most")
        clock = "".join(one for one in _CLOCK if one in used)
        if not used or not _CLOCK.startswith(clock):
            raise ValueError("expected a date (from %Y on, without gaps) or a number (%n) by which names are in order")

    @property
    def directives(self) -> frozenset[str]:
        """The letters after the percent signs."""
        return frozenset(re.findall("%(.)", self.text))

    def order(self, path: str) -> Order | None:
        """The order of the delivery of this name; None: it does not fit, or its date is none."""
        found = self._whole.fullmatch(path)
        return None if found is None else _order(found.groupdict())

    def leads_to(self, folder: str) -> bool:
        """Whether a path that fits can lie below this folder."""
        depth = folder.count("/") + 1
        parts = self.text.split("/")
        return depth < len(parts) and re.fullmatch(_regex("/".join(parts[:depth])), folder) is not None

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(_regex(self.text))


def moment(order: Order, directives: frozenset[str]) -> datetime | None:
    """When a delivery is dated, in UTC but without a zone; None: its name has no date."""
    if "Y" not in directives:
        return None
    clock = order[: sum(one in directives for one in _CLOCK)]
    return datetime(*_filled(clock))  # type: ignore[arg-type]


def _regex(text: str) -> str:
    return "".join(
        f"(?P<{letter}>{_DIRECTIVES[letter]})" if letter else "[^/]*" if star else re.escape(plain)
        for letter, star, plain in _PARTS.findall(text)
    )


def _order(found: Mapping[str, str]) -> Order | None:
    clock = tuple(int(found[one]) for one in _CLOCK if one in found)
    try:
        if clock:
            datetime(*_filled(clock))  # type: ignore[arg-type]
    except ValueError:
        return None
    return (*clock, int(found["n"])) if "n" in found else clock


def _filled(clock: Order) -> Order:
    return (*clock, *_FIRST_MONTH_AND_DAY[len(clock) - 1 :]) if len(clock) < 3 else clock
