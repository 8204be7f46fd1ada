import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.artifacts.documents import Column, Feature, InputSpec, Norm, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.modality.text import PAD

IMAGE = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
TABLE = InputSpec(
    modality="tabular",
    shape=(3,),
    dtype="float32",
    features=(
        Feature(name="wide", lower=-1000, upper=2500, mean=600, scale=350),
        Feature(name="narrow", lower=0, upper=1, mean=0.5, scale=0.01),
        Feature(name="fixed", lower=0, upper=1, mean=0.5, scale=0.5, mutable=False),
    ),
    columns=(Column(name="wide", kind="number"),),
)
TEXT = InputSpec(modality="text", shape=(12,), dtype="int64")


def ball(norm: Norm, epsilon: str, spec: InputSpec) -> Ball:
    return Ball.of(ThreatModel(norm=norm, epsilon=epsilon, unit="any"), spec, "cpu")


def inputs(spec: InputSpec, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if spec is TEXT:
        ids = torch.randint(34, 120, (4, 12), generator=generator)
        ids[:, 7:] = PAD
        return ids
    x = torch.rand(4, *spec.shape, generator=generator)
    return x * torch.tensor([3000.0, 1.2, 1.0]) if spec is TABLE else x


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    case=st.sampled_from([("linf", IMAGE), ("l2", IMAGE), ("linf", TABLE), ("l2", TABLE), ("edits", TEXT)]),
    epsilon=st.sampled_from(["1/100", "1/10", "1", "3"]),
)
def test_starts_and_projections_lie_in_the_ball(seed: int, case: tuple[Norm, InputSpec], epsilon: str) -> None:
    norm, spec = case
    here, x = ball(norm, epsilon, spec), inputs(spec, seed)
    start = here.random_start(x, torch.Generator().manual_seed(seed))
    far = here.project(inputs(spec, seed + 1), x)
    assert here.contains(start, x).all()
    assert here.contains(far, x).all()
    # Measured without the code under test: in units of scale, mutable entries only.
    if norm != "edits":
        moved = ((far - x) / here.scale).flatten(1).double()
        size = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
        assert (size <= here.epsilon * 1.001 + 1e-3).all()


def test_immutable_features_stay() -> None:
    here, x = ball("linf", "2", TABLE), inputs(TABLE, 0)
    start = here.random_start(x, torch.Generator().manual_seed(0))
    assert torch.equal(start[:, 2], x[:, 2])
    touched = x.clone()
    touched[0, 2] += 0.1
    assert here.contains(touched, x).tolist() == [False, True, True, True]


def test_a_point_beyond_epsilon_is_outside() -> None:
    here, x = ball("linf", "1/10", IMAGE), torch.full((1, 1, 8, 8), 0.5)
    moved = x.clone()
    moved[0, 0, 3, 3] += 0.11
    assert not here.contains(moved, x).any()


def test_a_point_beyond_the_limits_is_outside() -> None:
    here, x = ball("linf", "1/10", IMAGE), torch.full((1, 1, 8, 8), 0.95)
    assert not here.contains(x + 0.08, x).any()
    assert here.project(x + 0.08, x).max() == 1.0


def test_a_held_out_value_beyond_the_training_limits_stays_where_it_is() -> None:
    here, x = ball("linf", "1/100", TABLE), torch.tensor([[5000.0, 1.3, 1.0]])
    assert torch.equal(here.project(x, x), x)
    assert here.contains(x, x).all()


def test_one_edit_too_many_is_outside_and_projected_back() -> None:
    here, x = ball("edits", "2", TEXT), inputs(TEXT, 0)
    moved = x.clone()
    moved[0, :3] = 60 + (x[0, :3] == 60).long()
    assert not here.contains(moved, x)[0]
    assert (here.project(moved, x) != x).sum(1).tolist() == [2, 0, 0, 0]


def test_nobody_writes_into_the_padding() -> None:
    here, x = ball("edits", "2", TEXT), inputs(TEXT, 0)
    moved = x.clone()
    moved[:, 11] = 60
    assert not here.contains(moved, x).any()


def test_an_l2_step_has_the_asked_length_in_units_of_scale() -> None:
    here, x = ball("l2", "1", TABLE), inputs(TABLE, 0)
    moved = here.ascend(x, torch.ones_like(x), 0.25)
    assert ((moved - x) / here.scale).norm(dim=1).numpy() == pytest.approx([0.25] * 4, rel=1e-3)
