"""Checkpoints of a training: tensors and counters in one file that nothing has to be unpickled from.

A file is 64 hexadecimal digits (SHA-256 of the rest), a newline, and safetensors bytes. Its name and its header say
which training it belongs to, so that another training never goes on from it.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.artifacts.folder import replace_file
from holdfast.errors import HoldfastError, InputError
from holdfast.model.files import safetensors

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 8 * 2**30
_DIGITS = 64


class StoppedError(HoldfastError):
    """The training was asked to stop (SIGTERM); it goes on from its checkpoint when it is started again."""

    exit_code = 143


def place(folder: Path, identity: str) -> Path:
    """The path of the checkpoint of the training of that identity (SHA-256)."""
    return folder / f"{identity[:16]}.checkpoint"


def write(path: Path, identity: str, tensors: "dict[str, Tensor]", counters: dict[str, object]) -> None:
    """Replaces the checkpoint at once: a reader sees the one before or this one."""
    from safetensors.torch import save

    header = {"identity": identity, "counters": json.dumps(counters, allow_nan=False)}
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata=header)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def read(path: Path, identity: str) -> "tuple[dict[str, Tensor], dict[str, object]] | None":
    """Tensors and counters; None when there is no checkpoint yet.

    Raises:
        InputError: the file is not a whole checkpoint of this training, or not well-formed behind its digest.
    """
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: expected a checkpoint of at most {MAX_BYTES} bytes, found {path.stat().st_size}")
    found, newline, data = path.read_bytes().partition(b"\n")
    if not newline or len(found) != _DIGITS or hashlib.sha256(data).hexdigest().encode() != found:
        raise InputError(f"{path}: expected a whole checkpoint, found altered or missing bytes")
    try:
        safetensors.check(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return _decode(data, identity, path)


def _decode(data: bytes, identity: str, path: Path) -> "tuple[dict[str, Tensor], dict[str, object]]":
    from safetensors.torch import load

    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    if header.get("identity") != identity:
        raise InputError(f"{path}: expected the checkpoint of this training, found one of another")
    return load(data), json.loads(header["counters"])
