"""The report as Markdown: the job's summary and the comment. Every name in it is shown as text."""

from collections.abc import Iterator, Sequence

from holdfast.artifacts.documents import Verdict
from holdfast.wording import markdown_text
from holdfast_pipelines.pull_request.report import ChangedKey, ComparedCheck, Measurement, PullRequestReport

HEADINGS = ("check", "champion", "base", "head", "difference [interval]", "required", "verdict")
MOST_CHARACTERS = 60_000
"""GitHub takes 65,536 in a comment."""
_SENTENCES = {
    Verdict.PASS: "Every check passed.",
    Verdict.INCONCLUSIVE: "Not enough is known, and inconclusive is not a pass.",
    Verdict.FAIL: "At least one check failed.",
}
_DETAILS = 300


def marker(workload: str) -> str:
    """The hidden first line by which the comment about a workload is found again."""
    return f"<!-- holdfast:gate:{workload} -->"


def render(report: PullRequestReport, *, commit: str | None = None) -> str:
    """The whole page; `commit`: which one it is about, where the caller knows better than the report."""
    lines = [*_head(report, commit), *_table(report.checks), *_details(report), *_notes(report)]
    text = "\n".join(lines) + "\n"
    if len(text) <= MOST_CHARACTERS:
        return text
    lines = [*_head(report, commit), *_table(report.checks[:_FEW]), "", "The rest is in the artifacts of the job."]
    return "\n".join(lines)[:MOST_CHARACTERS] + "\n"


_FEW = 20


def _head(report: PullRequestReport, commit: str | None) -> Iterator[str]:
    name = markdown_text(report.workload)
    yield marker(report.workload)
    yield f"### Robustness gate: {name}: {report.verdict}"
    yield ""
    yield f"{_SENTENCES[report.verdict]} Commit `{(commit or report.head)[:12]}` against `{report.base[:12]}`."
    yield from _changes(
        "**This pull request changes what is required.** "
        + (
            "It was judged by the base branch's rules." if report.policy_from == "base" else "It was judged by its own."
        ),
        report.requirements_changed,
    )
    yield from _changes("**This pull request changes the data**, and with it the examples.", report.data_changed)


def _changes(sentence: str, changed: Sequence[ChangedKey]) -> Iterator[str]:
    if not changed:
        return
    yield from ("", sentence, "", "| key | base | head |", "|---|---|---|")
    for one in changed:
        yield _row((one.key, one.base, one.head))


def _table(checks: Sequence[ComparedCheck]) -> Iterator[str]:
    yield from ("", f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|")
    for check in checks:
        cells = (
            check.name[:80],
            _value(check.of_champion),
            _value(check.of_base),
            f"{_value(check.of_head)} {'' if check.difference else _bounds(check)}".strip(),
            _difference(check),
            check.required[:_DETAILS],
        )
        yield f"{_row(cells)} {_mark(check)} |"


def _mark(check: ComparedCheck) -> str:
    if check.verdict is not Verdict.PASS:
        return f"**{check.verdict}**"
    return "pass (skipped)" if check.reason.startswith("skipped") else "pass"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown_text, cells)) + " |"


def _value(found: Measurement | None) -> str:
    if found is None:
        return ""
    if found.count is not None:
        return f"{found.value:.3f} ({found.count.k} of {found.count.n})"
    return f"{found.value:.4g}"


def _bounds(check: ComparedCheck) -> str:
    if check.lower is None or check.upper is None:
        return ""
    return f"[{check.lower:.3f}, {check.upper:.3f}]"


def _difference(check: ComparedCheck) -> str:
    found = check.difference
    return "" if found is None else f"{found.value:+.3f} [{found.lower:+.3f}, {found.upper:+.3f}]"


def _details(report: PullRequestReport) -> Iterator[str]:
    short = [check for check in report.checks if check.verdict is not Verdict.PASS]
    if short:
        yield from ("", "What was found, and what to do:", "")
    for check in short:
        found = markdown_text(check.reason[:_DETAILS] or f"required {check.required[:_DETAILS]}")
        yield f"- **{markdown_text(check.name[:80])}** ({check.verdict}): {found}. {markdown_text(check.advice)}"


def _notes(report: PullRequestReport) -> Iterator[str]:
    for note in report.notes:
        yield from ("", f"- {markdown_text(note)}")  # a line that began with a slash would be a command to GitLab
    yield ""
    yield (
        f"Policy {markdown_text(report.policy_name)} `{report.policy[:12]}` of the {report.policy_from}; attacks of "
        f"the tier `{report.tier}`; bounds are one-sided, each wrong at most {report.alpha:g} of the time. "
        "Nothing was registered."
    )
