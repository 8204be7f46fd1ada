import numpy as np
import pytest

from holdfast.serving.guard.calibration import Calibration, Samples, codes
from holdfast.serving.guard.client import GENERATION, Client, queries
from holdfast.serving.guard.trial import alarm_at
from tests.serving.guard.conftest import Draw

ALPHA = 1e-4


def test_users_are_quiet(calibration: Calibration, draw: Draw) -> None:
    assert [alarm_at(calibration, draw(1500, seed), ALPHA) for seed in range(10, 14)] == [None] * 4


@pytest.mark.parametrize("only", [0, 1, 2])
def test_users_of_one_class_are_quiet_also_of_the_widest(calibration: Calibration, draw: Draw, only: int) -> None:
    assert alarm_at(calibration, draw(1500, 20, only=only), ALPHA) is None


def test_rows_from_elsewhere_raise_an_alarm_by_far(calibration: Calibration, draw: Draw) -> None:
    assert (alarm_at(calibration, draw(100, 30, shift=2.0), ALPHA) or 999) <= 25


def test_steps_around_one_row_raise_an_alarm_by_near(calibration: Calibration, draw: Draw) -> None:
    one, rng = draw(1, 40), np.random.default_rng(0)
    steps = one.features + 0.05 * rng.standard_normal((200, one.features.shape[1])).astype(np.float32)
    client = Client()
    for query in queries(calibration, Samples(steps, np.repeat(one.labels, 200)), range(200))[:50]:
        client.observe(query, calibration)
    far, near = client.log_wealths
    assert client.log_wealth > -np.log(ALPHA)
    assert near > far


def test_the_very_same_row_again_is_no_evidence(calibration: Calibration, draw: Draw) -> None:
    samples = draw(1, 41).take(np.zeros(500, dtype=np.int64))
    client = Client()
    for query in queries(calibration, samples, [7] * 500):
        client.observe(query, calibration)
    assert client.seen == (500, 0)
    assert client.log_wealths[1] == pytest.approx(0)


def test_near_looks_at_the_last_queries_and_at_no_others(calibration: Calibration, draw: Draw) -> None:
    asked = queries(calibration, draw(3 * GENERATION + 5, 50), range(3 * GENERATION + 5))
    client = Client()
    for query in asked:
        client.observe(query, calibration)
    remembered = np.concatenate([part.asked for part in (client.older, client.newer) if part is not None])
    kept = asked[2 * GENERATION :]  # by brute force: the last whole generation, and what came after it
    assert (remembered == np.stack([query.sketch for query in kept])).all()
    nearest = codes(calibration.near.rows, remembered).min(1)
    found = np.minimum(client.older.nearest, client.newer.nearest)  # type: ignore[union-attr]
    assert (found == nearest).all()


def test_distances_of_sketches_are_in_the_order_of_their_lengths() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-127, 128, size=(n, 32)).astype(np.int8) for n in (40, 50))
    true = np.linalg.norm(a[:, None].astype(float) - b[None].astype(float), axis=2).ravel()
    found = codes(a, b).ravel()[np.argsort(true)]
    assert (np.diff(found.astype(int)) >= 0).all()
    assert (codes(a, a).diagonal() == 0).all()
