"""GitHub's workflow commands: a line of the log that becomes a mark at a line of a file."""

from collections.abc import Iterator

from holdfast.artifacts.documents import Verdict
from holdfast.wording import printable
from holdfast_pipelines.pull_request.report import ComparedCheck, PullRequestReport

_LONGEST = 400


def annotations(report: PullRequestReport) -> Iterator[str]:
    """One command for each check that did not pass, and one for changed requirements."""
    for check in report.checks:
        if check.verdict is not Verdict.PASS:
            yield command("error", report.file, check.line, f"Holdfast: {check.name}", words(check))
    if report.requirements_changed:
        keys = ", ".join(one.key for one in report.requirements_changed)
        yield command("warning", report.file, 1, "Holdfast", f"this pull request changes what is required: {keys}")


def words(check: ComparedCheck) -> str:
    """What did not pass, in one line."""
    measured = "not measured" if check.measured is None else f"measured {check.measured:.4g}"
    reason = f": {check.reason}" if check.reason else ""
    return f"{check.name} ({check.verdict}): {measured}, required {check.required}{reason}"


def command(kind: str, file: str, line: int, title: str, message: str) -> str:
    """A workflow command that holds no second one, for all words."""
    return f"::{kind} file={_property(file)},line={line},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text)[:_LONGEST].replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
