"""A retraining that a monitor asked for: rows from before the alarm decide, not the new ones."""

import pytest

from holdfast.artifacts.documents import OlderRows, Paired, Verdict
from holdfast_gates.decide import Evidence, decide
from tests.gates.conftest import robustness

ASKED = {"request": "9" * 64, "older_than": "2026-03-08T00:00:00Z"}
BETTER = Paired(both=900, only_candidate=80, only_champion=0, neither=20)
"""What the fresh delivery shows, of which an attacker may have written the held-out rows, too."""
WORSE = Paired(both=400, only_candidate=2, only_champion=60, neither=38)
SAME = Paired(both=480, only_candidate=5, only_champion=5, neither=10)


@pytest.fixture
def judge(policy, judged, evidence):
    def with_older(older):
        report = robustness(older=older, champion_clean=BETTER, champion_worst_case=BETTER)
        found = decide(policy, judged, evidence | {"attack": Evidence(report, "f" * 64)})
        return found, next((check for check in found.checks if check.name == "older_rows"), None)

    return with_older


def test_a_challenger_that_is_better_on_new_rows_alone_does_not_win(judge):
    decision, check = judge(OlderRows(pairs=WORSE, **ASKED))
    assert (decision.verdict, check.verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert check.reason.startswith("rows from before 2026-03-08T00:00:00Z: 2 examples only the candidate gets right")


def test_one_that_is_as_good_on_older_rows_may(judge):
    decision, check = judge(OlderRows(pairs=SAME, **ASKED))
    assert (decision.verdict, check.verdict) == (Verdict.PASS, Verdict.PASS)


def test_without_older_rows_nothing_is_promoted(judge):
    decision, check = judge(OlderRows(not_compared="no rows of earlier deliveries", **ASKED))
    assert (decision.verdict, check.verdict) == (Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE)


def test_a_run_that_no_monitor_asked_for_is_judged_by_its_policy_alone(judge):
    decision, check = judge(OlderRows(pairs=WORSE))
    assert (decision.verdict, check) == (Verdict.PASS, None)


def test_no_policy_leaves_the_check_out(policy, judged, evidence):
    lax = policy.model_copy(update={"checks": policy.checks.model_copy(update={"champion_clean": None})})
    report = robustness(older=OlderRows(pairs=WORSE, **ASKED))
    found = decide(lax, judged, evidence | {"attack": Evidence(report, "f" * 64)})
    assert found.verdict is Verdict.FAIL
