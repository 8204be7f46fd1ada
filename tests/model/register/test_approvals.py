"""A registered version that the policy lets serve only after people approved it, by the commands that they type."""

import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from holdfast import registry
from holdfast.artifacts.documents import Requirements
from holdfast.artifacts.folder import Ref
from holdfast.attestation.demands import Demands
from holdfast.cli.app import app
from holdfast.errors import HoldfastError, RefusedError
from holdfast.model.register.step import Signed
from holdfast.serving.predictor.admission import admit
from tests.attestation.chains import NOW, make_keys, trust_in
from tests.model.register.test_signed import call, sign_all

NAME = "demo-image"
LATER = NOW + timedelta(hours=6)
GOOGLE = "https://accounts.google.com"
REQUIRE = Requirements(attested=True, approvals=1, approver_not_trainer=True)


@pytest.fixture
def world(chain, tracking, tmp_path):
    """A version that waits for its approval, and the keys."""
    keys = make_keys(tmp_path / "keys")
    made = chain(require=REQUIRE)
    sign_all(made, keys, tmp_path / "attestations")
    signed = Signed(Demands(trust_in(tmp_path / "keys"), LATER), tmp_path / "attestations", keys["gate"])
    assert call(made, tmp_path, tracking, signed).document.model_version == 1
    return tmp_path, tracking


def holdfast(*words):
    """What a command prints; raises what ends it."""
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, HoldfastError):
        raise result.exception
    return result


def approve(world, key="approver", *words):
    folder, tracking = world
    return holdfast(
        "approve", f"{NAME}@1", "--by=Ana <b>", "--reason=read the table", f"--key={folder}/keys/{key}.pem",
        f"--trust={folder}/keys/trust.yaml", f"--tracking={tracking}", *words,
    )  # fmt: skip


def fetch(world, **changes):
    folder, tracking = world
    return registry.fetch(tracking, NAME, 1, folder / "version", Demands(trust_in(folder / "keys", **changes)))


def listed(world, *words):
    folder, tracking = world
    return json.loads(holdfast("approvals", "list", NAME, f"--tracking={tracking}", "--json", *words).stdout)


def verify(world):
    folder, tracking = world
    return holdfast("verify", f"models:/{NAME}/1", f"--trust={folder}/keys/trust.yaml", f"--tracking={tracking}")


def test_a_person_approves_without_a_key(world, monkeypatch):
    pytest.importorskip("sigstore.sign", reason="sigstore signs by identities (extra keyless)")
    from tests.attestation.instance import Instance, serving

    folder, tracking = world
    trust = folder / "keys" / "identities.yaml"
    who = "{identities: [{identity: ana@example.org, issuer: '" + GOOGLE + "'}]}"
    of_keys = (folder / "keys" / "trust.yaml").read_text().replace("{keys: [approver.pub]}", who)
    trust.write_text(f"{of_keys}sigstore: {{trusted_root: trusted_root.json}}\n")
    with serving(Instance()) as instance:
        config, _ = instance.write(folder / "keys")
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", instance.token(email="ana@example.org", issuer=GOOGLE))
        words = ["--by=Ana", f"--reason={'x' * 1000}", f"--key=keyless://{config}", f"--tracking={tracking}"]
        with pytest.raises(RefusedError, match="found one by an identity"):
            holdfast("approve", f"{NAME}@1", *words, f"--trust={folder}/keys/trust.yaml")
        assert holdfast("approve", f"{NAME}@1", *words, f"--trust={trust}").exit_code == 0
    assert registry.fetch(tracking, NAME, 1, folder / "version", Demands.of(trust)).version == 1
    with pytest.raises(RefusedError, match="expected 1 approval"):
        fetch(world)


def test_a_version_is_refused_until_it_is_approved(world):
    with pytest.raises(RefusedError, match=r"expected 1 approval of model .*`holdfast approve demo-image@1 --by NAME"):
        fetch(world)
    assert verify(world).exit_code == 1
    assert approve(world).stdout.startswith("demo-image version 1: approved by Ana <b>, model ")
    assert fetch(world).version == 1
    assert "approver" in verify(world).stdout
    assert verify(world).exit_code == 0


def test_a_server_finds_the_approval_next_to_the_version(world):
    folder, _ = world
    trust = folder / "keys" / "trust.yaml"
    approve(world)
    place = fetch(world).folder
    refs = Ref(place / "model"), Ref(place / "decision")
    assert admit(*refs, trust).document.name == NAME
    revoked = f"revoked:\n- fingerprint: {listed(world, f'--trust={trust}')[0]['key']}\n"
    trust.write_text(trust.read_text() + revoked)
    with pytest.raises(RefusedError, match="expected 1 approval.*expected a key that is not revoked"):
        admit(*refs, trust)


@pytest.mark.parametrize("role", ["trainer", "gate", "release"])
def test_a_key_of_another_role_is_refused_before_anything_is_stored(world, role):
    with pytest.raises(RefusedError, match=f"found the role {role}"):
        approve(world, role)
    assert listed(world) == []


def test_the_trainers_key_is_refused_although_it_is_an_approvers_too(world):
    folder, _ = world
    trust = folder / "keys" / "trust.yaml"
    trust.write_text(trust.read_text().replace("approver.pub", "trainer.pub"))
    with pytest.raises(RefusedError, match="would not count: .*its key also has the role trainer"):
        approve(world, "trainer")


def test_approvals_are_listed_and_shown_on_the_page(world):
    folder, tracking = world
    approve(world)
    approve(world)
    (found,) = listed(world)
    assert (found["version"], found["approver"], found["state"]) == (1, "Ana <b>", "not checked")
    (found,) = listed(world, f"--trust={folder}/keys/trust.yaml")
    assert found["state"] == "signed"
    (version,) = registry.versions(tracking, NAME)
    assert version.tags["holdfast.approved_by"] == r"Ana \<b\>"
    with registry.client.connected(tracking) as client:
        page = client.get_model_version(NAME, "1").description
    assert page.count("Approved by:") == 1
    assert page.startswith("verdict pass")
    assert "read the table" in page


def test_a_forged_approval_is_listed_as_what_it_is_and_refused(world):
    folder, tracking = world
    approve(world)
    (version,) = registry.versions(tracking, NAME)
    (key,) = (key for key in version.tags if ".approval." in key)
    registry.tag(tracking, NAME, 1, key, version.tags[key].replace('"sig":"ME', '"sig":"MF'))
    (found,) = listed(world, f"--trust={folder}/keys/trust.yaml")
    assert found["state"] == "expected a signature by a key of the trust policy, found none of theirs"
    with pytest.raises(RefusedError, match="expected 1 approval"):
        fetch(world)


def test_an_approval_can_be_kept_for_a_server_without_mlflow(world):
    folder, _ = world
    approve(world, "approver", f"--attestations={folder}/kept")
    (kept,) = (folder / "kept").iterdir()
    assert b"publicKey" in kept.read_bytes()


def test_what_is_not_there_is_not_approved(world):
    folder, tracking = world
    with pytest.raises(RefusedError, match="demo-image version 2: expected a registered version, found none"):
        holdfast("approve", f"{NAME}@2", "--by=A", "--reason=b", f"--key={folder}/keys/approver.pem",
                 f"--tracking={tracking}", f"--trust={folder}/keys/trust.yaml")  # fmt: skip
    with pytest.raises(RefusedError, match="name one with --trust"):
        holdfast("approve", f"{NAME}@1", "--by=A", "--reason=b", f"--key={folder}/keys/approver.pem",
                 f"--tracking={tracking}")  # fmt: skip
    assert holdfast("approve", NAME, "--by=A", "--reason=b", "--key=k").exit_code == 2
