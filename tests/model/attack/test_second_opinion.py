import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holdfast.artifacts.documents import Feature, FeatureThreat, InputSpec, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import pgd_plan
from holdfast.model.attack.losses import cross_entropy
from holdfast.model.attack.suite import survivors
from holdfast.model.networks import build
from holdfast.workload.schema import NetworkConfig

pytest.importorskip("art.attacks.evasion")

from holdfast.model.attack.art import Feasible, library, second_opinion  # noqa: E402

Scene = tuple[nn.Module, Tensor, Tensor, Ball]


def both(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> tuple[int, int]:
    """Survivors of 20 steps with 2 restarts: ours, the toolbox's."""
    ours = survivors(net, x, y, ball, pgd_plan("pgd", 20, 2, cross_entropy), seed=0)
    theirs = second_opinion(net, x, y, ball, classes=net(x).shape[1], steps=20, restarts=2, seed=0)
    return int(ours.sum()), int(theirs.sum())


def test_our_pgd_and_the_toolbox_agree_within_two_points(scene: Scene) -> None:
    ours, theirs = both(*scene)
    assert 100 < ours < 195
    assert abs(ours - theirs) <= 0.02 * 200


def test_they_agree_in_l2_too(scene: Scene) -> None:
    net, x, y, ball = scene
    wide = Ball.of(ThreatModel(norm="l2", epsilon="1/2", unit="any"), _image(), "cpu")
    ours, theirs = both(net, x, y, wide)
    assert abs(ours - theirs) <= 0.02 * 200


def test_they_agree_on_a_table_with_scales_and_an_immutable_feature() -> None:
    features = tuple(Feature(name=f"f{i}", lower=-9e3, upper=9e3, scale=10.0**i, mutable=i != 1) for i in range(4))
    spec = InputSpec(modality="tabular", shape=(4,), dtype="float32", features=features)
    net = build(NetworkConfig(architecture="mlp"), spec, 3, seed=0).eval()
    x = torch.randn(150, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([f.scale for f in features])
    with torch.no_grad():
        y = net(x).argmax(1)
    ball = Ball.of(ThreatModel(norm="linf", epsilon="1/5", unit="any"), spec, "cpu")
    ours, theirs = both(net, x, y, ball)
    assert 10 < ours < 140
    assert abs(ours - theirs) <= 3


@pytest.fixture
def whole_table() -> Scene:
    """Whole numbers that an attacker only lowers, one frozen, and a category that he chooses; epsilon is two steps."""
    colours = tuple(
        Feature(name=f"colour={c}", lower=0, upper=1, mean=0.3, scale=0.46, mutable=False, column="colour")
        for c in "rgb"
    )
    visits = Feature(name="visits", lower=0, upper=20, mean=10, scale=4, integer=True)
    age = Feature(name="age", lower=18, upper=90, mean=50, scale=20, integer=True, mutable=False)
    spec = InputSpec(modality="tabular", shape=(5,), dtype="float32", features=(visits, age, *colours))
    rules = (FeatureThreat(name="visits", direction="down"), FeatureThreat(name="colour", choose=True))
    generator = torch.Generator().manual_seed(0)
    numbers = torch.stack([torch.randint(2, 19, (150,), generator=generator) for _ in range(2)], dim=1) * torch.tensor(
        [1, 4]
    )
    colour = torch.nn.functional.one_hot(torch.randint(3, (150,), generator=generator), 3)
    x = torch.cat([numbers, colour], dim=1).float()
    net = build(NetworkConfig(architecture="mlp"), spec, 3, seed=1).eval()
    threat = ThreatModel(norm="linf", epsilon="1/2", unit="any", features=rules)
    with torch.no_grad():
        return net, x, net(x).argmax(1), Ball.of(threat, spec, "cpu")


def test_they_agree_on_whole_numbers_directions_and_categories(whole_table: Scene) -> None:
    ours, theirs = both(*whole_table)
    assert 20 < ours < 140
    assert abs(ours - theirs) <= 3


def test_the_toolbox_sees_only_rows_that_exist(whole_table: Scene) -> None:
    net, x, y, ball = whole_table
    seen: list[Tensor] = []

    def watched(rows: Tensor) -> Tensor:
        seen.append(rows.detach())
        return net(rows)

    second_opinion(watched, x, y, ball, classes=3, steps=4, restarts=2, seed=0)
    asked = [rows for rows in seen if len(rows) == len(x)]
    assert len(asked) > 8
    assert all(bool(ball.contains(rows, x).all()) for rows in asked)
    assert all(bool((rows == rows.round()).all()) for rows in asked)


def test_a_network_that_answers_for_the_nearest_row_refuses_other_rows(whole_table: Scene) -> None:
    net, x, y, ball = whole_table
    with pytest.raises(RuntimeError, match="expected all 150 points at once, found 2"):
        Feasible(net, x, y, ball)(x[:2])


def test_the_same_seed_gives_the_same_opinion_and_leaves_numpy_alone(scene: Scene) -> None:
    net, x, y, ball = scene
    np.random.seed(11)  # the global generator is what the toolbox draws from
    before = np.random.get_state()[1].tolist()
    one, two = (second_opinion(net, x, y, ball, classes=10, steps=3, restarts=1, seed=4) for _ in range(2))
    assert torch.equal(one, two)
    assert np.random.get_state()[1].tolist() == before


def test_the_library_is_named_with_its_version() -> None:
    assert library().startswith("adversarial-robustness-toolbox 1.20")


def _image() -> InputSpec:
    return InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")


def test_a_network_of_the_users_own_that_was_exported_is_asked_too(scene: Scene) -> None:
    net, x, y, ball = scene
    batch = torch.export.Dim("batch")
    exported = torch.export.export(net, (x[:2],), dynamic_shapes=({0: batch},)).module()
    theirs = second_opinion(exported, x, y, ball, classes=10, steps=3, restarts=1, seed=4)
    assert torch.equal(theirs, second_opinion(net, x, y, ball, classes=10, steps=3, restarts=1, seed=4))
