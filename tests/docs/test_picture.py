"""The README's picture: `make picture`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[2]
SIZE = (1000, 955)
BROWSER = """#!/bin/sh
for word in "$@"; do case "$word" in --screenshot=*) cp "$SHOWN" "${word#--screenshot=}";; esac; done
"""


def take(report: Path, folder: Path, shown: Path) -> subprocess.CompletedProcess[str]:
    """Runs the tool with a browser that shows a given picture."""
    (folder / "chromium").write_text(BROWSER)
    (folder / "chromium").chmod(0o755)
    command = [sys.executable, str(ROOT / "tools" / "picture.py"), str(report), str(folder / "report.png")]
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SHOWN": str(shown)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_picture_that_is_kept_is_one_that_the_tool_makes():
    picture = ROOT / "docs" / "report.png"
    assert picture.stat().st_size <= 150_000
    with Image.open(picture) as image:
        assert (image.size, image.mode) == (SIZE, "P")


def test_the_upper_part_of_the_page_is_kept(tmp_path):
    page = np.zeros((1400, 1000, 3), np.uint8)
    page[:955, :, 1] = 255
    Image.fromarray(page).save(tmp_path / "shown.png")
    (tmp_path / "report.html").touch()
    assert take(tmp_path / "report.html", tmp_path, tmp_path / "shown.png").returncode == 0
    with Image.open(tmp_path / "report.png") as image:
        assert image.size == SIZE
        assert image.convert("RGB").getcolors() == [(SIZE[0] * SIZE[1], (0, 255, 0))]


def test_a_picture_that_is_too_large_is_not_kept(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (955, 1000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "shown.png")
    (tmp_path / "report.html").touch()
    done = take(tmp_path / "report.html", tmp_path, tmp_path / "shown.png")
    assert done.returncode == 1
    assert "expected at most 150000 bytes, found" in done.stderr
    assert not (tmp_path / "report.png").exists()


def test_a_picture_needs_a_report(tmp_path):
    done = take(tmp_path / "report.html", tmp_path, tmp_path / "shown.png")
    assert done.returncode == 1
    assert "found none; run make demo first" in done.stderr
