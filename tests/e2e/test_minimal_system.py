"""The main job where there is nothing but what README lists: Debian's minimal system, no compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "minimal-system"
SKIPPED = 77


def minimal_system(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **variables}
    return subprocess.run([SCRIPT, *command], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.e2e
@pytest.mark.skipif("HOLDFAST_MINIMAL" not in os.environ, reason="ten minutes and 10 GB: set HOLDFAST_MINIMAL=1")
def test_the_demo_runs_on_a_minimal_system_without_a_compiler() -> None:
    done = minimal_system("make", "demo")  # who sets the variable asks for it: a machine that cannot do it fails
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_machine_that_cannot_make_such_a_system_says_so(tmp_path: Path) -> None:
    for program in ("bash", "dirname", "id", "git", "unshare"):  # and no debootstrap
        found = shutil.which(program)
        if found:
            (tmp_path / program).symlink_to(found)
    done = minimal_system("make", "demo", PATH=str(tmp_path))
    assert done.returncode == SKIPPED
    wanted = "root, found user" if os.getuid() else "debootstrap on the PATH, found none"
    assert f"minimal-system: skipped: expected {wanted}" in done.stderr
