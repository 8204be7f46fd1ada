import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from holdfast.artifacts.documents import Baseline
from holdfast.artifacts.folder import DOCUMENT, save
from holdfast.cli.app import app, in_environment
from holdfast.errors import WrongEnvironmentError
from holdfast.steps import STEPS
from holdfast.workload.schema import read_workload


def holdfast(*args: object, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "holdfast", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['holdfast', '--help']\n"
        "try: runpy.run_module('holdfast', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'tensorflow', 'kfp', 'mlflow', 'pandas', 'sklearn'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "rollout" in done.stdout
    # CPU time, not wall time; the bar is 0.5 s on a quiet machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_wrong_usage_is_exit_code_2() -> None:
    assert holdfast("train", "--no-such-option").returncode == 2
    assert holdfast("no-such-step").returncode == 2


def test_the_rollout_has_commands_and_says_what_it_expects(tmp_path: Path) -> None:
    listed = holdfast("rollout", "--help").stdout
    assert all(name in listed for name in ("start", "status", "watch", "abort", "promote", "history", "watchdog"))
    words = ("rollout", "start", "--name", "tiny", "--version", "1", "--out", tmp_path / "r")
    other = holdfast(*words, "--driver", "istio")
    assert other.returncode == 2
    assert "expected envoy or seldon-v1 or seldon-v2" in " ".join(other.stderr.replace("│", " ").split())
    alone = holdfast(*words, "--driver", "seldon-v1")
    assert (alone.returncode, "--target" in alone.stderr) == (2, True)
    text = holdfast(*words, "--driver", "seldon-v1", "--target", "namespace: models\nseldon-v3: {}\n")
    assert "--target:2: unknown key 'seldon-v3'; did you mean 'seldon-v2'?" in text.stderr
    (tmp_path / "plan.yaml").write_text("stepz: [5]\n")
    mistaken = holdfast(*words, "--config", tmp_path / "plan.yaml")
    assert (mistaken.returncode, mistaken.stderr.count("\n")) == (2, 1)
    assert "plan.yaml:1: unknown key 'stepz'; did you mean 'steps'?" in mistaken.stderr
    assert not (tmp_path / ".r.rollout").exists()


def test_a_workload_with_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("nmae: x\n")
    done = holdfast("run", "--workload", path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "w.yaml:1: unknown key 'nmae'; did you mean 'name'?" in done.stderr
    assert not (tmp_path / ".holdfast").exists()


def test_an_unknown_workload_names_those_that_ship(tmp_path: Path) -> None:
    done = holdfast("run", "--workload", "digitz", cwd=tmp_path)
    assert done.returncode == 2
    assert "breast-cancer, digits, fashion-mnist, sms-spam" in done.stderr


def test_show_prints_the_document_and_json_prints_its_bytes(tmp_path: Path) -> None:
    saved = save(tmp_path / "a", Baseline(name="digits", present=False), {"x": b"1"})
    shown = holdfast("show", tmp_path / "a")
    assert f"baseline  {saved.digest}" in shown.stdout
    printed = holdfast("show", tmp_path / "a", "--json")
    assert printed.stdout == (tmp_path / "a" / DOCUMENT).read_text()


def test_verify_follows_the_inputs_and_finds_an_altered_one(tmp_path: Path) -> None:
    first = save(tmp_path / "first", Baseline(name="digits", present=False), {"x": b"1"})
    save(
        tmp_path / "second",
        Baseline(name="digits", present=False, inputs={"snapshot": first.digest, "model": "0" * 64}),
    )
    found = holdfast("verify", tmp_path / "second", "--json")
    states = {row["role"]: row["state"] for row in json.loads(found.stdout)}
    assert states == {"artifact": "ok", "snapshot": "ok", "snapshot/x": "ok", "model": "missing"}
    # What was not found was not checked.
    assert found.returncode == 1
    assert "NOT VERIFIED: 1 inputs were not found" in holdfast("verify", tmp_path / "second").stdout
    without = holdfast("verify", tmp_path / "second", "--allow-missing")
    assert without.returncode == 0
    assert without.stdout.endswith("verified: 3 artifacts and files; 1 inputs were not found and not checked\n")
    whole = holdfast("verify", tmp_path / "first")
    assert (whole.returncode, whole.stdout.splitlines()[-1]) == (0, "verified: 2 artifacts and files")
    (tmp_path / "first" / "x").write_bytes(b"2")
    bad = holdfast("verify", tmp_path / "second", "--allow-missing")
    assert bad.returncode == 1
    assert "altered  snapshot/x" in bad.stdout
    assert bad.stdout.splitlines()[-1] == "NOT VERIFIED: 1 altered or added"


@pytest.mark.parametrize("name", ["evil.py", ".git/hooks/evil", "data/.gitattributes", "empty/", "link", "data/link"])
def test_verify_finds_what_no_step_wrote(tmp_path: Path, name: str) -> None:
    saved = save(tmp_path / "a", Baseline(name="digits", present=False), {"data/x": b"1", "y": b"2"})
    assert holdfast("verify", saved.folder).returncode == 0
    place = saved.folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        place.mkdir()
    elif name.endswith("link"):
        place.symlink_to(saved.folder / "y")
    else:
        place.write_text("")
    found = holdfast("verify", saved.folder)
    assert found.returncode == 1
    assert f"added    artifact/{name.rstrip('/')}" in found.stdout


def test_init_writes_a_workload_that_is_valid(tmp_path: Path) -> None:
    data = tmp_path / "1 fraud's.csv"
    data.write_text("amount,age,is_fraud\n1.5,30,0\n")
    out = tmp_path / "my first.yaml"
    done = holdfast("init", "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"holdfast run --workload '{out}'" in done.stdout
    assert "expected at least two classes, found '0' only" in done.stderr
    workload = read_workload(out)
    assert workload.data.label == "is_fraud"
    assert workload.data.source == str(data)


def test_init_keeps_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("mine")
    (tmp_path / "d.csv").write_text("a,label\n1,0\n")
    done = holdfast("init", "--data", tmp_path / "d.csv", "--out", tmp_path / "w.yaml")
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert (tmp_path / "w.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "args", "message"),
    [
        ("d.csv", b"a,lable\n1,2\n", ("--label", "label"), "did you mean 'lable'"),
        ("d.csv", b"a,b\n1,2\n", (), "which column holds the class"),
        ("d.csv", b"\xff\xfe", (), "expected a header row and data, found an empty file"),
        ("d.csv", b"", (), "expected data, found an empty file"),
        (
            "d.csv",
            b"5,3,5,1\n4,3,4,0\n",
            ("--label", "1"),
            "d.csv: expected each column once, found '5'",
        ),
        ("d.csv", b"a,,label\n", (), "d.csv: expected a name for each column, found an empty one at 2"),
        ("d.npz", b"not a zip", (), "expected an NPZ file"),
        ("d.pkl", b"", (), "expected data, found an empty file"),
        ("d.pkl", b"1", (), "expected a name that ends in .csv, .tsv, .parquet, .pq, .npz"),
        ("d.parquet", b"PAR1", (), "expected a whole Parquet file"),
    ],
)
def test_init_says_what_is_wrong_with_the_data(
    tmp_path: Path, name: str, content: bytes, args: tuple[str, ...], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = holdfast("init", "--data", tmp_path / name, *args, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "workload.yaml").exists()


def test_doctor_tells_environments_and_steps(tmp_path: Path) -> None:
    done = holdfast("doctor", "--json", cwd=tmp_path, env={**os.environ, "PATH": "/usr/bin:/bin"})
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["environments"]}
    assert rows["data"]["steps"] == ["snapshot", "schema", "drift"]
    assert rows["model"]["ready"] is True
    assert found["gpu_adds"]
    assert found["run"]["model steps"].endswith("bin/python")
    assert found["run"]["device"].startswith(("cpu", "cuda"))
    assert "made by the first run" in found["run"]["MLflow store"]
    shown = holdfast("doctor", cwd=tmp_path).stdout
    assert "holdfast run would use\n" in shown
    assert "fashion-mnist" in shown


def test_doctor_names_an_interpreter_and_a_kubeconfig_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "kube").write_text("")
    own = {**os.environ, "HOLDFAST_DATA_PYTHON": str(tmp_path / "none"), "KUBECONFIG": str(tmp_path / "kube")}
    found = json.loads(holdfast("doctor", "--json", cwd=tmp_path, env=own).stdout)["run"]
    assert found["data steps"].startswith(f"missing: {tmp_path / 'none'}: expected the interpreter of the data")
    assert found["cluster"].startswith(str(tmp_path / "kube"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--workload", "digits", "--out", "taken"), "taken: expected a folder for the run, found a file"),
        (
            ("snapshot", "--config", "digits", "--out", "taken"),
            "taken: expected a folder for the artifact, found a file",
        ),
        (("snapshot", "--config", "digits", "--out", "taken/below"), "taken: expected a folder for the artifact"),
        (("snapshot", "--config", "digits", "--out", "full"), "full: expected an artifact or an empty folder"),
        (("compile", "--out", "taken"), "taken: cannot be used (File exists)"),
        (("init", "--data", "taken", "--out", "full", "--force"), "expected a name that ends in .csv"),
        (("init", "--data", "d.csv", "--out", "full", "--force"), "full: cannot be used (Is a directory)"),
    ],
)
def test_an_out_that_cannot_be_written_is_one_line_and_keeps_what_is_there(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "d.csv").write_text("a,label\n1,0\n2,1\n1,0\n2,1\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    done = holdfast(*words, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert ((tmp_path / "taken").read_text(), [path.name for path in (tmp_path / "full").iterdir()]) == (
        "mine",
        ["mine"],
    )


def test_a_single_step_reads_a_workload_from_anywhere_as_a_run_does(tmp_path: Path) -> None:
    """Paths of the file are relative to its folder, and so is the module of its own network."""
    home = tmp_path / "project"
    home.mkdir()
    rows = "".join(f"{i % 7},{i % 5},{'late' if i % 2 else 'early'}\n" for i in range(80))
    (home / "d.csv").write_text(f"a,b,outcome\n{rows}")
    (home / "mine.py").write_text(
        "from torch import nn\ndef net(shape, classes, width=4):\n    return nn.Sequential(nn.Linear(*shape, width), "
        "nn.ReLU(), nn.Linear(width, classes))\n"
    )
    text = "name: t\nmodality: tabular\ndata: {source: d.csv, label: outcome}\nthreat: {norm: linf, epsilon: 1/4}\n"
    (home / "w.yaml").write_text(f"{text}network: {{architecture: 'mine:net', arguments: {{width: 3}}}}\n")
    assert holdfast("snapshot", "--config", home / "w.yaml", "--out", "s", cwd=tmp_path).returncode == 0
    good = holdfast("check-network", "--config", home / "w.yaml", "--snapshot", "s", cwd=tmp_path)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    (home / "w.yaml").write_text(f"{text}network: {{architecture: 'mine:net', arguments: {{depth: 3}}}}\n")
    bad = holdfast("check-network", "--config", home / "w.yaml", cwd=tmp_path)
    assert (bad.returncode, bad.stderr.count("\n")) == (1, 1)
    assert "network 'mine:net' with {'depth': 3}: got an unexpected keyword argument 'depth'" in bad.stderr


def test_check_data_answers_with_a_page_or_json_and_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("id,a,label\n" + "".join(f"{i},{i % 7},{'ny'[i % 2]}\n" for i in range(150)))
    refused = holdfast("check-data", "d.csv", cwd=tmp_path)
    assert (refused.returncode, "found identifiers" in refused.stdout) == (1, True)
    assert holdfast("init", "--data", "d.csv", cwd=tmp_path).returncode == 0
    taken = holdfast("check-data", "workload.yaml", "--json", cwd=tmp_path)
    assert (taken.returncode, json.loads(taken.stdout)["refused"]) == (0, [])


def test_the_version_is_printed() -> None:
    assert holdfast("--version").stdout == "0.1.0\n"


def test_a_step_in_an_environment_without_its_libraries_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """The data environment's validation library is in no other one: its versions of numpy and protobuf are older."""
    rows = "\n".join(f"{i % 7},{i % 5},{'late' if i % 2 else 'early'}" for i in range(80))
    (tmp_path / "d.csv").write_text(f"a,b,outcome\n{rows}\n")
    config = {"name": "t", "modality": "tabular", "data": {"source": str(tmp_path / "d.csv"), "label": "outcome"}}
    assert holdfast("snapshot", "--config", json.dumps(config), "--out", tmp_path / "s").returncode == 0
    done = holdfast("schema", "--snapshot", tmp_path / "s", "--config", "{}", "--out", tmp_path / "schema")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "holdfast: schema: expected the environment 'data', found no module 'tensorflow_data_" in done.stderr
    assert "holdfast doctor" in done.stderr


def test_every_step_names_its_environment_when_a_library_is_missing() -> None:
    wrapped = in_environment("", "")(print).__code__
    commands = {command.name: command.callback for command in app.registered_commands}
    (rollout,) = (group.typer_instance for group in app.registered_groups if group.name == "rollout")
    assert rollout is not None
    callbacks = [command.callback for command in rollout.registered_commands]
    callbacks += [commands[step.name] for step in STEPS if step.name != "rollout"]
    assert len(callbacks) > len(STEPS)
    assert all(callback is not None and callback.__code__ is wrapped for callback in callbacks)
    for step in STEPS:
        said = f"^{step.name}: expected the environment '{step.environment}', found no module 'no_such_library' in "
        with pytest.raises(WrongEnvironmentError, match=said):
            in_environment(step.name, step.environment)(lambda: import_module("no_such_library"))()


def test_a_missing_module_of_holdfast_itself_stays_a_bug_with_its_traceback() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        in_environment("schema", "data")(lambda: import_module("holdfast.no_such"))()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    config = json.dumps({"name": "digits", "modality": "image", "data": {"source": "sklearn:digits"}})

    def almost_full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = holdfast("snapshot", "--config", config, "--out", tmp_path / "out", preexec_fn=almost_full)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_told_as_json_too(tmp_path: Path) -> None:
    done = holdfast("compile", "--out", tmp_path, "--json")
    names = ("pr_gate", "retrain", "rollout", "retrain_guarded", "monitor")
    assert json.loads(done.stdout) == [str(tmp_path / f"{name}.yaml") for name in names]
    (tmp_path / "d.csv").write_text("a,label\n1,0\n")
    made = holdfast("init", "--data", tmp_path / "d.csv", "--out", tmp_path / "w.yaml", "--json")
    assert json.loads(made.stdout) == [str(tmp_path / "w.yaml")]
