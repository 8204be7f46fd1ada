"""What a request of Seldon's API must be before the wrapper reads it: numbers alone, as many as its shape has.

The wrapper by itself takes `true` for 1 where another value of the list is a number, and a size of -1 for what is
left. Over gRPC it reads as many doubles from the end of the message as the shape has, so that other values, or the
message's own bytes, become the row. Importing this loads nothing heavy.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MOST_DIMENSIONS = 8
_WAYS = ("tensor", "ndarray", "tftensor")


def objection(request: Any) -> str | None:
    """What is wrong with the numbers of a request, JSON or `SeldonMessage`; None where the wrapper may read it."""
    if isinstance(request, Mapping):
        data = request.get("data")
        return _wrong_json(data) if isinstance(data, Mapping) else None
    if request.WhichOneof("data_oneof") != "data":
        return None
    way = request.data.WhichOneof("data_oneof")
    if way == "tensor":
        return _wrong_tensor(list(request.data.tensor.shape), len(request.data.tensor.values))
    return _wrong_leaves(_kinds_of_messages(request.data.ndarray)) if way == "ndarray" else None


def _wrong_json(data: Mapping[str, Any]) -> str | None:
    given = [way for way in _WAYS if way in data]
    if len(given) > 1:
        return f"data: expected one of {', '.join(_WAYS)}, found {' and '.join(given)}"
    if "ndarray" in data:
        return _wrong_leaves(_kinds(data["ndarray"]))
    tensor = data.get("tensor")
    if not isinstance(tensor, Mapping):
        return None
    shape, values = tensor.get("shape"), tensor.get("values")
    if not isinstance(shape, list) or not isinstance(values, list):
        return "data.tensor: expected shape and values, found no list of them"
    return _wrong_tensor(shape, len(values)) or _wrong_leaves(type(value).__name__ for value in values)


def _wrong_tensor(shape: Sequence[Any], values: int) -> str | None:
    if not 1 <= len(shape) <= _MOST_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
        return f"data.tensor: expected a shape of 1 to {_MOST_DIMENSIONS} whole numbers from 0 on, found {shape}"
    if math.prod(shape) != values:
        return f"data.tensor: expected as many values as shape {shape} has, found {values}"
    return None


def _wrong_leaves(kinds: Iterator[str]) -> str | None:
    wrong = sorted(set(kinds) - {"int", "float", "number_value"})
    return f"input: expected an array of numbers, found {', '.join(wrong)} in it" if wrong else None


def _kinds(value: Any) -> Iterator[str]:
    """The types of what is in lists; too many levels are left to numpy, which refuses them."""
    level = [value]
    for _ in range(_MOST_DIMENSIONS + 1):
        yield from (type(part).__name__ for part in level if not isinstance(part, list))
        level = [inner for part in level if isinstance(part, list) for inner in part]


def _kinds_of_messages(values: Any) -> Iterator[str]:
    """As `_kinds`, of a `ListValue`."""
    level = list(values.values)
    for _ in range(_MOST_DIMENSIONS + 1):
        kinds = [(part, part.WhichOneof("kind") or "nothing") for part in level]
        yield from (kind for _, kind in kinds if kind != "list_value")
        level = [inner for part, kind in kinds if kind == "list_value" for inner in part.list_value.values]
