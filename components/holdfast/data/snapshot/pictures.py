"""Images and their labels, from the shapes that people deliver to `number[N, C, H, W]` and `int64[N]`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.listing import listed, rows_of
from holdfast.errors import InputError

MAX_CHANNELS = 4
MAX_CLASSES = 10_000


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


def labels(y: NDArray[np.generic], rows: int, *, name: str) -> NDArray[np.int64]:
    """Class indices `int64[N]` from whole numbers [N] or [N, 1].

    Raises:
        InputError: another shape or number of rows, fractions, or negative numbers.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != rows:
        raise InputError(f"{name}: expected {rows} labels, one per image, found shape {y.shape}")
    if y.dtype.kind not in "biu":
        raise InputError(f"{name}: expected whole numbers (class indices), found dtype {y.dtype}")
    wide = y.astype(np.int64)
    if (wide < 0).any():
        raise InputError(f"{name}: expected class indices from 0, found negative ones in {rows_of(wide < 0)}")
    return wide


def class_names(y: NDArray[np.int64], given: Sequence[str] | None, *, name: str) -> tuple[str, ...]:
    """The classes that labels index: `given`, or "0", "1", ... up to the largest label.

    Raises:
        InputError: a label indexes no class.
    """
    if given is not None:
        unknown = y >= len(given)
        if unknown.any():
            found = listed(np.unique(y[unknown]))
            raise InputError(
                f"{name}: expected labels below {len(given)} (data.classes), found {found} in {rows_of(unknown)}"
            )
        return tuple(given)
    highest = int(y.max())
    if highest >= MAX_CLASSES:
        raise InputError(f"{name}: expected class indices below {MAX_CLASSES}, found {highest}")
    return tuple(str(index) for index in range(highest + 1))


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
