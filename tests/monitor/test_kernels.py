"""Against closed forms of the Gaussian kernel, and planted changes."""

import numpy as np
import pytest

from holdfast.monitor.kernels import Distance, Features, scores

KINDS: tuple[Distance, ...] = ("mmd", "lsdd")


def correlated(rng: np.random.Generator, rho: float, rows: int = 300) -> np.ndarray:
    one, two = rng.normal(size=rows), rng.normal(size=rows)
    return np.stack([one, rho * one + np.sqrt(1 - rho**2) * two], axis=1)


def last_ranks(kind: Distance, rho: float) -> list[int]:
    rng = np.random.default_rng(1)
    features = Features.of(kind, correlated(rng, 0.0, 2000), 0)
    windows = [correlated(rng, 0.0) for _ in range(60)] + [correlated(rng, rho)]
    found = scores(np.stack([features.mean(w) for w in windows]), np.array([len(w) for w in windows]), features)
    return (found >= found[-1]).sum(axis=0).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_correlation_that_no_single_column_shows_is_found(kind: Distance) -> None:
    assert last_ranks(kind, rho=0.8) == [1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_like_the_others_is_not(kind: Distance) -> None:
    assert min(last_ranks(kind, rho=0.0)) > 3


def test_the_mmd_of_two_points_is_that_of_the_gaussian_kernel() -> None:
    # MMD^2 of two points is 2 - 2 k(x, y), k(x, y) = exp(-|x - y|^2 / 2 s^2); 64 features give it roughly.
    training = np.random.default_rng(0).normal(size=(500, 2))
    distances = []
    for seed in range(200):
        features = Features.of("mmd", training, seed)
        apart = features.mean(np.array([[0.0, 0.0]])) - features.mean(np.array([[1.0, 1.0]]))
        distances.append((apart @ features.form @ apart) - (2 - 2 * np.exp(-1 / features.scale**2)))
    assert np.mean(distances) == pytest.approx(0, abs=0.05)


def test_the_lsdd_grows_with_the_distance_of_the_densities() -> None:
    rng = np.random.default_rng(0)
    features = Features.of("lsdd", rng.normal(size=(2000, 2)), 0)
    base = features.mean(rng.normal(size=(4000, 2)))
    found = []
    for shift in (0.0, 0.3, 0.6, 1.2):
        apart = features.mean(rng.normal(shift, 1, (4000, 2))) - base
        found.append(float(apart @ features.form @ apart))
    assert found == sorted(found)
    assert found[0] < 0.1 * found[1]


def test_harmless_wobble_hides_less_in_units_of_the_wobble() -> None:
    # The first direction wobbles in every window; a small shift of the second is found only where that is learned.
    rng = np.random.default_rng(3)
    features = Features.of("mmd", rng.normal(size=(2000, 2)), 0)
    windows = [rng.normal(size=(400, 2)) + [rng.normal(0, 0.5), 0.0] for _ in range(150)]
    windows.append(rng.normal(size=(400, 2)) + [0.0, 0.3])
    found = scores(np.stack([features.mean(w) for w in windows]), np.full(len(windows), 400), features)
    plain, whitened = (found >= found[-1]).sum(axis=0)
    assert whitened <= 5
    assert plain > 50
