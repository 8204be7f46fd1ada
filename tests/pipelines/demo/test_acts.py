"""What the demo says when an act ends otherwise than told."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import Count
from holdfast.errors import RunError
from holdfast_pipelines.demo.acts import check, copied
from holdfast_pipelines.demo.copied import CLIENTS, ROWS, Copied, _asked

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
    copied(Copied(12, 288, Count(k=119, n=359), Count(k=325, n=359), 300, 0, Count(k=0, n=10))),
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
    assert said.startswith("act 2 of 5 ended inconclusive (no verdict within 60 s; cause: the machine was too busy")
    assert "although the rollout was tried twice. Run `make demo` again when the machine is less busy" in said
    assert said.endswith("The report: report.html")
    assert "\n" not in said


def test_a_candidate_at_fault_leads_to_its_record():
    said = told_otherwise(1, outcome="rolled_back", reason="it fails more often", cause="model")
    assert (
        "act 1 of 5 ended rolled-back (it fails more often; cause: the model's own fault) instead of promoted" in said
    )
    assert "Read runs/1/rollout" in said


def test_the_first_act_that_went_wrong_is_named_first_and_the_others_counted():
    said = told_otherwise(2, unscanned_verdict="pass", planted_quarantined=3)
    assert said.startswith("act 2 of 5 the scan found less than 80 %")
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
        (5, {"outcome": "not_stopped"}),
        (5, {"outcome": "not_played", "reason": "no champion", "cause": "none"}),
        (5, {"answered": 61}),
        (5, {"copy": {"k": 325, "n": 359}}),
        (5, {"alarmed": {"k": 1, "n": 10}}),
        (5, {"requests": {"sent": 300, "failed": 1}}),
    ],
)
def test_every_promise_can_be_broken(number, more):
    assert told_otherwise(number, **more).startswith(f"act {number} of 5 ")


def test_a_thief_has_the_answers_before_the_first_refusal_and_users_are_compared_with_the_model_alone():
    questions, users = (
        np.zeros((CLIENTS * ROWS, 2), np.float32),
        [np.full((ROWS, 2), n, np.float32) for n in range(CLIENTS)],
    )
    stolen: list[int] = []

    def ask(client, row):
        if client == "thief":
            stolen.append(1)
            return None if len(stolen) in (4, 5, 6) else [0.5, 0.5]
        if client == "user-1":
            return None
        return [0.6, 0.4] if client == "user-2" else [0.5, 0.5]

    given, refused, harmed = _asked(ask, questions, users, lambda x: np.full((len(x), 2), 0.5))
    assert (len(stolen), len(given), refused) == (CLIENTS * ROWS, 3, 3)
    assert harmed == 2 * ROWS
