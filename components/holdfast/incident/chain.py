"""Entries of an incident: what happened, in order, each linked to the one before."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from holdfast.artifacts.documents import IncidentEntry, first_link, link_after
from holdfast.wording import printable

LONGEST = 500
"""Characters of an entry."""
EntrySource = Literal["artifact", "altered", "guard", "registry", "rollout", "person"]
TimeOwner = Literal["signed", "claimed", "noted", "none"]


@dataclass(frozen=True)
class Happening:
    """What becomes an entry."""

    source: EntrySource
    what: str
    at: str | None = None
    """UTC, `2026-12-31T00:00:00Z`; None: not known."""
    clock: TimeOwner = "none"
    digest: str | None = None


def chained(
    name: str, model: str, before: tuple[IncidentEntry, ...], new: Iterable[Happening]
) -> tuple[IncidentEntry, ...]:
    """The entries before, then the new ones by time (those without a time first), each once."""
    entries = list(before)
    known = {(one.source, one.what, one.at, one.digest) for one in before}
    link = entries[-1].link if entries else first_link(name, model)
    for one in sorted(new, key=lambda one: (one.at is not None, one.at or "")):
        facts = asdict(one) | {"what": short(one.what)}
        same = (one.source, facts["what"], one.at, one.digest)
        if same not in known:
            known.add(same)
            link = link_after(link, facts)
            entries.append(IncidentEntry(**facts, link=link))
    return tuple(entries)


def short(text: str) -> str:
    """The text in one line of at most `LONGEST` characters."""
    flat = printable(" ".join(text.split())) or "-"
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"


def by_time(entries: Iterable[IncidentEntry]) -> list[IncidentEntry]:
    """For a reader: those without a time first, then by time, in the order of recording where equal."""
    return sorted(entries, key=lambda one: (one.at is not None, one.at or ""))
