"""Which version served when, from the notes of the registry."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from holdfast.registry.notes import Note, notes_of
from holdfast.registry.version import CHAMPION, versions
from holdfast.rendering.text import clock, duration, paragraphs


@dataclass(frozen=True)
class Ledger:
    """Every rollout of a model that MLflow has a note of, oldest first, and who is champion now."""

    notes: tuple[Note, ...]
    champion: int | None


@dataclass(frozen=True)
class ChampionPeriod:
    """A version was champion from `since` until `until`, Unix seconds; None: not known, and until now."""

    version: int
    since: float | None
    until: float | None


def read_ledger(tracking: str, name: str) -> Ledger:
    """What MLflow has noted about model `name`.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    found = versions(tracking, name)
    notes = [note for version in found for note in notes_of(version.number, version.tags)]
    champion = next((version.number for version in found if CHAMPION in version.aliases), None)
    return Ledger(tuple(sorted(notes, key=lambda note: note.began)), champion)


def served(notes: Sequence[Note], champion: int | None) -> tuple[ChampionPeriod, ...]:
    """Who was champion when, oldest first; `champion` is who is it now.

    A champion that no rollout made (an alias moved by hand) has served since a time that is not noted.
    """
    moves = sorted((note for note in notes if note.outcome == "promoted"), key=lambda note: note.ended)
    found: list[ChampionPeriod] = []
    if moves and moves[0].champion_before is not None:
        found.append(ChampionPeriod(moves[0].champion_before, None, moves[0].ended))
    ends = [*(note.ended for note in moves[1:]), None]
    found += [ChampionPeriod(note.version, note.ended, until) for note, until in zip(moves, ends, strict=bool(moves))]
    if champion is not None and (not found or found[-1].version != champion):
        found.append(ChampionPeriod(champion, None, None))
    return tuple(found)


def as_dict(notes: Sequence[Note], champion: int | None) -> dict[str, object]:
    """For `--json`."""
    return {
        "champion": champion,
        "served": [asdict(one) for one in served(notes, champion)],
        "rollouts": [{**asdict(note), "champion_after": after(note)} for note in notes],
    }


def after(note: Note) -> int | None:
    """Who was champion when the rollout had ended."""
    return note.version if note.outcome == "promoted" else note.champion_before


def text(name: str, notes: Sequence[Note], champion: int | None) -> str:
    """Two tables: who served when, and every rollout."""
    stretches = served(notes, champion)
    if not stretches:
        return f"{name}: no champion, and no rollout was noted"
    rows = [(str(one.version), _at(one.since, "not noted"), _at(one.until, "now")) for one in stretches]
    rollouts = (_HEAD, *map(_row, notes)) if notes else ()
    return paragraphs(((name,),), (("version", "served from", "until"), *rows), rollouts)


_HEAD = ("began", "took", "version", "outcome", "cause", "champion", "model", "decision", "why")


def _row(note: Note) -> tuple[str, ...]:
    before, now = (str(version) if version is not None else "none" for version in (note.champion_before, after(note)))
    day = f" (game day: {note.game_day})" if note.game_day else ""
    return (
        clock(note.began),
        duration(note.ended - note.began),
        str(note.version),
        note.outcome,
        str(note.cause or "not noted") + (" (locks)" if note.counts_against_model else ""),
        before if before == now else f"{before} -> {now}",
        note.model[:12],
        note.decision[:12],
        note.reason + day,
    )


def _at(moment: float | None, otherwise: str) -> str:
    return otherwise if moment is None else clock(moment)
