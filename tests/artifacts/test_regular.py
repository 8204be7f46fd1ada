"""Only regular files are opened, at once, and nothing above a limit is read."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.artifacts.regular import open_regular, read_at_most, resolved
from holdfast.errors import InputError, WorkloadError


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {"a folder": Path.mkdir, "a pipe": os.mkfifo}


@pytest.mark.parametrize("what", SPECIAL)
def test_what_is_no_regular_file_is_refused_and_named(what: str, tmp_path: Path) -> None:
    SPECIAL[what](tmp_path / "x")
    with pytest.raises(InputError, match=rf"x: expected a regular file, found something else \({what}\)"):
        open_regular(tmp_path / "x")


def test_a_device_and_a_socket_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found something else \(a device\)"):
        open_regular(Path("/dev/zero"))
    listen(tmp_path / "s")
    with pytest.raises(InputError, match="s: expected a file, found none that can be read"):
        open_regular(tmp_path / "s")


def test_a_link_is_followed_only_where_links_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_at_most(tmp_path / "link", 3) == b"abc"
    with pytest.raises(InputError, match="link: expected a file, found none that can be read"):
        open_regular(tmp_path / "link")


@pytest.mark.parametrize("name", ["absent", "a\0b", "n" * 300])
def test_a_path_that_leads_to_no_file_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="expected a policy, found none that can be read"):
        read_at_most(tmp_path / name, 10, "a policy", error=WorkloadError)


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as stream:
        stream.truncate(2**42)
    with pytest.raises(InputError, match="x: expected at most 1000 bytes, found more"):
        read_at_most(tmp_path / "x", 1000)
    # Files of the kernel have no size.
    assert read_at_most(Path("/proc/self/environ"), 2**20)
    with pytest.raises(InputError, match="expected at most 5 bytes, found more"):
        read_at_most(Path("/proc/self/environ"), 5)


def test_a_path_that_means_no_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    assert resolved(tmp_path, Path("a/../b")) == tmp_path.resolve() / "b"
    for path in ("~no-one-of-that-name/x", "round/x", "a\0b"):
        with pytest.raises(WorkloadError, match="expected a path, found none"):
            resolved(tmp_path, Path(path), WorkloadError)
