"""The identity of a row, independent of its position: a digest of its delivered values and its label.

A position changes from delivery to delivery, and so may the type that carries a value; the digest sees numbers as
float64, text as it is, columns by name and the label as the class's name. Rows with equal values and label are one row.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Column

CellValue = float | str
_BLOCK = 1024


def image_digests(x: NDArray[np.generic], labels: Sequence[str]) -> list[str]:
    """SHA-256 of each image of `number[N, C, H, W]` with its class name, in hexadecimal."""
    shape = "x".join(map(str, x.shape[1:]))
    pixels = (row for start in range(0, len(x), _BLOCK) for row in _numbers(x[start : start + _BLOCK]))
    return [_digest(f"image {shape}", label, row.tobytes()) for label, row in zip(labels, pixels, strict=True)]


def table_digests(columns: Mapping[str, Sequence[CellValue]], labels: Sequence[str]) -> list[str]:
    """SHA-256 of each row of a table or of messages with its class name, in hexadecimal; the columns' order is free."""
    names = sorted(columns)
    rows = zip(*(columns[name] for name in names), strict=True)
    return [_digest("table", label, _json(names, row)) for label, row in zip(labels, rows, strict=True)]


def without_fills(
    cells: Mapping[str, Sequence[CellValue]], columns: Sequence[Column]
) -> dict[str, Sequence[CellValue]]:
    """The cells with nothing where a snapshot filled a missing one: what fills it differs from delivery to delivery."""
    found = dict(cells)
    for column in columns:
        if column.indicates is not None:
            missing = zip(found[column.indicates], found[column.name], strict=True)
            found[column.indicates] = ["" if flag == 1 else cell for cell, flag in missing]
    return found


def _numbers(x: NDArray[np.generic]) -> Iterator[NDArray[np.float64]]:
    yield from x.astype("<f8") + 0.0  # -0 and 0 are one value


def _json(names: list[str], row: tuple[CellValue, ...]) -> bytes:
    cells = [
        [name, cell if isinstance(cell, str) else float(cell) + 0.0] for name, cell in zip(names, row, strict=True)
    ]
    return json.dumps(cells).encode()


def _digest(kind: str, label: str, values: bytes) -> str:
    head = json.dumps(["holdfast row 1", kind, label]).encode()
    return hashlib.sha256(len(head).to_bytes(8, "big") + head + values).hexdigest()
