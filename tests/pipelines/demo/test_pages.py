from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import Count, RolloutRecord, Transition, Verdict
from holdfast.artifacts.folder import save
from holdfast_pipelines.demo import pages
from holdfast_pipelines.demo.acts import DemoRuns, copied
from holdfast_pipelines.demo.copied import Copied

NONE = Count(k=0, n=1)


@pytest.fixture
def played(tmp_path: Path) -> DemoRuns:
    rows = np.zeros(0, dtype=np.int64)
    return DemoRuns(tmp_path, tmp_path / "clean.npz", rows, None, tmp_path / "trust.yaml", "no champion")


def move(after: str, weight: int) -> Transition:
    return Transition(
        state_before="", state_after=after, weight=weight, candidate=NONE, champion=NONE, evidence={}, reason=""
    )


def test_the_page_tells_the_live_steps_of_the_record(played: DemoRuns, tmp_path: Path) -> None:
    moves = (move("Shadow", 0), move("Canary 20 %", 20), move("Canary 100 %", 100), move("Promoting", 100))
    record = RolloutRecord(
        name="digits", candidate_version=1, champion_version=None, transitions=moves, requests_sent=1,
        requests_failed=0, outcome="promoted", reason="", cause=Cause.NONE, verdict=Verdict.PASS,
    )  # fmt: skip
    save(tmp_path / "clean" / "steps" / "rollout", record)
    assert pages._weights(played) == "20 and 100"


def test_an_act_that_ended_before_its_rollout_still_has_a_page(played: DemoRuns) -> None:
    assert pages._weights(played) == "more and more"


def test_the_page_has_what_became_of_the_copy_or_why_there_is_none() -> None:
    found = Copied(12, 288, Count(k=119, n=359), Count(k=325, n=359), 300, 0, Count(k=0, n=10))
    chapter = pages._copied(copied(found))
    assert "After 12 answers the guard gave no more. The copy agrees with the champion on 119 of 359" in chapter.text[1]
    assert chapter.facts["Users"] == "0 of 10 alarmed; 300 requests, of which 0 not answered as by the model alone"
    why = "the guard answered 12 of 300 queries of the client who copies; 0 of 10 users alarmed"
    assert chapter.ending == ("stopped", why, "0 of 300")
    assert pages._copied(copied("no champion")).text == ("Not played: no champion.",)
