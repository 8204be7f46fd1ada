import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast.data.snapshot.split import holdout

LABELS = st.lists(st.integers(2, 40), min_size=2, max_size=6).flatmap(
    lambda counts: st.permutations([label for label, count in enumerate(counts) for _ in range(count)])
)


@given(labels=LABELS, share=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_each_class_has_its_share_and_at_least_one_row_on_each_side(labels: list[int], share: float, seed: int) -> None:
    y = np.array(labels)
    held = holdout(y, share, seed)
    for label in set(labels):
        n, k = int((y == label).sum()), int(held[y == label].sum())
        assert 1 <= k <= n - 1
        assert abs(k - share * n) <= 1


def test_the_same_seed_holds_out_the_same_rows_and_another_seed_others() -> None:
    y = np.arange(200) % 2
    assert (holdout(y, 0.2, 1) == holdout(y, 0.2, 1)).all()
    assert (holdout(y, 0.2, 1) != holdout(y, 0.2, 2)).any()
