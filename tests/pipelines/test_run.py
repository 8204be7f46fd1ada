"""The whole wiring through the real kfp.local, with a stand-in for what the steps compute."""

import fcntl
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import load
from holdfast.errors import InputError, RunError, WorkloadError
from holdfast.steps import names
from holdfast_pipelines.ending import last_line, shortfall_lines
from holdfast_pipelines.local import StepError
from holdfast_pipelines.run import read_record, roll_out, run

WORKLOAD = """
name: toy
modality: image
data: {source: digits.npz}
network: {architecture: cnn}
threat: {norm: linf, epsilon: 8/255}
"""
STEPS = names()


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The stand-in for every interpreter."""
    python = tmp_path_factory.mktemp("venv") / "bin" / "python"
    python.parent.mkdir()
    stand_in = Path(__file__).with_name("stand_in.py")
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(stand_in))} "$@"\n')
    python.chmod(0o755)
    return python


def arguments(folder, python):
    (folder / "toy.yaml").write_text(WORKLOAD)
    (folder / "digits.npz").write_bytes(b"one")
    return {
        "workload": folder / "toy.yaml",
        "out": folder / "run",
        "tracking": "sqlite:///x.db",
        "cache": folder / "cache",
        "interpreters": dict.fromkeys(("data", "model", "serving"), python),
    }


@pytest.fixture(scope="module")
def warm(tmp_path_factory, python):
    """The folder of a first run, whose cache saves the others most of their steps."""
    folder = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAND_IN_DIARY", str(folder / "diary"))
        run(**arguments(folder, python), seed=7, game_day="wrong=1.0")
    return folder


@pytest.fixture
def toy(tmp_path, monkeypatch, python, warm):
    """The arguments of a run like the first one, with a cache of its own that knows what the first one made."""
    monkeypatch.setenv("STAND_IN_DIARY", str(tmp_path / "diary"))
    shutil.copytree(warm / "cache", tmp_path / "cache")
    return {**arguments(tmp_path, python), "seed": 7}


@pytest.fixture
def says(monkeypatch):
    """Sets what the stand-in says."""
    return lambda **steps: monkeypatch.setenv("STAND_IN", json.dumps(steps))


def recorded(folder):
    return json.loads((folder / "run" / "run.json").read_text())


def calls(folder):
    return {call["step"]: call for call in map(json.loads, (folder / "diary").read_text().splitlines())}


def reused(result):
    return {step.step for step in result.steps if step.reused}


def test_a_model_that_passes_is_registered_and_rolled_out(warm):
    record = recorded(warm)
    assert (record["workload"], record["seed"], record["outcome"]) == ("toy", 7, "promoted")
    assert (record["model_version"], record["stopped_at"]) == (3, None)
    assert [step["step"] for step in record["steps"]] == list(STEPS)
    for step in record["steps"]:
        assert (warm / "run" / step["folder"] / "artifact.json").exists()
        assert (warm / "run" / "logs" / f"{step['step']}.log").exists()


def test_every_step_gets_its_own_section_and_absolute_paths(warm):
    made = calls(warm)
    assert json.loads(made["snapshot"]["config"])["data"]["source"] == str(warm / "digits.npz")
    assert json.loads(made["train"]["config"])["threat"]["epsilon"] == "8/255"
    assert json.loads(made["gate"]["policy"])["name"] == "default"
    assert {"model", "snapshot", "schema", "drift", "scan", "backdoor", "attack", "certify"} <= set(made["gate"])
    assert all(re.search("@[0-9a-f]{64}$", made["register"][role]) for role in ("model", "decision", "certify"))
    assert (made["rollout"]["version"], made["rollout"]["game-day"], made["train"]["seed"]) == ("3", "wrong=1.0", "7")


def test_the_record_says_what_the_result_says(toy, tmp_path):
    result = run(**toy, rollout=False)
    assert recorded(tmp_path) == json.loads(json.dumps(result.as_dict()))


def test_without_a_rollout_the_run_ends_registered(toy):
    result = run(**toy, rollout=False)
    assert (result.outcome, result.verdict("rollout")) == ("registered", None)


@pytest.mark.parametrize("check", ["schema", "drift"])
def test_a_failed_data_check_stops_the_run_before_training(toy, says, check):
    says(**{check: {"verdict": "fail"}})
    result = run(**toy, from_step="schema")
    assert (result.outcome, result.stopped_at, result.model_version) == ("stopped", check, None)
    assert sorted(step.step for step in result.steps) == ["baseline", "drift", "schema", "snapshot"]


def test_an_inconclusive_data_check_goes_on_to_the_gate(toy, says):
    says(drift={"verdict": "inconclusive"})
    result = run(**toy, from_step="schema", rollout=False)
    assert (result.outcome, result.verdict("drift")) == ("registered", "inconclusive")


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_model_that_the_gate_does_not_pass_is_not_registered(toy, says, verdict):
    says(gate={"verdict": verdict})
    result = run(**toy)
    assert (result.outcome, result.stopped_at, result.verdict("register")) == ("refused", None, None)


@pytest.mark.parametrize("outcome", ["rolled-back", "inconclusive"])
def test_the_rollouts_outcome_is_the_runs(toy, says, outcome):
    says(rollout={"outcome": outcome, "verdict": "fail"})
    assert run(**toy).outcome == outcome


BUSY = {"outcome": "inconclusive", "cause": "host", "reason": "too busy to judge", "verdict": "inconclusive"}


def test_a_rollout_without_a_verdict_is_tried_again_when_asked(toy, says, tmp_path):
    says(rollout={"first": BUSY})
    result = run(**toy, retries=1)
    assert (result.outcome, result.verdict("rollout"), result.retried) == ("promoted", "pass", ("too busy to judge",))
    assert [step.step for step in result.steps] == list(STEPS)
    assert recorded(tmp_path) == json.loads(json.dumps(result.as_dict()))
    assert load(tmp_path / "run" / "rollout-earlier-1", RolloutRecord).document.cause == "host"


@pytest.mark.parametrize("more", [{}, {"cause": "operator"}, {"outcome": "rolled-back", "cause": "server"}])
def test_it_is_not_tried_again_unasked_nor_for_a_cause_that_stays(toy, says, more):
    says(rollout={"first": {**BUSY, **more}})
    result = run(**toy, retries=1 if more else 0)
    assert (result.outcome, result.retried) == (more.get("outcome", "inconclusive"), ())


def test_the_same_run_again_rolls_out_again_and_keeps_the_record_before(toy, says, tmp_path):
    says(rollout={"first": BUSY})
    assert run(**toy).outcome == "inconclusive"
    again = run(**toy)
    assert (again.outcome, again.model_version) == ("promoted", 3)
    assert load(tmp_path / "run" / "rollout-earlier-1", RolloutRecord).document.outcome == "inconclusive"


def test_a_rollout_without_a_verdict_is_taken_up_later(toy, says, tmp_path):
    says(rollout={"first": BUSY})
    run(**toy)
    later = {name: toy[name] for name in ("workload", "out", "tracking", "interpreters")}
    assert roll_out(**later, seed=7).outcome == "promoted"
    assert (tmp_path / "run" / "rollout-earlier-1" / "artifact.json").exists()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"schema": {"verdict": "fail"}}, "stopped: schema found the delivery unfit.*mend the delivery.*: again"),
        ({"gate": {"verdict": "fail"}}, "refused: the gate failed x: .*Nothing was registered. Read page"),
        ({"gate": {"verdict": "inconclusive"}}, "refused: the gate was inconclusive on x: the lines above"),
        ({"rollout": BUSY}, "inconclusive: too busy to judge .*less busy.* The command: again .*incident.md"),
        ({}, "promoted: r. Version 3 serves all traffic"),
    ],
)
def test_the_last_line_says_the_outcome_the_reason_and_what_to_do(toy, says, steps, words):
    says(**steps)
    result = run(**toy, from_step="schema")
    line = last_line(result, toy["out"], Path("page"), "again", planted=False)
    assert re.search(f"^toy: {words}", line), line
    assert "\n" not in line


def test_a_refused_rollout_ends_the_run_with_the_code_for_refused(toy, says):
    says(rollout={"exit": 3})
    with pytest.raises(StepError) as refused:
        run(**toy)
    assert refused.value.exit_code == 3


def test_a_failing_step_fails_the_run_and_the_record_says_where(toy, says, tmp_path):
    says(attack={"exit": 5})
    with pytest.raises(StepError, match=r"(?s)step attack failed with exit code 5.*no luck in attack"):
        run(**toy, from_step="attack")
    record = recorded(tmp_path)
    assert (record["outcome"], record["stopped_at"]) == ("failed", "attack")
    assert "attack" not in [step["step"] for step in record["steps"]]


def test_a_second_run_reuses_what_did_not_change(toy, warm):
    again = run(**toy)
    assert [step.digest for step in again.steps] == [step["digest"] for step in recorded(warm)["steps"]]
    assert reused(again) == set(STEPS) - {"baseline", "gate", "register", "rollout"}


def test_changed_data_at_the_same_path_is_read_again(toy, tmp_path):
    (tmp_path / "digits.npz").write_bytes(b"two")
    assert "snapshot" not in reused(run(**toy, rollout=False))


def test_the_same_data_at_another_path_is_not(toy, tmp_path):
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "digits.npz").rename(tmp_path / "moved" / "digits.npz")
    assert "snapshot" in reused(run(**toy, data=moved, rollout=False))


def test_from_a_step_on_all_steps_run_anew(toy):
    assert reused(run(**toy, from_step="attack")) == set(STEPS[: STEPS.index("attack")]) - {"baseline"}


def test_a_failed_run_goes_on_where_it_failed(toy, says):
    says(certify={"exit": 1})
    with pytest.raises(StepError):
        run(**toy, from_step="attack")
    says()
    again = run(**toy, rollout=False)
    assert {"attack", "train"} <= reused(again)
    assert again.outcome == "registered"


def test_an_override_changes_the_workload_and_only_what_depends_on_it(toy, tmp_path):
    asked = {"certify.examples": 3, "gate.override": {"clean_accuracy": {"at_least": 0.5}}}
    result = run(**toy, overrides=asked, rollout=False)
    made = calls(tmp_path)
    assert json.loads(made["certify"]["config"])["examples"] == 3
    assert json.loads(made["gate"]["policy"])["overridden"] == {"clean_accuracy": {"at_least": 0.5}}
    assert "attack" in reused(result)


AGREEMENT = {"extraction_agreement": {"at_queries": 700, "at_most": 0.9}}


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({"gate.override": AGREEMENT}, ["extract"]),
        ({"guard.mode": "flag"}, ["calibrate"]),
        ({"guard.budget": "auto"}, ["calibrate", "extract"]),
    ],
)
def test_copies_and_the_guard_are_made_where_someone_asks_for_them_and_judged_and_kept(toy, tmp_path, asked, made):
    result = run(**toy, overrides=asked, rollout=False)
    steps = list(STEPS[: STEPS.index("gate")])
    assert [step.step for step in result.steps] == [*steps, *made, "gate", "register"]
    called, digests = calls(tmp_path), {step.step: step.digest for step in result.steps}
    for role, step in {"guard": "calibrate", "extract": "extract"}.items():
        for reader in ("gate", "register"):
            assert (role in called[reader]) == (step in made)
            assert step not in made or called[reader][role].endswith(f"@{digests[step]}")
    assert "attack" in reused(result)
    if "extract" in made:
        config = json.loads(called["extract"]["config"])
        limit = ([100, 300, 700, 1000, 3000], 0.9) if "gate.override" in asked else ([100, 300, 1000, 3000], 0.8)
        assert (config["queries"], config["agreement_at_most"]) == limit


def test_the_users_own_network_is_part_of_the_key(toy, tmp_path):
    (tmp_path / "toy.yaml").write_text(WORKLOAD.replace("cnn", "nets:small"))
    (tmp_path / "nets.py").write_text("a = 1\n")
    assert reused(run(**toy, rollout=False)) == set()


@pytest.mark.parametrize("key", ["scam.apply", "scan.apply.deep", "scan.folds"])
def test_an_override_without_meaning_is_refused(toy, key):
    with pytest.raises(WorkloadError, match="override"):
        run(**toy, overrides={key: "x"})


def test_a_missing_data_file_is_named(toy, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.npz: expected a file that the workload names, found none"):
        run(**toy, data=tmp_path / "nowhere.npz")


def test_an_unknown_step_is_refused_with_the_known_ones(toy):
    with pytest.raises(WorkloadError, match="--from poison: expected one of snapshot, baseline"):
        run(**toy, from_step="poison")


def test_a_folder_with_other_things_in_it_is_not_emptied(toy):
    toy["out"].mkdir()
    (toy["out"] / "steps").mkdir()
    with pytest.raises(WorkloadError, match="expected an empty folder or an earlier run, found other files"):
        run(**toy)
    assert (toy["out"] / "steps").exists()


def test_two_runs_do_not_share_a_folder(toy):
    toy["out"].mkdir()
    handle = os.open(toy["out"], os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(RunError, match="another run is writing here"):
        run(**toy)
    os.close(handle)


def test_what_an_earlier_run_left_is_not_mixed_with_the_new(toy, says):
    run(**toy, rollout=False)
    says(schema={"verdict": "fail"})
    run(**toy, from_step="schema")
    assert sorted(path.name for path in (toy["out"] / "steps").iterdir()) == ["baseline", "drift", "schema", "snapshot"]


def test_a_run_that_ended_registered_is_taken_up_later(toy, tmp_path):
    run(**toy, rollout=False)
    later = {name: toy[name] for name in ("workload", "out", "tracking", "interpreters")}
    result = roll_out(**later, seed=7, game_day="wrong=1.0")
    assert (result.outcome, result.verdict("rollout"), result.model_version) == ("promoted", "pass", 3)
    assert result.verdict("train") == "pass"
    assert recorded(tmp_path) == json.loads(json.dumps(result.as_dict()))


def test_a_run_that_registered_nothing_has_nothing_to_roll_out(toy, says):
    says(gate={"verdict": "fail"})
    run(**toy)
    with pytest.raises(RunError, match="expected a run that registered a model, found one that ended refused"):
        roll_out(toy["workload"], out=toy["out"], tracking=toy["tracking"])


@pytest.mark.parametrize("text", ["", "[]", '{"steps": []}', '{"steps": [{"step": 1}]}'])
def test_a_record_that_is_none_is_said_to_be_none(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match="expected the record of a run, found none that can be read"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture: cnn": "architecture: ccn"}, "'ccn': image data takes cnn, mlp or module:function"),
        ({"architecture: cnn": "architecture: text"}, "'text': image data takes cnn, mlp or module:function"),
        ({"norm: linf": "norm: l2", "name: toy": "certify: {method: bounds}\nname: toy"}, "bounds: expected norm linf"),
    ],
)
def test_what_the_workload_alone_shows_is_refused_before_the_first_step(toy, tmp_path, change, message):
    text = WORKLOAD
    for old, new in change.items():
        text = text.replace(old, new)
    toy["workload"].write_text(text)
    with pytest.raises(WorkloadError, match=message):
        run(**toy)
    assert not (tmp_path / "diary").exists()


def test_an_unknown_device_is_refused_before_the_first_step(toy, tmp_path):
    with pytest.raises(WorkloadError, match="--device: expected auto, cpu, cuda, found 'tpu'"):
        run(**toy, device="tpu")
    assert not (tmp_path / "diary").exists()


def test_own_code_that_cannot_be_used_is_refused_before_the_first_step(toy, tmp_path, monkeypatch):
    toy["workload"].write_text(WORKLOAD.replace("architecture: cnn", "architecture: mine:net"))
    monkeypatch.setenv("STAND_IN_NETWORK", "holdfast: network 'mine:net': no such module")
    with pytest.raises(RunError, match=r"check-network: network 'mine:net': no such module \(log: .*nothing was train"):
        run(**toy)
    assert not (tmp_path / "diary").exists()
    assert recorded(tmp_path)["outcome"] == "failed"


def test_a_class_that_the_data_lacks_is_refused_when_the_rows_were_read(toy, tmp_path):
    toy["workload"].write_text(WORKLOAD + "train: {class_weights: {a: 1, c: 2}}\n")
    with pytest.raises(WorkloadError, match=r"train.class_weights: expected classes of \['a', 'b'\], found 'c'"):
        run(**toy, from_step="snapshot")
    assert set(calls(tmp_path)) == {"snapshot"}
    toy["workload"].write_text(WORKLOAD + "train: {class_weights: {a: 1, b: 2}}\n")
    assert run(**toy).outcome == "promoted"


def test_an_operating_point_of_an_unknown_class_is_refused_when_the_rows_were_read(toy, tmp_path):
    toy["workload"].write_text(WORKLOAD + "decision: {positive: c, false_positive_rate: 0.01}\n")
    with pytest.raises(WorkloadError, match=r"decision.positive: expected one of 'a', 'b', found 'c'"):
        run(**toy, from_step="snapshot")
    assert set(calls(tmp_path)) == {"snapshot"}


def test_a_network_with_arguments_is_tried_on_the_rows_before_anything_is_computed(toy, tmp_path, monkeypatch):
    toy["workload"].write_text(WORKLOAD.replace("architecture: cnn", "architecture: cnn, arguments: {hiden: 1}"))
    monkeypatch.setenv("STAND_IN_NETWORK", "holdfast: network 'cnn' with {'hiden': 1}: unexpected")
    with pytest.raises(RunError, match="unexpected"):
        run(**toy, from_step="snapshot")
    assert set(calls(tmp_path)) == {"snapshot"}


@pytest.mark.parametrize(
    ("steps", "lines"),
    [
        ({}, ()),
        (
            {"gate": {"verdict": "fail"}},
            ("  x (fail): measured not measured, required evidence", "    what to do: See the evidence."),
        ),
        (
            {"schema": {"verdict": "fail"}},
            (
                "  schema_anomalies (fail): measured 0 anomalies, required none in 1 columns",
                "    what to do: Repair the delivery at its source, or change `schema.pbtxt` and have it reviewed.",
            ),
        ),
    ],
)
def test_the_last_lines_name_the_check_what_it_measured_and_required_and_what_to_do(toy, says, steps, lines):
    says(**steps)
    assert shortfall_lines(run(**toy, from_step="schema"), toy["out"]) == lines


def test_a_run_into_a_file_is_one_line(toy, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(WorkloadError, match="file: expected a folder for the run, found a file"):
            run(**{**toy, "out": out})


def test_a_policy_of_ones_own_ends_a_run_before_its_first_step_unless_a_trust_policy_lists_it(toy, tmp_path):
    own = "name: default\nalpha: 0.05\nchecks: {drift: {}}\n"
    (tmp_path / "own.yaml").write_text(own)
    toy["workload"].write_text(WORKLOAD + "gate: {policy: own.yaml}\n")
    with pytest.raises(WorkloadError, match=r"gate.policy: expected a verdict by a policy that counts") as refused:
        run(**toy)
    assert not (tmp_path / "diary").exists()
    digest = re.search(r"default \((\w{64})\)", str(refused.value))[1]
    trust = tmp_path / "trust.yaml"
    trust.write_text(f"version: 1\npolicies: [{digest}]\n")
    assert run(**toy, trust=trust).outcome == "promoted"
    called = [json.loads(line) for line in (tmp_path / "diary").read_text().splitlines()]
    named = {call["step"] for call in called if call.get("trust") == str(trust.resolve())}
    assert {"register", "rollout"} <= named
