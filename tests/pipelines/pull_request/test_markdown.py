"""The page of a report; what it is made of may come from a pull request's own code."""

import re

from holdfast_pipelines.pull_request.markdown import MOST_CHARACTERS, render
from holdfast_pipelines.pull_request.report import ChangedKey

HOSTILE = "/close\n![x](http://evil/x.png) [a](javascript:x) @everyone <img src=x> | #12 !3 GH-4 `rm` \x1b[31m"


def table(text):
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_the_table_has_what_people_compare(report):
    head, *rows = table(render(report))
    assert head == ["check", "champion", "base", "head", "difference [interval]", "required", "verdict"]
    assert rows[1] == [
        "base_robust", "", "0.800 (80 of 100)", "0.600 (60 of 100)", "-0.200 [-0.300, -0.100]", "at least -0.050",
        "**fail**",
    ]  # fmt: skip
    assert rows[0][3] == "0.950 (95 of 100) [0.930, 0.970]"


def test_the_first_line_is_the_marker(report):
    assert render(report).splitlines()[0] == "<!-- holdfast:gate:toy -->"


def test_loosened_rules_are_shown_before_the_table(report):
    assert "changes what is required" not in render(report)
    changed = (ChangedKey(key="threat.epsilon", base="8/255", head="1/255"),)
    text = render(report.model_copy(update={"requirements_changed": changed}))
    assert "**This pull request changes what is required.** It was judged by the base branch's rules." in text
    assert text.index("| threat.epsilon | 8/255 | 1/255 |") < text.index("| check |")


def test_no_word_of_a_report_is_markup_or_a_command(report):
    check = report.checks[1].model_copy(update=dict.fromkeys(("name", "reason", "required", "advice"), HOSTILE))
    changed = (ChangedKey(key=HOSTILE, base=HOSTILE, head=HOSTILE),)
    text = render(report.model_copy(update={
        "checks": (check,), "notes": (HOSTILE,), "policy_name": HOSTILE, "requirements_changed": changed,
        "data_changed": changed,
    }))  # fmt: skip
    assert not re.search(r"(?m)^\s*/", text), "a line that GitLab takes for a command"
    assert "\x1b" not in text
    for live in ("@everyone", "http://", "#12", "!3", "GH-4"):
        assert live not in text, live
    assert not re.search(r"(?<!\\)(\]\(|<img|`rm)", text)
    assert {len(row) for row in table(text)} == {3, 7}, "a bar in a name makes no cell"


def test_a_page_fits_into_a_comment(report):
    long = report.checks[1].model_copy(update={"reason": "*" * 2000, "required": "*" * 2000, "advice": "*" * 2000})
    text = render(report.model_copy(update={"checks": (long,) * 100}))
    assert len(text) <= MOST_CHARACTERS + 1
    assert text.startswith("<!-- holdfast:gate:toy -->")


def test_the_commit_is_the_one_that_the_event_has(report):
    assert "`cccccccccccc`" in render(report, commit="c" * 40)
