"""The images are made from the same locks as the virtual environments."""

import re
from pathlib import Path

import pytest

from holdfast import containers

ROOT = Path(__file__).parents[2]


def recipe():
    return (ROOT / "components" / "Containerfile").read_text()


@pytest.mark.parametrize("environment", containers.ENVIRONMENTS)
def test_every_image_has_a_lock_with_hashes(environment):
    lock = (ROOT / "components" / "locks" / f"{environment}.txt").read_text()
    assert "--hash=sha256:" in lock
    assert "--require-hashes --no-deps" in recipe()


@pytest.mark.parametrize("package", ["uv", "torch"])
def test_images_and_virtual_environments_are_made_with_the_same_versions(package):
    version = re.compile(rf'"{package}==([0-9.]+)"')
    assert version.findall(recipe()) == version.findall((ROOT / "Makefile").read_text()) != []


def test_images_do_not_run_as_root():
    assert re.search(r"(?m)^USER [1-9]", recipe())
