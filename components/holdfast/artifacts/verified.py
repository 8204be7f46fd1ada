"""A file too large to keep in memory, read as often as needed: every block is compared with what was hashed first.

Hashing a file and then parsing it by its path would trust that both saw the same bytes. Here the first pass computes
the file's SHA-256 and a digest of each block, and later reads check the blocks that they touch.
"""

import hashlib
import io
import os
import weakref
from dataclasses import dataclass
from typing import IO

from holdfast.errors import IntegrityError

BLOCK = 2**20
IN_MEMORY = 2**26
"""Bytes of the largest file that is read into memory at once."""


@dataclass(frozen=True)
class VerifiedFile:
    """An open regular file with its size, its SHA-256 and a digest of each mebibyte; messages call it `name`."""

    name: str
    descriptor: int
    size: int
    sha256: str
    digests: tuple[bytes, ...]

    @classmethod
    def hashed(cls, descriptor: int, name: str, *, most: int) -> "VerifiedFile":
        """Reads a file once and keeps a descriptor of its own; stops where it holds more than `most` bytes."""
        total, size, digests = hashlib.sha256(), 0, []
        while size <= most and (block := os.pread(descriptor, BLOCK, size)):
            total.update(block)
            digests.append(_digest(block))
            size += len(block)
        own = os.dup(descriptor)
        file = cls(name, own, size, total.hexdigest(), tuple(digests))
        weakref.finalize(file, os.close, own)
        return file

    def __len__(self) -> int:
        return self.size

    def open(self) -> io.BufferedReader:
        """A stream over the bytes that were hashed; several can be read at the same time."""
        return io.BufferedReader(_Reader(self), BLOCK)

    def block(self, index: int) -> bytes:
        """The mebibyte at `index`.

        Raises:
            IntegrityError: it is not the one that was hashed.
        """
        found = os.pread(self.descriptor, BLOCK, index * BLOCK)
        if _digest(found) != self.digests[index]:
            raise IntegrityError(f"{self.name}: expected a file at rest, found one that changed while it was read")
        return found


FileContent = bytes | VerifiedFile
"""The bytes of a file, in memory or on disk."""


def open_content(content: FileContent) -> IO[bytes]:
    """A stream over the bytes, from the first."""
    return content.open() if isinstance(content, VerifiedFile) else io.BytesIO(content)


class _Reader(io.RawIOBase):
    """The position of one reader."""

    def __init__(self, file: VerifiedFile) -> None:
        super().__init__()
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._position >= self._file.size:
            return 0
        index, start = divmod(self._position, BLOCK)
        found = self._file.block(index)[start : start + len(buffer)]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)


def _digest(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=16).digest()
