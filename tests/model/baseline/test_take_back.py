"""What the registry has after a promoted version was taken back: the one before serves, and the reason is noted."""

from dataclasses import replace

import pytest

from holdfast import registry
from holdfast.errors import RefusedError, RolloutError
from holdfast.registry.history import read_ledger
from holdfast.registry.notes import rolled_back
from holdfast.serving.operation.take_back import InOperation
from tests.model.baseline.test_step import crown


@pytest.fixture
def two(chain, tmp_path, tracking):
    """Two champions, one after the other."""
    crown(chain(seed=0), tmp_path / "a", tracking)
    crown(chain(seed=1), tmp_path / "b", tracking)
    return InOperation.of(tracking, "demo-image")


def test_the_version_before_is_the_champion_again_after_its_traffic_was_moved(two, tracking):
    def fails(version):
        raise RolloutError("not ready in time")

    with pytest.raises(RolloutError, match="not ready"):
        two.take_back("errors: a share above 0.02 is proven", 2_000_000_000.0, fails)
    assert registry.aliases(tracking, "demo-image") == {"champion": 2, "previous": 1}

    moved = []
    for _ in range(2):  # twice is once
        two.take_back("errors: a share above 0.02 is proven", 2_000_000_000.0, moved.append)
        assert registry.aliases(tracking, "demo-image") == {"champion": 1}
    assert [version.number for version in moved] == [1, 1]
    notes = read_ledger(tracking, "demo-image").notes
    assert notes[-1].reason == "in operation: errors: a share above 0.02 is proven"
    assert rolled_back(notes, two.model, two.champion.tags[registry.DECISION]) == notes[-1]
    with pytest.raises(RefusedError, match="expected a version `previous` to go back to, found none"):
        InOperation.of(tracking, "demo-image")


def test_a_champion_that_was_promoted_meanwhile_is_not_taken_back(two, tracking):
    registry.promote(tracking, "demo-image", 1)
    stale = replace(two, champion=replace(two.champion, number=7), previous=replace(two.previous, number=2))
    with pytest.raises(RefusedError, match="the champion is 1"):
        stale.take_back("errors", 2_000_000_000.0)


def test_without_a_champion_nothing_is_in_operation(tracking):
    with pytest.raises(RefusedError, match="expected a champion in the registry"):
        InOperation.of(tracking, "demo-image")
