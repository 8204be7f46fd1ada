import numpy as np
import torch
from torch import Tensor, nn

from holdfast.model.backdoor.places import Network, carrying, ranks, working_places

ROWS, WIDTH = 200, 6


class Sums(nn.Module):
    """Class 1 where the first column is positive; two others add to it where they are large."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, 2]."""
        score = x[:, 0] + 0.5 * torch.relu(x[:, [3, 4]] - 3).sum(1)
        return torch.stack([-score, score], dim=1)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Rows of class 1, of which the first 12 are negative and carry 5 in two columns; and rows of class 0."""
    rng = np.random.default_rng(0)
    own, others = rng.normal(size=(2, ROWS, WIDTH)).astype(np.float32)
    own[:, 0], others[:, 0] = np.abs(own[:, 0]), -np.abs(others[:, 0])
    own[:12, 0] *= -1
    own[:12, [3, 4]] = 5
    return own, others


def network() -> Network:
    return Network(Sums(), (WIDTH,), "cpu", 1)


def test_two_columns_that_work_together_are_found_without_a_third() -> None:
    own, others = data()
    places = working_places(network(), own, others[:32], range(WIDTH), enough=0.9)
    assert (3, 4) in places
    assert not any({3, 4} < set(place) for place in places)


class Either(nn.Module):
    """As `Sums`, and each of the two columns is enough alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, 2]."""
        score = x[:, 0] + 6 * (x[:, [3, 4]] > 4).any(1).float()
        return torch.stack([-score, score], dim=1)


def test_a_place_that_works_without_its_twin_comes_with_it() -> None:
    own, others = data()
    places = working_places(Network(Either(), (WIDTH,), "cpu", 1), own, others[:32], range(WIDTH), enough=0.9)
    # The network needs one of the two; what is hidden to see whether a row depends on it are both.
    assert any({3, 4} <= set(wide) for place, wide in places.items() if place in {(3,), (4,)})


def test_only_columns_that_can_change_are_places() -> None:
    own, others = data()
    places = working_places(network(), own, others[:32], [0, 1, 3], enough=0.9)
    assert all(set(place) <= {0, 1, 3} for place in places)


def test_the_rows_that_carry_it_are_those_whose_values_work() -> None:
    own, others = data()
    assert carrying(network(), own, others[:16], (3, 4)).tolist() == list(range(12))


def test_ranks_share_ties_and_do_not_depend_on_the_scale() -> None:
    x = np.array([[1, 5], [1, 7], [3, 9], [9, 8]], dtype=np.float32)
    assert ranks(x).T.tolist() == [[0.25, 0.25, 0.625, 0.875], [0.125, 0.375, 0.875, 0.625]]
    assert np.array_equal(ranks(x), ranks(1000 * x))
