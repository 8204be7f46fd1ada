"""The whole gate on a real git repository, with a stand-in for what the steps compute."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import load
from holdfast.errors import InputError, WorkloadError
from holdfast_pipelines.local import StepError
from holdfast_pipelines.parameters import Settings
from holdfast_pipelines.pull_request.measuring import GateRequest, Workshop, pr_gate
from holdfast_pipelines.pull_request.requirements import TIER
from holdfast_pipelines.pull_request.results import write_results
from tests.pipelines.pull_request.conftest import WORKLOAD, git

SAME = {"both": 80, "only_candidate": 0, "only_champion": 0, "neither": 20}
WORSE = {"both": 50, "only_candidate": 0, "only_champion": 30, "neither": 20}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    python = tmp_path_factory.mktemp("venv") / "bin" / "python"
    python.parent.mkdir()
    stand_in = Path(__file__).parents[1] / "stand_in.py"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(stand_in))} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def measured(monkeypatch):
    """Sets what the stand-in answers; without anything a model that equals the other one."""

    def make(pairs=SAME, **steps):
        compared = {
            "champion": {"model_version": 0}, "champion_clean": SAME, "champion_worst_case": pairs,
        }  # fmt: skip
        monkeypatch.setenv("STAND_IN", json.dumps({"attack": {"with": compared}, **steps}))

    make()
    return make


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Shared, so that most steps run once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def gate(repository, tmp_path, monkeypatch, python, measured, cache):
    monkeypatch.setenv("STAND_IN_DIARY", str(tmp_path / "diary"))
    workshop = Workshop(cache, dict.fromkeys(("data", "model", "serving"), python))

    def run(**options):
        request = GateRequest("main", "main", tmp_path / "out", Settings(tracking=""))
        return pr_gate(replace(request, **options), workshop, repository)

    return run


def ran(folder):
    return [json.loads(line) for line in (folder / "diary").read_text().splitlines()]


def test_an_unchanged_head_passes_and_nothing_is_registered(gate, tmp_path, repository):
    report = gate()
    assert (report.verdict, report.head, report.base) == ("pass", *[git(repository, "rev-parse", "main")] * 2)
    assert not {"register", "rollout"} & {step["step"] for step in ran(tmp_path)}
    assert git(repository, "status", "--porcelain") == ""
    assert {check.name for check in report.checks} >= {"base_clean", "base_robust"}


def test_a_head_that_lost_robustness_fails_at_the_line_of_the_workload(gate, measured, change):
    measured(pairs=WORSE)
    report = gate(head=change("gate:", "attack: {examples: 77}\ngate:"), policy_from="head")
    assert report.verdict == "fail"
    (lost,) = (check for check in report.checks if check.verdict == "fail")
    assert (lost.name, lost.of_base.count.k, lost.of_head.count.k) == ("base_robust", 80, 50)
    # Tango's interval of 0 against 30 of 100 pairs lies well below -0.05 (Tango 1998).
    assert lost.difference.value == pytest.approx(-0.3)
    assert lost.difference.upper < -0.05
    clean = next(check for check in report.checks if check.name == "base_clean")
    assert WORKLOAD.splitlines()[clean.line - 2].strip().startswith("champion_clean")  # one line was put before it


def test_the_head_is_judged_by_the_base_branchs_rules(gate, tmp_path, change):
    report = gate(head=change("at_least: 0.4", "at_least: 0.1"), compare=False)
    assert [one.key for one in report.requirements_changed] == ["gate.checks.robust_accuracy.at_least"]
    asked = json.loads(next(step["policy"] for step in ran(tmp_path) if step["step"] == "gate"))
    assert asked["checks"]["robust_accuracy"]["at_least"] == 0.4


def test_every_attack_is_of_the_small_tier(gate, tmp_path, change):
    gate(head=change("gate:", "attack: {tier: release, examples: 7}\ngate:"), policy_from="head", compare=False)
    (config,) = (json.loads(step["config"]) for step in ran(tmp_path) if step["step"] == "attack")
    assert (config["tier"], config["examples"]) == (TIER, 7)


def test_a_workload_that_the_base_branch_lacks_is_judged_alone(gate, repository):
    git(repository, "checkout", "-q", "--orphan", "empty")
    git(repository, "rm", "-rqf", ".")
    git(repository, "commit", "-q", "--allow-empty", "-m", "nothing")
    git(repository, "checkout", "-q", "main")
    report = gate(base="empty")
    assert report.policy_from == "head"
    assert any("no such workload file" in note for note in report.notes)
    assert not any(check.name.startswith("base_") for check in report.checks)


def test_a_renamed_workload_keeps_the_rules_of_the_base_branch(gate, repository, change):
    git(repository, "checkout", "-q", change("at_least: 0.4", "at_least: 0.1"))
    git(repository, "mv", "toy.yaml", "renamed.yaml")
    git(repository, "commit", "-q", "-m", "rename")
    git(repository, "checkout", "-q", "main")
    report = gate(head="change", compare=False)
    assert (report.file, report.policy_from) == ("renamed.yaml", "base")
    assert [one.key for one in report.requirements_changed] == ["gate.checks.robust_accuracy.at_least"]


def test_a_base_branch_that_cannot_be_judged_is_no_pass(gate, repository, change):
    git(repository, "rm", "-q", "digits.npz")
    git(repository, "commit", "-q", "-m", "lose the data")
    base = git(repository, "rev-parse", "main")
    report = gate(base=base, head="main^")
    assert report.verdict == "inconclusive"
    reason = next(check.reason for check in report.checks if check.name == "base_robust")
    assert reason.startswith("the base branch could not be judged: base/digits.npz: expected a file")


def test_a_delivery_that_is_stopped_fails_with_its_reason(gate, measured, change):
    measured(drift={"verdict": "fail"})
    report = gate(head=change("name: toy", "name: toy\ndrift: {alpha: 0.02}"), policy_from="head", compare=False)
    assert {check.name: str(check.verdict) for check in report.checks} == {"schema_anomalies": "pass", "drift": "fail"}
    assert report.verdict == "fail"


def test_a_model_in_a_folder_is_a_champion(gate, tmp_path):
    gate(compare=False)
    (tmp_path / "out").rename(tmp_path / "before")
    model = tmp_path / "before" / "head" / "steps" / "train"
    assert load(model, Model).document.name == "toy"
    report = gate(compare=False, champion=str(tmp_path / "before" / "head"))
    compared = {check.name: check for check in report.checks}
    assert compared["champion_robust"].of_champion.count.k == 80
    assert compared["champion_robust"].verdict == "pass"


def test_the_registrys_champion_is_asked_by_its_name(gate, tmp_path):
    gate(compare=False, champion="models:/other@champion", settings=Settings(tracking="sqlite:///x.db"))
    (asked,) = (step for step in ran(tmp_path) if step["step"] == "baseline")
    assert (asked["name"], asked["tracking"]) == ("other", "sqlite:///x.db")


@pytest.mark.parametrize(
    ("champion", "error", "message"),
    [
        ("models:/toy@champion", WorkloadError, "expected --tracking with it"),
        ("models:/toy/3", WorkloadError, "expected models:/NAME@champion"),
        ("OUT/base", WorkloadError, "expected a folder outside"),
        ("nowhere", InputError, "nowhere: expected models:/NAME@champion, or the folder"),
    ],
)
def test_a_champion_that_is_none_is_one_line(gate, champion, error, message, tmp_path):
    with pytest.raises(error, match=message):
        gate(champion=champion.replace("OUT", str(tmp_path / "out")))


def test_a_step_that_fails_on_the_head_is_an_error_and_leaves_no_verdict_of_before(gate, measured, change, tmp_path):
    write_results(gate(compare=False), tmp_path / "out")
    measured(train={"exit": 5})
    with pytest.raises(StepError, match="no luck in train"):
        gate(head=change("gate:", "train: {epochs: 77}\ngate:"), compare=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["head"]


def test_a_workload_file_that_is_not_valid_is_named_without_our_folders(gate, change):
    with pytest.raises(WorkloadError, match=r"^head/toy\.yaml:\d+: unknown key 'threat\.nrom'"):
        gate(head=change("norm:", "nrom:"))


def test_the_file_is_found_where_there_is_one_and_asked_for_where_there_are_two(gate, repository):
    (repository / "ci.yml").write_text("name: no workload\n")
    (repository / "other.yaml").write_text(WORKLOAD)
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "two")
    with pytest.raises(InputError, match=r"found other\.yaml, toy\.yaml; give --workload"):
        gate()
    with pytest.raises(InputError, match=r"^gone\.yaml: expected a workload file in the head"):
        gate(workload=Path("gone.yaml"))
    assert gate(workload=Path("toy.yaml"), compare=False).file == "toy.yaml"
