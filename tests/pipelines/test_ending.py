"""The last line of a run whose gate did not pass."""

from pathlib import Path

import pytest

from holdfast.artifacts.documents import Check, GateDecision, Verdict
from holdfast.artifacts.folder import save
from holdfast_pipelines.ending import last_line
from holdfast_pipelines.folder import place_of
from holdfast_pipelines.record import RunResult


@pytest.mark.parametrize(
    ("reason", "lower", "told"),
    [
        (
            "another contract than the champion's: it reads 'fee'",
            None,
            "another contract than the champion's: it reads 'fee'.",
        ),
        ("", 0.4, "more examples make its intervals narrower."),
        ("all 500 examples get the same answer", None, "the lines above have the reason of each."),
    ],
)
def test_more_examples_are_advised_where_an_interval_is_too_wide_alone(
    tmp_path: Path, reason: str, lower: float | None, told: str
) -> None:
    check = Check(name="champion_clean", required="x", verdict=Verdict.INCONCLUSIVE, reason=reason, lower=lower)
    decision = GateDecision(
        name="risk", policy="0" * 64, policy_name="p", alpha=0.05, checks=(check,), verdict=Verdict.INCONCLUSIVE
    )
    save(place_of(tmp_path, GateDecision), decision)
    result = RunResult(workload="risk", seed=0, outcome="refused", steps=())
    line = last_line(result, tmp_path, tmp_path / "report.html", "again", planted=False)
    assert f"the gate was inconclusive on champion_clean: {told}" in line
