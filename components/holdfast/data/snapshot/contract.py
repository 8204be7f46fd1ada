"""The contract: the columns, the classes and the types that a workload asks for, made from what was read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column
from holdfast.data.snapshot.coded import Coded, Values, coded
from holdfast.data.snapshot.columns import Described, check_known, describe, pick
from holdfast.data.snapshot.labels import class_labels, find_classes, known_classes
from holdfast.data.snapshot.listing import quoted, rows_of
from holdfast.data.snapshot.pictures import class_indices, class_names, fills_range, value_range
from holdfast.data.snapshot.places import places_of
from holdfast.data.snapshot.rows import DeliveredRows, ImageRows, Part, TableRows
from holdfast.data.snapshot.uninformative import select
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.cells import spelt
from holdfast.workload.schema import DataConfig, SnapshotConfig

_MIN_ROWS = 2


@dataclass(frozen=True)
class TypedDelivery:
    """A delivery that can be split: the training rows and, where they were delivered apart, the held-out rows."""

    parts: Sequence[DeliveredRows]
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    """The shape of one example."""
    columns: tuple[Column, ...] = ()
    pixel_range: tuple[float, float] = (0.0, 1.0)
    """The delivered values that mean 0 and 1 in images."""
    read_as: tuple[str | None, ...] = ()
    """How each file was read, where that is not the usual way."""
    left_out: tuple[str, ...] = ()
    """Identifiers and constants that the workload leaves out."""
    constant: tuple[str, ...] = ()
    """Columns that have one value and are kept."""


def enough_rows(y: NDArray[np.int64], classes: Sequence[str], name: str) -> None:
    """Every class has two rows, of which one can train and one be held out.

    Raises:
        InputError: otherwise; the message begins with `name`.
    """
    counts = np.bincount(y, minlength=len(classes))
    few = [f"{classes[i]!r} ({counts[i]})" for i in np.flatnonzero(counts < _MIN_ROWS).tolist()]
    if few:
        raise InputError(
            f"{name}: expected at least {_MIN_ROWS} rows of each class, found fewer of {', '.join(few[:5])}"
        )


# --- images ---------------------------------------------------------------------------------------------------------


def type_images(parts: Sequence[ImageRows], config: SnapshotConfig) -> TypedDelivery:
    """Images of one shape whose labels index the classes.

    Raises:
        InputError: the parts differ in shape, a label indexes no class, a class has too few rows, or the values
            do not fill their range.
    """
    train, *held_out = parts
    shape = train.x.shape[1:]
    for part in held_out:
        if part.x.shape[1:] != shape:
            raise InputError(f"{part.name}: expected held-out images {shape}, found {part.x.shape[1:]} (C, H, W)")
    classes = class_names(train.y, config.data.classes, name=train.name)
    if len(classes) < 2:
        raise InputError(f"{train.name}: expected at least two classes, found {quoted(classes)} only")
    given = "data.classes" if config.data.classes is not None else "the classes of the training rows"
    y = [class_indices(train.y, classes, name=train.name, source=given)]
    enough_rows(y[0], classes, train.name)
    for part in held_out:
        y.append(class_indices(part.y, classes, name=f"{part.name} (held-out rows)", source=given))
    limits = _pixel_range(train, config.data)
    fills_range(train.x, limits, name=train.name)
    rows = [replace(part, y=one, places=places_of(None, len(one))) for part, one in zip(parts, y, strict=True)]
    return TypedDelivery(rows, classes, shape, pixel_range=limits)


def _pixel_range(train: ImageRows, data: DataConfig) -> tuple[float, float]:
    if data.value_range is None:
        return train.pixel_range or value_range(train.x, name=train.name)
    lower, upper = data.value_range
    if not lower < upper:
        raise InputError(f"{train.name}: expected data.range with the lower value first, found [{lower}, {upper}]")
    return lower, upper


# --- tables and messages --------------------------------------------------------------------------------------------


def type_table(parts: Sequence[Part], config: SnapshotConfig) -> TypedDelivery:
    """Numbers, categories or messages with the classes of their rows.

    Raises:
        InputError: columns or classes are missing or unknown, or cells do not fit their column.
        LimitError: a column has too many categories.
    """
    same_columns(parts)
    labels, classes = classes_of(parts, config.data)
    y = [indices(one, classes) for one in labels]
    enough_rows(y[0], classes, parts[0].name)
    one_column = modality_of(config.modality).one_column
    found = (_message_column if one_column else _columns)(parts, config.data)
    rows = [
        TableRows(values, one, places=places_of(part.lines, len(one)))
        for part, values, one in zip(parts, found.values, y, strict=True)
    ]
    return TypedDelivery(
        parts=rows,
        classes=classes,
        shape=(config.data.length if one_column else len(found.columns),),
        columns=found.columns,
        read_as=tuple(part.read_as for part in parts),
        left_out=found.left_out,
        constant=found.constant,
    )


def same_columns(parts: Sequence[Part]) -> None:
    """Every part has the columns of the first.

    Raises:
        InputError: otherwise.
    """
    first, *others = parts
    for part in others:
        missing, extra = sorted(set(first.cells) - set(part.cells)), sorted(set(part.cells) - set(first.cells))
        if missing or extra:
            raise InputError(
                f"{part.name}: expected the columns of {first.name}, found "
                + " and ".join(
                    [f"{quoted(missing)} missing"] * bool(missing) + [f"{quoted(extra)} added"] * bool(extra)
                )
            )


def classes_of(parts: Sequence[Part], data: DataConfig) -> tuple[list[Coded], tuple[str, ...]]:
    """The labels of each part as class names, and the classes in order.

    Raises:
        InputError: a label is missing, or is none of the classes.
    """
    labels = [_class_labels(part, data) for part in parts]
    return labels, _classes(parts, labels, data)


def _class_labels(part: Part, data: DataConfig) -> Coded:
    fill = data.fill_of(data.label)
    return class_labels(
        pick(part, data.label, "label"),
        _label(part, data),
        given=data.classes,
        fill=None if fill is None else spelt(fill),
        lines=part.lines,
    )


def _classes(parts: Sequence[Part], labels: Sequence[Coded], data: DataConfig) -> tuple[str, ...]:
    classes = find_classes(labels[0], data.classes, _label(parts[0], data))
    for part, found in zip(parts[1:], labels[1:], strict=True):
        source = "the classes of the training rows"
        known_classes(found, classes, _label(part, data), source=source, lines=part.lines)
    return classes


def _label(part: Part, data: DataConfig) -> str:
    return f"{part.name}: label {data.label!r}"


def indices(labels: Coded, classes: Sequence[str]) -> NDArray[np.int64]:
    """Class names as positions in `classes`, int64[rows]."""
    index = {name: i for i, name in enumerate(classes)}
    return np.asarray(labels.spread(np.array([index.get(name, -1) for name in labels.values], dtype=np.int64)))


@dataclass(frozen=True)
class _TypedColumns:
    """The columns that the model sees, and their values per part."""

    columns: tuple[Column, ...]
    values: list[dict[str, Values]]
    left_out: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()


def _message_column(parts: Sequence[Part], data: DataConfig) -> _TypedColumns:
    assert data.text is not None, "a text workload names its text column"
    column = Column(name=data.text, kind="text", immutable=data.text in data.immutable)
    return _TypedColumns((column,), [{data.text: messages_of(part, data.text, data)} for part in parts])


def messages_of(part: Part, column: str, data: DataConfig) -> Coded:
    """Messages as they are; a word such as `None` is a message, an empty cell is none.

    Raises:
        InputError: a cell is empty that nothing fills.
    """
    cells = coded(pick(part, column, "text"))
    nothing = np.array(
        [value is None or value != value or not str(value).strip() for value in cells.values], dtype=bool
    )
    missing = cells.spread(nothing)
    fill = data.fill_of(column)
    if missing.any() and fill is None:
        raise InputError(
            f"{part.name}: text {column!r}: expected a message in every row, found nothing in "
            f"{rows_of(missing, part.lines)}; fill them: data.missing: {{{column}: VALUE}}"
        )
    return cells.renamed(fill if gone else str(value) for value, gone in zip(cells.values, nothing, strict=True))


def _columns(parts: Sequence[Part], data: DataConfig) -> _TypedColumns:
    known_names(parts[0], data)
    names = [column for column in parts[0].cells if column != data.label]
    found = select([describe(parts, name, data) for name in names], data, parts[0].name)
    some_columns(found.described, parts[0], data, found.left_out)
    every = [*found.described, *(_indicator(one, parts[0]) for one in found.described if one.indicated)]
    values = [{one.column.name: one.values[i] for one in every} for i in range(len(parts))]
    return _TypedColumns(tuple(one.column for one in every), values, found.left_out, found.constant)


def some_columns(columns: Sequence[object], part: Part, data: DataConfig, left_out: Sequence[str] = ()) -> None:
    """There is a column to learn from.

    Raises:
        InputError: otherwise.
    """
    if not columns:
        others = f" and {quoted(left_out)}" if left_out else ""
        raise InputError(f"{part.name}: expected columns other than the label {data.label!r}{others}, found none")


def known_names(part: Part, data: DataConfig) -> None:
    """Every column that the workload names is there.

    Raises:
        InputError: otherwise.
    """
    fills = () if isinstance(data.missing, str) else data.missing
    for named in (*data.drop, *data.immutable, *data.columns_as, *fills):
        if named not in part.dropped:
            check_known(part, named, "data")
    if data.columns_as.get(data.label, "category") != "category":
        raise InputError(f"data.columns_as: expected columns other than the label {data.label!r}, which holds classes")


def _indicator(described: Described, part: Part) -> Described:
    """The column of 0 and 1 that remembers where cells were missing."""
    source = described.column
    name = f"{source.name} missing"
    if name in part.cells:
        raise InputError(f"{part.name}: expected no column {name!r} with data.missing: indicator, found one")
    column = Column(name=name, kind="number", integer=True, immutable=source.immutable, indicates=source.name)
    return Described(column, [one.astype(np.float64) for one in described.missing], [])
