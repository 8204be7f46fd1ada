"""A slice of the corpus, which `python -m benchmarks hostile_files` runs whole: no code, no traceback, no long wait."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.kinds import Kind, kinds, special
from tests.hostile.payloads import MODULE
from tests.hostile.readers import READERS, Surroundings, corpus, harmless, write
from tests.hostile.trial import CANARY, Trial, command, function, measure, preload

EVERY = 40
"""Of the hostile kinds one in so many is tried here, and two of what is no regular file for each reader."""


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    preload()
    return Surroundings.make(tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def whole() -> list[Kind]:
    return corpus()


@pytest.fixture
def try_kind(around: Surroundings, tmp_path: Path) -> Callable[[Kind], Trial]:
    def run(kind: Kind) -> Trial:
        case = write(kind, around, tmp_path / f"{len(list(tmp_path.iterdir()))}")
        return measure(case.name, case.expected, case.folder, case.work)

    return run


def wrong(trial: Trial) -> str | None:
    """What is wrong, but for time and memory, which a busy machine and pytest's own libraries change."""
    if trial.ran or trial.traceback or trial.outcome != trial.expected:
        return json.dumps([trial.name, trial.code, trial.output])
    return None


def test_there_are_many_kinds_for_every_reader(whole: list[Kind]) -> None:
    assert {kind.reader for kind in whole} == set(READERS)
    assert len({kind.name for kind in whole}) == len(whole) >= 1_000
    assert len({kind.name.partition(": ")[2] for kind in whole if kind.expected == "refused"}) >= 150


def test_a_slice_of_them_is_refused_in_words(whole: list[Kind], try_kind: Callable[[Kind], Trial]) -> None:
    assert [found for kind in whole[7::EVERY] if (found := wrong(try_kind(kind)))] == []


@pytest.mark.parametrize("reader", ["workload", "document", "CSV", "model", "key", "record of a run"])
def test_a_pipe_and_a_device_are_refused_at_once(reader: str, try_kind: Callable[[Kind], Trial]) -> None:
    made = {kind.name.partition(": ")[2]: kind for kind in special(reader, _file_of(reader))}
    for name in ("a pipe without a writer", "a link to a device without end"):
        found = try_kind(made[name])
        assert (wrong(found), found.seconds < 10) == (None, True), found


def _file_of(reader: str) -> str:
    names = {"workload": "w.yaml", "document": "artifact.json", "CSV": "d.csv", "record of a run": "run.json"}
    return names.get(reader, "f")


def test_clean_files_of_every_format_are_accepted(try_kind: Callable[[Kind], Trial]) -> None:
    assert [found for kind in harmless() if (found := wrong(try_kind(kind)))] == []


def test_code_that_runs_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    found = measure("x", "refused", folder, function(lambda: exec(MODULE)))
    assert (found.ran, (folder / CANARY).exists()) == (True, True)


def test_a_traceback_a_signal_and_memory_are_seen(tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    def grow() -> None:
        assert len(bytes(2**30) + b"x") > 2**30

    for number, (work, sees) in enumerate([(fail, "traceback"), (grow, "megabytes")]):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        found = measure("x", "refused", folder, function(work))
        assert found.bad, sees
    assert found.megabytes > 1000


def test_a_command_is_run_as_a_process_of_its_own_would(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = measure("x", "refused", tmp_path / "a", command("show", "absent"))
    assert (found.code, found.lines, found.outcome) == (1, 1, "refused"), found.output
    one = kinds("CSV", {"a (b.csv)": b"1"}, "c.csv")[0]
    assert (one.name, one.file, one.expected) == ("CSV: a", "b.csv", "refused")
