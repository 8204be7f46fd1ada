import json
from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast.artifacts.documents import Count, Requirements
from holdfast.attestation import store
from holdfast.attestation.chain import check_chain
from holdfast.attestation.demands import TAG, Demands, bundles_of
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.predicates import Occasion, statement_of, verdict_statement
from holdfast.attestation.sign import attest
from holdfast.attestation.statement import VERDICT
from holdfast.attestation.trust import Revocation, RoleKeys
from holdfast.errors import RefusedError
from holdfast_gates.policy import find
from tests.attestation.chains import NOW, make_keys, make_run, sign_run, signed_run, trust_in

WEEK = timedelta(days=7)


def checked(made, **changes):
    given = {"top": made.top, "documents": made.documents, "bundles": made.bundles, "trust": made.trust, "now": NOW}
    return check_chain(**given | changes)


def test_a_run_has_thirteen_statements_and_the_chain_holds(whole):
    chain = checked(whole)
    assert chain.holds
    assert sum(map(len, whole.bundles.values())) == 13  # twelve steps, and the gate's verdict on the model
    assert {link.role for link in chain.links} == {"data-owner", "trainer", "attacker", "gate", "release"}


@pytest.mark.parametrize("step", ["snapshot", "scan", "train", "attack", "gate", "rollout"])
def test_a_statement_that_was_taken_away_is_missed(whole, step):
    digest = whole.artifacts[step].digest
    chain = checked(whole, bundles={key: found for key, found in whole.bundles.items() if key != digest})
    assert not chain.holds
    assert digest[:12] in chain.objection()
    assert "found none" in chain.objection()


def test_the_verdict_on_the_model_is_asked_for_apart_from_the_decision(whole):
    model = whole.artifacts["train"].digest
    kept = [one for one in whole.bundles[model] if VERDICT.encode() not in _payload(one)]
    assert len(kept) == 1
    assert "verdict on model" in checked(whole, bundles={**whole.bundles, model: kept}).objection()


@pytest.mark.parametrize("wrong", ["trainer", "attacker", "release", "approver", "data-owner"])
def test_a_good_signature_by_the_wrong_role_is_refused(whole, wrong):
    gate = whole.artifacts["gate"]
    forged = [
        sign_payload(statement.payload(), whole.keys[wrong])
        for statement in (statement_of(gate.document, gate.digest, Occasion("toy", NOW)),)
    ]
    chain = checked(whole, bundles={**whole.bundles, gate.digest: forged})
    assert f"found the role {wrong}" in chain.objection()


def test_a_key_that_the_policy_does_not_name_is_refused(whole, tmp_path):
    make_key(tmp_path / "gate.pem")
    gate = whole.artifacts["gate"]
    attest(gate, read_signer(str(tmp_path / "gate.pem")), tmp_path, run="toy", at=NOW)
    chain = checked(whole, bundles={**whole.bundles, **store.read_all(tmp_path)})
    assert "found none of theirs" in chain.objection()


def test_a_statement_about_what_the_document_does_not_hold_is_refused(whole):
    attack = whole.artifacts["attack"]
    better = attack.document.model_copy(update={"inputs": {**attack.document.inputs, "model": "0" * 64}})
    forged = statement_of(better, attack.digest, Occasion("toy", NOW))
    bundles = {**whole.bundles, attack.digest: [sign_payload(forged.payload(), whole.keys["attacker"])]}
    assert "found another claim" in checked(whole, bundles=bundles).objection()


def test_a_verdict_on_a_decision_that_failed_does_not_count(tmp_path):
    made = signed_run(tmp_path)
    failed = make_failed(made)
    forged = verdict_statement(failed.document, failed.digest, Occasion("toy", NOW))
    attest(failed, made.keys["gate"], tmp_path / "attestations", run="toy", at=NOW)
    model = made.artifacts["train"].digest
    bundles = {**made.bundles, model: [sign_payload(forged.payload(), made.keys["gate"])]}
    chain = checked(
        made, top=failed.digest, documents={**made.documents, failed.digest: failed.document}, bundles=bundles
    )
    assert "verdict on model" in chain.objection()


def make_failed(made):
    from holdfast.artifacts.documents import Verdict
    from holdfast.artifacts.folder import save

    document = made.artifacts["gate"].document
    check = document.checks[0].model_copy(update={"verdict": Verdict.FAIL})
    failed = document.model_copy(update={"checks": (check, *document.checks[1:]), "verdict": Verdict.FAIL})
    return save(made.folder / "steps" / "failed", failed)


def test_an_old_verdict_is_refused_and_a_young_one_is_not(whole):
    trust = trust_in(whole.folder / "keys", max_age_days=7)
    assert checked(whole, trust=trust, now=NOW + WEEK).holds
    assert "the last 7 days" in checked(whole, trust=trust, now=NOW + WEEK + timedelta(hours=1)).objection()


def test_a_statement_from_the_future_is_refused(whole):
    assert "a time that has come" in checked(whole, now=NOW - timedelta(hours=1)).objection()
    assert checked(whole, now=NOW - timedelta(minutes=4)).holds


def test_only_a_policy_on_the_list_counts(whole):
    policy = whole.artifacts["gate"].document.policy
    assert checked(whole, trust=trust_in(whole.folder / "keys", policies=(policy,))).holds
    other = trust_in(whole.folder / "keys", policies=("0" * 64,))
    assert "a policy that counts" in checked(whole, trust=other).objection()


def test_a_revoked_key_no_longer_counts(whole):
    stolen = whole.keys["gate"].fingerprint
    trust = trust_in(whole.folder / "keys", revoked=(Revocation(fingerprint=stolen),))
    assert "not revoked" in checked(whole, trust=trust).objection()
    later = Revocation(fingerprint=stolen, since=NOW + timedelta(days=1))
    assert checked(whole, trust=trust_in(whole.folder / "keys", revoked=(later,))).holds


def test_a_role_counts_only_while_it_is_valid(whole):
    roles = {"attacker": RoleKeys(keys=("attacker.pub",), valid_until=NOW - timedelta(days=1))}
    assert "was valid" in checked(whole, trust=trust_in(whole.folder / "keys", roles=roles)).objection()
    roles = {"attacker": RoleKeys(keys=("attacker.pub",), valid_until=NOW, valid_from=NOW)}
    assert checked(whole, trust=trust_in(whole.folder / "keys", roles=roles)).holds


def test_a_threshold_asks_for_different_keys(tmp_path):
    made = signed_run(tmp_path)
    make_key(tmp_path / "keys" / "second.pem")
    roles = {"gate": RoleKeys(keys=("gate.pub", "second.pub"), threshold=2)}
    trust = trust_in(tmp_path / "keys", roles=roles)
    sign_again = {"run": "toy", "at": NOW + timedelta(minutes=1)}
    for step in ("gate", "register"):
        attest(made.artifacts[step], made.keys["gate"], tmp_path / "attestations", **sign_again)
    assert "the signatures of 2 keys or identities" in checked(made, trust=trust).objection()
    second = read_signer(str(tmp_path / "keys" / "second.pem"))
    for step in ("gate", "register"):
        attest(made.artifacts[step], second, tmp_path / "attestations", **sign_again)
    assert checked(made, trust=trust).holds


def test_the_statements_of_another_run_do_not_fit(whole, tmp_path):
    other = make_run(tmp_path)
    changed = other["attack"].document.model_copy(update={"worst_case": Count(k=999, n=1000)})
    from holdfast.artifacts.folder import save

    better = save(tmp_path / "steps" / "attack", changed)
    bundles = {**whole.bundles, better.digest: whole.bundles[whole.artifacts["attack"].digest]}
    chain = checked(whole, top=better.digest, documents={**whole.documents, better.digest: changed}, bundles=bundles)
    assert not chain.holds


def test_without_the_document_of_an_input_its_signed_word_is_followed(whole):
    kept = {key: found for key, found in whole.documents.items() if key != whole.artifacts["baseline"].digest}
    assert checked(whole, documents=kept).holds
    snapshot = whole.artifacts["snapshot"].digest
    bundles = {key: found for key, found in whole.bundles.items() if key != snapshot}
    assert not checked(
        whole, documents={key: one for key, one in kept.items() if key != snapshot}, bundles=bundles
    ).holds


def test_a_policy_that_requires_signatures_is_refused_without_a_trust_policy(tmp_path):
    required = find("default").model_copy(update={"require": Requirements(attested=True)})
    made = make_run(tmp_path, required)
    with pytest.raises(RefusedError, match=r"gate: expected a trust policy.*name one with --trust"):
        Demands().meet(made["gate"], (), {})
    keys = make_keys(tmp_path / "keys")
    demands = Demands(trust_in(tmp_path / "keys"), NOW)
    with pytest.raises(RefusedError, match=r"gate-decision \w{12}….*found none"):
        demands.meet(made["gate"], made.values(), bundles_of(tmp_path))
    sign_run(tmp_path, made, keys)
    assert demands.meet(made["gate"], made.values(), bundles_of(tmp_path)).holds


def test_the_verdict_ages_by_the_stricter_of_both_policies(tmp_path):
    aging = find("default").model_copy(update={"require": Requirements(attested=True, max_age_days=2)})
    made = make_run(tmp_path, aging)
    sign_run(tmp_path, made, make_keys(tmp_path / "keys"))
    demands = Demands(trust_in(tmp_path / "keys", max_age_days=7), NOW + timedelta(days=3))
    with pytest.raises(RefusedError, match="the last 2 days"):
        demands.meet(made["gate"], made.values(), bundles_of(tmp_path))


def test_the_age_of_what_is_being_replaced_is_not_asked(whole):
    """Or no new model could ever take the place of one whose verdict became too old; its signatures still count."""
    late = Demands(trust_in(whole.folder / "keys", max_age_days=7), NOW + 2 * WEEK)
    parts = whole.artifacts["gate"], whole.artifacts.values()
    with pytest.raises(RefusedError, match="the last 7 days"):
        late.meet(*parts, whole.bundles)
    assert replace(late, incumbent=True).meet(*parts, whole.bundles).holds
    with pytest.raises(RefusedError, match="expected a statement by"):
        replace(late, incumbent=True).meet(*parts, {})


def test_bundles_in_tags_are_read_as_those_in_files(whole):
    bundle = whole.bundles[whole.top][0]
    tags = {f"{TAG}1": bundle.decode(), f"{TAG}2": "no bundle", "holdfast.note": bundle.decode()}
    assert bundles_of(whole.folder / "nowhere", tags) == {whole.top: [bundle]}


def _payload(bundle):
    import base64

    return base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])
