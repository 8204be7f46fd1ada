"""What an inspection of a delivery finds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from holdfast.artifacts.documents import Modality
from holdfast.errors import InputError


@dataclass(frozen=True)
class ColumnSummary:
    """One column as the snapshot step would read it."""

    name: str
    kind: str
    """number, whole number, date, category or text; unclear: the step refuses it."""
    distinct: int
    missing: int
    written_as: tuple[str, ...]
    """The texts of missing cells, without empty ones."""
    lowest: str
    highest: str
    examples: tuple[str, ...]
    """The most frequent values of a category, the first ones of another column."""
    note: str = ""
    """identifier, constant, codes?, or what else an owner should look at."""


@dataclass(frozen=True)
class ClassSummary:
    """One class and its rows; those held out are chosen as the snapshot step does."""

    name: str
    rows: int
    held_out: int
    provable: float
    """The one-sided 95 % bound on recall when all held-out rows are right: a gate that asks for more cannot pass."""


@dataclass(frozen=True)
class DataInspection:
    """What is in a delivery, and what a run would make of it."""

    source: str
    modality: Modality
    read_as: tuple[str, ...]
    """How each file was read, where that is not the usual way."""
    rows: int
    label: str | None
    example: str
    """The shape and the range of images, the longest message."""
    columns: tuple[ColumnSummary, ...] = ()
    classes: tuple[ClassSummary, ...] = ()
    repeated: int = 0
    """Rows whose values, without the label, are those of a row above."""
    conflicting: int = 0
    """Rows whose values come with more than one label."""
    leaked: int | None = None
    """Held-out rows that are training rows, too; None: no label, so nothing could be held out."""
    refused: tuple[str, ...] = ()
    """What the snapshot step would refuse, in its words."""
    notes: tuple[str, ...] = ()
    """What it would take and an owner should know."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass
class Refusals:
    """Collects what would have ended a snapshot step."""

    messages: list[str] = field(default_factory=list)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Inside, an input that cannot be used is noted instead of raised."""
        try:
            yield
        except InputError as error:
            if str(error) not in self.messages:
                self.messages.append(str(error))
