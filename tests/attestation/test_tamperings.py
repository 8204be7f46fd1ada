"""Every way that we know to tamper with a registered version, a few times each; `make bench` tries 10,000."""

import random
from pathlib import Path

import pytest

from holdfast.attestation.demands import Demands
from holdfast.errors import HoldfastError
from tests.attestation.tamperings import World, tamperings
from tests.attestation.trials import make_world, tried
from tests.attestation.versions import StoredVersion

TRIES = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, StoredVersion]:
    return make_world(tmp_path_factory.mktemp("world"))


def test_what_was_not_touched_is_taken_in(world: tuple[World, StoredVersion], tmp_path: Path) -> None:
    there, version = world
    copy = version.copy(tmp_path / "copy")
    assert copy.taken_in(there.demands).model.digest == version.tags["holdfast.model_digest"]
    copy.seal_again()
    assert copy.taken_in(there.demands).decision.document.verdict == "pass"


def test_what_people_let_through_is_taken_in(world: tuple[World, StoredVersion], tmp_path: Path) -> None:
    people = world[0].people
    found = people.version.copy(tmp_path / "copy").taken_in(people.demands)
    assert [waiver.check for waiver in found.decision.document.waivers] == ["clean_accuracy"]


@pytest.mark.parametrize("name", sorted(tamperings()))
def test_it_is_refused(world: tuple[World, StoredVersion], tmp_path: Path, name: str) -> None:
    for number in range(TRIES):
        assert tried(*world, name, random.Random(f"{name} {number}"), tmp_path / str(number)) != "accepted"


def test_without_a_trust_policy_a_consistent_change_is_taken_in(
    world: tuple[World, StoredVersion], tmp_path: Path
) -> None:
    """Why the signatures are needed: digests alone can be computed again by whoever writes to the store."""
    there, version = world
    copy = version.copy(tmp_path / "copy")
    (copy.folder / "model" / "made.txt").write_text("zeros")
    copy.seal_again()
    assert copy.taken_in(Demands()).model.digest != version.tags["holdfast.model_digest"]
    with pytest.raises(HoldfastError):
        copy.taken_in(there.demands)
