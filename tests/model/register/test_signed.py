"""What register signs and demands: the chain, the files of the version, the bill of materials."""

import json
from datetime import timedelta

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from holdfast import registry
from holdfast.artifacts.documents import GateDecision, Model, Snapshot
from holdfast.artifacts.folder import load, load_any
from holdfast.attestation.demands import Demands
from holdfast.attestation.sign import attest, signer_for
from holdfast.errors import RefusedError
from holdfast.model.register import materials, pyfunc
from holdfast.model.register.step import Signed, register
from tests.attestation.chains import NOW, make_keys, trust_in


@pytest.fixture
def keys(tmp_path):
    return make_keys(tmp_path / "keys")


def call(chain, tmp_path, tracking, signed):
    return register(
        chain.model,
        tmp_path / "registration",
        decision=chain.decision,
        snapshot=chain.snapshot,
        evidence=chain.evidence,
        tracking=tracking,
        signed=signed,
    )


def sign_all(chain, keys, folder, without=()):
    for ref in (chain.model, chain.decision, chain.snapshot, *chain.evidence.values()):
        artifact = load_any(ref)
        if type(artifact.document) not in without:
            attest(artifact, signer_for(artifact.document, keys), folder, run="toy", at=NOW)


def test_a_signed_chain_is_registered_and_its_version_verifies_alone(chain, tracking, tmp_path, keys):
    passed = chain()
    sign_all(passed, keys, tmp_path / "attestations")
    demands = Demands(trust_in(tmp_path / "keys"), NOW)
    signed = Signed(demands, tmp_path / "attestations", keys["gate"])
    done = call(passed, tmp_path, tracking, signed).document
    bundle = registry.fetch(tracking, done.name, 1, tmp_path / "version", Demands(trust_in(tmp_path / "keys")))
    assert bundle.model.digest == passed.model.digest
    make_keys(tmp_path / "others")
    with pytest.raises(RefusedError, match="found none of theirs"):
        registry.fetch(tracking, done.name, 1, tmp_path / "again", Demands(trust_in(tmp_path / "others"), NOW))


@pytest.mark.parametrize("missing", [Snapshot, Model, GateDecision])
def test_a_statement_that_is_missing_keeps_the_model_out(chain, tracking, tmp_path, keys, missing):
    passed = chain()
    sign_all(passed, keys, tmp_path / "attestations", without=(missing,))
    signed = Signed(Demands(trust_in(tmp_path / "keys"), NOW), tmp_path / "attestations", keys["gate"])
    with pytest.raises(RefusedError, match=r"expected a statement by (data-owner|trainer|gate)"):
        call(passed, tmp_path, tracking, signed)
    assert registry.versions(tracking, "demo-image") == ()


def test_a_version_whose_files_no_one_signed_is_refused_where_a_trust_policy_is(chain, tracking, tmp_path, keys):
    passed = chain()
    sign_all(passed, keys, tmp_path / "attestations")
    done = call(passed, tmp_path, tracking, Signed(Demands(), tmp_path / "attestations")).document
    assert registry.fetch(tracking, done.name, 1, tmp_path / "one") is not None
    with pytest.raises(RefusedError, match=r"model\.sig: expected the signature of the version's files, found none"):
        registry.fetch(tracking, done.name, 1, tmp_path / "two", Demands(trust_in(tmp_path / "keys")))


def test_the_bill_of_materials_is_valid_and_names_model_data_and_packages(chain):
    passed = chain()
    made = [load(ref, kind) for ref, kind in ((passed.model, Model), (passed.decision, GateDecision))]
    data = load(passed.snapshot, Snapshot)
    bill = materials.bill(*made, data, pyfunc.requirements())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode()) is None
    value = json.loads(bill)
    assert value["metadata"]["component"]["type"] == "machine-learning-model"
    assert value["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": passed.model.digest}]
    named = {one["name"]: one for one in value["components"]}
    assert named[f"{data.document.name} data"]["hashes"][0]["content"] == passed.snapshot.digest
    assert named["numpy"]["purl"] == f"pkg:pypi/numpy@{named['numpy']['version']}"
    assert "networkx" in named  # a package that torch needs, not one of ours
    assert materials.bill(*made, data, pyfunc.requirements()) == bill


def test_an_alias_on_an_older_release_is_refused_until_it_is_released_again(chain, tracking, tmp_path, keys):
    passed = chain()
    sign_all(passed, keys, tmp_path / "attestations")
    done = call(passed, tmp_path, tracking, Signed(Demands(), tmp_path / "attestations")).document
    newer = chain(seed=1)
    (tmp_path / "newer").mkdir()
    sign_all(newer, keys, tmp_path / "newer" / "attestations")
    call(newer, tmp_path / "newer", tracking, Signed(Demands(), tmp_path / "newer" / "attestations"))
    trust = trust_in(tmp_path / "keys")
    for number in (1, 2):
        assert registry.release(tracking, done.name, number, keys["release"]).sequence == number
    after = NOW + timedelta(hours=6)
    with pytest.raises(RefusedError, match="sequence number 2, found 1"):
        registry.require_released(tracking, done.name, passed.model.digest, trust, after)
    assert registry.require_released(tracking, done.name, newer.model.digest, trust, after).version == 2
    registry.release(tracking, done.name, 1, keys["release"])
    assert registry.require_released(tracking, done.name, passed.model.digest, trust, after).sequence == 3
