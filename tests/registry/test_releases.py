"""In which order signed versions may serve, through a real registry and the rollout's own worker."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast import registry
from holdfast.attestation.demands import Demands
from holdfast.attestation.keys import read_signer
from holdfast.attestation.trust import RoleKeys, Sigstore, read_trust
from holdfast.errors import RefusedError
from holdfast.serving.rollout import registry_worker
from tests.attestation.chains import trust_in
from tests.attestation.versions import register_signed


@pytest.fixture
def tracking(tmp_path: Path) -> str:
    """A registry with two signed versions of the model digits; the second one passed an hour later and serves."""
    where = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registry.set_up(where)
    register_signed(where, tmp_path)
    registry.promote(where, "digits", 2)
    return where


def fetch(tracking: str, version: int, tmp_path: Path) -> registry_worker.Fetched:
    place = tmp_path / f"rollout{version}"
    shutil.rmtree(place, ignore_errors=True)
    return registry_worker.fetch(tracking, "digits", version, place, tmp_path / "keys" / "trust.yaml")


def test_going_back_takes_a_release_statement(tracking: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"passed after the champion, version 2.*holdfast release digits@1"):
        fetch(tracking, 1, tmp_path)
    signer = read_signer(str(tmp_path / "keys" / "release.pem"))
    registry.release(tracking, "digits", 2, signer)
    with pytest.raises(RefusedError, match="expected a release statement about model"):
        fetch(tracking, 1, tmp_path)
    registry.release(tracking, "digits", 1, signer)
    assert fetch(tracking, 1, tmp_path).champion_version == 2


def test_an_identity_releases_as_a_key_does(tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sigstore.sign", reason="sigstore signs by identities (extra keyless)")
    from holdfast.attestation.identities import Identity
    from holdfast.attestation.keyless import KeylessSigner
    from tests.attestation.instance import GITHUB, WORKFLOW, Instance, serving

    with serving(Instance()) as instance:
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", instance.token())
        identity = KeylessSigner.at(f"keyless://{instance.write(tmp_path / 'keys')[0]}")
        key = read_signer(str(tmp_path / "keys" / "release.pem"))
        made = [registry.release(tracking, "digits", *one).sequence for one in ((1, identity), (1, key), (1, identity))]
    assert made == [1, 1, 2]
    who = Identity(identity=f"https://github.com/{WORKFLOW}", issuer=GITHUB)
    changes = {
        "roles": {"release": RoleKeys(identities=(who,))},
        "sigstore": Sigstore(trusted_root="trusted_root.json"),
    }
    trust, model = trust_in(tmp_path / "keys", **changes), _model(tracking, 1)
    assert registry.require_released(tracking, "digits", model, trust, datetime.now(UTC)).sequence == 2
    with pytest.raises(RefusedError, match="expected a release statement"):
        registry.require_released(
            tracking, "digits", model, trust_in(tmp_path / "keys"), datetime.now(UTC) - timedelta(9)
        )


def _model(tracking: str, version: int) -> str:
    found = next(one for one in registry.versions(tracking, "digits") if one.number == version)
    return found.tags["holdfast.model_digest"]


def test_a_release_by_another_role_does_not_lead_back(tracking: str, tmp_path: Path) -> None:
    registry.release(tracking, "digits", 1, read_signer(str(tmp_path / "keys" / "trainer.pem")))
    with pytest.raises(RefusedError, match="holdfast release digits@1"):
        fetch(tracking, 1, tmp_path)


def test_what_passed_later_needs_none_and_nor_does_a_registry_without_signatures(tracking: str, tmp_path: Path) -> None:
    registry.set_alias(tracking, "digits", registry.CHAMPION, 1)
    assert fetch(tracking, 2, tmp_path).champion_version == 1
    registry.set_alias(tracking, "digits", registry.CHAMPION, 2)
    found = [registry.fetch(tracking, "digits", number, tmp_path / f"version{number}") for number in (1, 2)]
    assert found[0] is not None
    registry.require_in_turn(tracking, found[0], found[1], Demands())
    registry.require_in_turn(tracking, found[0], None, Demands(read_trust(tmp_path / "keys" / "trust.yaml")))


def test_a_second_key_joins_a_release_and_the_same_key_makes_the_next(tracking: str, tmp_path: Path) -> None:
    first, second = (read_signer(str(tmp_path / "keys" / f"{role}.pem")) for role in ("release", "approver"))
    made = [registry.release(tracking, "digits", *one).sequence for one in ((2, first), (2, second), (2, first))]
    assert made == [1, 1, 2]
    assert registry.release(tracking, "digits", 1, second).sequence == 3
