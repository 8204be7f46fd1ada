"""The timeline: one sample per look, with the e-value of every test."""

from dataclasses import asdict

import pytest

from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES
from holdfast.serving.rollout.reporting.timeline import Timeline


@pytest.fixture
def timeline(in_canary, tmp_path):
    """After one sample."""
    found = Timeline.at(tmp_path / "timeline.jsonl", lambda: in_canary.sent)
    found.observed(in_canary.rollout, in_canary.now)
    return found


def test_a_sample_has_the_e_value_of_every_test_that_can_end_a_rollout(timeline, in_canary):
    sample = asdict(timeline.samples[-1])
    assert {key for key in sample if key.startswith("e_")} == {f"e_{name}" for name in ALPHA_SHARES}
    assert {name: sample[f"e_{name}"] for name in ALPHA_SHARES} == {
        name: round(value, 4) for name, value in in_canary.rollout.tests.values().items()
    }


def test_a_failing_candidate_moves_the_tests_of_failures_and_no_other(in_canary, timeline):
    in_canary.look(candidate=(10, 6))
    timeline.observed(in_canary.rollout, in_canary.now)
    before, after = timeline.samples
    moved = {name for name in ALPHA_SHARES if getattr(after, f"e_{name}") > getattr(before, f"e_{name}")}
    assert moved == {"errors", "service"}


def test_the_next_driver_reads_the_same_samples(timeline, tmp_path):
    again = Timeline.at(tmp_path / "timeline.jsonl", timeline.traffic)
    assert again.samples == timeline.samples
