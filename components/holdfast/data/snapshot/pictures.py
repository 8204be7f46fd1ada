"""Images and their labels, from the shapes that people deliver to `number[N, C, H, W]` and `int64[N]`."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.labels import MAX_CLASSES
from holdfast.data.snapshot.listing import listed, quoted, rows_of
from holdfast.errors import InputError

MAX_CHANNELS = 4
_RANGES = (1, 255, 65_535)
_ROUNDING = 1 + 1e-4
_FILLED, _LIKELY = 0.01, 0.25
"""The least share of a range that the largest value reaches: of one that the user gave, and of one that is guessed."""
_WHOLE = re.compile(r"-?[0-9]+")


def images(x: NDArray[np.generic], *, name: str) -> NDArray[np.generic]:
    """`number[N, C, H, W]` from [N, H, W], [N, C, H, W] or [N, H, W, C] with at most four channels.

    Bytes stay bytes; other whole numbers become int32, fractions float32.

    Raises:
        InputError: another shape or dtype, no rows, or values that are not finite.
    """
    if x.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected uint8 or float images, found dtype {x.dtype}")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise InputError(f"{name}: expected images [N, H, W], [N, C, H, W] or [N, H, W, C], found shape {x.shape}")
    return np.ascontiguousarray(_narrow(_finite(_channels_first(x, name), name), name))


def labels(y: NDArray[np.generic], rows: int, *, name: str) -> NDArray[np.generic]:
    """Labels, whole numbers [N] as they were delivered, from [N] or [N, 1].

    Raises:
        InputError: another shape or number of rows, or fractions.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != rows:
        raise InputError(f"{name}: expected {rows} labels, one per image, found shape {y.shape}")
    if y.dtype.kind not in "biu":
        raise InputError(f"{name}: expected whole numbers (class indices), found dtype {y.dtype}")
    return y.astype(np.int64) if y.dtype.kind == "b" else y


def class_names(y: NDArray[np.generic], given: Sequence[str] | None, *, name: str) -> tuple[str, ...]:
    """The classes of labels: `given`, or the values found, by size.

    Raises:
        InputError: there are too many.
    """
    if given is not None:
        return tuple(given)
    found = np.unique(y)
    if len(found) > MAX_CLASSES:
        raise InputError(f"{name}: expected at most {MAX_CLASSES} classes, found {len(found)}")
    return tuple(str(value) for value in found.tolist())


def class_indices(y: NDArray[np.generic], classes: Sequence[str], *, name: str, source: str) -> NDArray[np.int64]:
    """The class of each label, int64[N]: the one of that name where all names are numbers, else that position from 0.

    Raises:
        InputError: a label is no class; `source` names where the classes come from.
    """
    by_name = all(_WHOLE.fullmatch(text) for text in classes)
    index = {text if by_name else str(position): position for position, text in enumerate(classes)}
    values, inverse = np.unique(y, return_inverse=True)
    unknown = [value for value in values.tolist() if str(value) not in index]
    if unknown:
        rows = rows_of(np.isin(y, np.array(unknown, dtype=y.dtype)))
        expected = f"one of {quoted(classes)}" if by_name else f"labels below {len(classes)}"
        raise InputError(f"{name}: expected {expected} ({source}), found {listed(unknown)} in {rows}")
    return np.array([index[str(value)] for value in values.tolist()], dtype=np.int64)[inverse]


def value_range(x: NDArray[np.generic], *, name: str) -> tuple[float, float]:
    """The values that mean black and white, from the largest: 0..1, 0..255 or 0..65535.

    Raises:
        InputError: negative or larger values, or none in the upper three quarters of that range (digits of 0..16 as
            bytes would be nearly black): `data.range` decides.
    """
    lowest, highest = float(x.min()), float(x.max())
    upper = next((upper for upper in _RANGES if highest <= upper * _ROUNDING), 0)
    if lowest < 0 or highest < upper * _LIKELY or not upper:
        raise InputError(
            f"{name}: expected data.range with images of values from {lowest:g} to {highest:g}, found none"
        )
    return 0.0, float(upper)


def fills_range(x: NDArray[np.generic], limits: tuple[float, float], *, name: str) -> None:
    """Some value is above the lowest hundredth of the range.

    Raises:
        InputError: otherwise: all images would be black.
    """
    lower, upper = limits
    highest = float(x.max())
    if highest < lower + (upper - lower) * _FILLED:
        raise InputError(
            f"{name}: expected values that fill the range {lower:g} to {upper:g}, found none above {highest:g}; "
            "name the values that mean black and white in data.range"
        )


def _channels_first(x: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    if x.ndim == 3:
        return x[:, np.newaxis]
    if x.shape[1] <= MAX_CHANNELS:
        return x
    if x.shape[3] <= MAX_CHANNELS:
        return np.moveaxis(x, 3, 1)
    raise InputError(f"{name}: expected at most {MAX_CHANNELS} channels, found shape {x.shape}")


def _finite(x: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    if x.dtype.kind != "f":
        return x
    bad = np.array([not np.isfinite(image).all() for image in x])
    if bad.any():
        raise InputError(f"{name}: expected finite numbers, found NaN or infinity in {rows_of(bad)}")
    return x


def _narrow(x: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    if x.dtype.kind == "b" or x.dtype == np.uint8:
        return x.astype(np.uint8, copy=False)
    kind = np.float32 if x.dtype.kind == "f" else np.int32
    limit = float(np.finfo(np.float32).max if kind is np.float32 else np.iinfo(np.int32).max)
    largest = max(abs(float(x.max())), abs(float(x.min())))
    if largest > limit:
        raise InputError(f"{name}: expected numbers up to {limit:g}, found {largest:g}")
    return x.astype(kind, copy=False)
