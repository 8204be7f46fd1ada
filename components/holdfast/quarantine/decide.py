"""Decisions about rows: which rows are meant, and how new decisions join those before."""

import re
from collections.abc import Iterable, Mapping, Sequence

from holdfast.artifacts.documents import Decision
from holdfast.errors import InputError

DONE = {"release": "released", "drop": "dropped"}


def row_ids(text: str, held: Sequence[int]) -> list[int]:
    """The row ids that `text` names, such as `1,5-9`; a range means those of `held` that lie in it.

    Raises:
        InputError: another form, or a row that is not among `held`.
    """
    known, found = set(held), set[int]()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,18})(?:\s*-\s*([0-9]{1,18}))?\s*", part)
        if match is None:
            raise InputError(f"--rows {text[:60]!r}: expected row ids such as 1,5-9, found {part[:40]!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        inside = [row for row in held if first <= row <= last]
        if not inside or (match[2] is None and first not in known):
            raise InputError(f"--rows {text[:60]!r}: expected rows in quarantine, found none at {part.strip()}")
        found.update(inside)
    return sorted(found)


def joined(before: Iterable[Decision], new: Mapping[int, Decision]) -> tuple[Decision, ...]:
    """All decisions in order, `new` by row id; a row that is decided again the same way keeps its first decision.

    Raises:
        InputError: a row is decided twice differently.
    """
    entries = {entry.row: entry for entry in before}
    for row, entry in new.items():
        first = entries.setdefault(entry.row, entry)
        if first.decision != entry.decision:
            raise InputError(
                f"cannot {entry.decision} row {row}: it was {DONE[first.decision]} by {first.by} ({first.why}); "
                "to undo that, start another folder of reviews from the version before"
            )
    return tuple(entries.values())
