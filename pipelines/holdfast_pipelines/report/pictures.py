"""Examples as PNG pictures inside the page: an image, a trigger next to its shape."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_PNG_GREY, _PNG_RGB = 0, 2


def example_uri(x: NDArray[np.float64], lower: float = 0.0, upper: float = 1.0) -> str:
    """A data URI of one example number[C, H, W] (or [H, W]) in units in which `lower` is black and `upper` white."""
    scaled = (np.asarray(x, dtype=np.float64) - lower) / ((upper - lower) or 1.0)
    return png_uri(_pixels(scaled))


def side_by_side(left: NDArray[np.float64], right: NDArray[np.float64]) -> str:
    """A data URI of two examples number[C, H, W] in [0, 1] with a gap of one cell."""
    one, two = (
        _colour(_pixels(np.asarray(left, dtype=np.float64))),
        _colour(_pixels(np.asarray(right, dtype=np.float64))),
    )
    gap = np.full((one.shape[0], 1, 3), 0.5)
    return png_uri(np.concatenate([one, gap, two], axis=1))


def png_uri(pixels: NDArray[np.float64]) -> str:
    """A data URI of float64[H, W] (grey) or float64[H, W, 3] in [0, 1]; values outside are clipped."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def png(pixels: NDArray[np.float64]) -> bytes:
    """The bytes of a PNG file (RFC 2083) of float64[H, W] or float64[H, W, 3] in [0, 1]."""
    levels = np.rint(np.clip(np.nan_to_num(pixels), 0, 1) * 255).astype(np.uint8)
    height, width = levels.shape[:2]
    colour = _PNG_RGB if levels.ndim == 3 else _PNG_GREY
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pixels(x: NDArray[np.float64]) -> NDArray[np.float64]:
    if x.ndim == 2:
        return x
    if x.shape[0] == 3:
        return np.moveaxis(x, 0, -1)
    return np.asarray(x.mean(axis=0))


def _colour(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x if x.ndim == 3 else np.repeat(x[:, :, None], 3, axis=2)
