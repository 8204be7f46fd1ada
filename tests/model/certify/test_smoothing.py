import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from holdfast.errors import ModelError
from holdfast.model.certify.smoothing import (
    ABSTAIN,
    Certified,
    Sampling,
    answers,
    certify,
    certify_all,
    gaussian,
    gaussian_radius,
    largest_radius,
)

SIGMA = 0.5
ONE = torch.tensor(1.0)


class Halfspace(nn.Module):
    """Answers 1 where w.x + b > 0: the network whose smoothed radius is known in closed form."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w + self.b
        return torch.stack([-score, score], dim=1)


def smoothed(net: nn.Module, x: Tensor, n: int, seed: int, alpha: float = 0.001) -> Certified:
    generator = torch.Generator().manual_seed(seed)
    draw, radius_of = gaussian(SIGMA, ONE, generator), gaussian_radius(SIGMA)
    return certify(net, x, draw=draw, radius_of=radius_of, sampling=Sampling(n0=100, n=n, alpha=alpha))


def test_the_radius_of_a_halfspace_is_below_its_margin_and_close_to_it() -> None:
    # Cohen et al. 2019, section 3.2: for a linear classifier the radius is the distance to the boundary, exactly.
    w, b = torch.tensor([3.0, 4.0]), -1.0
    x = torch.tensor([1.0, 0.4])
    margin = float((x @ w + b) / w.norm())
    found = smoothed(Halfspace(w, b), x, 20_000, seed=0)
    assert found.label == 1
    assert margin - 0.05 < found.radius <= margin


def test_the_bound_is_scipys() -> None:
    expected = SIGMA * norm.ppf(binomtest(990, 1000).proportion_ci(0.998, "exact").low)
    from holdfast.statistics import lower_bound

    assert gaussian_radius(SIGMA)(lower_bound(990, 1000, 0.001)) == pytest.approx(expected, rel=1e-9)


def test_no_clear_winner_is_an_abstention_not_a_radius_of_zero() -> None:
    found = smoothed(Halfspace(torch.tensor([1.0]), 0.0), torch.tensor([0.0]), 500, seed=0)
    assert found.abstained
    assert found.radius == ABSTAIN < 0


def test_a_certified_radius_is_wrong_at_most_as_often_as_alpha() -> None:
    # A point at distance 0.3 from the boundary: a radius above 0.3 is wrong. alpha 0.05, 400 independent tries.
    alpha, tries = 0.05, 400
    net, x = Halfspace(torch.tensor([1.0]), 0.0), torch.tensor([0.3])
    wrong = sum(smoothed(net, x, 200, seed, alpha).radius > 0.3 for seed in range(tries))
    assert binomtest(wrong, tries, alpha, alternative="greater").pvalue > 0.001


def test_immutable_entries_get_no_noise() -> None:
    draw = gaussian(SIGMA, torch.tensor([1.0, 0.0]), torch.Generator().manual_seed(0))
    copies = draw(torch.tensor([[2.0, 3.0]]), 100)[0]
    assert (copies[:, 1] == 3.0).all()
    assert float(copies[:, 0].std()) == pytest.approx(SIGMA, rel=0.2)


def test_batches_do_not_change_how_many_samples_are_drawn() -> None:
    net, x = Halfspace(torch.tensor([1.0]), 0.0), torch.tensor([0.1])
    for n, batch in ((7, 3), (6, 3), (1, 1000)):
        draw = gaussian(SIGMA, ONE, torch.Generator().manual_seed(0))
        found = answers(net, x.expand(20, 1), n, draw=draw, batch=batch)
        assert found.shape == (20, n)
        assert set(found.flatten().tolist()) <= {0, 1}


class Crowded(nn.Module):
    """Takes no more than so many rows at a time, and answers for each whether its value is above 0."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError
        return torch.cat([-x, x], dim=1)


def test_copies_that_do_not_fit_the_memory_are_drawn_in_smaller_parts() -> None:
    x = torch.tensor([[1.0], [-1.0], [1.0]])
    draw = gaussian(0.01, ONE, torch.Generator().manual_seed(0))
    found = answers(Crowded(9), x, 50, draw=draw, batch=64)
    assert found.tolist() == [[1] * 50, [0] * 50, [1] * 50]
    with pytest.raises(ModelError, match="expected memory for one copy of each example"):
        answers(Crowded(2), x, 50, draw=draw, batch=64)


def test_the_largest_provable_radius_is_the_papers() -> None:
    # alpha^(1/n) is the Clopper-Pearson bound when all n samples agree.
    sampling = Sampling(n0=100, n=10_000, alpha=0.001)
    assert largest_radius(1.0, sampling) == pytest.approx(norm.ppf(0.001 ** (1 / 10_000)), rel=1e-9)


def test_equal_seeds_give_equal_radii() -> None:
    net, x = Halfspace(torch.tensor([1.0]), 0.0), torch.tensor([0.3])
    assert smoothed(net, x, 300, seed=7) == smoothed(net, x, 300, seed=7)
    radii = {smoothed(net, x, 300, seed).radius for seed in range(5)}
    assert len(radii) > 1
    assert np.isfinite(list(radii)).all()


def test_examples_certified_side_by_side_each_get_their_own_radius() -> None:
    # Halfspace: the radius is at most the distance to the boundary, and close to it.
    net, x = Halfspace(torch.tensor([1.0]), 0.0), torch.tensor([[0.3], [0.6], [0.9]])
    draw, radius_of = gaussian(SIGMA, ONE, torch.Generator().manual_seed(0)), gaussian_radius(SIGMA)
    found = certify_all(
        net, x, draw=draw, radius_of=lambda _: radius_of, sampling=Sampling(n0=100, n=5000, alpha=0.001)
    )
    for margin, one in zip(x[:, 0].tolist(), found, strict=True):
        assert margin - 0.1 < one.radius <= margin
        assert one.forwards == 5100


def test_copies_of_one_example_are_independent_of_each_other() -> None:
    copies = gaussian(SIGMA, ONE, torch.Generator().manual_seed(0))(torch.zeros(2, 3), 20_000)
    correlation = np.corrcoef(copies[0].T.numpy())
    assert np.abs(correlation - np.eye(3)).max() < 0.03
    assert copies[0].unique(dim=0).shape == (20_000, 3)
