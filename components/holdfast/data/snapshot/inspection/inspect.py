"""Reads a delivery with the snapshot step's readers and rules, and lists what they find instead of stopping there."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.coded import Values
from holdfast.data.snapshot.columns import Described, describe
from holdfast.data.snapshot.contract import (
    classes_of,
    enough_rows,
    indices,
    known_names,
    messages_of,
    same_columns,
    some_columns,
    type_images,
)
from holdfast.data.snapshot.delivered import DeliveredFile
from holdfast.data.snapshot.inspection.alone import SUSPICIOUS, balanced_accuracy_alone
from holdfast.data.snapshot.inspection.cells import as_array
from holdfast.data.snapshot.inspection.columns import leniently, row_values, summarize
from holdfast.data.snapshot.inspection.opening import OpenedDelivery
from holdfast.data.snapshot.inspection.summary import ClassSummary, ColumnSummary, DataInspection, Refusals
from holdfast.data.snapshot.leakage import leaked_rows
from holdfast.data.snapshot.listing import quoted
from holdfast.data.snapshot.rows import DeliveredRows, Part, TableRows
from holdfast.data.snapshot.split import split
from holdfast.data.snapshot.uninformative import select
from holdfast.modality import modality_of
from holdfast.statistics import lower_bound
from holdfast.workload.schema import DataConfig

_RARE = 0.05
_ALPHA = 0.05


def inspect(opened: OpenedDelivery) -> DataInspection:
    """What is in the delivery, and what the snapshot step would refuse."""
    found = _inspect_images(opened) if opened.images else _inspect_table(opened)
    return replace(found, refused=tuple(dict.fromkeys((*opened.refused, *found.refused))))


# --- tables and messages --------------------------------------------------------------------------------------------


def _inspect_table(opened: OpenedDelivery) -> DataInspection:
    refusals, data, parts = Refusals(), opened.config.data, opened.table
    with refusals.collected():
        same_columns(parts)
    parts = parts[:1] if refusals.messages else parts
    classes, y = _labels(parts, data, refusals) if opened.labelled else ((), [])
    with refusals.collected():
        known_names(parts[0], data)
    one_column = modality_of(opened.config.modality).one_column
    columns, values = (_messages if one_column else _columns)(parts, data, refusals, labelled=opened.labelled)
    found = DataInspection(
        source=opened.files[0].path,
        modality=opened.config.modality,
        read_as=_read_as(opened.files, parts),
        rows=sum(map(len, parts)),
        label=data.label if opened.labelled else None,
        example="",
        columns=columns,
        notes=() if one_column else tuple(_column_notes(columns)),
    )
    if not columns:
        return replace(found, refused=tuple(refusals.messages))
    rows = [TableRows(one, target) for one, target in zip(values, y or _unlabelled(parts), strict=True)]
    with refusals.collected():
        found = _with_rows(found, rows, classes, data) if len(y) == len(parts) else _with_repeats(found, rows)
    alone = _answering(rows[0]) if classes and not one_column else []
    return replace(found, refused=tuple(refusals.messages), notes=(*found.notes, *alone))


def _labels(
    parts: Sequence[Part], data: DataConfig, refusals: Refusals
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    with refusals.collected():
        labels, classes = classes_of(parts, data)
        y = [indices(one, classes) for one in labels]
        with refusals.collected():
            enough_rows(y[0], classes, parts[0].name)
        return classes, y
    return (), []


_Columns = tuple[tuple[ColumnSummary, ...], list[dict[str, Values]]]
"""What is in each column, and per part the values by which rows are compared."""


def _columns(parts: Sequence[Part], data: DataConfig, refusals: Refusals, *, labelled: bool) -> _Columns:
    names = [name for name in parts[0].cells if not labelled or name != data.label]
    accepted: dict[str, Described] = {}
    for name in names:
        with refusals.collected():
            accepted[name] = describe(parts, name, data)
    with refusals.collected():
        found = select(list(accepted.values()), data, parts[0].name)
        some_columns([*found.described, *(set(names) - set(accepted))], parts[0], data, found.left_out)
    described = {name: accepted.get(name) or leniently(parts, name, data) for name in names}
    summaries = tuple(summarize(parts, name, described[name], data) for name in names)
    # With an identifier among its values no row would ever come twice.
    compared = [one.name for one in summaries if one.note != "identifier"] or names
    values = {name: row_values(parts, name, described[name]) for name in compared}
    return summaries, [{name: values[name][index] for name in compared} for index in range(len(parts))]


def _messages(parts: Sequence[Part], data: DataConfig, refusals: Refusals, *, labelled: bool) -> _Columns:
    column = data.text or ""
    with refusals.collected():
        found = [messages_of(part, column, data) for part in parts]
        return (replace(summarize(parts, column, None, data), kind="text"),), [{column: one} for one in found]
    return (), [{} for _ in parts]


def _unlabelled(parts: Sequence[Part]) -> list[NDArray[np.int64]]:
    return [np.zeros(len(part), dtype=np.int64) for part in parts]


def _column_notes(columns: Sequence[ColumnSummary]) -> list[str]:
    named = {note: [one.name for one in columns if one.note == note] for note in ("identifier", "constant", "codes?")}
    prose = [one.name for one in columns if one.kind == "text"]
    lines = {
        f"each row has its own value in {quoted(named['identifier'])}: an identifier? (data.drop)": named["identifier"],
        f"one value in every row of {quoted(named['constant'])}: nothing can be learned from it": named["constant"],
        f"whole numbers that may be codes: {quoted(named['codes?'])} (data.columns_as: category)": named["codes?"],
        f"sentences in {quoted(prose)}: a text workload reads one such column (--text, data.text)": prose,
    }
    return [line for line, found in lines.items() if found]


def _answering(rows: TableRows) -> list[str]:
    """Columns that answer the label alone."""
    shares = {name: balanced_accuracy_alone(as_array(values), rows.y) for name, values in rows.columns.items()}
    return [
        f"{name!r} alone answers {share:.1%} of the rows of each class: is it known only after the fact? (data.drop)"
        for name, share in shares.items()
        if share >= SUSPICIOUS
    ]


# --- images ---------------------------------------------------------------------------------------------------------


def _inspect_images(opened: OpenedDelivery) -> DataInspection:
    parts, config, refusals = opened.images, opened.config, Refusals()
    shape = " x ".join(map(str, parts[0].x.shape[1:]))
    lowest, highest = float(parts[0].x.min()), float(parts[0].x.max())
    found = DataInspection(
        source=opened.files[0].path,
        modality=config.modality,
        read_as=_read_as(opened.files, ()),
        rows=sum(len(part.x) for part in parts),
        label=config.data.label,
        example=f"{shape} (channels, rows, columns), values from {lowest:g} to {highest:g}",
    )
    with refusals.collected():
        typed = type_images(parts, config)
        low, high = typed.pixel_range
        found = replace(found, example=f"{found.example}; {low:g} is black and {high:g} white (data.range)")
        found = _with_rows(found, typed.parts, typed.classes, config.data)
    return replace(found, refused=tuple(refusals.messages))


# --- rows -----------------------------------------------------------------------------------------------------------


def _with_rows(
    found: DataInspection, parts: Sequence[DeliveredRows], classes: Sequence[str], data: DataConfig
) -> DataInspection:
    """With what is known once rows have classes: the split, leaks, and labels that contradict each other."""
    train, test = split(parts, data, classes)
    counts = np.bincount(train.y, minlength=len(classes)), np.bincount(test.y, minlength=len(classes))
    summaries = tuple(
        ClassSummary(name, int(learn + held), int(held), lower_bound(int(held), int(held), _ALPHA) if held else 0.0)
        for name, learn, held in zip(classes, *counts, strict=True)
    )
    found = _with_repeats(found, parts)
    fingerprints = np.concatenate([one.fingerprints() for one in parts])
    conflicting = _conflicting(fingerprints, np.concatenate([one.y for one in parts]))
    rare = [f"{one.name!r} ({one.rows} of {found.rows} rows)" for one in summaries if one.rows < _RARE * found.rows]
    notes = [f"rare: {', '.join(rare[:5])}; train.class_weights: balanced counts every class alike"] if rare else []
    leaked = leaked_rows(train, test)
    if leaked:
        notes.append(
            f"{leaked} of {len(test.y)} held-out rows are training rows, too, which the gate limits (leakage); "
            "data.duplicates: together keeps equal rows in one part"
        )
    return replace(found, classes=summaries, conflicting=conflicting, leaked=leaked, notes=(*found.notes, *notes))


def _with_repeats(found: DataInspection, parts: Sequence[DeliveredRows]) -> DataInspection:
    rows = np.concatenate([one.fingerprints() for one in parts])
    return replace(found, repeated=len(rows) - len(np.unique(rows)))


def _conflicting(rows: NDArray[np.uint64], y: NDArray[np.int64]) -> int:
    """How many rows share their values with a row of another label."""
    _, group = np.unique(rows, return_inverse=True)
    lowest = np.full(int(group.max()) + 1, np.iinfo(np.int64).max)
    highest = np.full(len(lowest), -1)
    np.minimum.at(lowest, group, y)
    np.maximum.at(highest, group, y)
    return int((lowest != highest)[group].sum())


def _read_as(files: Sequence[DeliveredFile], parts: Sequence[Part]) -> tuple[str, ...]:
    ways = [part.read_as for part in parts] or [None] * len(files)
    pins = [file.pin_as(how) for file, how in zip(files, ways, strict=False)]
    return tuple(f"{pin.path}: {pin.read_as}" for pin in pins if pin.read_as)
