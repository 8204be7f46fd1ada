"""The files of a report: written by the gate, read again by whoever comments, who trusts nothing in them."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from holdfast.artifacts.folder import replace_file
from holdfast.artifacts.regular import read_at_most
from holdfast.errors import InputError
from holdfast_gates.report import junit
from holdfast_pipelines.pull_request.annotations import annotations
from holdfast_pipelines.pull_request.markdown import render
from holdfast_pipelines.pull_request.report import PullRequestReport
from holdfast_pipelines.pull_request.sarif import sarif

REPORT, SUMMARY, JUNIT, SARIF, ANNOTATIONS = (
    "pr-gate.json", "summary.md", "junit.xml", "results.sarif", "annotations.txt",
)  # fmt: skip
MAX_BYTES = 2**20
"""Of a report that is read."""


def write_results(report: PullRequestReport, out: Path) -> None:
    """Writes the report, and the same for people and for CI, into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    files = {
        SUMMARY: render(report).encode(),
        JUNIT: junit(f"holdfast pr-gate: {report.workload}", report.workload, report.checks),
        SARIF: (json.dumps(sarif(report), indent=1) + "\n").encode(),
        ANNOTATIONS: "".join(f"{line}\n" for line in annotations(report)).encode(),
        REPORT: text.encode() + b"\n",
    }
    for name, data in files.items():
        replace_file(out / name, data)


def clear_results(out: Path) -> None:
    """Removes what an earlier gate wrote, so that one that fails leaves no verdict of before."""
    for name in (REPORT, SUMMARY, JUNIT, SARIF, ANNOTATIONS):
        (out / name).unlink(missing_ok=True)


def read_report(folder: Path) -> PullRequestReport:
    """The report in a folder of unknown origin.

    Raises:
        InputError: there is none, it is no regular file, is too large, or is not one by its schema.
    """
    path = folder / REPORT
    data = read_at_most(path, MAX_BYTES, "a pull-request gate's report", links=False)
    try:
        value = json.loads(data.decode(), object_pairs_hook=_each_once)
        # As JSON, because a document is strict about what a Python value may be.
        return PullRequestReport.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise InputError(f"{path}: expected a pull-request gate's report, found at {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, found {str(error)[:100]}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that is given twice")
    return found
