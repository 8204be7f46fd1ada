"""One file in a gzip or a zip, unpacked within a limit: sizes are counted while bytes come, never believed."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from holdfast.data.snapshot.listing import quoted
from holdfast.errors import InputError, LimitError

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_CHUNK = 2**20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Unpacked:
    """What was in a file: the name that shows how it is written, its bytes, and the kind of archive."""

    name: str
    data: bytes
    archive: str | None = None


def unpack(data: bytes, name: str, max_bytes: int) -> Unpacked:
    """The only file in a gzip or a zip, known by its first bytes; other files as they are. An NPZ is not unpacked.

    Raises:
        InputError: a damaged archive, or one that does not hold exactly one file.
        LimitError: unpacked it is larger than `max_bytes`.
    """
    if data.startswith(_GZIP):
        return Unpacked(_without(name, ".gz"), _gunzip(data, name, max_bytes), "gzip")
    if data.startswith(_ZIP) and not name.lower().endswith(".npz"):
        return _unzip(data, name, max_bytes)
    return Unpacked(name, data)


def _gunzip(data: bytes, name: str, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        found = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise InputError(f"{name}: expected a whole gzip file, found {error}") from None
    if len(found) > max_bytes:
        raise _too_large(name, max_bytes)
    if not stream.eof:
        raise InputError(f"{name}: expected a whole gzip file, found one that is cut short")
    if stream.unused_data.strip(b"\0"):
        raise InputError(f"{name}: expected one file in the gzip, found more bytes after its end")
    return found


def _unzip(data: bytes, name: str, max_bytes: int) -> Unpacked:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            info = _only_file(archive, name)
            with archive.open(info) as stream:
                found = _read(stream, name, max_bytes)
    except _BROKEN as error:
        raise InputError(f"{name}: expected a whole zip file without password, found {error}") from None
    return Unpacked(PurePosixPath(info.filename).name, found, f"zip, {info.filename}")


def _only_file(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Folders and what macOS adds do not count."""
    files = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        found = quoted(one.filename for one in files) or "none"
        raise InputError(f"{name}: expected one file in the zip, found {len(files)} ({found})")
    return files[0]


def _read(stream: IO[bytes], name: str, max_bytes: int) -> bytes:
    parts, size = [], 0
    for chunk in _chunks(stream):
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(name, max_bytes)
    return b"".join(parts)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _without(name: str, suffix: str) -> str:
    return name[: -len(suffix)] if name.lower().endswith(suffix) else name


def _too_large(name: str, max_bytes: int) -> LimitError:
    return LimitError(f"{name}: expected at most {max_bytes} bytes when unpacked (data.max_bytes), found more")
