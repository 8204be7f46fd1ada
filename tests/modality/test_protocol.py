"""Each modality and each norm has its row, and what a row names is there."""

import subprocess
import sys
from typing import get_args

import pytest

from holdfast.artifacts.documents import InputSpec, Modality, Norm, ThreatModel
from holdfast.errors import WorkloadError
from holdfast.modality import MODALITIES, modality_of
from holdfast.modality.ball import Ball
from holdfast.modality.norms import BOXES, ball_class
from holdfast.model.attack.kinds import ATTACK_KINDS
from holdfast.model.backdoor.step import _SEARCHES
from holdfast.model.certify.step import _SAMPLED
from holdfast.model.networks import build
from holdfast.model.scan.combine import SCANS
from holdfast.workload.schema import NetworkConfig, Workload
from holdfast.workload.yaml import parse_yaml

WORKLOAD = """\
name: messages
modality: text
data: {source: sms.tsv, text: text}
network: {architecture: text}
threat: {norm: edits, epsilon: 2}
"""


def test_every_modality_of_the_documents_has_a_row() -> None:
    assert tuple(MODALITIES) == get_args(Modality)


@pytest.mark.parametrize("norm", get_args(Norm))
def test_every_norm_of_the_documents_has_a_class(norm: Norm) -> None:
    assert ball_class(norm).norm == norm
    assert any(norm in modality.norms for modality in MODALITIES.values())


@pytest.mark.parametrize("name", get_args(Modality))
def test_the_methods_that_a_modality_names_are_there(name: Modality) -> None:
    modality = modality_of(name)
    assert modality.scan in SCANS
    assert modality.trigger_search in _SEARCHES
    assert modality.certification in _SAMPLED
    assert {ball_class(norm).attacks for norm in modality.norms} <= set(ATTACK_KINDS)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("image", InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")),
        ("tabular", InputSpec(modality="tabular", shape=(3,), dtype="float32")),
        ("text", InputSpec(modality="text", shape=(12,), dtype="int64")),
    ],
)
def test_the_networks_that_a_modality_names_take_it(name: Modality, spec: InputSpec) -> None:
    for network in modality_of(name).networks:
        assert build(NetworkConfig(architecture=network), spec, 2, seed=0) is not None


def test_a_box_is_the_ball_whose_steepest_step_moves_every_entry() -> None:
    # The dual of linf is l1: only there a step of length one moves each entry by one (Boyd and Vandenberghe, 9.4).
    assert {norm for norm in get_args(Norm) if ball_class(norm).order == float("inf")} == BOXES


def test_importing_the_modalities_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'pandas', 'scipy', 'sklearn', 'mlflow', 'pyarrow'}"
    code = f"import sys, holdfast.modality, holdfast.modality.norms; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_messages_have_no_attacker_who_moves_along_a_gradient() -> None:
    spec = InputSpec(modality="text", shape=(12,), dtype="int64")
    with pytest.raises(WorkloadError, match="threat.norm: expected edits for messages, found linf"):
        Ball.of(ThreatModel(norm="linf", epsilon="1/10", unit="any"), spec, "cpu")
    here = Ball.of(ThreatModel(norm="edits", epsilon="2", unit="characters"), spec, "cpu")
    with pytest.raises(ValueError, match="a message has no gradient to follow"):
        here.ascend(here.lower, here.lower, 1.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", text: text}", "}", "a text workload names its text column in data.text"),
        ("norm: edits", "norm: l2", "norm 'l2' does not fit a workload of modality 'text'"),
        (
            "threat:",
            "train: {recipe: trades}\nthreat:",
            "recipe 'trades' does not fit text; expected pgd, standard, awp",
        ),
        ("threat:", "train: {engine: art}\nthreat:", "engine art attacks images and tables"),
        ("epsilon: 2", "epsilon: 2, features: {a: {}}", "threat.features belongs to a tabular workload"),
        ("modality: text", "modality: tabular", "norm 'edits' does not fit a workload of modality 'tabular'"),
        (
            "text\ndata: {source: sms.tsv, text: text}\nnetwork: {architecture: text}\nthreat: {norm: edits",
            "image\ndata: {source: a.npz}\nnetwork: {architecture: cnn}\nthreat: {typing: true, norm: linf",
            "threat.typing belongs to a text workload",
        ),
        (
            "text\ndata: {source: sms.tsv, text: text}\nnetwork: {architecture: text}\nthreat: {norm: edits",
            "image\ndata: {source: a.npz}\nnetwork: {architecture: cnn}\ntrain: {recipe: ibp}\nthreat: {norm: l2",
            "recipe ibp bounds boxes: expected norm linf, found l2",
        ),
    ],
)
def test_a_workload_is_held_to_its_modality(old: str, new: str, message: str) -> None:
    assert parse_yaml(WORKLOAD, Workload, name="w.yaml").threat_model.unit == "characters"
    assert old in WORKLOAD
    with pytest.raises(WorkloadError, match=message):
        parse_yaml(WORKLOAD.replace(old, new, 1), Workload, name="w.yaml")
