"""An inspection as one page of text."""

from collections.abc import Sequence

from holdfast.data.snapshot.inspection.summary import ColumnSummary, DataInspection
from holdfast.wording import listed

MOST_COLUMNS = 60
MOST_CLASSES = 20
_WIDTH = 28


def page(found: DataInspection) -> str:
    """The page."""
    parts = [_head(found), _class_table(found), _column_table(found.columns), _rows(found)]
    parts += [_list("A run would take this, and you should know:", found.notes)] if found.notes else []
    parts += [_list("A run would refuse this delivery:", found.refused)] if found.refused else []
    return "\n\n".join(part for part in parts if part)


def _head(found: DataInspection) -> str:
    size = f"{found.rows:,} rows" + (f", {len(found.columns)} columns" if found.columns else "")
    label = "" if found.label is None else f"; label {listed([found.label])}"
    lines = [f"{found.source}: {size} ({found.modality}{label})", *found.read_as]
    return "\n".join([*lines, found.example] if found.example else lines)


def _class_table(found: DataInspection) -> str:
    if not found.classes:
        return "" if found.label is not None else "Which column holds the class? Name it with --label."
    shown = found.classes[:MOST_CLASSES]
    rows = [
        (
            listed([one.name]),
            f"{one.rows:,}",
            f"{one.rows / found.rows:.1%}",
            f"{one.held_out:,}",
            f"{one.provable:.2f}",
        )
        for one in shown
    ]
    head = ("class", "rows", "share", "held out", "best provable recall")
    return _table(head, rows, "<>>>>") + _more(found.classes, MOST_CLASSES)


def _column_table(columns: Sequence[ColumnSummary]) -> str:
    if not columns:
        return ""
    rows = [
        (listed([one.name]), one.kind, f"{one.distinct:,}", _missing(one), _values(one), one.note)
        for one in columns[:MOST_COLUMNS]
    ]
    head = ("column", "kind", "distinct", "missing", "values", "")
    return _table(head, rows, "<<>><<") + _more(columns, MOST_COLUMNS)


def _missing(column: ColumnSummary) -> str:
    words = f" ({listed(column.written_as)})" if column.written_as else ""
    return f"{column.missing:,}{words}" if column.missing else "0"


def _values(column: ColumnSummary) -> str:
    if column.lowest or column.highest:
        return f"{column.lowest} to {column.highest}"
    text = listed(column.examples)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _rows(found: DataInspection) -> str:
    lines = [f"repeated rows: {found.repeated:,}"]
    if found.leaked is not None:
        lines += [f"held-out rows that are training rows, too: {found.leaked:,}"]
        lines += [f"rows with equal values and another label: {found.conflicting:,}"]
    return "\n".join(lines)


def _list(title: str, items: Sequence[str]) -> str:
    return "\n".join([title, *(f"  - {item}" for item in items)])


def _more(items: Sequence[object], most: int) -> str:
    return f"\n... and {len(items) - most} more" if len(items) > most else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join(lines)
