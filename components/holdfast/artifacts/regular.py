"""Files from elsewhere are opened here: regular ones only, and before a pipe or a device could make a reader wait."""

import io
import os
import stat
from pathlib import Path

from holdfast.errors import HoldfastError, InputError

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device", stat.S_IFLNK: "a link",
}  # fmt: skip
_SMALL = 2**20
"""What is asked for where a file has no size, as those of the kernel."""


def resolved(folder: Path, path: Path, error: type[HoldfastError] = InputError) -> Path:
    """The place of `path`, seen from a folder, with `~` and links followed; nothing need be there.

    Raises:
        HoldfastError: of the kind `error`: the home of no one, links in a circle, or a NUL.
    """
    place = folder / at_home(path, error)
    try:
        return place.resolve()
    except (RuntimeError, OSError, ValueError) as failed:
        raise error(f"{path}: expected a path, found none ({failed})") from None


def at_home(path: Path, error: type[HoldfastError] = InputError) -> Path:
    """The path with `~` in the place that it means.

    Raises:
        HoldfastError: of the kind `error`: the home of no one.
    """
    try:
        return path.expanduser()
    except RuntimeError as failed:
        raise error(f"{path}: expected a path, found none ({failed})") from None


def open_regular(
    path: Path, wanted: str = "a file", *, links: bool = False, error: type[HoldfastError] = InputError
) -> io.BufferedReader:
    """A regular file, opened to be read; its last part is a symbolic link only where `links` are allowed.

    Raises:
        HoldfastError: of the kind `error`: none that can be read, which messages call `wanted`, or a folder, a pipe, a
            socket or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW))
    except (OSError, ValueError) as failed:  # a NUL in a path is a ValueError
        why = failed.strerror if isinstance(failed, OSError) else str(failed)
        raise error(f"{path}: expected {wanted}, found none that can be read ({why})") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise error(f"{path}: expected a regular file, found something else ({_KINDS.get(stat.S_IFMT(mode), 'other')})")
    return os.fdopen(descriptor, "rb")


def read_at_most(
    path: Path,
    limit: int,
    wanted: str = "a file",
    *,
    links: bool = True,
    error: type[HoldfastError] = InputError,
    too_large: type[HoldfastError] | None = None,
) -> bytes:
    """All bytes of a regular file; one that has more than `limit` is not read at all.

    Raises:
        HoldfastError: of the kind `error`, as `open_regular`; of the kind `too_large`, or else `error`: more bytes.
    """
    with open_regular(path, wanted, links=links, error=error) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            data = stream.read(min(limit, max(size, _SMALL)) + 1) if size <= limit else b""
        except OSError as failed:
            raise error(f"{path}: expected {wanted}, found none that can be read ({failed.strerror})") from None
    if size > limit or len(data) > limit:
        raise (too_large or error)(f"{path}: expected at most {limit} bytes, found more")
    return data
