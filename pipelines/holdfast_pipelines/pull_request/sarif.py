"""SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/): a result for each check that did not pass."""

from typing import Any
from urllib.parse import quote

from holdfast import __version__
from holdfast.artifacts.documents import Verdict
from holdfast.wording import printable
from holdfast_pipelines.pull_request.annotations import words
from holdfast_pipelines.pull_request.report import ComparedCheck, PullRequestReport

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "warning"}


def sarif(report: PullRequestReport) -> dict[str, Any]:
    """The log: every check is a rule, those that did not pass are results."""
    rules = [{"id": check.name, "shortDescription": {"text": _short(check)}} for check in report.checks]
    found = [_result(check, place, report) for place, check in enumerate(report.checks) if check.verdict in _LEVELS]
    driver = {"name": "Holdfast", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "results": found, "columnKind": "unicodeCodePoints"}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(check: ComparedCheck, place: int, report: PullRequestReport) -> dict[str, Any]:
    region = {"startLine": check.line}
    location = {"artifactLocation": {"uri": quote(report.file)}, "region": region}
    return {
        "ruleId": check.name,
        "ruleIndex": place,
        "level": _LEVELS[check.verdict],
        "message": {"text": printable(words(check))},
        "locations": [{"physicalLocation": location}],
        "partialFingerprints": {"holdfastCheck/v1": f"{report.workload}/{check.name}"},
    }


def _short(check: ComparedCheck) -> str:
    return printable(f"{check.name}: {check.required or 'evidence'}")
