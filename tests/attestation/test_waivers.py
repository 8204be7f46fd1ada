"""Waivers: the gate counts those that the policy lets count, for this model, and whoever takes it in looks again."""

from datetime import timedelta
from typing import NamedTuple

import pytest

from holdfast.artifacts.documents import GateDecision, Requirements, Verdict
from holdfast.artifacts.folder import load, load_any, seal
from holdfast.attestation import store
from holdfast.attestation.demands import Demands, bundles_of
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import make_key, read_signer
from holdfast.attestation.predicates import NO_WAIVERS
from holdfast.attestation.statement import VERDICT, about
from holdfast.attestation.trust import Revocation, RoleKeys
from holdfast.attestation.verify import Signatures, verify_folder
from holdfast.attestation.waivers import WaiverTerms, waiver_statement
from holdfast.errors import InputError, RefusedError, WaiverEndedError
from holdfast_gates.confirm import confirm
from holdfast_gates.policy import AtLeast, Policy, find
from holdfast_gates.report import to_junit
from holdfast_gates.waivers import SignedWaivers, apply
from tests.attestation.chains import NOW, make_keys, make_run, sign_run, trust_in
from tests.gates.conftest import MAKERS

CHECK = "clean_accuracy"
MONTH = NOW + timedelta(days=30)


def policy(at_most: int = 1, **require: object) -> Policy:
    """The default one, under which the toy model lacks clean accuracy; and robust accuracy, where two are waived."""
    default = find("default")
    checks = default.checks.model_copy(update={CHECK: AtLeast(at_least=0.999)})
    required = Requirements.model_validate({"attested": True, "waivers_at_most": at_most, **require})
    return default.model_copy(update={"checks": checks, "require": required})


class World(NamedTuple):
    folder: object
    keys: dict
    model: str

    def signed(self, role="approver", *, check=CHECK, model="", owner="Ana", until=MONTH, at=NOW):
        terms = WaiverTerms(check, owner, "ships on Monday", until)
        return sign_payload(waiver_statement(model or self.model, terms, at).payload(), self.keys[role])

    def judged(self, *bundles, by=None, now=NOW, trust=None):
        """The decision of a run with these waivers, written below the folder."""
        given = SignedWaivers(store.by_subject(bundles), trust or self.trust(), now)
        out = self.folder / f"run-{len(list(self.folder.iterdir()))}"
        made = make_run(out, by or policy(), waivers=given)
        sign_run(out, made, self.keys)
        for bundle in bundles:
            store.keep(out / store.ATTESTATIONS, bundle)
        return made

    def decided(self, *bundles, **given) -> GateDecision:
        return self.judged(*bundles, **given)["gate"].document

    def trust(self, **changes):
        return trust_in(self.folder / "keys", **changes)

    def meets(self, made, *, now=NOW, trust=None, bundles=None, **changes):
        given = bundles_of(made["gate"].folder.parents[1]) if bundles is None else bundles
        return Demands(trust or self.trust(), now, **changes).meet(made["gate"], made.values(), given)


@pytest.fixture
def world(tmp_path):
    keys = make_keys(tmp_path / "keys")
    return World(tmp_path, keys, make_run(tmp_path / "first", policy())["train"].digest)


def test_without_a_waiver_the_model_fails(world):
    assert world.decided().verdict is Verdict.FAIL


def test_a_waived_check_stays_failed_and_no_longer_decides(world):
    made = world.judged(world.signed())
    decision = made["gate"].document
    assert decision.verdict is Verdict.PASS
    (found,) = (check.verdict for check in decision.checks if check.name == CHECK)
    assert found is Verdict.FAIL
    (waiver,) = decision.waivers
    assert (waiver.check, waiver.owner, waiver.reason) == (CHECK, "Ana", "ships on Monday")
    assert decision.waivers_not_counted == ()
    assert world.meets(made).holds


def test_every_page_of_the_decision_shows_it(world):
    made = world.judged(world.signed())
    page = made["gate"].open("decision.md").read().decode()
    assert "Every check passed, or a person waived it." in page
    assert "| **fail**, waived |" in page
    assert f"## Waived\n\n- {CHECK}, until {made['gate'].document.waivers[0].until}: Ana: ships on Monday" in page
    assert b'<skipped message="skipped: fail, waived by Ana until' in to_junit(made["gate"].document)


def test_the_gates_verdict_no_longer_claims_that_there_were_no_waivers(world):
    def claimed(made):
        found = [one.statement for one in world.meets(made).signed if one.statement.predicateType == VERDICT]
        return found[0].predicate["properties"]

    assert NO_WAIVERS not in claimed(world.judged(world.signed()))
    assert NO_WAIVERS in claimed(world.judged(by=find("default")))


@pytest.mark.parametrize("role", ["trainer", "gate", "release", "attacker", "data-owner"])
def test_another_role_waives_nothing(world, role):
    decision = world.decided(world.signed(role))
    assert (decision.verdict, decision.waivers) == (Verdict.FAIL, ())
    (why,) = decision.waivers_not_counted
    assert why.startswith("the waiver of clean_accuracy by Ana: expected a signer who may sign")
    assert why.endswith(f"found the role {role}")


def test_another_models_waiver_is_named_and_not_counted(world):
    decision = world.decided(world.signed(model="0" * 64))
    assert decision.verdict is Verdict.FAIL
    assert decision.waivers_not_counted == ("the waiver of clean_accuracy by Ana: it is about model 000000000000…",)


def test_a_waiver_in_the_file_of_another_model_is_still_about_its_own(world):
    given = SignedWaivers({world.model: [world.signed(model="0" * 64)]}, world.trust(), NOW)
    assert make_run(world.folder / "run", policy(), waivers=given)["gate"].document.verdict is Verdict.FAIL


def test_an_ended_waiver_is_not_counted(world):
    decision = world.decided(world.signed(), now=MONTH)
    assert decision.verdict is Verdict.FAIL
    assert "it ended at" in decision.waivers_not_counted[0]


def test_a_waiver_that_ends_too_late_for_the_policy_is_not_counted(world):
    late = world.signed(until=NOW + timedelta(days=91))
    assert "expected an end within 90 days" in world.decided(late).waivers_not_counted[0]
    assert world.decided(late, by=policy(waiver_days=91)).verdict is Verdict.PASS


def test_a_revoked_key_waives_nothing(world):
    trust = world.trust(revoked=(Revocation(fingerprint=world.keys["approver"].fingerprint),))
    assert "expected a key that is not revoked" in world.decided(world.signed(), trust=trust).waivers_not_counted[0]


def test_a_forged_waiver_is_not_counted(world, tmp_path):
    make_key(tmp_path / "mine.pem")
    forged = World(world.folder, {"approver": read_signer(str(tmp_path / "mine.pem"))}, world.model).signed()
    assert "found none of theirs" in world.decided(forged).waivers_not_counted[0]


def test_a_claim_with_more_in_it_is_no_waiver(world):
    right = waiver_statement(world.model, WaiverTerms(CHECK, "Ana", "x", MONTH), NOW)
    wide = about("model", world.model, right.predicateType, {**right.predicate, "check": "*"})
    decision = world.decided(sign_payload(wide.payload(), world.keys["approver"]))
    assert (decision.verdict, decision.waivers) == (Verdict.FAIL, ())


def test_by_default_no_waiver_counts(world):
    decision = world.decided(world.signed(), by=policy(0))
    assert decision.verdict is Verdict.FAIL
    assert "the policy counts at most 0" in decision.waivers_not_counted[0]


def test_more_waivers_than_the_policy_counts_leave_the_rest_failed(world):
    def two(at_most):
        stricter = policy(at_most)
        checks = stricter.checks.model_copy(update={"robust_accuracy": AtLeast(at_least=0.99)})
        return stricter.model_copy(update={"checks": checks})

    both = world.signed(), world.signed(check="robust_accuracy", owner="Ben")
    decision = world.decided(*both, by=two(1))
    assert (decision.verdict, [one.check for one in decision.waivers]) == (Verdict.FAIL, [CHECK])
    (why,) = decision.waivers_not_counted
    assert why.startswith("the waiver of robust_accuracy by Ben: the policy counts at most 1")
    assert world.decided(*both, by=two(2)).verdict is Verdict.PASS


def test_a_waiver_of_something_that_is_not_asked_is_named(world):
    decision = world.decided(world.signed(), world.signed(check="unknown"))
    assert decision.verdict is Verdict.PASS
    assert "the policy asks no check of this name" in decision.waivers_not_counted[0]


def test_that_the_bytes_belong_together_can_never_be_waived(world):
    decision = world.decided()
    broken = decision.checks[0].model_copy(update={"verdict": Verdict.FAIL})
    assert broken.name == "lineage"
    failed = GateDecision(**{**dict(decision), "checks": (broken, *decision.checks[1:])})
    given = SignedWaivers(store.by_subject([world.signed(check="lineage")]), world.trust(), NOW)
    found = apply(failed, given.read(world.model, failed.require))
    assert found.verdict is Verdict.FAIL
    assert "no one can waive it" in found.waivers_not_counted[0]


def test_the_trainers_key_waives_nothing_where_the_policy_says_so(world):
    trust = world.trust(roles={"approver": RoleKeys(keys=("trainer.pub",))})
    own = world.signed("trainer")
    assert world.decided(own, trust=trust).verdict is Verdict.PASS
    apart = world.decided(own, trust=trust, by=policy(approver_not_trainer=True))
    assert "also has the role trainer" in apart.waivers_not_counted[0]


def test_a_threshold_asks_for_two_keys(world, tmp_path):
    make_key(tmp_path / "keys" / "ben.pem")
    trust = world.trust(roles={"approver": RoleKeys(keys=("approver.pub", "ben.pub"), threshold=2)})
    world.keys["ben"] = read_signer(str(tmp_path / "keys" / "ben.pem"))
    assert "expected the signatures of 2 keys, found 1" in str(world.decided(world.signed(), trust=trust))
    made = world.judged(world.signed(), world.signed("ben", owner="Ben"), trust=trust)
    assert made["gate"].document.verdict is Verdict.PASS
    assert world.meets(made, trust=trust).holds


# --- whoever takes the model in ---------------------------------------------------------------------------------------


def test_when_a_waiver_ends_the_model_is_no_longer_taken_in(world):
    made = world.judged(world.signed())
    with pytest.raises(
        WaiverEndedError, match=r"the waiver of clean_accuracy by Ana ended at .*waive it again and run"
    ):
        world.meets(made, now=MONTH)
    assert world.meets(made, now=MONTH, incumbent=True).holds  # it is being replaced


def test_a_key_that_is_revoked_later_takes_the_waiver_with_it(world):
    made = world.judged(world.signed())
    trust = world.trust(revoked=(Revocation(fingerprint=world.keys["approver"].fingerprint),))
    with pytest.raises(RefusedError, match="expected the waiver of clean_accuracy by Ana, .*not revoked"):
        world.meets(made, trust=trust)


def test_a_decision_without_the_waiver_that_it_names_is_refused(world):
    """Whoever holds no key of an approver can write any waiver into a decision, and even sign it as the gate."""
    made = world.judged(world.signed())
    given = bundles_of(made["gate"].folder.parents[1])
    approver = world.keys["approver"].fingerprint.encode()
    kept = [one for one in given[world.model] if approver not in one]
    with pytest.raises(RefusedError, match="signed by a key of the role approver, found none that counts"):
        world.meets(made, bundles={**given, world.model: kept})
    another = {**given, world.model: [*kept, world.signed(owner="Ben")]}
    with pytest.raises(RefusedError, match="expected the waiver of clean_accuracy by Ana"):
        world.meets(made, bundles=another)


def test_verify_shows_waivers_and_refuses_ended_ones(world):
    made = world.judged(world.signed())
    run = made["gate"].folder.parents[1]
    trust = world.trust(policies=("shipped", made["gate"].document.policy))
    given = {"bundles": bundles_of(run), "trust": trust}
    found = {one.state: one.detail for one in verify_folder(run, run, Signatures(**given, now=NOW))}
    assert set(found) == {"ok"}
    refused = [one for one in verify_folder(run, run, Signatures(**given, now=MONTH)) if one.state != "ok"]
    assert [(one.role, "ended at" in one.detail) for one in refused] == [("approver", True)]


def test_the_gate_confirms_a_decision_with_waivers_and_refuses_one_that_was_edited(world):
    made = world.judged(world.signed())
    evidence = {role: load_any(made[role].folder) for role in MAKERS}
    confirm(made["gate"], made["train"], made["snapshot"], evidence)
    document = made["gate"].document
    with pytest.raises(ValueError, match="the policy counts at most 1, each of a check of its own that did not pass"):
        GateDecision(**{**dict(document), "waivers": document.waivers * 2})
    other = document.waivers[0].model_copy(update={"check": "robust_accuracy"})
    with pytest.raises(ValueError, match="waivers of robust_accuracy"):
        GateDecision(**{**dict(document), "waivers": (other,)})
    assert load(made["gate"].folder, GateDecision).document == document


def test_waivers_that_the_policy_does_not_count_are_refused_when_the_gate_judges_again(world):
    """A decision that was written by hand, with requirements of its own, over the policy's file."""
    made = world.judged(world.signed())
    none = world.judged(world.signed(), by=policy(0))
    edited = {"waivers": made["gate"].document.waivers, "verdict": Verdict.PASS, "require": policy(1).require}
    place = none["gate"].folder
    forged = GateDecision(**{**dict(none["gate"].document), **edited})
    (place / "artifact.json").unlink()
    sealed = seal(place, forged)
    evidence = {role: load_any(none[role].folder) for role in MAKERS}
    with pytest.raises(RefusedError, match="expected waivers that its policy counts.*the policy counts at most 0"):
        confirm(sealed, none["train"], none["snapshot"], evidence)


@pytest.mark.parametrize("until", [NOW, NOW - timedelta(days=1), NOW + timedelta(days=367)])
def test_an_end_that_can_never_count_is_refused(world, until):
    with pytest.raises(InputError, match="until: expected a time within 366 days"):
        world.signed(until=until)


def test_waivers_need_signatures():
    with pytest.raises(ValueError, match="waivers_at_most and max_age_days need attested: true"):
        Requirements(waivers_at_most=1)
