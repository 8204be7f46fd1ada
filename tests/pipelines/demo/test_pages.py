from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import Count, RolloutRecord, Transition, Verdict
from holdfast.artifacts.folder import save
from holdfast_pipelines.demo import pages
from holdfast_pipelines.demo.acts import DemoRuns

NONE = Count(k=0, n=1)


@pytest.fixture
def played(tmp_path: Path) -> DemoRuns:
    return DemoRuns(tmp_path, tmp_path / "clean.npz", np.zeros(0, dtype=np.int64), None, tmp_path / "trust.yaml")


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
