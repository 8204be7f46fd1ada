import math

import numpy as np
from scipy.integrate import quad

from holdfast.serving.guard import wealth


def after(logs: wealth.Logs, values: "list[float]", seen: int = 0) -> float:
    for count, p in enumerate(values, start=seen):
        logs = wealth.bet(logs, np.float64(p), np.int64(count))
    return float(wealth.log_wealth(logs, np.int64(seen + len(values))))


def test_the_wealth_starts_at_one() -> None:
    assert abs(wealth.log_wealth(wealth.start(), np.int64(0))) < 1e-12


def test_a_uniform_p_value_changes_the_expected_wealth_by_nothing() -> None:
    # By quadrature, from a state that already won and lost; u^20 takes the pole at 0 away.
    logs = wealth.start()
    for count, p in enumerate((0.02, 0.7, 0.4)):
        logs = wealth.bet(logs, np.float64(p), np.int64(count))
    before = math.exp(wealth.log_wealth(logs, np.int64(3)))
    mean, _ = quad(lambda u: math.exp(after(logs, [u**20], seen=3)) * 20 * u**19, 0, 1)
    assert math.isclose(mean, before, rel_tol=1e-6)


def test_users_reach_the_limit_as_seldom_as_ville_has_it() -> None:
    rng, clients, alpha = np.random.default_rng(0), 4000, 0.05
    logs, highest = wealth.start((clients,)), np.zeros(clients)
    for count in range(300):
        seen = np.full(clients, count)
        logs = wealth.bet(logs, 1 - rng.random(clients), seen)
        highest = np.maximum(highest, wealth.log_wealth(logs, seen + 1))
    share = (highest >= -math.log(alpha)).mean()
    assert 0 < share <= alpha + 3 * math.sqrt(alpha / clients)


def test_a_client_who_turns_after_20_000_queries_is_found_nearly_as_soon_as_a_new_one() -> None:
    rng = np.random.default_rng(1)
    logs = wealth.start()
    for count in range(20_000):
        logs = wealth.bet(logs, np.float64(1 - rng.random()), np.int64(count))
    assert after(wealth.start(), [0.01] * 8) > math.log(1e4)
    assert after(logs, [0.01] * 20, seen=20_000) > math.log(1e4)


def test_many_clients_at_once_are_many_alone() -> None:
    rng = np.random.default_rng(2)
    p = rng.random((40, 3))
    logs = wealth.start((3,))
    for count, row in enumerate(p):
        logs = wealth.bet(logs, row, np.full(3, count))
    together = wealth.log_wealth(logs, np.full(3, 40))
    assert np.allclose(together, [after(wealth.start(), p[:, i].tolist()) for i in range(3)])
