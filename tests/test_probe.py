"""What make needs is looked at first, and what is missing is one line about what to do."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROBE = runpy.run_path(str(ROOT / "tools" / "probe.py"))


def probe(*args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "tools" / "probe.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def make_uv(folder: Path, python: object) -> "subprocess.CompletedProcess[str]":
    """The first rule of a fresh clone."""
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    command = ["make", ".uv/bin/uv", f"PYTHON={python}"]
    # The tests themselves may run below another make.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_this_machine_lacks_nothing():
    done = probe()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_one_line_before_anything_is_installed():
    done = probe("--free-gb", "1e9")
    assert done.returncode == 2
    assert done.stderr.startswith("make: expected 1e+09 GB free in ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_another_system_is_named(system, machine):
    assert f"found {system} on {machine}" in PROBE["system_lack"](system, machine)


def test_linux_on_x86_64_will_do():
    assert PROBE["system_lack"]("Linux", "x86_64") is None


@pytest.mark.parametrize("version", ["2.31", "2.36", "2.41", "3.0"])
def test_a_c_library_that_the_wheels_know_will_do(version):
    assert PROBE["libc_lack"]("glibc", version) is None


@pytest.mark.parametrize(("name", "version", "found"), [("glibc", "2.28", "glibc 2.28"), ("", "", "another C library")])
def test_an_older_c_library_and_musl_are_refused(name, version, found):
    assert f"expected glibc 2.31 or newer, found {found}" in PROBE["libc_lack"](name, version)


def test_the_oldest_c_library_is_the_one_that_the_locks_are_resolved_for():
    major, minor = PROBE["GLIBC"]
    assert f"--python-platform x86_64-manylinux_{major}_{minor} " in (ROOT / "Makefile").read_text()
    assert f"glibc {major}.{minor} or newer" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("version", [(3, 10), (3, 12), (3, 13)])
def test_another_python_is_refused(version):
    assert "expected Python 3.11, found 3.1" in PROBE["python_lack"](version, "/usr/bin/python")


def test_readme_lists_what_a_minimal_debian_needs():
    # tools/minimal-system installs exactly this line, and the demo runs there.
    (line,) = re.findall(r"(?m)^ +apt-get install ([a-z0-9 .-]+)$", (ROOT / "README.md").read_text())
    assert set(line.split()) == {"git", "make", "python3-venv", "ca-certificates"}


def test_a_python_without_a_module_is_refused_by_the_names_of_all_it_lacks():
    lack = PROBE["modules_lack"](("ssl", "no_such_a", "no_such_b"), "/usr/bin/python")
    assert "was built without no_such_a, no_such_b;" in lack


def test_an_absent_shared_library_is_named():
    assert "libno-such.so.1" in PROBE["library_lack"]("libno-such.so.1")


def test_a_cache_on_the_same_disk_shares_its_space(tmp_path):
    assert PROBE["cache_lack"](tmp_path, tmp_path / "cache", 1e9) is None


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second disk: /dev/shm")
def test_a_cache_on_a_full_disk_of_its_own_is_named(tmp_path):
    cache = Path("/dev/shm/no-such-cache")
    assert "set UV_CACHE_DIR" in PROBE["cache_lack"](tmp_path, cache, 1e9)


def test_make_without_python_is_one_line_and_no_folder(tmp_path):
    done = make_uv(tmp_path, "python-that-is-not-here")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert "expected python-that-is-not-here on the PATH, found none; install Python 3.11" in first
    assert second.startswith("make: ***")
    assert not (tmp_path / ".uv").exists()


def test_make_with_a_python_that_has_no_venv_names_debians_package(tmp_path):
    # Debian's python3 without python3-venv: ensurepip cannot be found.
    hide = "import runpy, sys; sys.modules['ensurepip'] = None; del sys.argv[0]"
    run = "runpy.run_path(sys.argv[0], run_name='__main__')"
    python = tmp_path / "python3.11"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{hide}; {run}" "$@"\n')
    python.chmod(0o755)
    done = make_uv(tmp_path, python)
    assert done.returncode == 2
    assert "has no venv; install python3.11-venv" in done.stderr.splitlines()[0]
    assert not (tmp_path / ".uv").exists()
