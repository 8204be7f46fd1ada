import numpy as np
import pytest

from holdfast.monitor.shapes import change


def series(kind: str, seed: int, after: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    stable, noise = 60, rng.normal(0, 1, 60 + after)
    curve = np.full(after, 6.0) if kind == "sudden" else np.linspace(0, 12, after)
    return noise + np.concatenate([np.zeros(stable), curve])


@pytest.mark.parametrize("kind", ["sudden", "gradual"])
def test_the_kind_of_change_is_told_from_its_curve(kind: str) -> None:
    found = [change(series(kind, seed), least=30) for seed in range(20)]
    assert [one.shape for one in found].count(kind) >= 19
    assert np.median([abs(one.began - 60) for one in found]) <= 5


def test_two_windows_are_called_sudden_when_they_are_a_step() -> None:
    found = change(np.concatenate([np.zeros(50), [8.0, 8.2]]), least=40)
    assert (found.began, found.shape) == (50, "sudden")


def test_two_windows_that_rise_are_left_open() -> None:
    assert change(np.concatenate([np.zeros(50), [4.0, 8.0]]), least=40).shape == "unclear"
