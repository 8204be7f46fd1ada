"""`holdfast env create`: whole, or not there; what is whole is left alone, what is not is made again."""

import base64
import hashlib
import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast import resources
from holdfast.environments import create, installed
from holdfast.environments.create import torch_words
from holdfast.environments.places import NOTE, TORCH, EnvironmentFolder
from holdfast.errors import IntegrityError, SetupError
from tests.environments.conftest import UV

LOCK = "# nothing to fetch: what this test is about is what happens around it\n"
FAILING = "no-such-package-of-ours==1.0 --hash=sha256:" + "0" * 64 + "\n"


@pytest.fixture
def made(bare, tmp_path):
    """Runs `holdfast env create data` in the bare environment with the lock `lock`; gives exit code and output."""

    def run(lock: str = LOCK, *words: str, **env: str) -> tuple[int, str]:
        own = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        own |= {"XDG_DATA_HOME": str(tmp_path), "PATH": f"{UV.parent}:/usr/bin:/bin", "UV_OFFLINE": "1", **env}
        command = [str(bare), "-m", "holdfast", "env", "create", "data", *words]
        with shipped_with(bare, lock):
            done = subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


@contextmanager
def shipped_with(bare: Path, lock: str) -> Iterator[None]:
    """Inside, the installed wheel is one that came with this lock."""
    (site,) = bare.parents[1].glob("lib/python3*/site-packages")
    (record,) = site.glob("holdfast-*.dist-info/RECORD")
    place = site / "holdfast" / "locks" / "data.txt"
    kept = {path: path.read_bytes() for path in (place, record)}
    place.write_text(lock)
    row, others = f"holdfast/locks/data.txt,{digest(place)},{len(lock)}", record.read_text().splitlines()
    record.write_text("\n".join([row, *(line for line in others if "/locks/data.txt" not in line)]) + "\n")
    try:
        yield
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def digest(path: Path) -> str:
    """As the format of wheels has it."""
    found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256={found.decode().rstrip('=')}"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "holdfast" / "0.1.0" / "data"


def test_an_environment_is_made_once_and_made_again_when_it_is_broken(made, folder):
    code, said = made()
    assert (code, "data: made" in said) == (0, True), said
    (module,) = folder.glob("lib/python3*/site-packages/holdfast/__init__.py")
    inside = [str(folder / "bin" / "python"), "-I", "-c", "import holdfast; print(holdfast.__file__)"]
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout.strip() == str(module)

    stays = module.stat().st_ctime_ns
    assert "there already, and whole" in made()[1]
    assert module.stat().st_ctime_ns == stays

    for breaks in (
        lambda: (module.parent / "errors.py").unlink(),  # a file of a package
        lambda: (folder / "bin" / "python").unlink(),
        lambda: (folder / NOTE).write_text("{}"),  # killed half-way
    ):
        breaks()
        assert "data: made" in made()[1]
        assert (module.parent / "errors.py").exists()


def test_what_failed_half_way_is_not_ready_and_is_one_line(made, folder):
    code, said = made(FAILING)
    line = said.splitlines()[-1]
    assert code == 1
    assert line.startswith(f"holdfast: {folder}: uv pip failed: ")
    assert "Traceback" not in said
    assert json.loads((folder / NOTE).read_text()) == {}
    assert "data: made" in made()[1]


def test_a_changed_lock_makes_another_environment(made):
    made()
    assert "data: made" in made(LOCK + "# changed\n")[1]


def test_a_folder_of_others_is_refused_and_kept(made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("1")
    code, said = made(LOCK, "--path", "mine")
    assert code == 1
    assert "mine: expected an empty folder, or an environment made here, found thesis.txt" in said
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_place_of_ones_own_comes_with_the_variable_that_names_it(made, tmp_path):
    code, said = made(LOCK, "--path", "own", "--json")
    assert code == 0
    assert f"HOLDFAST_DATA_PYTHON={tmp_path}/own/bin/python" in said
    assert json.loads(said.splitlines()[0])["made"] is True


def test_a_source_tree_has_make_for_it():
    with pytest.raises(SetupError, match="expected an installed wheel, found a source tree; `make setup`"):
        create(EnvironmentFolder("data", Path("/nowhere")))


def test_an_installation_that_was_changed_is_not_installed_again(bare, tmp_path, monkeypatch):
    (site,) = bare.parents[1].glob("lib/python3*/site-packages")
    monkeypatch.setattr(installed, "_SITE", site)
    wheel = installed.write_wheel(tmp_path)
    assert wheel.name == "holdfast-0.1.0-py3-none-any.whl"
    planted = site / "holdfast_gates" / "decide.py"
    honest = planted.read_bytes()
    try:
        planted.write_bytes(honest + b"\n# the gate passes\n")
        with pytest.raises(IntegrityError, match=r"decide.py: expected sha256=\S+ as installed, found sha256="):
            installed.write_wheel(tmp_path)
    finally:
        planted.write_bytes(honest)


def test_what_is_no_wheel_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "_SITE", tmp_path)
    with pytest.raises(SetupError, match="expected holdfast as a wheel installs it, found no RECORD of it"):
        installed.write_wheel(tmp_path)


def test_uv_is_asked_for_in_one_line(made):
    code, said = made(LOCK, PATH="/usr/bin:/bin")
    assert (code, said) == (
        1,
        "holdfast: env create: expected uv on the PATH, found none; pip install 'holdfast[env]'\n",
    )


@pytest.fixture
def wheels(tmp_path):
    """A folder with a wheel that calls itself the CPU build of torch."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    version = TORCH.partition("==")[2]
    name, info = f"torch-{version}+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", f"torch-{version}+cpu.dist-info"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}+cpu\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_x86_64\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def test_another_wheel_under_the_name_of_torch_is_refused(wheels, tmp_path):
    subprocess.run([UV, "-q", "venv", "--offline", tmp_path / "env"], check=True, cwd=tmp_path)
    words = torch_words("auto", str(wheels))
    command = [UV, "pip", "install", "--offline", "--no-index", "--python", tmp_path / "env" / "bin" / "python", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Hash mismatch for `torch==" in done.stderr


@pytest.mark.parametrize(
    ("backend", "links", "begins", "locked"),
    [
        ("cpu", None, ["--torch-backend", "cpu"], True),
        ("cpu", "wheels", ["--find-links"], True),
        ("auto", "wheels", ["--find-links"], True),
        ("auto", None, ["--torch-backend", "auto"], False),
        ("cu130", "wheels", ["--find-links"], False),
        ("auto", "nowhere", ["--torch-backend", "auto"], False),
    ],
)
def test_the_cpu_build_of_torch_comes_by_hash_and_builds_for_gpus_do_not(wheels, backend, links, begins, locked):
    words = torch_words(backend, links and str(wheels.parent / links))
    assert words[: len(begins)] == begins
    assert ("--require-hashes" in words) == locked
    assert (TORCH in words) != locked
    assert resources.lock("torch-cpu").is_file()
