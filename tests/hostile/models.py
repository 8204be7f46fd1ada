"""Model files: pickles and torch's two formats, safetensors, ONNX, exported programs, and what only looks like one."""

import functools
import io
import json
import pickle
import struct
import tarfile
import zipfile
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.hostile.deliveries import Contents, zipped
from tests.hostile.payloads import Evaluate, Import, Touch
from tests.model.files import corpus

WEIGHTS = corpus.WEIGHTS


@functools.cache
def files() -> Contents:
    """All of them."""
    return _pickles() | _archives() | _safetensors() | _onnx() | _others()


def harmless() -> dict[str, bytes]:
    """What must be accepted."""
    return {
        "torch, zip": corpus.torch_zip(WEIGHTS),
        "torch, before 1.6": corpus.torch_legacy(WEIGHTS),
        "safetensors": corpus.good_safetensors(),
        "ONNX": corpus.onnx(),
    }


def _op(*codes: bytes) -> bytes:
    return corpus.with_pickle(b"\x80\x02" + b"".join(codes) + b".")


def _pickles() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    ways: dict[str, Any] = {
        "pickle": pickle.dumps,
        "torch, zip": corpus.torch_zip,
        "torch, before 1.6": corpus.torch_legacy,
    }
    for way, make in ways.items():
        for call in (Touch, Evaluate, Import):
            found[f"{way}, that calls {call.__name__.lower()}"] = make({"w": call()})
    storage = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return found | {
        "torch, that becomes 4 GB": corpus.four_gigabytes(),
        "torch, a key that takes 2^60 steps": corpus.slow_key(),
        "torch, a set that takes 2^60 steps": _op(b")q\0" + b"h\0h\0\x86q\0" * 60 + b"cbuiltins\nset\n]h\0a\x85R"),
        "torch, a counter of 2^60 steps": _op(b")q\0" + b"h\0h\0\x86q\0" * 60 + b"ccollections\nCounter\n]h\0a\x85R"),
        "torch, an integer of 2^31 bytes": _op(b"\x8b\xff\xff\xff\x7f"),
        "torch, a text of 2^32 bytes": _op(b"X\xff\xff\xff\xff"),
        "torch, bytes of 2^62": _op(b"\x8e" + struct.pack("<Q", 2**62)),
        "torch, a memo of 2^31": _op(b"K\x01r\xff\xff\xff\x7f"),
        "torch, 200,000 nested lists": _op(b"]" * 200_000 + b"a" * 199_999),
        "torch, 200,000 nested tuples": _op(b")" + b"\x85" * 200_000),
        "torch, ten million marks": _op(b"(" * 10_000_000 + b"t"),
        "torch, a list that holds itself": _op(b"]q\0h\0a"),
        "torch, a tensor of 2^62 values": _op(
            storage,
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0\x8a\x08"
            + b"\xff" * 7
            + b"\x3f\x85K\x01\x85\x89}tR",
        ),
        "torch, a stride of 2^40": _op(
            storage,
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0K\x02\x85\x8a\x06\0\0\0\0\0\x01\x85\x89}tR",
        ),
        "torch, a call without an end": _op(b"c"),
        "torch, no opcode at all": corpus.with_pickle(b""),
        "torch, an unknown opcode": _op(b"\xff"),
        "torch, a frame of 2^60 bytes": corpus.with_pickle(b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N."),
        "torch, protocol 200": corpus.with_pickle(b"\x80\xc8N."),
        "torch, a persistent name": _op(b"Phello\n"),
        "torch, an extension": _op(b"\x82\x01"),
        "torch, getattr by names": _op(b"cbuiltins\ngetattr\ncos\nsystem\nX\x04\0\0\0name\x86R"),
        "torch, names with dots": _op(b"\x8c\x02os\x8c\x0csystem.hello\x93"),
        "torch, a class of torch that loads": _op(b"ctorch.serialization\nload\nX\x01\0\0\0x\x85R"),
        "torch, a whole module": corpus.torch_zip(nn.Linear(2, 2)),
        "torch, pickles one behind the other": corpus.torch_legacy(WEIGHTS) + pickle.dumps(Touch()),
        "torch, before 1.6, cut": corpus.torch_legacy(WEIGHTS)[:-20],
        "torch, before 1.6, with a false protocol": corpus.torch_legacy(WEIGHTS).replace(b"M\xe9\x03", b"M\xea\x03"),
        "joblib": corpus.joblib_like({"w": Touch()}),
        "a pickle of protocol 0": pickle.dumps(Touch(), 0),
        "a pickle behind text": b"# model\n" + pickle.dumps(Touch()),
        "a pickle named safetensors (m.safetensors)": pickle.dumps(Touch()),
    }


def _archives() -> Contents:
    good = corpus.torch_zip(WEIGHTS)
    return {
        "zip, compressed": corpus.rezipped(good, {}, compress=True),
        "zip, a gigabyte of zeros": corpus.rezipped(good, {"archive/data/9": bytes(2**20)}, compress=True),
        "zip, a member of code": corpus.rezipped(good, {"archive/code/__torch__.py": b"import os"}),
        "zip, a path out": corpus.rezipped(good, {"archive/../../it-ran": b"1"}),
        "zip, an absolute path": corpus.rezipped(good, {"/tmp/x": b"1"}),
        "zip, a backslash": corpus.rezipped(good, {"archive\\data": b"1"}),
        "zip, without its pickle": corpus.rezipped(good, {"archive/data.pkl": None}),
        "zip, two pickles": corpus.rezipped(good, {"archive/data2.pkl": pickle.dumps(Touch())}),
        "zip, names twice": good.replace(b"archive/data/1", b"archive/data/0"),
        "zip, bytes in front": b"x" * 16 + good,
        "zip, bytes behind": good + pickle.dumps(Touch()),
        "zip, in its comment": good[:-2] + struct.pack("<H", 6) + b"hidden",
        "zip, cut": good[: len(good) // 2],
        "zip, 60,000 members": zipped({f"archive/data/{n}": b"" for n in range(60_000)}, zipfile.ZIP_STORED),
        "zip, an end that promises 2^32 members": good[:-14] + b"\xff" * 12 + b"\0\0",
        "zip, only its end": b"PK\x05\x06" + bytes(18),
        "zip, only its magic": b"PK\x03\x04",
        "zip, a magic and zeros": b"PK\x03\x04" + bytes(1_000_000),
        "a program with code in its guards": lambda: _program(
            {"models/model.json": b'{"guards_code": ["__import__(\'os\')"]}'}
        ),
        "a program with a shared library": lambda: _program({"data/aotinductor/model.so": b"\x7fELF"}),
        "a program with JSON without end": lambda: _program({"models/model.json": b"[" * 1_000_000}),
        "a program": corpus.program,
    }


@functools.cache
def _good_program() -> bytes:
    return corpus.program()


def _program(change: dict[str, bytes]) -> bytes:
    good = _good_program()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        folder = archive.namelist()[0].partition("/")[0]
    return corpus.rezipped(good, {f"{folder}/{name}": data for name, data in change.items()})


def _safetensors() -> dict[str, bytes]:
    entry, made = corpus.entry, corpus.safetensors
    body = bytes(8)
    return {
        "safetensors, a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
        "safetensors, a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "safetensors, a header beyond the file": struct.pack("<Q", 10_000) + b"{}",
        "safetensors, a header of 15 MB": made('{"a":' + "[" + "[]," * 5_000_000 + "[]]}", b""),
        "safetensors, lists, a million deep": made('{"a":' + "[" * 1_000_000, b""),
        "safetensors, a size of 6,000 digits": made(
            '{"a":{"dtype":"F32","shape":[' + "9" * 6_000 + '],"data_offsets":[0,8]}}', body
        ),
        "safetensors, a size of a million digits": made(
            '{"a":{"dtype":"F32","shape":[' + "9" * 1_000_000 + '],"data_offsets":[0,8]}}', body
        ),
        "safetensors, a shape of 2^62": made({"a": entry(0, 8, [2**62, 2**62])}, body),
        "safetensors, a shape of a million ones": made({"a": entry(0, 4, [1] * 1_000_000)}, body[:4]),
        "safetensors, an overlap": made({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, body),
        "safetensors, a hole": made({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)),
        "safetensors, bytes behind": made({"a": entry(0, 8, [2])}, bytes(9)),
        "safetensors, negative offsets": made({"a": entry(-8, 0, [2])}, body),
        "safetensors, offsets of fractions": made('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8.0]}}', body),
        "safetensors, offsets of true": made('{"a":{"dtype":"F32","shape":[2],"data_offsets":[false,8]}}', body),
        "safetensors, an unknown type": made({"a": entry(0, 8, [2], "F33")}, body),
        "safetensors, a name twice": made('{"a":{},"a":{}}', b""),
        "safetensors, numbers as metadata": made({"__metadata__": {"a": 1}}, b""),
        "safetensors, not a number": made('{"a":NaN}', b""),
        "safetensors, half a character": made('{"\\ud800":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', body),
        "safetensors, a name that clears the terminal": made({"\x1b[2J": entry(0, 8, [3])}, body),
        "safetensors, no UTF-8": struct.pack("<Q", 9) + b'{"\xff":{}}',
        "safetensors, 150,000 tensors of nothing": made({str(n): entry(0, 0, [0]) for n in range(150_000)}, b"x"),
    }


def _onnx() -> dict[str, bytes]:
    proto, good = corpus.proto, corpus.onnx()
    deep = b""
    for _ in range(5_000):
        deep = proto((1, proto((5, proto((6, deep))))))
    return {
        "ONNX, tensors in other files": corpus.onnx(tensor=corpus.EXTERNAL),
        "ONNX, a place of 2^32 + 1": corpus.onnx(tensor=proto((14, 2**32 + 1))),
        "ONNX, a path out": corpus.onnx(tensor=proto((13, proto((1, "location"), (2, "/etc/passwd"))), (14, 1))),
        "ONNX, graphs, 5,000 deep": proto((1, 8), (7, deep)),
        "ONNX, a length of 2^62": b"\x08\x08\x3a" + b"\xff" * 8 + b"\x3f",
        "ONNX, a number without end": b"\x08" + b"\xff" * 100_000,
        "ONNX, groups": b"\x08\x08" + b"\x0b" * 1_000,
        "ONNX, four million fields": b"\x08\x08" + proto((2, "")) * 4_000_000,
        "ONNX, a field that it does not have": good + proto((99, 1)),
        "ONNX, a version of the future": proto((1, 99)) + good[2:],
        "ONNX, another wire for a number": good + b"\x29" + bytes(8),
        "ONNX, no nodes": proto((1, 8), (7, b""), (8, b"")),
        "ONNX, cut": good[:-7],
        "ONNX, a name that is no UTF-8": good + proto((2, b"\xff")),
        "ONNX, field zero": b"\x08\x08\x00\x00",
    }


def _others() -> Contents:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../x"))
    return {
        "no byte": b"",
        "one byte": b"\x80",
        "zero bytes": bytes(1_000_000),
        "random bytes": np.random.default_rng(3).bytes(1_000_000),
        "HDF5 of Keras": b"\x89HDF\r\n\x1a\n" + bytes(1_000),
        "GGUF": b"GGUF\x03\0\0\0" + bytes(1_000),
        "a tar": tar.getvalue(),
        "an array": b"\x93NUMPY\x01\0" + bytes(100),
        "a script": b"import os\nos.system('touch it-ran')\n",
        "JSON": json.dumps({"a": 1}).encode(),
        "TensorFlow's protobuf": b"\x0a\x05hello\x12\x03abc",
        "TorchScript": _torchscript,
    }


def _torchscript() -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), out)
    return out.getvalue()
