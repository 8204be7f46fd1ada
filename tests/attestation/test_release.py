from datetime import timedelta

import pytest

from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.predicates import Occasion
from holdfast.attestation.release import Release, release_statement, releases, require_newest
from holdfast.attestation.trust import RoleKeys
from holdfast.errors import RefusedError
from tests.attestation.chains import NOW, trust_in

OLD, NEW = Release(1, "a" * 64, 1), Release(2, "b" * 64, 2)


def read(whole, *signed, name="digits", trust=None):
    return releases(signed, name, trust or whole.trust, NOW)


def signed(whole, release, role="release", name="digits"):
    statement = release_statement(name, release, Occasion("", NOW - timedelta(days=1)))
    return sign_payload(statement.payload(), whole.keys[role])


def test_the_highest_sequence_number_is_the_one_to_serve(whole):
    found = read(whole, signed(whole, OLD), signed(whole, NEW))
    assert require_newest(found, NEW.model, "digits") == NEW
    with pytest.raises(RefusedError, match=r"sequence number 2, found 1 \(version 1\)"):
        require_newest(found, OLD.model, "digits")


def test_going_back_takes_a_release_of_its_own(whole):
    again = Release(3, OLD.model, 1)
    found = read(whole, signed(whole, OLD), signed(whole, NEW), signed(whole, again))
    assert require_newest(found, OLD.model, "digits") == again


def test_a_reader_remembers_what_it_saw(whole, tmp_path):
    """Whoever takes the newer statement out of the store does not make the older version the newest again."""
    state = tmp_path / "seen.json"
    require_newest(read(whole, signed(whole, OLD), signed(whole, NEW)), NEW.model, "digits", state)
    with pytest.raises(RefusedError, match="sequence number 2, found 1"):
        require_newest(read(whole, signed(whole, OLD)), OLD.model, "digits", state)
    assert require_newest(read(whole, signed(whole, OLD, name="x"), name="x"), OLD.model, "x", state) == OLD


@pytest.mark.parametrize("role", ["gate", "trainer", "approver"])
def test_another_role_releases_nothing(whole, role):
    with pytest.raises(RefusedError, match="expected a release statement"):
        require_newest(read(whole, signed(whole, NEW, role)), NEW.model, "digits")


def test_a_release_of_another_name_does_not_count(whole):
    assert read(whole, signed(whole, NEW, name="fraud")) == []


def test_a_threshold_asks_for_different_keys_on_the_same_release(whole, tmp_path):
    make_key(tmp_path / "second.pem")
    both = RoleKeys(keys=(str(whole.folder / "keys" / "release.pub"), str(tmp_path / "second.pub")), threshold=2)
    trust = trust_in(whole.folder / "keys", roles={"release": both})
    statement = release_statement("digits", NEW, Occasion("", NOW - timedelta(days=1))).payload()
    first, second = (
        sign_payload(statement, key) for key in (whole.keys["release"], read_signer(str(tmp_path / "second.pem")))
    )
    assert read(whole, first, first, trust=trust) == read(whole, first, signed(whole, OLD), trust=trust) == []
    assert read(whole, first, second, trust=trust) == [NEW]


def test_a_state_that_is_none_is_one_line(whole, tmp_path):
    (tmp_path / "seen.json").write_text("[]")
    with pytest.raises(RefusedError, match=r"seen\.json: expected the releases that were seen"):
        require_newest([NEW], NEW.model, "digits", tmp_path / "seen.json")
