"""safetensors by hand, before its loader sees a byte: https://huggingface.co/docs/safetensors (format).

Eight bytes length of the header, the header as JSON, the tensors' bytes. The header must describe those bytes
completely: every tensor inside, in its dtype's size, none over another, nothing between or after them.
"""

import json
import math
from typing import Any

from holdfast.errors import InputError, LimitError

MAX_HEADER_BYTES = 16 * 2**20
MAX_DIMENSIONS = 32
_PREFIX = 8
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip
"""Bits of one value of each dtype."""


def looks_like(data: bytes) -> bool:
    """Whether the file begins as one: a length, and then a JSON object."""
    return len(data) > _PREFIX and data[_PREFIX : _PREFIX + 1] == b"{"


def check(data: bytes) -> None:
    """Refuses what is not exactly one well-formed safetensors file.

    Raises:
        InputError: the header is not such JSON, or does not describe the bytes behind it.
        LimitError: a header above 16 MiB.
    """
    length = int.from_bytes(data[:_PREFIX], "little")
    if length > MAX_HEADER_BYTES:
        raise LimitError(f"expected a header of at most {MAX_HEADER_BYTES} bytes, found {length} declared")
    if _PREFIX + length > len(data):
        raise InputError(f"expected a header of {length} bytes, found a file of {len(data)}")
    header = _parse(data[_PREFIX : _PREFIX + length])
    _check_metadata(header.pop("__metadata__", {}))
    spans = sorted(_span(name, entry) for name, entry in header.items())
    _check_cover(spans, len(data) - _PREFIX - length)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected a JSON header, found {error}") from None
    if not isinstance(header, dict):
        raise InputError(f"expected a JSON object as header, found {type(header).__name__}")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name that occurs twice")
    return dict(pairs)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError("expected text in __metadata__, found something else")


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """The place of the tensor; its length is what dtype and shape say."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"tensor {name[:80]!r}: expected dtype, shape and data_offsets, found {_short(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise InputError(f"tensor {name[:80]!r}: expected a known dtype, found {_short(dtype)}")
    if not _whole(shape) or len(shape) > MAX_DIMENSIONS:
        raise InputError(f"tensor {name[:80]!r}: expected a shape of whole numbers, found {_short(shape)}")
    if not _whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InputError(f"tensor {name[:80]!r}: expected two offsets in order, found {_short(offsets)}")
    if math.prod(shape) * _BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        raise InputError(f"tensor {name[:80]!r}: expected the bytes of {dtype}{_short(shape)}, found other offsets")
    return offsets[0], offsets[1], name


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(spans: list[tuple[int, int, str]], size: int) -> None:
    """No hole, no overlap, no rest."""
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            kind = "an overlap" if begin < end else "a hole"
            raise InputError(f"tensor {name[:80]!r}: expected to begin at {end}, found {begin} ({kind})")
        end = stop
    if end != size:
        raise InputError(f"expected {end} bytes of tensors, found {size}")


def _short(value: Any) -> str:
    return repr(value)[:80]
