"""What a file is by its bytes, and whether it may be read: an allow-list of three kinds, and no for everything else."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Literal

from holdfast.artifacts.regular import open_regular
from holdfast.errors import InputError, LimitError
from holdfast.limited import Allowance, in_child
from holdfast.model.files import archive, onnx, pickles, program, safetensors
from holdfast.wording import printable

FileKind = Literal["safetensors", "onnx", "torch-zip", "torch-legacy", "program", "pickle", "unknown"]
MAX_BYTES = 4 * 2**30
_HEAD = 2**12
_MEMORY = 2**29
_BYTES_PER_SECOND = 2**24
EXPECTED = "expected safetensors, ONNX, or a file that torch.load(weights_only=True) loads"


@dataclass(frozen=True)
class FileVerdict:
    """Whether one file may be read."""

    path: str
    kind: FileKind
    verdict: Literal["accepted", "refused"]
    reason: str
    advice: tuple[str, ...] = ()
    """What a scanner or the walk noticed; it never turns a refusal into an acceptance."""


def judge_file(path: Path) -> FileVerdict:
    """Reads a regular file once, at most 4 GiB, and judges its bytes in a child with limits; its name does not count.

    A file that takes half a gibibyte of memory and four times its own size, or seconds of CPU time, is refused: what
    is only judged must not cost more, and what is loaded later must not become more than it is.
    """
    name = str(path)
    try:
        with open_regular(path, "a file") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise LimitError(f"expected at most {MAX_BYTES} bytes, found {size}")
            _import_loader()
            found = in_child(lambda: _judged(stream, name, size), _allowance(size), name)
    except InputError as error:
        return FileVerdict(name, "unknown", "refused", str(error).removeprefix(f"{name}: "))
    given = json.loads(found)
    return FileVerdict(**{**given, "advice": tuple(given["advice"])})


def judge(data: bytes, name: str) -> FileVerdict:
    """Accepted: safetensors, ONNX with all tensors inside, or what `weights_only=True` loads; both formats of torch.

    What cannot be read to its end, or scanned, is refused.
    """
    kind = sniff(data)
    advice: tuple[str, ...] = ()
    try:
        advice = _advice(kind, data)
        reason = _check(kind, data)
    except InputError as error:
        return FileVerdict(name, kind, "refused", str(error), advice)
    return FileVerdict(name, kind, "accepted", reason, advice)


def lines(judged: FileVerdict) -> str:
    """The judgement for a person: one line, and one more for each remark; control characters escaped."""
    first = f"{judged.verdict:8} {judged.kind:12} {judged.path}: {judged.reason}"
    return "\n".join(printable(line) for line in (first, *(f"         {remark}" for remark in judged.advice)))


def sniff(data: bytes) -> FileKind:
    """The kind that a file claims to be by how it begins."""
    if data.startswith(archive.MAGIC):
        return "program" if _is_program(data) else "torch-zip"
    if data.startswith(pickles.LEGACY_MAGIC):
        return "torch-legacy"
    if data.startswith(pickles.PICKLE_PROTOCOLS):
        return "pickle"
    if safetensors.looks_like(data):
        return "safetensors"
    return "onnx" if data.startswith(onnx.FIRST_BYTE) else "unknown"


def _is_program(data: bytes) -> bool:
    try:
        return program.looks_like(archive.read_members(data))
    except InputError:
        return False


def _advice(kind: FileKind, data: bytes) -> tuple[str, ...]:
    match kind:
        case "torch-zip":
            return pickles.advise(pickles.pickles_of_zip(archive.read_members(data)))
        case "torch-legacy":
            return pickles.advise(pickles.pickles_of_legacy(data))
        case "pickle":
            return pickles.advise([data])
        case "onnx":
            return onnx.check(data)
        case _:
            return ()


def _check(kind: FileKind, data: bytes) -> str:
    """Why it is accepted.

    Raises:
        InputError: why it is not.
    """
    match kind:
        case "safetensors":
            safetensors.check(data)
            return "the header describes every byte"
        case "onnx":
            return "all tensors are inside"
        case "torch-zip":
            pickles.check_zip(data)
        case "torch-legacy":
            pickles.check_legacy(data)
        case "program":
            program.check(data)
            raise InputError(f"{EXPECTED}, found an exported program, which is read only from a model artifact")
        case "pickle":
            raise InputError(f"{EXPECTED}, found a plain pickle")
        case _:
            raise InputError(f"{EXPECTED}, found " + ("an empty file" if not data else "none of these"))
    return "weights_only=True loads it"


def _judged(stream: IO[bytes], name: str, size: int) -> bytes:
    """In the child: the judgement as JSON; what begins as no kind is not read to its end."""
    head = stream.read(min(size, _HEAD))
    try:
        stream.seek(0)
        data = head if sniff(head) == "unknown" else stream.read(size)
        return json.dumps(asdict(judge(data, name))).encode()
    except MemoryError:
        kind = sniff(head)
        reason = (
            f"expected to be read within {_allowance(size).memory >> 20} MiB of memory, found a file that takes more"
        )
        return json.dumps(asdict(FileVerdict(name, kind, "refused", reason))).encode()


def _allowance(size: int) -> Allowance:
    seconds = 1 + size // _BYTES_PER_SECOND
    return Allowance(memory=_MEMORY + 4 * size, cpu_seconds=seconds, seconds=20.0 * seconds)


def _import_loader() -> None:
    """Before the fork, so that importing counts for no file, and happens once for many."""
    for name in ("torch.serialization", "picklescan.scanner"):
        with suppress(ImportError):
            import_module(name)
