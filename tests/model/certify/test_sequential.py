import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, norm
from torch import Tensor, nn

from holdfast.modality.text import encode_text
from holdfast.model.certify.ablation import ablation_threshold, kept, touched
from holdfast.model.certify.sequential import (
    Boundary,
    boundary,
    certify_table,
    gaussian_threshold,
    looks,
    table,
)
from holdfast.model.certify.smoothing import Sampling, gaussian
from holdfast.statistics import lower_bound

SIGMA, RADIUS, ALPHA, MOST = 0.25, 0.5, 0.001, 10_000
P0 = norm.cdf(RADIUS / SIGMA)
FIXED = next(k for k in range(MOST) if lower_bound(k, MOST, ALPHA) > P0)
"""The fewest of 10,000 agreeing samples that Clopper and Pearson's bound certifies."""
ONE = torch.tensor(1.0)


def decided(
    test: Boundary, at: NDArray[np.int64], p: float, streams: int, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """bool[streams] whether a stream of rate p is certified, and how many samples it took."""
    rng = np.random.default_rng(seed)
    agreeing, certified = np.zeros(streams, dtype=np.int64), np.zeros(streams, dtype=bool)
    used, active = np.zeros(streams, dtype=np.int64), np.ones(streams, dtype=bool)
    for j, (before, n) in enumerate(zip([0, *at], at, strict=False)):
        agreeing += rng.binomial(n - before, p, streams)
        used[active] = n
        certified |= active & (agreeing >= test.certify[j])
        active &= ~certified & (agreeing > test.give_up[j])
    return certified, used


@pytest.mark.parametrize("p", [P0, P0 - 0.0005])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_wrong_certificates_are_as_rare_as_alpha_in_simulation(p: float, alpha: float) -> None:
    # 20,000 streams whose rate is exactly, or just below, what must be exceeded.
    wrong, _ = decided(boundary(P0, alpha, MOST), looks(MOST), p, 20_000, seed=0)
    assert binomtest(int(wrong.sum()), 20_000, alpha, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize(("p0", "alpha", "n"), [(0.5, 0.2, 18), (0.3, 0.1, 18), (0.8, 0.3, 18)])
def test_the_chance_of_error_is_what_counting_all_streams_says(p0: float, alpha: float, n: int) -> None:
    # Brute force: every sequence of 0 and 1, weighted by its probability; giving up left aside.
    test, at = boundary(p0, alpha, n), looks(n)
    streams = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    sums = streams.cumsum(axis=1)
    certified = (sums[:, at - 1] >= test.certify).any(axis=1)
    total = float((p0 ** sums[:, -1] * (1 - p0) ** (n - sums[:, -1]))[certified].sum())
    assert test.error == pytest.approx(total, rel=1e-9)
    assert total <= alpha


@pytest.mark.parametrize("p0", [0.5, 0.655, 0.841, P0, 0.9987])
@pytest.mark.parametrize("n", [50, 1000, MOST])
def test_no_more_than_alpha_is_spent(p0: float, n: int) -> None:
    test = boundary(p0, ALPHA, n)
    assert 0 <= test.error <= ALPHA
    assert len(test.certify) == len(test.give_up) == len(looks(n))
    assert looks(n)[-1] == n


def test_certain_examples_take_few_samples_and_hopeless_ones_fewer() -> None:
    # All samples agree: log(alpha) / log(p0) = 300 of them prove it to a test that looks only there.
    test, at = boundary(P0, ALPHA, MOST), looks(MOST)
    sure = at[test.certify <= at][0]
    assert np.log(ALPHA) / np.log(P0) < sure < 1.6 * np.log(ALPHA) / np.log(P0)
    assert decided(test, at, 0.8, 1000, seed=0)[1].mean() < 60


@pytest.mark.parametrize("p", [0.5, 0.95, 0.97, 0.975, 0.986, 0.99, 1.0])
def test_decisions_are_those_of_ten_thousand_samples(p: float) -> None:
    certified, used = decided(boundary(P0, ALPHA, MOST), looks(MOST), p, 4000, seed=1)
    assert certified.mean() == pytest.approx(binom.sf(FIXED - 1, MOST, p), abs=0.01)
    assert used.mean() < MOST / 2


def test_the_last_look_asks_for_hardly_more_than_the_fixed_bound() -> None:
    assert FIXED <= boundary(P0, ALPHA, MOST).certify[-1] <= FIXED + 10


@pytest.mark.parametrize(("p0", "n"), [(1.5, 1000), (1.0, 50), (P0, 200)])
def test_what_cannot_be_proven_is_given_up_at_once(p0: float, n: int) -> None:
    # 200 samples that all agree prove no more than 0.001^(1/200) = 0.966.
    test = boundary(p0, ALPHA, n)
    assert (test.certify > looks(n)).all()
    assert (test.give_up >= looks(n)).all()


class Halfspace(nn.Module):
    """Answers 1 where x > 0: the smoothed radius is the distance to 0 (Cohen et al. 2019, section 3.2)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-x, x], dim=1)


def test_a_table_of_radii_certifies_the_largest_below_the_margin() -> None:
    x, radii = torch.tensor([[0.06], [0.2], [0.4], [0.7], [-0.4]]), (0.1, 0.25, 0.5)
    sampling = Sampling(n0=100, n=MOST, alpha=ALPHA)
    tests = table(gaussian_threshold(SIGMA), radii, sampling)
    draw = gaussian(SIGMA, ONE, torch.Generator().manual_seed(0))
    found = certify_table(Halfspace(), x, draw=draw, table_of=lambda _: tests, sampling=sampling)
    assert [one.radius for one in found] == [0.0, 0.1, 0.25, 0.5, 0.25]
    assert [one.label for one in found] == [1, 1, 1, 1, 0]
    assert all(one.forwards <= 4000 for one in found)


def test_a_wrong_radius_of_a_table_is_as_rare_as_alpha() -> None:
    # p lies exactly at radius 0.25 of the table: to certify 0.25 or 0.5 is wrong. alpha 0.05, 3,000 examples.
    alpha, sampling = 0.05, Sampling(n0=10, n=400, alpha=0.05, batch=10_000)
    tests = table(gaussian_threshold(SIGMA), (0.1, 0.25, 0.5), sampling)
    draw = gaussian(SIGMA, ONE, torch.Generator().manual_seed(1))
    x = torch.full((3000, 1), 0.25)
    found = certify_table(Halfspace(), x, draw=draw, table_of=lambda _: tests, sampling=sampling)
    # Sixteen examples share their noise, so the count varies more than a binomial: its mean is what is bounded.
    groups = np.array([one.radius >= 0.25 for one in found]).reshape(-1, 15).mean(axis=1)
    assert groups.mean() <= alpha + 4 * groups.std() / np.sqrt(len(groups))


def test_ablation_asks_for_a_half_and_the_chance_to_be_touched() -> None:
    # Levine and Feizi 2020: p - Delta(r) > 1/2.
    ids = torch.from_numpy(encode_text(["x" * 50], 64))[0]
    assert ablation_threshold(0.2, ids)(3) == pytest.approx(0.5 + touched(50, kept(0.2, 50), 3))


def test_equal_seeds_give_equal_decisions() -> None:
    sampling = Sampling(n0=20, n=300, alpha=0.01)
    tests = table(gaussian_threshold(SIGMA), (0.1, 0.25), sampling)

    def once() -> list[object]:
        draw = gaussian(SIGMA, ONE, torch.Generator().manual_seed(5))
        x = torch.linspace(-0.3, 0.3, 40)[:, None]
        return list(certify_table(Halfspace(), x, draw=draw, table_of=lambda _: tests, sampling=sampling))

    assert once() == once()
