import numpy as np
import pytest
from scipy.stats import ks_2samp

from holdfast.data.drift.confidence import compare, p_lower


def beta(a: float, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(a, 2, n)


def test_the_p_value_is_close_to_scipys_and_not_smaller() -> None:
    for seed in range(20):
        reference, current = beta(8, 400, seed), beta(7, 300, seed + 100)
        exact = ks_2samp(current, reference, alternative="greater", method="exact").pvalue
        assert exact <= p_lower(reference, current) <= max(2 * exact, exact + 0.1)


def test_a_champion_that_is_less_sure_is_drift() -> None:
    found = compare(beta(9, 500, 0), beta(4, 500, 1), alpha=0.01)
    assert found.drifted
    assert found.reference_mean - found.current_mean == pytest.approx(9 / 11 - 4 / 6, abs=0.03)


def test_a_champion_that_is_surer_is_none() -> None:
    assert not compare(beta(4, 500, 0), beta(9, 500, 1), alpha=0.01).drifted


def test_a_fall_too_small_to_matter_is_none() -> None:
    reference = beta(9, 50_000, 0)
    found = compare(reference, reference - 0.02, alpha=0.01)
    assert found.statistic < 1e-10
    assert not found.drifted


def test_clean_splits_are_quiet() -> None:
    assert not any(compare(beta(6, 300, seed), beta(6, 900, seed + 50), alpha=0.01).drifted for seed in range(50))
