"""Which interpreter an environment's steps run in: one function, for runs and for doctor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.environments import places
from holdfast.environments.places import NOTE, EnvironmentFolder, interpreter, made_of
from holdfast.errors import RunError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An installed wheel as far as places can see, and a data home of its own."""
    monkeypatch.setattr(places, "checkout", lambda: None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("HOLDFAST_DATA_PYTHON", raising=False)
    return tmp_path


def made(place: EnvironmentFolder, **note: str) -> EnvironmentFolder:
    place.python.parent.mkdir(parents=True)
    place.python.symlink_to(sys.executable)
    (place.folder / NOTE).write_text(json.dumps(note))
    return place


def test_the_usual_place_is_below_the_data_home_and_a_relative_one_does_not_count(home, monkeypatch):
    assert EnvironmentFolder.usual("data").folder == home / "holdfast" / "0.1.0" / "data"
    monkeypatch.setenv("XDG_DATA_HOME", "here")
    monkeypatch.setenv("HOME", "/home/ana")
    assert EnvironmentFolder.usual("data").folder == Path("/home/ana/.local/share/holdfast/0.1.0/data")


def test_a_made_environment_is_found_only_when_it_is_of_this_very_installation(home):
    place = made(EnvironmentFolder.usual("data"), made_of=made_of("data"))
    assert interpreter("data") == place.python
    for note in ("{}", "", '{"made_of": "0"}', "[]"):
        (place.folder / NOTE).write_text(note)
        with pytest.raises(RunError, match="data environment: expected its interpreter, found none; holdfast env crea"):
            interpreter("data")


def test_what_is_named_comes_before_what_was_made(home, monkeypatch, tmp_path):
    made(EnvironmentFolder.usual("data"), made_of=made_of("data"))
    own = tmp_path / "python"
    own.symlink_to(sys.executable)
    monkeypatch.setenv("HOLDFAST_DATA_PYTHON", str(own))
    assert interpreter("data") == own
    own.unlink()
    with pytest.raises(RunError, match="python: expected the interpreter of the data .*HOLDFAST_DATA_PYTHON names it"):
        interpreter("data")


def test_this_interpreter_is_the_one_where_it_has_the_libraries(home):
    assert interpreter("model") == Path(sys.executable)  # doctor calls this one ready, too


def test_a_source_tree_is_known_by_where_the_code_lies():
    assert places.checkout() == Path(__file__).parents[2]


def test_an_environment_is_made_of_its_lock_the_build_lock_and_the_code(monkeypatch):
    assert made_of("data") != made_of("model")
    before = made_of("data")
    monkeypatch.setattr(places.installed, "code_digest", lambda: "another")
    assert made_of("data") != before


def test_torch_has_one_version_in_every_recipe():
    root = Path(__file__).parents[2]
    assert f'"{places.TORCH}"' in (root / "Makefile").read_text()


def test_doctor_and_a_run_find_the_same(tmp_path):
    (tmp_path / "python").symlink_to(sys.executable)
    own = {**os.environ, "HOLDFAST_DATA_PYTHON": str(tmp_path / "python")}
    command = [sys.executable, "-m", "holdfast", "doctor", "--json"]
    found = json.loads(subprocess.run(command, env=own, capture_output=True, check=True).stdout)
    rows = {row["name"]: row for row in found["environments"]}
    for name in ("data", "model", "serving"):
        assert rows[name]["python"] == found["run"][f"{name} steps"]
