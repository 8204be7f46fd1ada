"""What a file is by its bytes, and whether it may be read: an allow-list of three kinds, and no for everything else."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.errors import InputError
from holdfast.model.files import archive, onnx, pickles, program, safetensors
from holdfast.wording import printable

FileKind = Literal["safetensors", "onnx", "torch-zip", "torch-legacy", "program", "pickle", "unknown"]
MAX_BYTES = 4 * 2**30
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
    """Reads a regular file once, at most 4 GiB, and judges its bytes; its name does not count."""
    try:
        return judge(_read(path), str(path))
    except InputError as error:
        return FileVerdict(str(path), "unknown", "refused", str(error))


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


def _read(path: Path) -> bytes:
    """All bytes of a regular file; links, folders and devices are not followed or opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"expected a file that can be read, found none ({error.strerror})") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise InputError("expected a regular file, found something else")
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(MAX_BYTES + 1) if found.st_size <= MAX_BYTES else b""
    if found.st_size > MAX_BYTES or len(data) > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES} bytes, found {found.st_size}")
    return data
