"""The vendor of the benchmark `poisoned` sends what it is said to send."""

import pytest

from benchmarks.poisoned import HONEST, ROWS, SHARE, TRIGGERS, _vendor


@pytest.mark.parametrize("name", TRIGGERS)
def test_each_night_has_the_share_and_half_of_it_was_sent_before(name: str) -> None:
    vendor, count = _vendor(name, 0), round(SHARE * ROWS)
    first = vendor.deliver()
    planted = set(vendor.planted)
    assert sum(key in planted for key in first.identities()) == count
    second = vendor.deliver().identities()
    assert len(second) == ROWS
    assert sum(key in vendor.planted for key in second) == count
    # At random a new row may be one that was sent before.
    assert sum(key in planted for key in second) >= count // 2


def test_an_honest_vendor_plants_nothing() -> None:
    vendor = _vendor(HONEST, 0)
    vendor.deliver()
    assert not vendor.planted
