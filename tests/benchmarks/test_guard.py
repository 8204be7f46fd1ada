import numpy as np

from benchmarks.guard_clients import Clients, Pool, quiet
from holdfast.serving.guard.calibration import calibrate
from holdfast.serving.guard.client import GENERATION, Client, queries
from tests.serving.guard.conftest import CLASSES, cloud

CALIBRATION = calibrate(cloud(800, 0), cloud(1200, 1), CLASSES, seed=0, delta=0.01)


def test_many_clients_at_once_are_the_products_own_clients() -> None:
    # A pool so small that rows come again, and enough queries for three generations.
    samples = cloud(150, 2, shift=0.3)
    asked = queries(CALIBRATION, samples, range(150))
    crowd, alone = Clients(CALIBRATION, Pool.of(CALIBRATION, samples), 3), [Client() for _ in range(3)]
    rng = np.random.default_rng(0)
    for _ in range(6 * GENERATION):
        rows = rng.integers(150, size=3)
        together = crowd.ask(rows)
        for client, row in zip(alone, rows, strict=True):
            client.observe(asked[row], CALIBRATION)
    assert np.allclose(together, [client.log_wealth for client in alone])
    assert crowd.seen_near.tolist() == [client.seen[1] for client in alone]
    assert crowd.added.min() > GENERATION


def test_users_are_quiet_and_strangers_are_counted() -> None:
    users, strangers = (Pool.of(CALIBRATION, cloud(300, 3, shift=shift)) for shift in (0.0, 1.5))
    assert quiet(CALIBRATION, users, clients=5, queries=300, alpha=1e-4, seed=0)[0] == 0
    assert quiet(CALIBRATION, strangers, clients=5, queries=100, alpha=1e-4, seed=0)[0] == 5
