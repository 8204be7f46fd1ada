"""What the demo says when an act ends otherwise than told."""

from copy import deepcopy
from pathlib import Path

import pytest

from holdfast.errors import RunError
from holdfast_pipelines.demo.acts import check

PAGE = Path("report.html")
QUIET = {"sent": 900, "failed": 0}
PROMOTED = {"outcome": "promoted", "reason": "no test objected", "cause": "none", "retried": [], "requests": QUIET}
TAMPERED = {"without_signatures": "accepted", "with_signatures": "refused: signed for other bytes"}
TOLD = [
    {**PROMOTED, "act": "clean", "signatures": {"needed": 13, "verified": 13}},
    {
        **PROMOTED,
        "act": "poisoned",
        "model_version": 2,
        "planted": 50,
        "planted_quarantined": 50,
        "attack_success": {"unscanned": 0.9, "scanned": 0.02},
        "unscanned_verdict": "fail",
    },
    {"act": "broken", "outcome": "stopped", "steps": {"schema": "fail"}},
    {
        **PROMOTED,
        "act": "regressed",
        "outcome": "rolled_back",
        "cause": "model",
        "champion_after": 2,
        "tampered": TAMPERED,
    },
]


def told_otherwise(number: int, **more) -> str:
    acts = deepcopy(TOLD)
    acts[number - 1] |= {"record": f"runs/{number}/rollout", **more}
    with pytest.raises(RunError) as found:
        check(acts, PAGE)
    return str(found.value)


def test_what_goes_as_told_is_not_complained_about():
    check(TOLD, PAGE)


def test_a_busy_machine_is_named_and_nothing_is_said_to_be_broken():
    why = {"outcome": "inconclusive", "reason": "no verdict within 60 s", "cause": "host"}
    said = told_otherwise(2, **why, retried=["no verdict within 60 s"])
    assert said.startswith("act 2 of 4 ended inconclusive (no verdict within 60 s; cause: the machine was too busy")
    assert "although the rollout was tried twice. Run `make demo` again when the machine is less busy" in said
    assert said.endswith("The report: report.html")
    assert "\n" not in said


def test_a_candidate_at_fault_leads_to_its_record():
    said = told_otherwise(1, outcome="rolled_back", reason="it fails more often", cause="model")
    assert (
        "act 1 of 4 ended rolled-back (it fails more often; cause: the model's own fault) instead of promoted" in said
    )
    assert "Read runs/1/rollout" in said


def test_the_first_act_that_went_wrong_is_named_first_and_the_others_counted():
    said = told_otherwise(2, unscanned_verdict="pass", planted_quarantined=3)
    assert said.startswith("act 2 of 4 the scan found less than 80 %")
    assert "1 more: act 2: the gate did not refuse the unscanned model" in said


@pytest.mark.parametrize(
    ("number", "more"),
    [
        (3, {"steps": {"train": "pass"}}),
        (4, {"outcome": "promoted"}),
        (4, {"champion_after": 3}),
        (1, {"requests": {"sent": 900, "failed": 1}}),
        (1, {"signatures": {"needed": 13, "verified": 12}}),
        (4, {"tampered": {**TAMPERED, "with_signatures": "accepted"}}),
    ],
)
def test_every_promise_can_be_broken(number, more):
    assert told_otherwise(number, **more).startswith(f"act {number} of 4 ")
