"""NPZ without trust: sizes and headers are read before anything is decoded, and nothing is ever unpickled.

An NPZ is a zip of `.npy` members. What each member's header declares (shape times item size) must be what the zip's
directory declares, and together they must stay below the limit: a bomb is refused by arithmetic.
"""

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from holdfast.data.snapshot.listing import quoted
from holdfast.errors import InputError, LimitError

MAX_MEMBERS = 64
_CHUNK = 2**22
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, struct.error)
"""What zipfile raises on a file that was cut, altered or made up."""


@dataclass(frozen=True)
class Header:
    """What a member declares about itself."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[np.generic]
    length: int
    """Bytes before the array's own."""

    @property
    def bytes(self) -> int:
        """The size of the whole member when decoded."""
        return self.length + math.prod(self.shape) * self.dtype.itemsize


def read_npz(data: bytes, wanted: Collection[str], *, name: str, max_bytes: int) -> dict[str, NDArray[np.generic]]:
    """The arrays `wanted`, in native byte order and C order.

    Raises:
        InputError: not a whole NPZ, a key is missing, an array holds objects, strings or records, or a member's size
            is not the one that its header declares.
        LimitError: decoded it would take more than `max_bytes`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(archive, name, max_bytes)
            headers = {key: _checked_header(archive, info, f"{name}[{key}]") for key, info in members.items()}
            missing = sorted(set(wanted) - set(members))
            if missing:
                raise InputError(f"{name}: expected arrays {quoted(sorted(wanted))}, found {quoted(sorted(members))}")
            return {key: _decode(archive, members[key], headers[key], f"{name}[{key}]") for key in wanted}
    except _BROKEN as error:
        raise InputError(f"{name}: expected a whole NPZ file, found {error or 'an end too early'}") from None


def keys_of(data: bytes, *, name: str) -> frozenset[str]:
    """The names of the arrays in an NPZ, without decoding any.

    Raises:
        InputError: it is not a zip file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return frozenset(info.filename.removesuffix(".npy") for info in archive.infolist())
    except _BROKEN as error:
        raise InputError(f"{name}: expected an NPZ file, found {error}") from None


def _members(archive: zipfile.ZipFile, name: str, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise LimitError(f"{name}: expected at most {MAX_MEMBERS} arrays, found {len(infos)}")
    decoded = sum(info.file_size for info in infos)
    if decoded > max_bytes:
        raise LimitError(
            f"{name}: expected at most {max_bytes} bytes when decoded (data.max_bytes), found {decoded} "
            f"in a file of {sum(info.compress_size for info in infos)}"
        )
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise InputError(f"{name}[{info.filename}]: expected a stored or deflated array, found another kind")
    members = {info.filename.removesuffix(".npy"): info for info in infos}
    if len(members) != len(infos):
        raise InputError(f"{name}: expected each array once, found a name twice")
    return members


def _checked_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Header:
    with archive.open(info) as stream:
        header = _read_header(stream, where)
    if header.dtype.hasobject:
        raise InputError(f"{where}: expected numbers, found pickled Python objects; they are never unpickled")
    if header.bytes != info.file_size:
        raise InputError(
            f"{where}: expected {header.bytes} bytes as its header declares, found {info.file_size}; "
            "the file is damaged or made up"
        )
    return header


def _read_header(stream: IO[bytes], where: str) -> Header:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise InputError(f"{where}: expected .npy version 1.0 or 2.0, found {version[0]}.{version[1]}")
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(f"{where}: expected an .npy array, found a header that cannot be read ({first})") from None
    if any(length < 0 for length in shape):
        raise InputError(f"{where}: expected a shape, found {shape}")
    return Header(shape, fortran, dtype, stream.tell())


def _decode(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: Header, where: str) -> NDArray[np.generic]:
    if header.dtype.kind not in "biuf":
        raise InputError(f"{where}: expected numbers, found dtype {header.dtype}")
    buffer = bytearray(header.bytes - header.length)
    with archive.open(info) as stream:
        stream.read(header.length)
        view, done = memoryview(buffer), 0
        # The checksum of the zip is compared when the last byte was read.
        while chunk := stream.read(_CHUNK):
            view[done : done + len(chunk)] = chunk
            done += len(chunk)
    if done != len(buffer):
        raise InputError(f"{where}: expected {len(buffer)} bytes, found {done}; the file is cut short")
    flat = np.frombuffer(buffer, dtype=header.dtype)
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
