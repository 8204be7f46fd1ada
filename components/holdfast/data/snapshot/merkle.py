"""The Merkle root of a delivery: one digest over the paths, sizes and contents of its files.

The tree has the shape of RFC 6962, section 2.1 (https://www.rfc-editor.org/rfc/rfc6962#section-2.1): a leaf is
SHA-256(0x00 || path || 0x00 || size || digest) with the path in UTF-8, the size as eight bytes (big-endian) and the
file's SHA-256 as 32 bytes; a node is SHA-256(0x01 || left || right); leaves stand in the order of their path's bytes.
"""

import hashlib
from collections.abc import Sequence

from holdfast.artifacts.documents import SourceFile
from holdfast.errors import InputError


def root(sources: Sequence[SourceFile]) -> str:
    """The Merkle root in hexadecimal; the order of `sources` does not matter.

    Raises:
        InputError: two files have the same path.
    """
    ordered = sorted(sources, key=lambda source: source.path.encode())
    twice = [one.path for one, two in zip(ordered, ordered[1:], strict=False) if one.path == two.path]
    if twice:
        raise InputError(f"{twice[0]}: expected each file of the delivery once, found it twice")
    return tree([leaf(source) for source in ordered]).hex()


def leaf(source: SourceFile) -> bytes:
    """The hash of one file's entry, 32 bytes."""
    size = source.bytes.to_bytes(8, "big")
    return _sha256(b"\x00" + source.path.encode() + b"\x00" + size + bytes.fromhex(source.sha256))


def tree(leaves: Sequence[bytes]) -> bytes:
    """The hash of a list of leaf hashes: the left subtree holds the largest power of two below their number."""
    if len(leaves) < 2:
        return leaves[0] if leaves else _sha256(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return _sha256(b"\x01" + tree(leaves[:split]) + tree(leaves[split:]))


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
