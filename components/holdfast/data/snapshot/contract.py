"""The contract: the columns, the classes and the types that a workload asks for, made from what was read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column
from holdfast.data.snapshot.columns import class_labels, describe, find_classes, known_classes, pick
from holdfast.data.snapshot.listing import quoted
from holdfast.data.snapshot.pictures import class_names
from holdfast.data.snapshot.rows import DeliveredRows, ImageRows, Part, TableRows
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.workload.schema import DataConfig, SnapshotConfig

_MIN_ROWS = 2
_DEFAULT_RANGE = (0.0, 1.0)
"""A workload with this range leaves the choice to the reader."""


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
        InputError: the parts differ in shape, a label indexes no class, a class has too few rows, or `data.range` is
            not in order.
    """
    train, *held_out = parts
    shape = train.x.shape[1:]
    for part in held_out:
        if part.x.shape[1:] != shape:
            raise InputError(f"{part.name}: expected held-out images {shape}, found {part.x.shape[1:]} (C, H, W)")
    classes = class_names(train.y, config.data.classes, name=train.name)
    if len(classes) < 2:
        raise InputError(f"{train.name}: expected at least two classes, found {quoted(classes)} only")
    enough_rows(train.y, classes, train.name)
    for part in held_out:
        class_names(part.y, classes, name=f"{part.name} (held-out rows)")
    return TypedDelivery(parts, classes, shape, pixel_range=_pixel_range(train, config.data))


def _pixel_range(train: ImageRows, data: DataConfig) -> tuple[float, float]:
    lower, upper = data.value_range
    if (lower, upper) == _DEFAULT_RANGE:
        return train.pixel_range
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
    _same_columns(parts)
    labels = [class_labels(pick(part, config.data.label, "label"), _label(part, config.data)) for part in parts]
    classes = _classes(parts, labels, config.data)
    y = [_indices(one, classes) for one in labels]
    enough_rows(y[0], classes, parts[0].name)
    one_column = modality_of(config.modality).one_column
    columns, cells = (_message_column if one_column else _columns)(parts, config.data)
    rows = [TableRows(values, one) for values, one in zip(cells, y, strict=True)]
    return TypedDelivery(rows, classes, (config.data.length if one_column else len(columns),), columns)


def _same_columns(parts: Sequence[Part]) -> None:
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


def _classes(parts: Sequence[Part], labels: Sequence[NDArray[np.object_]], data: DataConfig) -> tuple[str, ...]:
    classes = find_classes(labels[0], data.classes, _label(parts[0], data))
    for part, found in zip(parts[1:], labels[1:], strict=True):
        known_classes(found, classes, _label(part, data), source="the classes of the training rows")
    return classes


def _label(part: Part, data: DataConfig) -> str:
    return f"{part.name}: label {data.label!r}"


def _indices(labels: NDArray[np.object_], classes: Sequence[str]) -> NDArray[np.int64]:
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[name] for name in labels], dtype=np.int64)


_Columns = tuple[tuple[Column, ...], list[dict[str, NDArray[Any]]]]
"""The columns that the model sees, and their values per part."""


def _message_column(parts: Sequence[Part], data: DataConfig) -> _Columns:
    assert data.text is not None, "a text workload names its text column"
    column = Column(name=data.text, kind="text", immutable=data.text in data.immutable)
    return (column,), [{data.text: _messages(pick(part, data.text, "text"))} for part in parts]


def _messages(cells: NDArray[Any]) -> NDArray[np.object_]:
    return np.array(["" if value is None else str(value) for value in cells], dtype=object)


def _columns(parts: Sequence[Part], data: DataConfig) -> _Columns:
    for named in (*data.drop, *data.immutable):
        pick(parts[0], named, "data")
    names = [column for column in parts[0].cells if column != data.label and column not in data.drop]
    if not names:
        raise InputError(f"{parts[0].name}: expected columns other than the label {data.label!r}, found none")
    described = {name: describe(parts, name, immutable=name in data.immutable) for name in names}
    values = [{name: cells[i] for name, (_, cells) in described.items()} for i in range(len(parts))]
    return tuple(column for column, _ in described.values()), values
