"""Signatures by identities: sigstore-python against the servers of a private instance."""

import base64
import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import webbrowser
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from holdfast.attestation.envelope import read_bundle, sign_payload
from holdfast.attestation.identities import Identity, IdentityVerifier
from holdfast.attestation.keyless import KeylessSigner
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.statement import APPROVAL, about, stamp
from holdfast.attestation.trust import Revocation, RoleKeys, Sigstore, TrustFile, read_trust, trust_of
from holdfast.cli.app import app
from holdfast.errors import (
    ArtifactError,
    HoldfastError,
    InputError,
    IntegrityError,
    RefusedError,
    RegistryError,
    WorkloadError,
)
from tests.attestation.chains import ROLES, Made, make_run, sign_run
from tests.attestation.instance import GITHUB, WORKFLOW, Instance, new_key, serving
from tests.attestation.test_chain import checked
from tests.attestation.versions import store_version

pytest.importorskip("sigstore.sign", reason="sigstore signs by identities (extra keyless)")
US = Identity(identity=f"https://github.com/{WORKFLOW}", issuer=GITHUB)
ANA = Identity(identity="ana@example.org", issuer="https://accounts.google.com")
CI = ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A running instance, and the files of its clients."""
    with serving(Instance()) as instance:
        folder = tmp_path_factory.mktemp("instance")
        config, root = instance.write(folder)
        yield SimpleNamespace(instance=instance, folder=folder, named=f"keyless://{config}", root=root)


@pytest.fixture(autouse=True)
def token(place, monkeypatch):
    """An honest token; no other way to one."""
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", place.instance.token())


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    """A whole run, every role of which is the same workflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGSTORE_ID_TOKEN", place.instance.token())
        folder = tmp_path_factory.mktemp("run")
        before = len(place.instance.certificates)
        artifacts = make_run(folder)
        keys = {role: read_signer(place.named) for role in ROLES}
        sign_run(folder, artifacts, keys)  # type: ignore[arg-type]
    made = Made(folder, artifacts, keys, trust(place))  # type: ignore[arg-type]
    return SimpleNamespace(made=made, certificates=len(place.instance.certificates) - before)


def trust(place, *, roles=ROLES, who=(US,), root="trusted_root.json", **changes):
    given = {role: RoleKeys(identities=who) for role in roles}
    return trust_of(TrustFile(version=1, roles=given, sigstore=Sigstore(trusted_root=root), **changes), place.folder)


def signed_by(named, monkeypatch, text, at=None, predicate=APPROVAL):
    """An approval, signed with the identity of one token."""
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", text)
    claim = about("model/digits", "a" * 64, predicate, {"timeCreated": stamp(at or datetime.now(UTC))})
    return sign_payload(claim.payload(), KeylessSigner.at(named))


def now():
    return datetime.now(UTC)


def test_a_whole_run_is_signed_with_one_certificate_and_holds(place, run):
    assert checked(run.made).holds
    assert sum(map(len, run.made.bundles.values())) == 13
    assert run.certificates == 1
    assert {one.signer for one in checked(run.made).signed} == {US.fingerprint}


def test_sigstore_verifies_every_bundle_without_our_code(place, run):
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity as Expected

    verifier = Verifier(trusted_root=TrustedRoot.from_file(str(place.root)))
    expected = Expected(identity=US.identity, issuer=US.issuer)
    bundles = [bundle for found in run.made.bundles.values() for bundle in found]
    payloads = [verifier.verify_dsse(Bundle.from_json(bundle), expected)[1] for bundle in bundles]
    assert len({read_bundle(bundle, "b").payload for bundle in bundles} & set(payloads)) == 13


def test_model_signing_verifies_the_files_of_a_version(place, run, tmp_path):
    verifying = pytest.importorskip("model_signing.verifying", reason="a foreign verifier of the tests (group foreign)")
    version = store_version(run.made, tmp_path / "version", read_signer(place.named))
    config = verifying.Config().use_sigstore_verifier(
        identity=US.identity, oidc_issuer=US.issuer, trust_config=place.folder / "trust_config.json"
    )
    config.verify(version.folder, version.folder / "model.sig")
    (version.folder / "replay.npz").write_bytes(b"others")
    with pytest.raises(ValueError, match="Hash mismatch for 'replay.npz'"):
        config.verify(version.folder, version.folder / "model.sig")


def test_verifying_asks_no_server(place, run, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert checked(run.made, trust=trust(place)).holds


@pytest.mark.parametrize(
    "claims",
    [
        {"job_workflow_ref": WORKFLOW.replace("main", "other")},
        {"job_workflow_ref": WORKFLOW.replace("acme", "ACME")},
        {"job_workflow_ref": f"{WORKFLOW}x"},
        {"email": "ana@example.org", "issuer": "https://accounts.google.com"},
        {"sub": US.identity, "issuer": "https://gitlab.example.org"},
        {"sub": US.identity, "issuer": f"{GITHUB}/"},
    ],
)
def test_another_identity_or_issuer_is_refused(place, monkeypatch, claims):
    bundle = signed_by(place.named, monkeypatch, place.instance.token(**claims))
    with pytest.raises(RefusedError, match="expected a signature by an identity of the trust policy"):
        trust(place).accept(bundle, now())


@pytest.mark.parametrize("part", ["root", "ct", "rekor"])
def test_a_certificate_or_an_entry_of_another_instance_is_refused(place, monkeypatch, tmp_path, part):
    """One that knows every key of ours but one."""
    keys = {name: getattr(place.instance, name) for name in KEYS}
    with serving(Instance(**{**keys, part: new_key()})) as other:
        bundle = signed_by(f"keyless://{other.write(tmp_path)[0]}", monkeypatch, other.token())
    with pytest.raises(RefusedError, match="expected a signature by an identity, found"):
        trust(place).accept(bundle, now())


def test_a_signer_and_its_bundles_give_the_fingerprint_of_the_identity(place, monkeypatch):
    signer = KeylessSigner.at(place.named)
    before = len(place.instance.certificates)
    bundle = json.loads(signer.bundle(about("model/x", "a" * 64, APPROVAL, {}).payload()))
    assert read_bundle(json.dumps(bundle).encode(), "b").hint == signer.fingerprint == US.fingerprint
    assert len(place.instance.certificates) == before + 1
    for broken in ("", "AAAA", bundle["dsseEnvelope"]["payload"]):
        bundle["verificationMaterial"]["certificate"]["rawBytes"] = broken
        assert read_bundle(json.dumps(bundle).encode(), "b").hint == ""


@pytest.mark.parametrize("known", [True, False])
def test_a_log_without_a_clock_counts_with_a_timestamp(place, monkeypatch, tmp_path, known):
    """Rekor v2: the time is that of a timestamp authority, which must be the instance's own."""
    other = Instance(**{name: getattr(place.instance, name) for name in KEYS}, version=2)
    if known:
        other.stamper, other.tsa = place.instance.stamper, place.instance.tsa
    with serving(other):
        bundle = signed_by(f"keyless://{other.write(tmp_path)[0]}", monkeypatch, other.token())
    assert entry(json.loads(bundle))["kindVersion"] == {"kind": "hashedrekord", "version": "0.0.2"}
    if known:
        assert trust(place).accept(bundle, now()).signer == US.fingerprint
    else:
        with pytest.raises(RefusedError, match="not enough sources of verified time"):
            trust(place).accept(bundle, now())


KEYS = ("root", "ct", "rekor", "provider")


def test_a_certificate_that_was_not_valid_when_it_was_logged_is_refused(place, monkeypatch, tmp_path):
    instance = Instance(clock=timedelta(hours=1))
    with serving(instance):
        config, _ = instance.write(tmp_path)
        bundle = signed_by(f"keyless://{config}", monkeypatch, instance.token())
        with pytest.raises(RefusedError, match="valid"):
            trust(SimpleNamespace(folder=tmp_path)).accept(bundle, now())
        instance.clock = timedelta(hours=-1)
        with pytest.raises(RegistryError, match=r"expected the sigstore instance to sign, found ExpiredCertificate"):
            signed_by(f"keyless://{config}", monkeypatch, instance.token())


@pytest.mark.parametrize("minutes", [-20, -6, 3, 16])
def test_a_claimed_time_must_lie_in_the_life_of_the_certificate(place, monkeypatch, minutes):
    at = now() + timedelta(minutes=minutes)
    bundle = signed_by(place.named, monkeypatch, place.instance.token(), at)
    if minutes == 3:
        assert trust(place).accept(bundle, at).signer == US.fingerprint
    else:
        with pytest.raises(RefusedError, match=r"expected a time while its certificate was valid, 20\S+ to 20"):
            trust(place).accept(bundle, at)


def other_payload(bundle, _):
    envelope = bundle["dsseEnvelope"]
    text = base64.b64decode(envelope["payload"]).replace(b"model/digits", b"model/others")
    envelope["payload"] = base64.b64encode(text).decode()


def other_signature(bundle, other):
    bundle["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"]


def other_envelope(bundle, other):
    bundle["dsseEnvelope"] = other["dsseEnvelope"]


def other_certificate(bundle, other):
    bundle["verificationMaterial"]["certificate"] = other["verificationMaterial"]["certificate"]


def other_entry(bundle, other):
    bundle["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]


def other_body(bundle, other):
    entry(bundle)["canonicalizedBody"] = entry(other)["canonicalizedBody"]


def other_time(bundle, _):
    entry(bundle)["integratedTime"] = str(int(entry(bundle)["integratedTime"]) + 1)


def other_promise(bundle, other):
    entry(bundle)["inclusionPromise"] = entry(other)["inclusionPromise"]


def other_checkpoint(bundle, other):
    entry(bundle)["inclusionProof"]["checkpoint"] = entry(other)["inclusionProof"]["checkpoint"]


def shorter_proof(bundle, _):
    entry(bundle)["inclusionProof"]["hashes"] = []


def no_entry(bundle, _):
    bundle["verificationMaterial"]["tlogEntries"] = []


def no_promise_and_no_timestamp(bundle, _):
    del entry(bundle)["inclusionPromise"]
    bundle["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": []}


def a_hint_at_a_key_too(bundle, _):
    bundle["verificationMaterial"]["publicKey"] = {"hint": "a" * 64}


def entry(bundle):
    return bundle["verificationMaterial"]["tlogEntries"][0]


@pytest.mark.parametrize(
    "change",
    [
        other_payload, other_signature, other_envelope, other_certificate, other_entry, other_body, other_time,
        other_promise, other_checkpoint, shorter_proof, no_entry, no_promise_and_no_timestamp, a_hint_at_a_key_too,
    ],
)  # fmt: skip
def test_parts_of_another_bundle_are_refused(place, monkeypatch, change):
    """The other one is by the same identity, about the same model, and counts as it is."""
    first, second = (signed_by(place.named, monkeypatch, place.instance.token(), now() - age) for age in AGES)
    assert {trust(place).accept(one, now()).role for one in (first, second)} == {"approver"}
    bundle = json.loads(second)
    change(bundle, json.loads(first))
    with pytest.raises(HoldfastError, match="expected a signature by an identity, found"):
        trust(place).accept(json.dumps(bundle).encode(), now())


AGES = (timedelta(minutes=2), timedelta(minutes=1))


def test_one_flipped_bit_is_never_another_claim_nor_an_error_of_another_kind(place, monkeypatch):
    bundle = signed_by(place.named, monkeypatch, place.instance.token())
    policy, rng = trust(place), random.Random(0)
    claim = policy.accept(bundle, now()).statement
    for _ in range(600):
        changed = bytearray(bundle)
        changed[rng.randrange(len(bundle))] ^= 1 << rng.randrange(8)
        try:
            assert policy.accept(bytes(changed), now()).statement == claim
        except HoldfastError:
            continue


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda material: material["tlogEntries"] * 2, "at most 1 item"),
        (lambda material: [material["tlogEntries"][0] | {"more": 1}], "Extra inputs"),
        (lambda material: [material["tlogEntries"][0] | {"logIndex": 1}], "logIndex"),
        (lambda material: [material["tlogEntries"][0] | {"logIndex": "1" * 30}], "logIndex"),
        (lambda material: [material["tlogEntries"][0] | {"canonicalizedBody": "A" * 2**17}], "canonicalizedBody"),
        (
            lambda material: [
                material["tlogEntries"][0]
                | {"inclusionProof": material["tlogEntries"][0]["inclusionProof"] | {"hashes": ["AAAA"] * 65}}
            ],
            "hashes",
        ),
    ],
)
def test_material_of_another_form_or_size_is_refused(run, change, error):
    bundle = json.loads(next(iter(run.made.bundles.values()))[0])
    bundle["verificationMaterial"]["tlogEntries"] = change(bundle["verificationMaterial"])
    with pytest.raises(IntegrityError, match=error):
        read_bundle(json.dumps(bundle).encode(), "b")


def test_a_revoked_identity_no_longer_counts(place, run):
    shell = ["bash", "-c", 'printf "%s\\n%s" "$0" "$1" | sha256sum', US.issuer, US.identity]
    fingerprint = subprocess.run(shell, check=True, capture_output=True, text=True).stdout[:64]
    revoked = trust(place, revoked=(Revocation(fingerprint=fingerprint),))
    assert "not revoked" in checked(run.made, trust=revoked).objection()
    later = Revocation(fingerprint=fingerprint, since=now() + timedelta(days=1))
    assert checked(run.made, trust=trust(place, revoked=(later,))).holds


def test_an_identity_signs_only_what_its_role_may(place, monkeypatch):
    bundle = signed_by(place.named, monkeypatch, place.instance.token())
    assert trust(place, roles=("approver", "gate")).accept(bundle, now()).role == "approver"
    with pytest.raises(RefusedError, match=r"expected a signer who may sign .*approval.*found the role trainer, gate"):
        trust(place, roles=("trainer", "gate")).accept(bundle, now())


def test_the_identities_of_two_roles_are_not_mixed(place, run, monkeypatch):
    """Of two listed identities each signs as itself: what the approver signed is not the gate's."""
    roles = {role: RoleKeys(identities=(ANA if role == "approver" else US,)) for role in ROLES}
    policy = trust_of(
        TrustFile(version=1, roles=roles, sigstore=Sigstore(trusted_root="trusted_root.json")), place.folder
    )
    ana = place.instance.token(email=ANA.identity, issuer=ANA.issuer)
    assert policy.accept(signed_by(place.named, monkeypatch, ana), now()).signer == ANA.fingerprint
    with pytest.raises(RefusedError, match="a signer who may sign"):
        policy.accept(signed_by(place.named, monkeypatch, place.instance.token()), now())
    assert checked(run.made, trust=policy).holds


def test_a_threshold_counts_keys_and_identities(place, tmp_path):
    artifacts = make_run(tmp_path)
    make_key(place.folder / "gate.pem")
    key = read_signer(str(place.folder / "gate.pem"))
    both = RoleKeys(keys=("gate.pub",), identities=(US,), threshold=2)
    roles = {role: RoleKeys(identities=(US,)) for role in ROLES} | {"gate": both}
    policy = trust_of(
        TrustFile(version=1, roles=roles, sigstore=Sigstore(trusted_root="trusted_root.json")), place.folder
    )
    made = Made(tmp_path, artifacts, {}, policy)
    sign_run(tmp_path, artifacts, {role: KeylessSigner.at(place.named) for role in ROLES})  # type: ignore[misc]
    assert "expected the signatures of 2 keys or identities of the role gate, found 1" in checked(made).objection()
    sign_run(tmp_path, artifacts, dict.fromkeys(ROLES, key))  # type: ignore[arg-type]
    assert checked(made).holds


def test_a_trust_policy_without_identities_refuses_them_as_before(place, run, whole):
    bundle = next(iter(run.made.bundles.values()))[0]
    with pytest.raises(RefusedError, match="expected a signature by a key, found one by an identity"):
        whole.trust.accept(bundle, now())


def test_what_nothing_could_satisfy_is_refused(place):
    with pytest.raises(ValidationError, match="threshold 1 but 0 keys and identities"):
        RoleKeys()
    with pytest.raises(ValidationError, match="threshold 2 but 1 keys and identities"):
        RoleKeys(identities=(US,), threshold=2)
    with pytest.raises(WorkloadError, match=r"roles.gate: expected different keys, found one of them twice"):
        trust(place, roles=("gate",), who=(US, US))


@pytest.mark.parametrize(("identity", "issuer"), [("", GITHUB), ("a", ""), ("a\nb", GITHUB), ("a", f"{GITHUB}\nx")])
def test_an_identity_has_a_name_and_an_issuer(identity, issuer):
    with pytest.raises(ValidationError, match="String should match pattern"):
        Identity(identity=identity, issuer=issuer)


def test_a_trust_file_names_identities_and_the_instance(place, run):
    file = place.folder / "trust.yaml"
    file.write_text(starter_of_identities())
    assert checked(run.made, trust=read_trust(file)).holds


@pytest.mark.parametrize("text", [None, "{}", "not json", '{"mediaType": "x"}'])
def test_a_trusted_root_that_is_none_is_one_line(place, tmp_path, text):
    if text is not None:
        (tmp_path / "trusted_root.json").write_text(text)
    with pytest.raises(
        InputError, match=r"trusted_root\.json: expected the trusted root of an instance, found [^\n]+$"
    ):
        trust(SimpleNamespace(folder=tmp_path))


def test_the_public_instances_root_is_known_without_a_network(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", None)
    assert IdentityVerifier.of((US,), None, "trust.yaml").verifier is not None


def test_a_bundle_of_a_private_instance_does_not_count_by_the_public_root(place, run, monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    bundle = next(iter(run.made.bundles.values()))[0]
    with pytest.raises(RefusedError, match="expected a signature by an identity, found"):
        trust(place, root=None).accept(bundle, now())


def test_the_public_instance_out_of_reach_is_one_line(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("sigstore.models.DEFAULT_TUF_URL", "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"^keyless://: expected the sigstore instance to answer, found [^\n]+$"):
        KeylessSigner.at("keyless://")


@pytest.mark.parametrize(
    ("life", "claims", "error"),
    [
        (timedelta(minutes=-10), {}, "expired"),
        (timedelta(minutes=10), {"aud": "other"}, "[Aa]udience"),
        (timedelta(minutes=10), {"sub": None}, "malformed"),
    ],
)
def test_a_token_that_is_not_valid_is_one_line(place, monkeypatch, life, claims, error):
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", place.instance.token(life=life, **claims))
    with pytest.raises(
        InputError, match=rf"^keyless://\S+: expected a valid identity token, found [^\n]*{error}[^\n]*$"
    ):
        KeylessSigner.at(place.named)


def test_no_token_is_one_line_that_names_the_ways_to_one(place, monkeypatch):
    monkeypatch.delenv("SIGSTORE_ID_TOKEN")
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115, PTH123
    with pytest.raises(InputError, match=r"SIGSTORE_ID_TOKEN.*`id-token: write`.*`id_tokens`[^\n]*no terminal"):
        KeylessSigner.at(place.named)


def test_a_github_job_asks_for_its_token(place, monkeypatch):
    monkeypatch.delenv("SIGSTORE_ID_TOKEN")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", raising=False)
    with pytest.raises(InputError, match=r"expected a valid identity token, found GitHub.*permissions"):
        KeylessSigner.at(place.named)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of the job")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{place.instance.url}/token?api-version=2")
    claim = about("model/digits", "a" * 64, APPROVAL, {"timeCreated": stamp(now())})
    bundle = sign_payload(claim.payload(), KeylessSigner.at(place.named))
    assert trust(place).accept(bundle, now()).signer == US.fingerprint


def test_a_person_at_a_terminal_logs_in(place, monkeypatch):
    class Browser(webbrowser.BaseBrowser):
        def open(self, url, new=0, autoraise=True):
            threading.Thread(target=urlopen, args=(url,), daemon=True).start()
            return True

    monkeypatch.delenv("SIGSTORE_ID_TOKEN")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(webbrowser, "open", Browser().open)
    who = Identity(identity=place.instance.person, issuer=f"{place.instance.url}/oidc")
    claim = about("model/digits", "a" * 64, APPROVAL, {"timeCreated": stamp(now())})
    bundle = sign_payload(claim.payload(), KeylessSigner.at(place.named))
    assert trust(place, who=(who,)).accept(bundle, now()).signer == who.fingerprint


def test_a_certificate_that_ends_soon_and_a_token_that_ended_are_replaced(place, monkeypatch):
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", place.instance.token(life=timedelta(seconds=2)))
    signer = KeylessSigner.at(place.named)
    before = len(place.instance.certificates)
    claim = about("model/digits", "a" * 64, APPROVAL, {"timeCreated": stamp(now())}).payload()
    signer.bundle(claim), signer.bundle(claim)
    assert len(place.instance.certificates) == before + 1
    signer._until = now() + timedelta(seconds=30)
    while signer.token.in_validity_period():
        pass
    with pytest.raises(InputError, match="expected a valid identity token"):
        signer.bundle(claim)
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", place.instance.token())
    assert trust(place).accept(signer.bundle(claim), now()).signer == US.fingerprint
    assert len(place.instance.certificates) == before + 2


def test_an_instance_that_refuses_or_is_gone_is_one_line(place, monkeypatch, tmp_path):
    instance = Instance()
    with serving(instance):
        config, _ = instance.write(tmp_path)
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", instance.token())
        signer = KeylessSigner.at(f"keyless://{config}")
        instance.refuses = True
        with pytest.raises(RegistryError, match=r"^keyless://\S+: expected the sigstore instance to sign, found .*503"):
            signer.bundle(b"{}")
    with pytest.raises(RegistryError, match=r"^keyless://\S+: expected the sigstore instance to answer, found [^\n]+$"):
        signer.bundle(b"{}")


def test_a_token_that_the_instance_does_not_know_is_one_line(place, monkeypatch):
    with pytest.raises(RegistryError, match=r"expected the sigstore instance to sign, found [^\n]*401"):
        signed_by(place.named, monkeypatch, Instance().token())


def test_a_config_that_is_none_is_one_line(place, tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere: expected a client trust config, found none"):
        KeylessSigner.at(f"keyless://{tmp_path / 'nowhere'}")
    (tmp_path / "other").write_text("{}")
    with pytest.raises(InputError, match=r"other: expected a client trust config of sigstore, found [^\n]+$"):
        KeylessSigner.at(f"keyless://{tmp_path / 'other'}")


def test_without_the_extra_it_is_one_line(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigstore", None)
    with pytest.raises(InputError, match=r"keyless://: expected the library sigstore.*install holdfast\[keyless\]"):
        KeylessSigner.at("keyless://")
    with pytest.raises(InputError, match=r"identities: expected the library sigstore.*install holdfast\[keyless\]"):
        trust(place)


def test_a_trust_policy_of_keys_needs_no_sigstore(whole):
    file = str(whole.folder / "keys" / "trust.yaml")
    code = (
        "import sys; from pathlib import Path; from holdfast.attestation.demands import Demands; "
        f"assert Demands.of(Path({file!r})).trust.keys; print('sigstore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_commands_sign_and_verify(place, run, tmp_path):
    file = place.folder / "trust.yaml"
    file.write_text(starter_of_identities())
    artifacts = tmp_path / "run"
    shutil.copytree(run.made.folder / "steps", artifacts / "steps")
    for step in run.made.artifacts:
        words = [
            str(artifacts / "steps" / step),
            "--key",
            place.named,
            "--attestations",
            str(artifacts / "attestations"),
        ]
        assert CliRunner().invoke(app, ["attest", *words]).exit_code == 0
    found = CliRunner().invoke(app, ["verify", str(artifacts), "--trust", str(file)])
    assert found.exit_code == 0, found.output
    assert f"signed by {US.fingerprint[:12]}" in found.output
    next((artifacts / "attestations").iterdir()).unlink()
    assert CliRunner().invoke(app, ["verify", str(artifacts), "--trust", str(file)]).exit_code == 1


def starter_of_identities():
    who = f"{{identities: [{{identity: '{US.identity}', issuer: '{US.issuer}'}}]}}"
    roles = "".join(f"  {role}: {who}\n" for role in ROLES)
    return f"version: 1\nroles:\n{roles}sigstore: {{trusted_root: trusted_root.json}}\n"
