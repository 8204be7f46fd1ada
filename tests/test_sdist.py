"""The source archive: it holds what git tracks, and its tests can be collected where it is unpacked."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT: frozenset[str] = frozenset()
"""Tracked files that a source archive need not hold: none, because the tests read pages, workflows and settings too."""
ADDED = {"PKG-INFO"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked; hatchling is the locked one and comes from what `make setup` downloaded."""
    uv, out = ROOT / ".uv" / "bin" / "uv", tmp_path_factory.mktemp("sdist")
    if not uv.exists():
        pytest.skip("needs uv: make setup")
    command = [
        str(uv),
        "build",
        "--sdist",
        "--offline",
        "--build-constraints=components/locks/build.txt",
        f"--out-dir={out}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (packed,) = out.glob("holdfast-*.tar.gz")
    with tarfile.open(packed) as found:
        found.extractall(out, filter="data")
    return out / packed.name.removesuffix(".tar.gz")


def listed(*which: str) -> set[str]:
    """Files that git tracks (or would take) and that are there."""
    done = subprocess.run(["git", "ls-files", "-z", *which], cwd=ROOT, capture_output=True, text=True, check=False)
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


def test_the_archive_holds_what_git_tracks_and_nothing_else(archive):
    tracked = listed("--cached")
    if not tracked:
        pytest.skip("needs a clone: git tracks nothing here")
    held = {str(path.relative_to(archive)) for path in archive.rglob("*") if path.is_file()}
    assert tracked - LEFT_OUT <= held
    assert held <= tracked | listed("--others", "--exclude-standard") | ADDED


def test_programs_can_be_run_where_the_archive_is_unpacked(archive):
    programs = [".ci/run", "tools/minimal-system"]
    assert all(os.access(ROOT / name, os.X_OK) for name in programs)
    assert all(os.access(archive / name, os.X_OK) for name in programs)


@pytest.mark.nightly
def test_the_tests_are_collected_where_the_archive_is_unpacked(archive):
    paths = os.pathsep.join(str(archive / name) for name in ("components", "gates", "pipelines"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=archive, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    count = re.search(r"(\d+) tests collected", done.stdout)
    assert count is not None
    assert int(count[1]) > 2000
