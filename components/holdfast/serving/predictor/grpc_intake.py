"""What a gRPC request must be before MLServer reads it: contents of its datatype, or raw bytes of the right length.

MLServer by itself takes whole numbers or doubles as the contents of an FP32 tensor, takes contents together with raw
bytes, and answers INTERNAL, which is a fault of the server, for raw bytes of another length than the shape has.
"""

import math
from collections.abc import Sequence
from typing import Any

from mlserver.errors import MLServerError
from mlserver.grpc.servicers import InferenceServicer

from holdfast.serving.predictor.intake import MOST_DIMENSIONS, PEER, plain

_CONTENTS = {"FP32": ("fp32_contents", 4), "INT64": ("int64_contents", 8)}
"""The field that the protocol has for a datatype, and the bytes of one number."""


class CheckedServicer(InferenceServicer):
    """MLServer's answers over gRPC, to requests that `objection` has nothing against."""

    def _InsertHeaders(self, request: Any, context: Any) -> Any:  # noqa: N802
        # The first thing that MLServer does with a request, alone or in a stream, where it answers for errors.
        why = objection(request)
        if why is not None:
            raise MLServerError(plain(why), 400)
        PEER.set(address(context.peer()))
        return super()._InsertHeaders(request, context)


def address(peer: str) -> str:
    """The address alone of `ipv4:127.0.0.1:50000` or `ipv6:[::1]:50000`."""
    return peer.partition(":")[2].rpartition(":")[0].strip("[]") or peer


def objection(request: Any) -> str | None:
    """What is wrong with the tensors of a `ModelInferRequest`; None where nothing is."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        return f"raw_input_contents: expected {len(request.inputs)}, one for each input, found {len(raw)}"
    lengths: list[int | None] = [len(data) for data in raw] or [None] * len(request.inputs)
    found = (_wrong_tensor(tensor, length) for tensor, length in zip(request.inputs, lengths, strict=True))
    return next((why for why in found if why is not None), None)


def _wrong_tensor(tensor: Any, raw_bytes: int | None) -> str | None:
    if tensor.datatype not in _CONTENTS:
        return f"{tensor.name}: expected datatype {' or '.join(_CONTENTS)}, found {tensor.datatype}"
    if not 1 <= len(tensor.shape) <= MOST_DIMENSIONS or min(tensor.shape) < 0:
        sizes = list(tensor.shape)
        return f"{tensor.name}: expected a shape of 1 to {MOST_DIMENSIONS} sizes from 0 on, found {sizes}"
    given = [field.name for field, _ in tensor.contents.ListFields()]
    if raw_bytes is not None:
        return _wrong_raw(tensor, given, raw_bytes)
    name, _ = _CONTENTS[tensor.datatype]
    if given not in ([], [name]):
        return f"{tensor.name}: expected {name} for {tensor.datatype}, found {', '.join(given)}"
    return None


def _wrong_raw(tensor: Any, given: Sequence[str], raw_bytes: int) -> str | None:
    if given:
        return f"{tensor.name}: expected contents or raw_input_contents, found both"
    expected = math.prod(tensor.shape) * _CONTENTS[tensor.datatype][1]
    if raw_bytes == expected:
        return None
    shape = list(tensor.shape)
    return f"{tensor.name}: expected {expected} bytes for {tensor.datatype} {shape}, found {raw_bytes}"


def check_grpc() -> None:
    """Puts the check into servers that MLServer starts in this process from now on."""
    from grpc import StatusCode
    from mlserver.grpc import server, utils

    # MLServer names the class in this module, and makes its object when the server starts.
    server.InferenceServicer = CheckedServicer
    utils.STATUS_CODE_MAPPING |= {429: StatusCode.RESOURCE_EXHAUSTED, 503: StatusCode.UNAVAILABLE}
