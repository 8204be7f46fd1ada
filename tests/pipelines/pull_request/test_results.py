"""The files of a report: what CI reads, and what a commenter reads back without trusting it."""

import json
import os
import re
from xml.etree import ElementTree

import pytest

from holdfast.errors import InputError
from holdfast_pipelines.pull_request.annotations import annotations
from holdfast_pipelines.pull_request.report import ChangedKey
from holdfast_pipelines.pull_request.results import MAX_BYTES, read_report, write_results


def test_a_written_report_is_read_back(report, tmp_path):
    write_results(report, tmp_path)
    assert read_report(tmp_path) == report
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "annotations.txt", "junit.xml", "pr-gate.json", "results.sarif", "summary.md",
    ]  # fmt: skip


def test_sarif_has_a_result_at_the_line_of_each_check_that_did_not_pass(report, tmp_path):
    write_results(report, tmp_path)
    log = json.loads((tmp_path / "results.sarif").read_text())
    (run,) = log["runs"]
    (result,) = run["results"]
    assert (log["version"], result["ruleId"], result["level"]) == ("2.1.0", "base_robust", "error")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("models/toy.yaml", 10)


def test_junit_has_a_case_for_each_check(report, tmp_path):
    write_results(report, tmp_path)
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()  # noqa: S314
    assert [case.get("name") for case in suite.iter("testcase")] == ["clean_accuracy", "base_robust"]
    assert len(list(suite.iter("failure"))) == 1


def test_an_annotation_is_at_the_line(report):
    (line,) = annotations(report)
    assert line.startswith("::error file=models/toy.yaml,line=10,title=Holdfast%3A base_robust::base_robust (fail): ")


def test_no_name_starts_a_second_workflow_command(report):
    evil = "x\n::set-output name=a::b\r::add-mask::c,line=1::%0A::error::d"
    check = report.checks[1].model_copy(update={"name": evil, "reason": evil, "required": evil})
    changed = (ChangedKey(key=evil, base="", head=""),)
    lines = list(annotations(report.model_copy(update={
        "checks": (check,), "file": f"a,line=1::{evil}", "requirements_changed": changed,
    })))  # fmt: skip
    assert len(lines) == 2
    for line in lines:
        assert not re.search(r"[\r\n]", line)
        # GitHub ends the properties at the first "::" after the command, and takes %0A for the end of a line.
        assert re.match(r"::(error|warning) file=[^:]*,line=\d+,title=[^:,]*::", line)
        assert "%0A" not in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a pull-request gate's report"),
        ('{"kind": "pr-gate", "kind": "pr-gate"}', "a key that is given twice"),
        ("[" * 100_000, "expected JSON"),
        (" " * (MAX_BYTES + 1), "expected at most"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path, text, message):
    (tmp_path / "pr-gate.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_report(tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value.update(verdict="pass"),
        lambda value: value.update(more=1),
        lambda value: value.update(workload="--> <img>"),
        lambda value: value.update(head="HEAD"),
        lambda value: value.update(version=2),
        lambda value: value["checks"][0].update(reason=None),
        lambda value: value.update(checks=value["checks"] * 51),
    ],
)
def test_an_edited_report_is_refused(report, tmp_path, edit):
    write_results(report, tmp_path)
    value = json.loads((tmp_path / "pr-gate.json").read_text())
    edit(value)
    (tmp_path / "pr-gate.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="expected a pull-request gate's report, found at"):
        read_report(tmp_path)


def test_a_link_and_a_pipe_are_not_read(report, tmp_path):
    write_results(report, tmp_path / "elsewhere")
    (tmp_path / "pr-gate.json").symlink_to(tmp_path / "elsewhere" / "pr-gate.json")
    with pytest.raises(InputError, match="found none"):
        read_report(tmp_path)
    (tmp_path / "pr-gate.json").unlink()
    os.mkfifo(tmp_path / "pr-gate.json")
    with pytest.raises(InputError, match="expected a regular file"):
        read_report(tmp_path)
