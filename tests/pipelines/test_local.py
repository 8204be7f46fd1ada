import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.artifacts.documents import Baseline
from holdfast.artifacts.folder import load
from holdfast.errors import RunError
from holdfast_pipelines.local import StepError, holds, pythons


def does(name="a", **what):
    return json.dumps({"name": name, **what})


def steps_of(machine):
    seen = []
    machine.on_step = seen.append
    return seen


def test_a_step_reads_the_artifact_of_the_step_before_under_its_digest(machine, pipeline):
    here = machine()
    seen = steps_of(here)
    here.run(pipeline, {"one": does("a"), "two": does("b")})
    made, read = (load(here.out / record.folder, Baseline) for record in seen)
    assert [record.step for record in seen] == ["first", "second"]
    assert made.digest == seen[0].digest
    assert read.document.inputs == {"model": made.digest}


def test_a_condition_that_does_not_hold_skips_what_hangs_on_it(machine, pipeline):
    here = machine()
    seen = steps_of(here)
    here.run(pipeline, {"one": does(verdict="fail"), "two": does("b")})
    assert [(record.step, record.verdict) for record in seen] == [("first", "fail")]
    assert not (here.out / "steps" / "second").exists()


@pytest.mark.parametrize("verdict", ["pass", "inconclusive"])
def test_a_condition_that_holds_is_followed(machine, pipeline, verdict):
    here = machine()
    here.run(pipeline, {"one": does(verdict=verdict), "two": does("b")})
    assert (here.out / "steps" / "second" / "artifact.json").exists()


def test_a_failing_step_fails_the_run_with_its_name_code_and_last_words(machine, pipeline):
    here = machine()
    with pytest.raises(
        StepError,
        match=r"(?s)step first failed with exit code 7 .*first\.log.*\| out of luck\n[^\n]+: out of luck [^\n]+$",
    ) as told:
        here.run(pipeline, {"one": does(exit=7), "two": does("b")})
    assert "\x1b" not in str(told.value)
    assert told.value.step == "first"
    assert not (here.out / "steps" / "first").exists()
    assert not (here.out / "steps" / "second").exists()


def test_the_tail_of_a_failing_step_has_at_most_twenty_lines(machine, pipeline):
    code = "print(*range(100), sep=chr(10))"
    with pytest.raises(StepError) as told:
        machine().run(pipeline, {"one": does(exit=1, code=code), "two": does("b")})
    assert str(told.value).count("\n  | ") == 20


def test_a_killed_step_is_told_apart(machine, pipeline):
    code = "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(StepError, match="step first was ended by SIGKILL"):
        machine().run(pipeline, {"one": does(code=code), "two": does("b")})


def test_a_step_that_writes_nothing_is_a_failure_even_with_exit_code_0(machine, pipeline):
    with pytest.raises(StepError, match="step first ended without writing artifact, digest, verdict"):
        machine().run(pipeline, {"one": does(code="sys.exit(0)"), "two": does("b")})


def test_an_artifact_altered_between_two_steps_is_refused_by_its_reader(machine, pipeline):
    here = machine()
    here.on_step = lambda record: (here.out / record.folder / "artifact.json").write_text("{}")
    with pytest.raises(StepError, match="(?s)step second failed with exit code 1.*IntegrityError"):
        here.run(pipeline, {"one": does("a"), "two": does("b")})


def test_an_unknown_image_is_an_error_and_not_some_other_python(machine, pipeline):
    with pytest.raises(
        RunError, match="step first: expected an image of .*other.*, found registry.invalid/holdfast/model:"
    ):
        machine(pythons={"other": Path(sys.executable)}).run(pipeline, {"one": does(), "two": does()})


def test_kfp_talks_neither_on_standard_output_nor_through_logging(machine, pipeline, capsys):
    before = logging.getLogger().handlers[:]
    machine().run(pipeline, {"one": does("a"), "two": does("b")})
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.split()[:2] for line in told.err.splitlines()] == [["first", "pass"], ["second", "pass"]]
    assert logging.getLogger().handlers == before
    assert logging.getLogger().manager.disable == logging.NOTSET


def test_what_lies_beside_the_run_survives_it(machine, pipeline, tmp_path):
    # kfp.local deletes its workspace recursively after a run.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    machine().run(pipeline, {"one": does("a"), "two": does("b")})
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"mine.txt", "steps", "logs"}


@pytest.mark.parametrize(
    ("condition", "value", "taken"),
    [
        ("inputs.parameter_values['x'] == 'pass'", "pass", True),
        ("inputs.parameter_values['x'] == 'pass'", "fail", False),
        ("inputs.parameter_values['x'] != 'fail'", "inconclusive", True),
        ("!(inputs.parameter_values['x'] == 'pass')", "pass", False),
        ("!(inputs.parameter_values['x'] == 'a') && inputs.parameter_values['x'] == 'b'", "b", True),
        # Text that Python would evaluate is text here.
        ("inputs.parameter_values['x'] == 'pass'", "pass' or 'a' == 'a", False),
    ],
)
def test_conditions_compare_text_with_fixed_words(condition, value, taken):
    assert holds(condition, {"x": value}.__getitem__) is taken


@pytest.mark.parametrize(
    "condition", ["int(inputs.parameter_values['x']) > 3", "true", "", "inputs.parameter_values['x'] == 'a' || true"]
)
def test_a_condition_of_another_form_is_an_error_and_never_not_taken(condition):
    with pytest.raises(RunError, match="expected a condition that compares an output with a fixed word"):
        holds(condition, lambda name: "pass")


def test_a_condition_on_a_missing_value_is_an_error_and_never_not_taken():
    with pytest.raises(RunError, match="expected text in x to decide .*, found None"):
        holds("inputs.parameter_values['x'] == 'pass'", lambda name: None)


def test_an_interpreter_that_is_not_there_is_named_with_the_way_to_give_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_DATA_PYTHON", str(tmp_path / "nowhere" / "python"))
    with pytest.raises(
        RunError, match=r"nowhere/python: expected the interpreter of the data environment.*HOLDFAST_DATA"
    ):
        pythons()


def test_the_environment_variable_and_the_argument_choose_the_interpreter(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_DATA_PYTHON", sys.executable)
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    chosen = pythons({"model": link, "serving": link})
    assert sorted({str(path) for path in chosen.values()}) == sorted([os.path.abspath(sys.executable), str(link)])  # noqa: PTH100


# --- killing --------------------------------------------------------------------------------------------------------

RUNNER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import two_steps
from holdfast import containers
from holdfast_pipelines.local import Machine
machine = Machine(out=Path(sys.argv[2]), pythons={containers.MODEL: Path(sys.executable)})
machine.run(two_steps, {"one": sys.argv[3], "two": sys.argv[3]})
"""


@pytest.fixture
def runner(tmp_path):
    """Starts a run whose first step does `code`; gives the runner and a stream that ends when that step is gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    started = []

    def start(code):
        code = f"pipe = open({str(pipe)!r}, 'w', buffering=1); {code}"
        arguments = [str(Path(__file__).parent), str(tmp_path / "run"), does(code=code)]
        process = subprocess.Popen([sys.executable, "-c", RUNNER, *arguments], stderr=subprocess.DEVNULL)
        started.append(process)
        return process, pipe.open()

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_killing_the_runner_outright_ends_its_step(runner):
    process, stream = runner("print('started', file=pipe); signal.pause()")
    assert stream.readline() == "started\n"
    process.kill()
    assert stream.read() == ""  # end of file: nobody holds the other end any more


def test_a_runner_told_to_stop_tells_its_step_and_waits_for_its_last_act(runner):
    process, stream = runner(
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(pipe.fileno(), b'saved\\n'), os._exit(0)));"
        "print('started', file=pipe); signal.pause()"
    )
    assert stream.readline() == "started\n"
    process.terminate()
    assert stream.read() == "saved\n"
    assert process.wait() == 128 + signal.SIGTERM


def test_what_a_step_leaves_running_ends_with_it(runner):
    process, stream = runner(
        "os.set_inheritable(pipe.fileno(), True); subprocess.Popen(['sleep', '600'], close_fds=False)"
    )
    assert stream.read() == ""
    process.wait()
