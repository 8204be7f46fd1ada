"""The incident report: enough for the person on call, in one file."""

import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import pytest

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import Count, RolloutRecord, Transition, Verdict
from holdfast.rendering.rollout_chart import traffic
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES, Limits, evidence
from holdfast.serving.rollout.engine.machine import State
from holdfast.serving.rollout.reporting.incident import RUNBOOK, Incident, markdown, page
from holdfast.serving.rollout.reporting.timeline import Timeline

POINT = re.compile(r"[ML](-?[0-9.]+) (-?[0-9.]+)")


@pytest.fixture
def incident(in_canary, tmp_path) -> Incident:
    """A candidate that fails all answers, told by the machine itself."""
    timeline = Timeline(tmp_path / "timeline.jsonl", lambda: in_canary.status.traffic)
    while in_canary.rollout.state is State.CANARY:
        before = in_canary.rollout
        in_canary.look(candidate=(10, 6), champion=(40, 0))
        timeline.observed(before, in_canary.now)
    after = in_canary.rollout
    count = after.total.candidate
    turned = Transition(
        state_before="Canary 20 %",
        state_after="RollingBack",
        weight=0,
        reason=after.judgement.reason,
        candidate=Count(k=count.failed, n=count.answered),
        champion=Count(k=0, n=after.total.champion.answered),
        evidence={"t": 4.2, **evidence(after.tests, after.total)},
    )
    ended = turned.model_copy(update={"state_before": "RollingBack", "state_after": "RolledBack"})
    timeline.moved(before, after)
    digests = {"candidate": "c" * 64, "champion": "b" * 64}
    record = RolloutRecord(
        inputs=digests,
        name="tiny",
        candidate_version=2,
        champion_version=1,
        transitions=(turned, ended),
        requests_sent=1234,
        requests_failed=0,
        outcome="rolled-back",
        reason=after.judgement.reason,
        cause=after.judgement.cause,
        verdict=Verdict.FAIL,
    )
    return Incident(
        record,
        digests={**digests, "gate decision": "d" * 64},
        timeline=tuple(timeline.samples),
        limits=after.plan.limits,
        game_day=None,
        log="<b>Killed</b> ```\n",
    )


def changed(incident: Incident, **more: object) -> Incident:
    return replace(incident, record=incident.record.model_copy(update=more))


def test_both_say_why_who_serves_and_what_to_do(incident):
    for text in (markdown(incident), page(incident)):
        for said in ("fails more often than the champion", "c" * 64, "d" * 64, "1234 sent, 0 failed", RUNBOOK):
            assert said in text
        assert "What to do next" in text
        assert "is refused from now on" in text


def test_each_test_stands_beside_what_it_needed_and_those_above_it_are_marked(incident):
    rows = dict(re.findall(r"\| e-value against the candidate: (\w+) \| (.+ \| .+) \|", markdown(incident)))
    # By definition 1 / (alpha * share). The fixture has no attack rows.
    assert rows["errors"].endswith(f"| {1 / (0.05 * ALPHA_SHARES['errors']):.4g}")
    # 6 of 10 answers fail: more than the champion's none, and more than the 2 % of `max_errors`.
    assert {name for name, row in rows.items() if row.startswith("**")} == {"errors", "service"}
    assert "attack" not in rows
    assert "(Newcombe)" in markdown(incident)


def test_a_planted_fault_is_named_and_condemns_nothing(incident):
    day = replace(incident, game_day="wrong=1.0")
    for text in (markdown(day), page(day)):
        assert "This was a game day" in text
        assert "may be rolled out again" in text


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.NONE}))
def test_the_cause_its_advice_and_whether_it_locks_are_said(incident, cause):
    of = changed(incident, cause=cause)
    for text in (markdown(of), page(of)):
        assert cause.words in unescape(text)
        assert cause.advice in unescape(text)
        assert ("is refused from now on" in text) == (cause is Cause.MODEL)
        assert ("may be rolled out again" in text) == (cause is not Cause.MODEL)


def test_without_a_champion_it_says_that_nothing_was_compared(incident):
    alone = changed(incident, champion_version=None)
    for text in (markdown(alone), page(alone)):
        assert "There was no champion" in text
        assert "nothing was compared with an earlier" in text
    assert "compared with those of version 1" in markdown(incident)


def test_the_page_is_whole_escapes_the_log_and_follows_the_readers_theme(incident):
    text = page(incident)
    assert not re.search(r'(src|href)="(?!#)', text)  # links lead to the page's own sections alone
    assert "default-src 'none'" in text
    assert "&lt;b&gt;Killed&lt;/b&gt;" in text
    assert "prefers-color-scheme: dark" in text
    assert "'''" in markdown(incident)


def test_what_ended_the_rollout_is_marked_on_the_page(incident):
    marked = re.findall(r'<span class="over">(.*?)</span>', page(incident))
    assert marked[0::3] == ["e-value against the candidate: errors", "e-value against the candidate: service"]


def test_the_chart_has_labelled_axes_and_draws_all_it_promises(incident):
    (chart,) = traffic(incident.timeline, incident.record.reason)
    drawing = ElementTree.fromstring(chart.items[0].svg)
    words = {element.text for element in drawing.iter("text")}
    assert {"seconds since the rollout began", "live traffic on the candidate", "failed answers"} <= words
    assert {"slow answers", "paired answers that differ", "e-values against its answers", "100 %"} <= words
    assert {"candidate", "champion", "rolled back"} <= words
    curves = [element.get("class") for element in drawing.iter("path") if element.get("class").startswith("curve")]
    # The weight, what differs, and three panels with two lines and a sample of each in the legend.
    assert (set(curves), len(curves)) == ({"curve-a", "curve-b"}, 1 + 1 + 3 * 4)
    places = [tuple(map(float, pair)) for path in drawing.iter("path") for pair in POINT.findall(path.get("d"))]
    width, height = map(float, drawing.get("viewBox").split()[2:])
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_one_sample_is_no_chart(incident):
    assert traffic(incident.timeline[:1], "") == ()
    assert "not enough samples" in page(replace(incident, timeline=incident.timeline[:1]))


def test_a_rollout_that_ended_without_a_decision_has_no_evidence_table_to_fill(incident):
    early = replace(changed(incident, transitions=(), outcome="inconclusive"), timeline=(), limits=Limits())
    assert "| measure | value | ends it at |" in markdown(early)
    assert "may be rolled out again" in page(early)
