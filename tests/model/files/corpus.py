"""Model files, harmless and hostile, made here: payloads name a marker file, and no test ever lets one run."""

import io
import json
import pickle
import runpy
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import nn

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


class Call:
    """Unpickles to a call of `function`: what a payload is."""

    def __init__(self, function: Any, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call


def payloads(marker: Path) -> dict[str, Call]:
    """Calls that would make `marker`."""
    import os

    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "runpy": Call(runpy.run_path, str(marker.with_suffix(".py"))),
    }


def torch_zip(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def torch_legacy(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def joblib_like(value: object) -> bytes:
    """Pickles with raw array bytes between them, as joblib writes."""
    return pickle.dumps(value) + np.arange(4.0).tobytes() + pickle.dumps({"a": 1})


def rezipped(data: bytes, change: Mapping[str, bytes | None], *, compress: bool = False) -> bytes:
    """The zip with members replaced, added or (None) left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        members = {info.filename: old.read(info) for info in old.infolist()} | dict(change)
        for name, content in members.items():
            if content is not None:
                new.writestr(name, content, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED)
    return out.getvalue()


def safetensors(header: Mapping[str, object] | str, body: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def good_safetensors() -> bytes:
    data: bytes = save_tensors(WEIGHTS, {"format": "pt"})
    return data


def proto(*fields: tuple[int, int | bytes | str]) -> bytes:
    """Protobuf's wire format: numbers as varints, the rest with its length."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def onnx(*, tensor: bytes = b"", domain: str = "", more: bytes = b"") -> bytes:
    """y = x + w as an ONNX model; `tensor` are further fields of w."""
    kind = proto((1, proto((1, 1), (2, proto((1, proto((1, 2))))))))  # float32[2]
    value = [proto((1, name), (2, kind)) for name in ("x", "y")]
    weight = proto((1, 2), (2, 1), (8, "w")) + (tensor or proto((9, struct.pack("<2f", 1, 2))))
    node = proto((1, "x"), (1, "w"), (2, "y"), (4, "Add"), *([(7, domain)] if domain else []))
    graph = proto((1, node), (2, "g"), (5, weight), (11, value[0]), (12, value[1]))
    opsets = [proto((1, ""), (2, 17)), *([proto((1, domain), (2, 1))] if domain else [])]
    return proto((1, 8), (7, graph), *[(8, opset) for opset in opsets]) + more


EXTERNAL = proto((13, proto((1, "location"), (2, "../../weights.bin"))), (14, 1))


def program(net: nn.Module | None = None) -> bytes:
    from holdfast.artifacts.documents import InputSpec
    from holdfast.model.train.export import export_program

    spec = InputSpec(modality="image", shape=(1, 2, 2), dtype="float32")
    return export_program(net or nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), spec)


def with_pickle(data: bytes) -> bytes:
    """A file of torch with another `data.pkl`."""
    return rezipped(torch_zip({}), {"archive/data.pkl": data})


def four_gigabytes() -> bytes:
    """A call of `bytearray`, which `weights_only=True` allows: a few hundred bytes become 4 GB."""
    return with_pickle(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (4 * 10**9).to_bytes(5, "little") + b"\x85R.")


def slow_key() -> bytes:
    """A dictionary whose key is a tuple of tuples, sixty deep, each twice: hashing it takes 2^60 steps."""
    return with_pickle(b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"}h\x00K\x01s.")
