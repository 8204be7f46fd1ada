"""ONNX by its wire format: a bounded walk over the protobuf, strict about every field that onnx.proto names.

The `onnx` package would parse the same bytes in C++ and bring its own protobuf limits; what matters here is only that
the file is one, and that no tensor lies in another file. Field numbers: https://github.com/onnx/onnx, onnx.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast.errors import InputError, LimitError

FIRST_BYTE = b"\x08"
"""The key of `ir_version`, which comes first in what every protobuf library writes."""
MAX_FIELDS = 2_000_000
MAX_DEPTH = 64
IR_VERSIONS = range(3, 21)
STANDARD_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"}
)
_EXTERNAL = 1
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRES = {
    "int": (_VARINT,), "ints": (_VARINT, _LENGTH), "float": (_FIXED32,), "floats": (_FIXED32, _LENGTH),
    "doubles": (_FIXED64, _LENGTH),
}  # fmt: skip
"""Wire types of numbers; everything else has a length."""
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {1: "int", 2: "text", 3: "text", 4: "text", 5: "int", 6: "text", 7: "Graph", 8: "Opset", 14: "Entry",
              20: "Training", 25: "Function", 26: "bytes"},
    "Graph": {1: "Node", 2: "text", 5: "Tensor", 10: "text", 11: "Value", 12: "Value", 13: "Value", 14: "Quantization",
              15: "Sparse", 16: "Entry"},
    "Node": {1: "text", 2: "text", 3: "text", 4: "text", 5: "Attribute", 6: "text", 7: "text", 8: "text", 9: "Entry",
             10: "bytes"},
    "Attribute": {1: "text", 2: "float", 3: "int", 4: "bytes", 5: "Tensor", 6: "Graph", 7: "floats", 8: "ints",
                  9: "bytes", 10: "Tensor", 11: "Graph", 13: "text", 14: "bytes", 15: "bytes", 20: "int", 21: "text",
                  22: "Sparse", 23: "Sparse"},
    "Tensor": {1: "ints", 2: "int", 3: "bytes", 4: "floats", 5: "ints", 6: "bytes", 7: "ints", 8: "text", 9: "bytes",
               10: "doubles", 11: "ints", 12: "text", 13: "Entry", 14: "int", 16: "Entry"},
    "Sparse": {1: "Tensor", 2: "Tensor", 3: "ints"},
    "Function": {1: "text", 2: "int", 3: "int", 4: "text", 5: "text", 6: "text", 7: "Node", 8: "text", 9: "Opset",
                 10: "text", 11: "Attribute", 12: "text", 13: "Value", 14: "Entry"},
    "Training": {1: "Graph", 2: "Graph", 3: "Entry", 4: "Entry"},
    "Opset": {1: "text", 2: "int"},
    "Entry": {1: "text", 2: "text"},
    "Quantization": {1: "text", 2: "Entry"},
    "Value": {1: "text", 2: "bytes", 3: "text", 4: "Entry"},
}  # fmt: skip
"""Message -> field number -> what it holds: a kind of value, or another message."""


@dataclass
class _Found:
    """What the walk met."""

    fields: int = 0
    ir_version: int = 0
    opsets: int = 0
    graphs: int = 0
    nodes: int = 0
    outputs: int = 0
    functions: int = 0
    external: int = 0
    domains: set[str] = field(default_factory=set)


def check(data: bytes) -> tuple[str, ...]:
    """Remarks (custom operators, functions) on a file that is one whole ONNX model with all its tensors inside.

    Raises:
        InputError: it is not one, or a tensor lies in another file.
        LimitError: too many fields, or nested too deeply.
    """
    found = _Found()
    _walk(memoryview(data), "Model", 0, found)
    if found.ir_version not in IR_VERSIONS:
        raise InputError(f"expected an ONNX ir_version of {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}, found none of them")
    if found.graphs != 1 or not (found.opsets and found.nodes and found.outputs):
        raise InputError("expected an ONNX model with one graph, nodes, outputs and an operator set, found less")
    if found.external:
        raise InputError(f"expected all tensors inside the file, found {found.external} in other files (external data)")
    custom = sorted(found.domains - STANDARD_DOMAINS)
    remarks = [f"operators of {name!r}, which the runtime must be given as code" for name in custom]
    return (*remarks, *([f"{found.functions} functions of its own"] if found.functions else []))


def _walk(buffer: memoryview, message: str, depth: int, found: _Found) -> None:
    if depth > MAX_DEPTH:
        raise LimitError(f"expected at most {MAX_DEPTH} nested messages, found more")
    known = _FIELDS[message]
    for number, wire, value in _fields(buffer, found):
        kind = known.get(number)
        if kind is None or wire not in _WIRES.get(kind, (_LENGTH,)):
            raise InputError(f"expected an ONNX {message}, found field {number} of wire type {wire}")
        _note(message, number, value, depth, found)
        if isinstance(value, memoryview) and kind in _FIELDS:
            _walk(value, kind, depth + 1, found)
        elif isinstance(value, memoryview) and kind == "text":
            _text(value)


def _note(message: str, number: int, value: int | memoryview, depth: int, found: _Found) -> None:
    """Keeps what the judgement needs."""
    match message, number:
        case "Model", 1 if isinstance(value, int):
            found.ir_version = value
        case "Model", 7:
            found.graphs += 1
        case "Model", 8:
            found.opsets += 1
        case "Model", 25:
            found.functions += 1
        case "Graph", 1:
            found.nodes += 1
        case "Graph", 12 if depth == 1:
            found.outputs += 1
        case ("Node", 7) | ("Opset", 1) if isinstance(value, memoryview):
            found.domains.add(_text(value))
        case "Tensor", 13:
            found.external += 1
        case "Tensor", 14:
            # A reader keeps 32 bits of it: 2**32 + 1 is another way to write 1.
            if value not in (0, _EXTERNAL):
                raise InputError(f"expected the place of an ONNX tensor's data to be 0 or 1, found {value}")
            found.external += value == _EXTERNAL


def _text(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise InputError("expected UTF-8 in an ONNX name, found other bytes") from None


def _fields(buffer: memoryview, found: _Found) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of one message: number, wire type, and the number or the bytes."""
    at = 0
    while at < len(buffer):
        found.fields += 1
        if found.fields > MAX_FIELDS:
            raise LimitError(f"expected at most {MAX_FIELDS} fields, found more")
        key, at = _varint(buffer, at)
        wire = key & 7
        if wire == _VARINT:
            number, at = _varint(buffer, at)
            yield key >> 3, wire, number
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _LENGTH:
            length, at = _varint(buffer, at)
        if length is None or at + length > len(buffer):
            raise InputError("expected a whole ONNX file, found one that is cut, or no protobuf at all")
        yield key >> 3, wire, buffer[at : at + length]
        at += length


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(buffer):
            break
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InputError("expected a whole ONNX file, found one that is cut, or no protobuf at all")
