"""No environment needs a compiler: wheels, a few packages of pure Python, and what builds those is locked too."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.image_tree import settings

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "components" / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = PROJECT["tool"]["uv"]["pip"]["no-binary"]


def pins(lock: str) -> dict[str, str]:
    """Name -> version."""
    return dict(re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)", (LOCKS / f"{lock}.txt").read_text()))


def compiled_here(environment: Path) -> Iterator[str]:
    """Installed packages whose wheel was compiled on this machine: a published one has a tag of manylinux."""
    for wheel in environment.glob("lib/python3.*/site-packages/*.dist-info/WHEEL"):
        if re.search(r"(?m)^Tag: .*-linux_x86_64$", wheel.read_text()):
            yield wheel.parent.name


@pytest.mark.parametrize("name", [".venv", ".venv-data", ".venv-seldon"])
def test_nothing_in_an_environment_was_compiled_here(name):
    if not (ROOT / name).is_dir():
        pytest.skip(f"{name} is not here")
    assert list(compiled_here(ROOT / name)) == []


def test_a_package_that_was_compiled_here_is_found(tmp_path):
    info = tmp_path / "lib" / "python3.11" / "site-packages" / "pyfarmhash-0.3.2.dist-info"
    info.mkdir(parents=True)
    # What setuptools wrote for pyfarmhash 0.3.2, which has no wheel for Python 3.11.
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-linux_x86_64\n\n")
    assert list(compiled_here(tmp_path)) == ["pyfarmhash-0.3.2.dist-info"]


def test_wheels_are_all_that_is_installed_but_for_what_is_named():
    assert PROJECT["tool"]["uv"]["pip"]["only-binary"] == [":all:"]


@pytest.mark.parametrize("package", SOURCES)
def test_a_package_that_may_come_as_source_is_in_a_lock(package):
    assert [path.name for path in LOCKS.glob("*.txt") if package in pins(path.stem)]


@pytest.mark.parametrize("lock", ["data", "data-dev"])
def test_the_farmhash_that_has_wheels_is_locked(lock):
    assert tuple(map(int, pins(lock)["pyfarmhash"].split("."))) >= (0, 5)


def test_what_builds_packages_is_locked_by_hash():
    backends = {re.split("[>=]", requirement)[0] for requirement in PROJECT["build-system"]["requires"]}
    lock = (LOCKS / "build.txt").read_text()
    assert backends | {"setuptools"} <= set(pins("build"))
    assert all("--hash=sha256:" in entry for entry in re.split(r"(?m)^(?=[a-z])", lock) if entry)


@pytest.mark.parametrize("recipe", ["Makefile", "components/Containerfile"])
def test_a_lock_is_never_installed_without_the_lock_of_what_builds(recipe):
    text = (ROOT / recipe).read_text().replace("$(INSTALL)", "uv pip install --build-constraints")
    installs = [line for line in text.splitlines() if "--require-hashes --no-deps" in line]
    assert installs
    assert all("--build-constraints" in line or "--only-binary :all:" in line for line in installs)


def test_the_image_reads_what_may_be_built_before_it_installs():
    text = (ROOT / "components" / "Containerfile").read_text()
    assert 0 < text.index("COPY pyproject.toml") < text.index("uv.toml /tools/") < text.index("RUN uv pip install")
    copied = tomllib.loads(settings((ROOT / "pyproject.toml").read_text()))
    assert copied == {"pip": PROJECT["tool"]["uv"]["pip"]}
