"""Arrays as the bytes of a file in an artifact."""

import io

import numpy as np
from numpy.typing import NDArray


def npz(**arrays: NDArray[np.generic]) -> bytes:
    """A compressed NPZ; equal arrays give equal bytes, because numpy stamps every member with 1980-01-01."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def arrays_of(data: io.BytesIO) -> dict[str, NDArray[np.generic]]:
    """The arrays of an NPZ, by name; never unpickles."""
    with np.load(data, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
