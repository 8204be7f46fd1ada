"""Approvals: whose count, for which model and decision, and what is demanded where the policy asks for them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast.artifacts.documents import Requirements
from holdfast.attestation.demands import TAG, Demands, bundles_of, candidate, keep_tags
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.people import SignerWords, approval_statement, objection
from holdfast.attestation.statement import about
from holdfast.attestation.trust import Revocation, RoleKeys
from holdfast.errors import InputError, RefusedError
from holdfast_gates.policy import find
from tests.attestation.chains import NOW, make_keys, make_run, sign_run, trust_in

ONE = Requirements(attested=True, approvals=1)
WORDS = SignerWords("Ana", "read the gate's table")


def signed(made, key, at=NOW, words=WORDS, **changes):
    """The approval of a run's model by a key."""
    one = replace(candidate(made.artifacts["gate"], 3), **changes)
    return sign_payload(approval_statement(one, words, at).payload(), key)


def asked(made, *bundles, require=ONE, trust=None, now=NOW):
    return objection(bundles, candidate(made.artifacts["gate"], 3), require, trust or made.trust, now)


def test_an_approval_by_the_role_approver_counts(whole):
    assert asked(whole, signed(whole, whole.keys["approver"])) is None
    assert asked(whole, require=Requirements(attested=True)) is None


def test_without_one_the_line_names_the_command(whole):
    found = asked(whole)
    assert found.startswith("expected 1 approval of model ")
    assert "found 0; `holdfast approve digits@3 --by NAME" in found


@pytest.mark.parametrize("role", ["trainer", "gate", "release", "attacker", "data-owner"])
def test_another_role_approves_nothing(whole, role):
    found = asked(whole, signed(whole, whole.keys[role]))
    assert "found 0 (bundle 1: expected a signer who may sign https" in found
    assert f"found the role {role}" in found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"decision": "0" * 64}, "the approval by Ana is about another decision of the gate"),
        ({"name": "fraud"}, "the approval by Ana is about another name"),
    ],
)
def test_an_approval_of_something_else_does_not_count(whole, changes, why):
    assert why in asked(whole, signed(whole, whole.keys["approver"], **changes))


def test_an_approval_of_another_model_does_not_count(whole):
    assert "found 0;" in asked(whole, signed(whole, whole.keys["approver"], model="0" * 64))


def test_a_revoked_key_no_longer_approves(whole):
    mine = whole.keys["approver"]
    trust = trust_in(whole.folder / "keys", revoked=(Revocation(fingerprint=mine.fingerprint),))
    assert "expected a key that is not revoked" in asked(whole, signed(whole, mine), trust=trust)


def test_an_approval_from_the_future_does_not_count_yet(whole):
    later = signed(whole, whole.keys["approver"], at=NOW + timedelta(hours=1))
    assert "expected a time that has come" in asked(whole, later)
    assert asked(whole, later, now=NOW + timedelta(hours=2)) is None


def test_a_claim_with_more_or_less_in_it_is_no_approval(whole):
    one = candidate(whole.artifacts["gate"], 3)
    right = approval_statement(one, WORDS, NOW)
    for predicate in ({**right.predicate, "until": "2099-01-01"}, {**right.predicate, "version": 0}):
        changed = about(right.subject[0].name, one.model, right.predicateType, predicate)
        assert "found 0;" in asked(whole, sign_payload(changed.payload(), whole.keys["approver"]))


def test_two_people_are_two_keys(whole, tmp_path):
    make_key(tmp_path / "ben.pem")
    keys = (str(whole.folder / "keys" / "approver.pub"), str(tmp_path / "ben.pub"))
    trust = trust_in(whole.folder / "keys", roles={"approver": RoleKeys(keys=keys)})
    ana, ben = whole.keys["approver"], read_signer(str(tmp_path / "ben.pem"))
    twice = [signed(whole, ana), signed(whole, ana, words=SignerWords("Ben", "looked again"))]
    two = Requirements(attested=True, approvals=2)
    assert "expected 2 approvals, each by another key" in asked(whole, *twice, require=two, trust=trust)
    assert asked(whole, signed(whole, ana), signed(whole, ben), require=two, trust=trust) is None
    stricter = trust_in(whole.folder / "keys", roles={"approver": RoleKeys(keys=keys, threshold=2)})
    assert "expected 2 approvals" in asked(whole, signed(whole, ana), trust=stricter)


def test_the_trainers_own_key_approves_nothing_where_the_policy_says_so(whole):
    """One key in both roles."""
    trust = trust_in(whole.folder / "keys", roles={"approver": RoleKeys(keys=("trainer.pub",))})
    own = signed(whole, whole.keys["trainer"])
    assert asked(whole, own, trust=trust) is None
    apart = Requirements(attested=True, approvals=1, approver_not_trainer=True)
    assert "its key also has the role trainer" in asked(whole, own, require=apart, trust=trust)
    assert asked(whole, signed(whole, whole.keys["approver"]), require=apart) is None


@pytest.mark.parametrize(
    "words", [SignerWords("", "x"), SignerWords("Ana", " "), SignerWords("Ana", "a\nb"), SignerWords("A" * 101, "x")]
)
def test_who_and_why_are_one_line_each(whole, words):
    with pytest.raises(InputError, match=r"(approver|reason): expected"):
        signed(whole, whole.keys["approver"], words=words)


def test_a_model_is_taken_in_after_it_was_approved(tmp_path):
    made = make_run(tmp_path, find("default").model_copy(update={"require": ONE}))
    keys = make_keys(tmp_path / "keys")
    sign_run(tmp_path, made, keys)
    demands, bundles = Demands(trust_in(tmp_path / "keys"), NOW), bundles_of(tmp_path)
    assert demands.before_approval().meet(made["gate"], made.values(), bundles).holds
    with pytest.raises(RefusedError, match=r"steps/gate: expected 1 approval.*`holdfast approve digits@VERSION"):
        demands.meet(made["gate"], made.values(), bundles)
    incumbent = Demands(trust_in(tmp_path / "keys"), NOW, incumbent=True)
    assert incumbent.meet(made["gate"], made.values(), bundles).holds  # it is being replaced
    one = candidate(made["gate"], 1)
    approved = sign_payload(approval_statement(one, WORDS, NOW).payload(), keys["approver"])
    with_it = {**bundles, one.model: [*bundles[one.model], approved]}
    assert demands.meet(made["gate"], made.values(), with_it).holds


def test_what_is_in_the_tags_reaches_servers_that_do_not_ask_mlflow(whole, tmp_path):
    approved = signed(whole, whole.keys["approver"])
    model = whole.artifacts["train"].digest
    (tmp_path / "version").mkdir()
    keep_tags(tmp_path / "version", {f"{TAG}approval.1": approved.decode(), f"{TAG}x": "no bundle"})
    assert bundles_of(tmp_path / "version") == {model: [approved]}
    keep_tags(tmp_path / "version", {})
    assert bundles_of(tmp_path / "version") == {}
