"""What a kind of hostile file is, and those that fit every reader: what is no regular file, and what is too large."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Make = Callable[[Path], object]
"""Writes the file at a path."""


@dataclass(frozen=True)
class Kind:
    """One kind: what it is, the reader that gets it, and the file's name."""

    name: str
    reader: str
    file: str
    make: Make
    expected: Literal["refused", "accepted"] = "refused"


def kinds(
    reader: str,
    made: Mapping[str, bytes | Callable[[], bytes]],
    file: str,
    expected: Literal["refused", "accepted"] = "refused",
) -> list[Kind]:
    """One kind for each content. A name that ends in `(NAME.x)` gives the file's own name."""
    found = []
    for name, content in made.items():
        what, _, named = name.partition(" (")
        place = named.rstrip(")") or file
        found.append(Kind(f"{reader}: {what}", reader, place, _writer(content), expected))
    return found


def _writer(content: bytes | Callable[[], bytes]) -> Make:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content())


def special(reader: str, file: str) -> Iterator[Kind]:
    """What is no regular file, cannot be opened, or is larger than anything that is read."""
    made: dict[str, Make] = {
        "a pipe without a writer": os.mkfifo,
        "a folder": Path.mkdir,
        "a socket": _socket,
        "a link to a device without end": lambda path: path.symlink_to("/dev/zero"),
        "a link to a terminal": lambda path: path.symlink_to("/dev/tty"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a link to a pipe": _linked_pipe,
        "a link to nothing": lambda path: path.symlink_to("absent"),
        "a terabyte of nothing": lambda path: _sparse(path, 2**40),
        "an empty file": Path.touch,
    }
    for name, make in made.items():
        yield Kind(f"{reader}: {name}", reader, file, make)


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


def _linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)
