import pytest

from holdfast.data.snapshot.limits import decoded_limit
from holdfast.workload.schema import DataConfig

DEFAULT = 4 * 2**30


@pytest.mark.parametrize(
    ("delivered", "limit"),
    [(126_000, 16 * 2**20), (10 * 2**20, 500 * 2**20), (2**30, DEFAULT)],
)
def test_a_small_file_may_not_become_gigabytes(delivered: int, limit: int) -> None:
    assert decoded_limit(DataConfig(source="a.csv", label="y"), delivered) == limit


def test_a_stated_limit_is_taken_at_its_word() -> None:
    assert decoded_limit(DataConfig(source="a.csv", label="y", max_bytes=DEFAULT - 1), 1) == DEFAULT - 1
    assert decoded_limit(DataConfig(source="a.csv", label="y", max_bytes=10), 1) == 10
