"""The checks against the champion: never a pass that was not measured, never one for another contract."""

import pytest

from holdfast.artifacts.documents import ChampionComparison, Paired, Verdict
from holdfast.workload.schema import GateConfig
from holdfast_gates.decide import Evidence, decide
from holdfast_gates.policy import find, resolve
from holdfast_gates.report import to_markdown

CHECKS = ("champion_clean", "champion_robust", "champion_class_recall")
NOTHING = {"champion_clean": None, "champion_worst_case": None, "champion_classes": ()}
GONE = ChampionComparison(
    model_version=3,
    differences=("the champion reads 'zip', the candidate does not",),
    not_compared="the champion (version 3) reads 'zip', which this delivery does not have",
)
MOVED = ChampionComparison(model_version=3, differences=("the candidate reads 'fee', the champion does not",))


@pytest.fixture
def judge(policy, judged, evidence, make):
    """The lines of the champion's checks for a report with these changes."""

    def made(policy=policy, **changes):
        attacked = Evidence(make["attack"](**changes), evidence["attack"].digest)
        decision = decide(policy, judged, {**evidence, "attack": attacked})
        return {check.name: check for check in decision.checks if check.name in CHECKS}, decision

    return made


@pytest.fixture
def lax():
    return find("default").model_copy(update={"allow_new_contract": True})


def verdicts(lines):
    return {check.verdict for check in lines.values()}


def test_without_a_champion_the_comparison_is_skipped(judge):
    lines, _ = judge(champion=ChampionComparison(), **NOTHING)
    assert verdicts(lines) == {Verdict.PASS}
    assert {check.reason for check in lines.values()} == {"skipped: no champion to compare with"}


def test_a_champion_that_was_not_measured_is_inconclusive_and_the_reason_is_named(judge):
    lines, decision = judge(champion=GONE, **NOTHING)
    assert verdicts(lines) == {Verdict.INCONCLUSIVE}
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert lines["champion_clean"].reason == (
        "another contract than the champion's: the champion reads 'zip', the candidate does not; "
        "not compared: the champion (version 3) reads 'zip', which this delivery does not have"
    )


def test_a_report_that_does_not_know_of_a_champion_is_no_evidence(judge):
    lines, _ = judge(champion=None, **NOTHING)
    assert verdicts(lines) == {Verdict.INCONCLUSIVE}


def test_a_new_contract_is_inconclusive_however_good_the_comparison_is(judge):
    lines, _ = judge(champion=MOVED)
    assert verdicts(lines) == {Verdict.INCONCLUSIVE}
    assert lines["champion_clean"].measured == 0.0
    assert "the candidate reads 'fee'" in lines["champion_clean"].reason


def test_a_policy_that_allows_a_new_contract_takes_what_was_measured(judge, lax):
    lines, decision = judge(lax, champion=MOVED)
    assert verdicts(lines) == {Verdict.PASS}
    assert decision.verdict is Verdict.PASS
    assert lines["champion_robust"].reason.startswith("another contract than the champion's, allowed by the policy: ")


def test_it_does_not_take_a_worse_model(judge, lax):
    worse = Paired(both=800, only_candidate=0, only_champion=150, neither=50)
    lines, _ = judge(lax, champion=MOVED, champion_clean=worse)
    assert lines["champion_clean"].verdict is Verdict.FAIL
    lines, _ = judge(champion=MOVED, champion_clean=worse)
    assert lines["champion_clean"].verdict is Verdict.FAIL


def test_it_takes_a_champion_that_cannot_be_measured_and_the_decision_says_so(judge, lax):
    lines, decision = judge(lax, champion=GONE, **NOTHING)
    assert verdicts(lines) == {Verdict.PASS}
    assert "which this delivery does not have" in to_markdown(decision, lax)


def test_measured_without_an_attack_alone_the_robust_comparison_is_inconclusive(judge):
    partly = MOVED.model_copy(update={"not_attacked": "'zip' is of another kind for the champion"})
    lines, _ = judge(champion=partly, champion_worst_case=None, champion_classes=())
    assert lines["champion_clean"].measured is not None
    assert lines["champion_robust"].measured is None
    assert "not compared: 'zip' is of another kind" in lines["champion_robust"].reason


def test_the_advice_is_to_move_the_clients(judge, policy):
    _, decision = judge(champion=GONE, **NOTHING)
    text = to_markdown(decision, policy)
    assert (
        "- champion_clean: Bring the delivery back to the champion's columns and classes; or move the clients" in text
    )


def test_a_workload_that_allows_a_new_contract_is_recorded(judge):
    policy = resolve(GateConfig(allow_new_contract=True))
    assert policy.allow_new_contract
    _, decision = judge(policy, champion=MOVED)
    assert "- policy: allow_new_contract = True" in to_markdown(decision, policy)


def test_a_workload_may_forbid_what_its_policy_allows(lax, tmp_path):
    path = tmp_path / "lax.yaml"
    path.write_text(find("default").to_json().replace('"allow_new_contract":false', '"allow_new_contract":true'))
    strict = resolve(GateConfig(policy=str(path), allow_new_contract=False))
    assert not strict.allow_new_contract
    assert strict.digest != find("default").digest
