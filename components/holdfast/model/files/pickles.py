"""torch's pickled files: `weights_only=True` decides, picklescan advises.

torch.load with `weights_only=True` calls nothing but the rebuilders of tensors. A scanner knows the tricks it knows, so
its silence decides nothing; what it cannot read is refused, because a file that cannot be scanned was not scanned.
"""

import io
import logging
import pickle
import pickletools
import re
import struct
import warnings

from holdfast.errors import InputError, LimitError
from holdfast.model.files.archive import Members, read_members

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickle of torch's magic number, with which every file of its format before 1.6 begins."""
PICKLE_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_LEGACY_PICKLES = 5
"""Magic number, protocol, system, the object, the keys of its storages; then their bytes."""
_MEMBER = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/(version|serialization_id)|data/[0-9]+"
)
_SHOWN = 5
_UNLOADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, ImportError, OSError, struct.error,
)  # fmt: skip
"""What torch's loader raises on made-up bytes; all of it means the same."""


def check_zip(data: bytes) -> None:
    """Refuses what is not a zip `.pt` with nothing in it but tensors and plain values.

    Raises:
        InputError: another member than torch writes, or `weights_only=True` does not load it.
    """
    members = read_members(data)
    strange = sorted(name for name in members if not _MEMBER.fullmatch(name))
    if strange or "data.pkl" not in members:
        raise InputError(f"expected the members that torch.save writes, found {(strange or sorted(members))[0][:80]!r}")
    _load(data)


def check_legacy(data: bytes) -> None:
    """Checks like `check_zip`, for the format before torch 1.6.

    Raises:
        InputError: `weights_only=True` does not load it, or does not read it to its end.
    """
    read = _load(data)
    if read != len(data):
        raise InputError(f"expected storages and nothing behind them, found {len(data) - read} bytes more")


def _load(data: bytes) -> int:
    """How far torch reads."""
    stream = io.BytesIO(data)
    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of it either loads or refuses
            torch.load(stream, map_location="cpu", weights_only=True)
        return stream.tell()
    except _UNLOADABLE as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise LimitError("expected tensors that memory holds, found a file that asks for more") from None
        raise InputError(f"expected what torch.load(weights_only=True) loads, found {_cause(error)}") from None


def _cause(error: BaseException) -> str:
    """The one line of torch's page-long message that describes what is in the file."""
    text = str(error)
    found = re.search(r"Unsupported global: GLOBAL (\S+)|GLOBAL (\S+) was not|whose module (\S+) is blocked", text)
    if found:
        return f"a call of {next(filter(None, found.groups()))}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if len(lines) == 1 else " ".join(lines)[:160]) if lines else type(error).__name__


def advise(pickles: list[bytes]) -> tuple[str, ...]:
    """What picklescan reports about each import of these pickles that is not known to be harmless.

    Raises:
        InputError: a pickle that cannot be read to its end.
    """
    try:
        from picklescan.scanner import SafetyLevel, scan_pickle_bytes
    except ImportError:
        raise InputError("expected picklescan to scan it, found none; use the model environment") from None
    logging.getLogger("picklescan").setLevel(logging.CRITICAL)  # what it reports is in the result
    remarks: list[str] = []
    for data in pickles:
        result = scan_pickle_bytes(io.BytesIO(data), "pickle")
        if result.scan_err:
            raise InputError("expected a pickle that picklescan can scan, found one that it cannot read")
        remarks += [
            f"picklescan: {one.safety.value} import {one.module}.{one.name}"
            for one in result.globals
            if one.safety is not SafetyLevel.Innocuous
        ]
    shown = sorted(set(remarks))
    return (*shown[:_SHOWN], *([f"picklescan: {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []))


def pickles_of_zip(members: Members) -> list[bytes]:
    """Every member but the storages of numbers that is named like a pickle."""
    return [_whole(bytes(data)) for name, data in members.items() if name.endswith((".pkl", ".pickle"))]


def pickles_of_legacy(data: bytes) -> list[bytes]:
    """The pickles before the storages of a legacy file."""
    parts, rest = [], io.BytesIO(data)
    for _ in range(_LEGACY_PICKLES):
        start = rest.tell()
        _skip(rest)
        parts.append(data[start : rest.tell()])
    return parts


def _whole(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    _skip(stream)
    if stream.read(1):
        raise InputError("expected one pickle, found bytes behind its end")
    return data


def _skip(stream: io.BytesIO) -> None:
    """Reads to the end of one pickle without running it."""
    try:
        for _ in pickletools.genops(stream):
            pass
    except (ValueError, LookupError, struct.error, OverflowError, MemoryError) as error:
        raise InputError(f"expected a pickle that can be scanned, found {str(error)[:120]}") from None
