"""Rows that an attacker can really deliver: budgets, directions, whole numbers and categories."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from holdfast.artifacts.documents import Feature, FeatureThreat, InputSpec, Norm, ThreatModel
from holdfast.errors import WorkloadError
from holdfast.modality.ball import Ball
from holdfast.model.attack.kinds import plans
from holdfast.model.networks import build
from holdfast.workload.schema import NetworkConfig

COLOURS = tuple(
    Feature(name=f"colour={c}", lower=0, upper=1, mean=0.3, scale=0.46, mutable=False, column="colour") for c in "rgb"
)
TABLE = InputSpec(
    modality="tabular",
    shape=(7,),
    dtype="float32",
    features=(
        Feature(name="amount", lower=0, upper=5000, mean=900, scale=700),
        Feature(name="visits", lower=0, upper=40, mean=10, scale=5, integer=True),
        Feature(name="age", lower=18, upper=90, mean=40, scale=12, integer=True, mutable=False),
        *COLOURS,
        Feature(name="free", lower=-3, upper=3, mean=0, scale=1),
    ),
)
RULES = (
    FeatureThreat(name="amount", budget="250", direction="up"),
    FeatureThreat(name="visits", budget="3", direction="down"),
    FeatureThreat(name="colour", choose=True),
)


def ball(norm: Norm = "linf", rules: tuple[FeatureThreat, ...] = RULES) -> Ball:
    return Ball.of(ThreatModel(norm=norm, epsilon="1/2", unit="any", features=rules), TABLE, "cpu")


def rows(seed: int, count: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 7, generator=generator) * torch.tensor([5000.0, 40, 72, 0, 0, 0, 6])
    x[:, 1:3] = x[:, 1:3].round() + torch.tensor([0.0, 18])
    x[torch.arange(count), 3 + torch.randint(3, (count,), generator=generator)] = 1
    x[:, 6] -= 3
    return x


def feasible(moved: Tensor, x: Tensor) -> bool:
    """Read off the rules, without the code under test."""
    delta = moved.double() - x.double()
    amount, visits, free = delta[:, 0], delta[:, 1], delta[:, 6]
    colour = moved[:, 3:6]
    return bool(
        ((amount >= -1e-2) & (amount <= 250.05) & (moved[:, 0] <= 5000.01)).all()
        and ((visits <= 0) & (visits >= -3) & (visits == visits.round()) & (moved[:, 1] >= 0)).all()
        and (delta[:, 2] == 0).all()
        and (((colour == 0) | (colour == 1)).all(1) & (colour.sum(1) == 1)).all()
        and (free.abs() <= 0.5001).all()
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), tier=st.sampled_from(["pr", "nightly", "release"]), data=st.data())
def test_no_attack_ever_leaves_the_feasible_rows(seed: int, tier: str, data: st.DataObject) -> None:
    net = build(NetworkConfig(architecture="mlp"), TABLE, 4, seed=seed).eval()
    x = rows(seed)
    with torch.no_grad():
        y = net(x).argmax(1)
    plan = data.draw(st.sampled_from(plans(tier, "linf", 4, embedding=False)))  # type: ignore[arg-type]
    moved = plan.run(net, x, y, ball(), torch.Generator().manual_seed(seed))
    assert feasible(moved, x)
    assert ball().contains(moved, x).all()


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, -1.0), (0, 251.0), (1, 1.0), (1, -4.0), (1, -0.5), (2, 1.0), (3, 0.5), (6, 0.6)],
)
def test_each_broken_rule_is_outside(column: int, value: float) -> None:
    x = torch.tensor([[1000.0, 10, 40, 0, 1, 0, 0]])
    moved = x.clone()
    moved[0, column] += value
    assert not ball().contains(moved, x).any()


def test_two_categories_at_once_are_outside_and_another_one_is_inside() -> None:
    x = torch.tensor([[1000.0, 10, 40, 0, 1, 0, 0]])
    both, other = x.clone(), x.clone()
    both[0, 3] = 1
    other[0, 3:5] = torch.tensor([1.0, 0])
    assert ball().contains(torch.cat([both, other]), x.expand(2, 7)).tolist() == [False, True]


def test_in_l2_whole_numbers_are_rounded_towards_the_row() -> None:
    here = ball("l2", (FeatureThreat(name="visits", budget="3"),))
    x = rows(0, 200)
    moved = here.settle(here.project(x + 3 * torch.randn(200, 7), x), x)
    assert (moved[:, 1] == moved[:, 1].round()).all()
    assert (here.distance(moved, x) <= 0.5 + 1e-5).all()


def test_an_attack_that_may_choose_a_category_finds_the_one_that_decides() -> None:
    class Redness(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([2 * x[:, 3] - 1, 1 - 2 * x[:, 3]], dim=1)

    x, y = torch.tensor([[1000.0, 10, 40, 0, 1, 0, 0]]), torch.tensor([1])
    for plan in plans("pr", "linf", 2, embedding=False)[1:2]:
        moved = plan.run(Redness(), x, y, ball(), torch.Generator().manual_seed(0))
        assert moved[0, 3:6].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (FeatureThreat(name="amuont"), "expected one of .'age', 'amount', .*, found 'amuont'"),
        (FeatureThreat(name="colour", budget="1"), "colour: expected a category with choose: true alone"),
        (FeatureThreat(name="amount", choose=True), "amount: expected a number with budget and direction"),
        (FeatureThreat(name="age", budget="1"), "age: expected a column that can change, found an immutable one"),
    ],
)
def test_a_rule_that_does_not_fit_the_data_is_refused(rule: FeatureThreat, found: str) -> None:
    with pytest.raises(WorkloadError, match=found):
        ball(rules=(rule,))
