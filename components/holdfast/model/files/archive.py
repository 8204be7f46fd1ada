"""The zip around torch's files, read without trust: every member stored, once, inside the file, without overlap.

Two readers of one zip can see two different files: directory and local headers may disagree, names may stand twice,
members may overlap. What is left out here leaves no room for that, and no room for a bomb: torch stores its members, so
together they are never larger than the file.
"""

import io
import struct
import zipfile
import zlib
from pathlib import PurePosixPath

from holdfast.errors import InputError, LimitError

MAGIC = b"PK\x03\x04"
MAX_MEMBERS = 65_536
_LOCAL_BYTES = 30
_ENTRY, _ENTRY_BYTES = b"PK\x01\x02", 46
_DESCRIPTOR = b"PK\x07\x08"
_END, _END_BYTES = b"PK\x05\x06", 22
_END64, _END64_BYTES = b"PK\x06\x06", 56 + 20
"""The end of the directory and the place of that end, which torch writes for every size."""
_ENCRYPTED = 0x1
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, struct.error)
"""What zipfile raises on a file that was cut, altered or made up."""

Members = dict[str, memoryview]
"""Name below the archive's one folder -> its bytes, not copied."""


def read_members(data: bytes) -> Members:
    """The members of a zip as torch writes it: one folder, members stored.

    Raises:
        InputError: a member is compressed or encrypted, occurs twice, leaves the folder, or is not where and what
            the directory records; or bytes lie between, or behind, what belongs to the archive.
        LimitError: too many members, or more bytes declared than the file has.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_directory(infos, len(data))
            members, end = _members(infos, memoryview(data))
            _check_rest(data, end, archive.start_dir, len(infos))
            return members
    except _BROKEN as error:
        raise InputError(f"expected a whole zip archive, found {error or 'an end too early'}") from None


def _check_directory(infos: list[zipfile.ZipInfo], size: int) -> None:
    if not 0 < len(infos) <= MAX_MEMBERS:
        raise LimitError(f"expected 1 to {MAX_MEMBERS} members, found {len(infos)}")
    declared = sum(info.file_size for info in infos)
    if declared > size:
        raise LimitError(f"expected members of at most {size} bytes together (the file's own), found {declared}")
    if len({info.filename for info in infos}) != len(infos):
        raise InputError("expected each member once, found a name twice")
    for info in infos:
        _check_name(info.filename)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
            raise InputError(f"expected stored members, as torch writes them, found {info.filename!r} compressed")


def _check_name(name: str) -> None:
    pure = PurePosixPath(name)
    bad = pure.is_absolute() or ".." in pure.parts or pure.as_posix() != name or "\\" in name
    if bad or not name.isprintable() or len(pure.parts) < 2:
        raise InputError(f"expected members in one folder of the archive, found {name[:80]!r}")


def _below_folder(name: str, infos: list[zipfile.ZipInfo]) -> str:
    folder, _, below = name.partition("/")
    if folder != infos[0].filename.partition("/")[0]:
        raise InputError(f"expected members in one folder of the archive, found {name[:80]!r}")
    return below


def _check_rest(data: bytes, end: int, directory: int, count: int) -> None:
    """The directory follows the last member, its end follows the directory, and the file ends there."""
    place = directory
    for _ in range(count):
        signature, named, extra, comment = struct.unpack_from("<4s24x3H", data, place)
        if signature != _ENTRY or comment:
            raise InputError("expected the archive's directory, found other bytes in it")
        place += _ENTRY_BYTES + named + extra
    tail = data[place:]
    if tail[:4] == _END64:
        tail = tail[_END64_BYTES:]
    if end != directory or tail[:4] != _END or len(tail) != _END_BYTES or tail[-2:] != b"\0\0":
        raise InputError("expected an archive and nothing else, found bytes behind its members")


def _descriptor(data: memoryview, at: int, info: zipfile.ZipInfo) -> int:
    """Bytes of the data descriptor that follows a member; 0: none does."""
    for form in ("<4s3I", "<4sI2Q"):
        found = struct.pack(form, _DESCRIPTOR, info.CRC, info.file_size, info.file_size)
        if data[at : at + len(found)] == found:
            return len(found)
    return 0


def _members(infos: list[zipfile.ZipInfo], data: memoryview) -> tuple[Members, int]:
    """The members, and where the last one ends.

    Every local header equals the directory's entry, the first at the very start, and one follows the other.
    """
    members: Members = {}
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        start = info.header_offset
        if start != end:
            raise InputError(f"expected members one after the other, found {info.filename[:80]!r} at {start}")
        signature, *_, named, extra = struct.unpack_from("<4s5H3I2H", data, start)
        name = bytes(data[start + _LOCAL_BYTES : start + _LOCAL_BYTES + named])
        if signature != MAGIC or name != info.filename.encode():
            raise InputError(f"expected {info.filename[:80]!r} where the directory records it, found {name[:40]!r}")
        begin = start + _LOCAL_BYTES + named + extra
        end = begin + info.file_size
        if end > len(data):
            raise InputError(f"expected {info.filename[:80]!r} inside the file, found it beyond the end")
        members[_below_folder(info.filename, infos)] = data[begin:end]
        end += _descriptor(data, end, info)
    return members, end
