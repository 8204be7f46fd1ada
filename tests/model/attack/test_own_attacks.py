"""A user's own attacks count like the built-in ones, and are held to the threat model."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.artifacts.documents import Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.errors import ModelError, WorkloadError
from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import pgd_plan
from holdfast.model.attack.losses import cross_entropy
from holdfast.model.attack.own import own_plan
from holdfast.model.attack.step import attack
from holdfast.model.attack.suite import measure, survivors
from holdfast.workload.schema import AttackConfig
from holdfast.workload.yaml import parse_yaml

HERE = Path(__file__).parent / "own"
DOCS = Path(__file__).parents[3] / "docs" / "attacks.md"
Scene = tuple[nn.Module, torch.Tensor, torch.Tensor, Ball]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


def test_a_published_attack_breaks_as_many_examples_as_pgd(scene: Scene) -> None:
    net, x, y, ball = scene
    theirs = survivors(net, x, y, ball, own_plan("own_attacks:momentum"), seed=0)
    ours = survivors(net, x, y, ball, pgd_plan("pgd", 20, 1, cross_entropy), seed=0)
    assert abs(int(theirs.sum()) - int(ours.sum())) <= 0.03 * len(y)
    idle = survivors(net, x, y, ball, own_plan("own_attacks:idle"), seed=0)
    assert int(idle.sum()) > int(theirs.sum()), "what moves nothing breaks nothing"


def test_the_report_counts_it_among_the_attacks_with_the_digest_of_its_code(
    plain: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    config = AttackConfig(examples=60, second_opinion=False, own=("own_attacks:idle", "own_attacks:momentum"))
    made = attack(
        Ref(plain.folder),
        Ref(digits.folder),
        tmp_path / "r",
        config=config,
        baseline=None,
        settings=Compute(seed=0, device="cpu", threads=1),
    )
    *_, idle, momentum = made.document.attacks
    digest = hashlib.sha256((HERE / "own_attacks.py").read_bytes()).hexdigest()
    assert (idle.name, momentum.name) == ("own_attacks:idle", "own_attacks:momentum")
    assert momentum.library == f"own code, sha256 {digest}"
    assert momentum.cumulative
    assert momentum.survived.k <= idle.survived.k
    assert made.document.worst_case == momentum.survived
    with np.load(made.open("flags.npz")) as flags:
        assert flags["own_attacks:momentum"][: momentum.survived.n].sum() == momentum.survived.k


def test_an_attack_that_is_stronger_than_the_others_lowers_the_worst_case(scene: Scene) -> None:
    net, x, y, ball = scene
    weak = pgd_plan("one-step", 1, 1, cross_entropy)
    alone = measure(net, x, y, ball, [weak], seed=0)
    both = measure(net, x, y, ball, [weak, own_plan("own_attacks:momentum")], seed=0)
    assert int(both.worst.sum()) < int(alone.worst.sum())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_far", r"expected examples in the linf ball of epsilon 0.1, found \d+ of 200 outside; return ball.settle"),
        ("nan", "found 200 of 200 outside"),
        ("short", r"expected adversarial examples torch.float32\[200, 1, 8, 8\], found torch.float32\[1, 1, 8, 8\]"),
        ("nothing", "expected adversarial examples .* found NoneType"),
    ],
)
def test_an_attack_that_leaves_the_threat_model_is_refused_in_one_line(scene: Scene, name: str, message: str) -> None:
    net, x, y, ball = scene
    with pytest.raises(ModelError, match=f"attack 'own_attacks:{name}': .*{message}|{message}") as refused:
        survivors(net, x, y, ball, own_plan(f"own_attacks:{name}"), seed=0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:walk", "attack 'no_such_module:walk': expected an importable module:function"),
        ("own_attacks:absent", "attack 'own_attacks:absent': expected an importable module:function"),
        ("math:pi", "attack 'math:pi': expected a function, found float"),
        (
            "own_attacks:needy",
            "expected parameters among net, x, y, ball, .* missing a required argument: 'temperature'",
        ),
        ("builtins:max", "expected parameters among net, x, y, ball, .*max"),
    ],
)
def test_a_name_that_is_no_attack_is_refused_before_anything_is_attacked(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        own_plan(name)


def test_an_attack_works_on_copies_and_a_mistake_of_its_own_keeps_its_traceback(scene: Scene) -> None:
    net, x, y, ball = scene
    before = x.clone(), y.clone()
    survivors(net, x, y, ball, own_plan("own_attacks:spoils"), seed=0)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    with pytest.raises(KeyError, match="a mistake in the user's code"):
        survivors(net, x, y, ball, own_plan("own_attacks:broken"), seed=0)


def test_the_example_of_the_documentation_attacks(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(def walk.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "my_attacks.py").write_text(f"import torch\n\n\n{code}")
    monkeypatch.syspath_prepend(tmp_path)
    net, x, y, ball = scene
    walked = survivors(net, x, y, ball, own_plan("my_attacks:walk"), seed=0)
    assert int(walked.sum()) < int((net(x).argmax(1) == y).sum()) - 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own: [momentum]", "own"),
        ("own: ['os:system()']", "own"),
        ("own: ['a:b', 'a:b']", "expected each attack once"),
    ],
)
def test_a_workload_names_functions_each_once(text: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=f"w.yaml:1: .*{message}"):
        parse_yaml(text, AttackConfig, name="w.yaml")
