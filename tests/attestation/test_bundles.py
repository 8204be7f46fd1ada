"""Bundles and keys: what foreign verifiers read, and what ours refuses."""

import base64
import hashlib
import json
import stat
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.attestation import store
from holdfast.attestation.envelope import read_bundle, sign_payload
from holdfast.attestation.keys import make_key, parse_public, read_public, read_signer
from holdfast.attestation.statement import APPROVAL, about, made_at, parse_statement
from holdfast.errors import HoldfastError, InputError, IntegrityError, RefusedError
from tests.attestation.chains import NOW, ROLES
from tests.attestation.foreign import read_by_sigstore
from tests.attestation.versions import store_version


def every_bundle(made):
    return [bundle for found in made.bundles.values() for bundle in found]


def test_sigstore_verifies_every_bundle_of_a_run(whole):
    pytest.importorskip("sigstore.dsse", reason="sigstore is a foreign verifier of the tests (group foreign)")
    assert read_by_sigstore(whole) == 13


def test_sigstore_reads_our_statements(whole):
    dsse = pytest.importorskip("sigstore.dsse", reason="sigstore is a foreign verifier of the tests (group foreign)")
    for bundle in every_bundle(whole):
        payload = base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])
        found = dsse.Statement(payload)
        ours = parse_statement(payload, "x")
        assert found._matches_digest(
            dsse.Hashed(algorithm=dsse.HashAlgorithm.SHA2_256, digest=bytes.fromhex(ours.digest))
        )


def test_openssl_verifies_a_bundle(whole, tmp_path):
    bundle = json.loads(every_bundle(whole)[0])["dsseEnvelope"]
    payload = base64.b64decode(bundle["payload"])
    kind = bundle["payloadType"].encode()
    (tmp_path / "message").write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    (tmp_path / "sig").write_bytes(base64.b64decode(bundle["signatures"][0]["sig"]))
    answers = [
        subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", str(whole.folder / "keys" / f"{role}.pub"),
             "-signature", str(tmp_path / "sig"), str(tmp_path / "message")],
            capture_output=True, text=True, check=False,
        ).stdout
        for role in ROLES
    ]  # fmt: skip
    assert answers.count("Verified OK\n") == 1


def test_the_subject_is_the_digest_of_the_documents_bytes(whole):
    for artifact in whole.artifacts.values():
        found = hashlib.sha256((artifact.folder / "artifact.json").read_bytes()).hexdigest()
        assert found in whole.bundles


def test_a_key_is_private_and_is_never_overwritten(tmp_path):
    made = make_key(tmp_path / "gate.pem")
    assert stat.S_IMODE((tmp_path / "gate.pem").stat().st_mode) == 0o600
    assert hashlib.sha256((tmp_path / "gate.pub").read_bytes()).hexdigest() == made.fingerprint
    with pytest.raises(InputError, match=r"gate\.pem: expected no file, found one"):
        make_key(tmp_path / "gate.pem")
    assert read_signer(str(tmp_path / "gate.pem")).fingerprint == read_public(tmp_path / "gate.pub").fingerprint


@pytest.mark.parametrize(
    "command",
    [
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ["genpkey", "-algorithm", "ED25519"],
    ],
)
def test_another_kind_of_key_is_refused(tmp_path, command):
    subprocess.run(["openssl", *command, "-out", str(tmp_path / "k.pem")], check=True, capture_output=True)
    with pytest.raises(InputError, match=r"k\.pem: expected a private key on P-256, found another kind"):
        read_signer(str(tmp_path / "k.pem"))


@pytest.mark.parametrize("text", [b"", b"not a key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_one_line(text):
    with pytest.raises(InputError, match="trust: expected a public key in PEM form"):
        parse_public(text, "trust")


def test_one_flipped_bit_of_a_bundle_is_never_another_claim(whole):
    """Every bit of one bundle: refused, or the very statement that was signed (20,000 bits; see facts in the docs)."""
    good = every_bundle(whole)[0]
    statement = whole.trust.accept(good, NOW).statement
    kept = 0
    for place in range(len(good)):
        for bit in range(8):
            changed = bytearray(good)
            changed[place] ^= 1 << bit
            try:
                found = whole.trust.accept(bytes(changed), NOW)
            except HoldfastError:
                continue
            assert found.statement == statement
            kept += 1
    assert 0 < kept < 100 * 8  # of the hint, which is not signed, every character may be another one


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda b: b | {"extra": 1}, "Extra inputs"),
        (lambda b: b | {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2"}, "mediaType"),
        (lambda b: b | {"dsseEnvelope": b["dsseEnvelope"] | {"payloadType": "text/plain"}}, "payloadType"),
        (lambda b: b | {"dsseEnvelope": b["dsseEnvelope"] | {"signatures": []}}, "signatures"),
        (
            lambda b: b | {"dsseEnvelope": b["dsseEnvelope"] | {"signatures": b["dsseEnvelope"]["signatures"] * 2}},
            "signatures",
        ),
        (lambda b: b | {"dsseEnvelope": b["dsseEnvelope"] | {"payload": "a b"}}, "expected base64"),
    ],
)
def test_a_bundle_of_another_form_is_refused(whole, change, error):
    bundle = json.loads(every_bundle(whole)[0])
    with pytest.raises(IntegrityError, match=error):
        read_bundle(json.dumps(change(bundle)).encode(), "b")


def test_a_key_that_is_given_twice_is_refused(whole, tmp_path):
    signer = whole.keys["approver"]
    digest = "a" * 64
    twice = f'{{"_type":"https://in-toto.io/Statement/v1","_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"model/x","digest":{{"sha256":"{digest}"}}}}],"predicateType":"{APPROVAL}","predicate":{{"timeCreated":"2026-11-01T12:00:00Z"}}}}'
    with pytest.raises(HoldfastError, match="given twice"):
        whole.trust.accept(sign_payload(twice.encode(), signer), NOW)
    once = twice.replace('"_type":"https://in-toto.io/Statement/v1",', "", 1)
    assert whole.trust.accept(sign_payload(once.encode(), signer), NOW).role == "approver"


@pytest.mark.parametrize("predicate", [{}, {"timeCreated": "yesterday"}, {"timeCreated": 5}])
def test_a_statement_without_a_time_is_refused(whole, predicate):
    statement = about("model/digits", "a" * 64, APPROVAL, predicate)
    with pytest.raises(RefusedError, match="the time at which it was signed"):
        whole.trust.accept(sign_payload(statement.payload(), whole.keys["approver"]), NOW)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_times_are_read_back(at):
    from holdfast.attestation.statement import stamp

    moment = at.replace(microsecond=0, tzinfo=UTC)
    assert made_at(about("model/x", "a" * 64, APPROVAL, {"timeCreated": stamp(moment)})) == moment


def test_a_bundle_is_kept_once(whole, tmp_path):
    bundle = every_bundle(whole)[0]
    path = store.keep(tmp_path / "a", bundle)
    store.keep(tmp_path / "a", bundle)
    assert path.read_bytes() == bundle + b"\n"
    assert store.read_all(tmp_path / "nowhere") == {}


def test_more_bundles_than_anyone_signs_are_refused(whole, tmp_path):
    bundle = every_bundle(whole)[0]
    path = store.keep(tmp_path, bundle)
    path.write_bytes((bundle + b"\n") * 1001)
    with pytest.raises(IntegrityError, match=r"at most 1000 bundles, found 1001"):
        store.read_all(tmp_path)
    path.write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(IntegrityError, match="at most 4194304 bytes"):
        store.read_all(tmp_path)


def test_what_is_not_named_by_a_digest_is_left_alone(whole, tmp_path):
    (tmp_path / "README").write_text("x")
    (tmp_path / f"{'g' * 64}.jsonl").write_text("x")
    assert store.read_all(tmp_path) == {}


def test_model_signing_verifies_the_files_of_a_version(whole, tmp_path):
    """OpenSSF's own verifier, on the folder as the register step leaves it; a changed file is refused by it, too."""
    verifying = pytest.importorskip("model_signing.verifying", reason="a foreign verifier of the tests (group foreign)")
    version = store_version(whole, tmp_path / "version", whole.keys["gate"])
    config = verifying.Config().use_elliptic_key_verifier(public_key=whole.folder / "keys" / "gate.pub")
    config.verify(version.folder, version.folder / "model.sig")
    (version.folder / "replay.npz").write_bytes(b"others")
    with pytest.raises(ValueError, match="Hash mismatch for 'replay.npz'"):
        config.verify(version.folder, version.folder / "model.sig")
