"""The decision for people (Markdown) and for test runners (JUnit XML); pure text, no clock."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from holdfast.artifacts.documents import (
    NEVER_WAIVED,
    Check,
    GateDecision,
    MeasuredSetting,
    Model,
    OperatingResult,
    Snapshot,
    Verdict,
)
from holdfast.rendering import operating as rendered
from holdfast.steps import role_of
from holdfast.wording import markdown_text
from holdfast_gates import held_out
from holdfast_gates.champion import NEW_CONTRACT
from holdfast_gates.checks import ONE_CLASS
from holdfast_gates.measurement import ADVICE, NOT_AS_ASKED, in_words
from holdfast_gates.policy import Policy
from holdfast_gates.rules import RULES

SENTENCES = {
    Verdict.PASS: "Every check passed. The model may be registered.",
    Verdict.INCONCLUSIVE: "Not enough is known. Inconclusive is not a pass: the model is not registered.",
    Verdict.FAIL: "At least one check failed. The model is not registered.",
}
WAIVED = "Every check passed, or a person waived it. The model may be registered until the first waiver ends."

NEXT = {
    "older_rows": "Keep the champion; look at the new rows (scan, quarantine) for what makes older ones wrong.",
    "lineage": "Judge a model together with the snapshot and the scan that it was trained on; retrain if they changed.",
    **{rule.name: rule.advice for rule in RULES.values()},
}
"""What helps where a check did not pass."""
UNDECIDED = {rule.name: rule.undecided for rule in RULES.values() if rule.undecided}
"""What helps where one could not be decided."""
MOVE_CLIENTS = (
    "Bring the delivery back to the champion's columns and classes; or move the clients, then allow the new contract "
    "(`gate.allow_new_contract: true`)."
)
MORE = "More held-out examples (`attack.examples`, `certify.examples`) narrow the interval."


def to_markdown(decision: GateDecision, policy: Policy, operating: OperatingResult | None = None) -> str:
    """The gate's table, what was overridden, and what to do about each check that did not pass.

    And what the model's operating point brings, where it has one.
    """
    lines = [
        f"# {markdown_text(decision.name)}: {decision.verdict}",
        "",
        WAIVED if decision.waivers and decision.verdict is Verdict.PASS else SENTENCES[decision.verdict],
        "",
        f"Model `{decision.inputs[role_of(Model)][:12]}`, snapshot `{decision.inputs[role_of(Snapshot)][:12]}`, "
        f"policy {decision.policy_name} `{decision.policy[:12]}`; "
        f"bounds are one-sided, each wrong at most {decision.alpha:g} of the time.",
        "",
        "| check | measured | interval | required | champion | verdict |",
        "|---|---|---|---|---|---|",
        *(_row(check, waived=check not in decision.counting) for check in decision.checks),
        *_waivers(decision),
        *_operating(operating),
        *_reasons(decision),
        *_advice(decision),
        *_overrides(policy),
        *_measured_with(decision),
    ]
    return "\n".join(lines) + "\n"


def to_junit(decision: GateDecision) -> bytes:
    """The decision as `junit`."""
    shown = [check if check in decision.counting else _accepted(decision, check) for check in decision.checks]
    return junit(f"holdfast gate: {decision.name}", decision.name, shown)


def junit(suite_name: str, class_name: str, checks: Sequence[Check]) -> bytes:
    """One test case per check: failed ones as failures, inconclusive ones as errors, skipped ones as skipped."""
    found = [check.verdict for check in checks]
    counts = {
        "tests": str(len(found)),
        "failures": str(found.count(Verdict.FAIL)),
        "errors": str(found.count(Verdict.INCONCLUSIVE)),
        "skipped": str(sum(_skipped(check) for check in checks)),
    }
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _xml(suite_name), **counts})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(class_name), name=_xml(check.name))
        _outcome(case, check)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def measured(check: Check) -> str:
    """What was measured, with its counts: `0.931 (335 of 360)`; a difference from the champion has its sign."""
    if check.measured is None:
        return "not measured"
    if check.count is not None:
        return f"{check.measured:.3f} ({check.count.k} of {check.count.n})"
    if check.lower is None:
        return f"{check.measured:g}"
    return f"{check.measured:.3f}" if check.champion is None else f"{check.measured:+.3f}"


def interval(check: Check) -> str:
    """The bounds that were compared: `[0.906, 0.951]`."""
    if check.lower is None or check.upper is None:
        return ""
    return f"[{check.lower:.3f}, {check.upper:.3f}]"


def _row(check: Check, *, waived: bool) -> str:
    champion = "" if check.champion is None else f"{check.champion:.3f}"
    mark = str(check.verdict) if check.verdict is Verdict.PASS else f"**{check.verdict}**"
    mark += ", waived" if waived else ""
    cells = (check.name, measured(check), interval(check), check.required, champion, mark)
    return "| " + " | ".join(cell if cell == mark else markdown_text(cell) for cell in cells) + " |"


def _operating(result: OperatingResult | None) -> list[str]:
    if result is None:
        return []
    head = rendered.head(result)
    lines = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in (head, *rendered.rows(result))]
    point = result.point
    words = f"{markdown_text(rendered.in_words(point))}; on the rows that chose it: {rendered.chosen_on(point)}."
    return ["", "## Operating point", "", words, "", lines[0], "|---" * len(head) + "|", *lines[1:], "", rendered.NOTE]


def _waivers(decision: GateDecision) -> list[str]:
    """Who waived what, until when and why; and which waivers do not count."""
    shown = [
        f"- {one.check}, until {one.until}: {markdown_text(one.owner)}: {markdown_text(one.reason)}"
        for one in decision.waivers
    ]
    others = [f"- {markdown_text(why)}" for why in decision.waivers_not_counted]
    counted = ["", "## Waived", "", *shown] if shown else []
    return [*counted, *(["", "## Waivers that do not count", "", *others] if others else [])]


def _accepted(decision: GateDecision, check: Check) -> Check:
    """For a test runner: a check that a person waived was skipped."""
    one = next(waiver for waiver in decision.waivers if waiver.check == check.name)
    reason = f"skipped: {check.verdict}, waived by {one.owner} until {one.until}: {one.reason}"
    return check.model_copy(update={"verdict": Verdict.PASS, "reason": reason})


def _reasons(decision: GateDecision) -> list[str]:
    lines = [f"- {check.name}: {markdown_text(check.reason)}" for check in decision.checks if check.reason]
    return ["", "## What was found", "", *lines] if lines else []


def _advice(decision: GateDecision) -> list[str]:
    short = [check for check in decision.counting if check.verdict is not Verdict.PASS]
    lines = [f"- {check.name}: {what_to_do(check)}" for check in short]
    return ["", "## What to do next", "", *lines, *_may_be_waived(decision, short)] if lines else []


def _may_be_waived(decision: GateDecision, short: Sequence[Check]) -> list[str]:
    """How a person accepts what did not pass, where the policy lets them."""
    names = [check.name for check in short if check.name not in NEVER_WAIVED]
    if not names or len(decision.waivers) + len(short) > decision.require.waivers_at_most:
        return []
    command = f"holdfast waive {names[0]} --model {decision.inputs[role_of(Model)]}"
    return ["", f"Or accept it for a while: `{command} --owner NAME --reason TEXT --until DATE --key KEY`."]


def what_to_do(check: Check) -> str:
    """What helps where a check did not pass."""
    if check.reason.startswith("no evidence"):
        return "Run the step that writes this evidence for this very model and snapshot."
    if check.reason.startswith(NOT_AS_ASKED):
        return ADVICE
    if held_out.questions_labels(check):
        return held_out.ADVICE
    if check.reason.startswith(NEW_CONTRACT):
        return MOVE_CLIENTS
    if check.reason.startswith(ONE_CLASS):
        return NEXT["better_than_constant"]
    if check.verdict is Verdict.INCONCLUSIVE and check.lower is not None:
        return MORE
    undecided = UNDECIDED.get(check.name) if check.verdict is Verdict.INCONCLUSIVE else None
    return undecided or NEXT.get(check.name, "See the evidence.")


def _overrides(policy: Policy) -> list[str]:
    if not policy.overridden:
        return []
    lines = [
        f"- {check}: {', '.join(f'{name} = {markdown_text(str(value))}' for name, value in sorted(values.items()))}"
        for check, values in sorted(policy.overridden.items())
    ]
    return ["", "## Where the workload asked otherwise than the policy", "", *lines]


def _measured_with(decision: GateDecision) -> list[str]:
    """Every setting that the evidence was measured with, with what the policy asks of it."""
    if not decision.measured_with:
        return []
    rows = [_setting_row(one) for one in decision.measured_with]
    return ["", "## How it was measured", "", "| setting | measured with | asked |", "|---|---|---|", *rows]


def _setting_row(one: MeasuredSetting) -> str:
    asked = markdown_text(one.required) or "nothing"
    cells = (one.name, markdown_text(in_words(one.measured)), asked if one.kept else f"**{asked}**")
    return f"| {' | '.join(cells)} |"


def _outcome(case: ElementTree.Element, check: Check) -> None:
    text = f"measured {measured(check)} {interval(check)}; required {check.required}; {check.reason}"
    if check.verdict is Verdict.FAIL:
        ElementTree.SubElement(case, "failure", type="fail", message=_xml(text))
    elif check.verdict is Verdict.INCONCLUSIVE:
        ElementTree.SubElement(case, "error", type="inconclusive", message=_xml(text))
    elif _skipped(check):
        ElementTree.SubElement(case, "skipped", message=_xml(check.reason))
    else:
        ElementTree.SubElement(case, "system-out").text = _xml(text)


def _skipped(check: Check) -> bool:
    return check.verdict is Verdict.PASS and check.reason.startswith("skipped")


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold at all; the rest is escaped by the writer."""
    return re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)
