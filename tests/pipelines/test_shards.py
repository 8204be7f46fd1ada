"""Steps in parts through the real kfp.local."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from holdfast import containers
from holdfast.artifacts.documents import AttackPart, CertifyPart, RobustnessReport
from holdfast.artifacts.folder import load
from holdfast_pipelines import parameters
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.local import Machine
from holdfast_pipelines.retrain import pr_gate
from holdfast_pipelines.wiring import Pods

WORKLOAD = """
name: toy
modality: image
data: {source: digits.npz}
network: {architecture: cnn}
threat: {norm: linf, epsilon: 8/255}
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A machine whose every interpreter is the stand-in, and the parameters of a run."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    script = shlex.join([sys.executable, str(Path(__file__).with_name("stand_in.py"))])
    python.write_text(f'#!/bin/sh\nexec {script} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "toy.yaml").write_text(WORKLOAD)
    monkeypatch.setenv("STAND_IN_DIARY", str(tmp_path / "diary"))
    machine = Machine(
        out=tmp_path / "run", pythons={containers.image(name): python for name in containers.ENVIRONMENTS}
    )
    settings = parameters.Settings(tracking="sqlite:///x.db", seed=7)
    given = parameters.retrain_parameters(parameters.read(tmp_path / "toy.yaml"), tmp_path, settings)
    return machine, {**given, "checkpoint": str(tmp_path / "checkpoint")}


def test_parts_are_run_and_joined_and_the_gate_reads_what_was_joined(stand_in, tmp_path, monkeypatch):
    machine, given = stand_in
    monkeypatch.setattr(Pods, "on_cluster", False)  # its pages are no steps of a run on this machine
    done = []
    machine.on_step = lambda record: done.append(record.step)
    machine.run(pr_gate(ClusterSettings(shards={"attack": 2, "certify": 3})), given)
    folder = tmp_path / "run" / "steps"
    shards = [load(folder / name, AttackPart).document.shard for name in ("attack-part", "attack-part-2")]
    assert shards == [1, 2]
    assert load(folder / "certify-part-3", CertifyPart).document.shard == 3
    joined = load(folder / "attack", RobustnessReport)
    calls = [json.loads(line) for line in (tmp_path / "diary").read_text().splitlines()]
    *parts, join = [call.get("shard") for call in calls if call["step"] == "certify"]
    assert (sorted(parts), join) == (["1/3", "2/3", "3/3"], None)  # parts begin in any order
    (gate,) = [call for call in calls if call["step"] == "gate"]
    assert gate["attack"] == f"{folder / 'attack'}@{joined.digest}"
    assert done.index("attack") > done.index("attack-part-2")
