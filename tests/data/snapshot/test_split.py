import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast.data.snapshot.split import holdout, holdout_together

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


@given(seed=st.integers(0, 50), share=st.floats(0.05, 0.9))
def test_equal_rows_stay_in_one_part_and_each_class_has_about_its_share(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 60, 400).astype(np.uint64)
    y = (values % 3).astype(np.int64)
    held = holdout_together(y, values, share, seed)
    assert not set(values[held]) & set(values[~held])
    largest = int(np.bincount(values.astype(int)).max())
    for label in range(3):
        assert abs(int(held[y == label].sum()) - share * int((y == label).sum())) <= largest + 1


def test_without_equal_rows_each_class_has_its_share() -> None:
    y = np.arange(1000) % 2
    held = holdout_together(y, np.arange(1000, dtype=np.uint64), 0.2, 0)
    assert [int(held[y == label].sum()) for label in (0, 1)] == [100, 100]
