"""The report's lines: each check of the head, with what champion and base branch reach."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.artifacts.documents import (
    Check,
    CheckResult,
    Count,
    Document,
    DriftReport,
    GateDecision,
    Paired,
    RobustnessReport,
    SchemaReport,
    Verdict,
    worst,
)
from holdfast.artifacts.folder import DOCUMENT
from holdfast.workload.yaml import line_of
from holdfast_gates.policy import Margin, Policy, VerdictCheck
from holdfast_gates.report import what_to_do
from holdfast_gates.rules import RULES
from holdfast_pipelines.folder import place_of, read_artifact
from holdfast_pipelines.pull_request.report import (
    ChangedKey,
    ComparedCheck,
    Difference,
    Measurement,
    PullRequestReport,
)
from holdfast_pipelines.pull_request.requirements import Placed, PolicyFrom

_CHAMPION = "champion_"
_NOT_ASKED = "not asked by the policy"
_LONGEST = 1500
_WORDS = {"the champion's": "the base branch's", "the champion": "the base branch's model"}


@dataclass(frozen=True)
class Sides:
    """What is compared."""

    file: str
    """The workload file, from the top of the repository."""
    text: str
    """As the head has it."""
    head: str
    """The commit that is judged."""
    base: str
    """The commit that it is compared with."""
    required: Placed
    """The head's workload under the requirements that hold."""
    policy_from: PolicyFrom
    """Whose requirements these are."""
    requirements_changed: tuple[ChangedKey, ...] = ()
    """What the head changes of them."""
    data_changed: tuple[ChangedKey, ...] = ()
    """What the head changes of the data."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""


@dataclass(frozen=True)
class ModelComparison:
    """The head's model and another one on the same examples; without a report: why not."""

    whose: str
    """`base` or `champion`."""
    report: RobustnessReport | None
    """With the other model in the champion's place."""
    reason: str = ""
    """Why there is none."""

    def pairs(self, part: str) -> Paired | None:
        """What both models made of the same examples."""
        return None if self.report is None else _pairs(self.report, part)


def compose(
    sides: Sides, head: Path, comparisons: Sequence[ModelComparison], base_decision: GateDecision | None
) -> PullRequestReport:
    """The report of a head whose run is in the folder `head`."""
    policy = sides.required.policy
    of_base = {} if base_decision is None else {check.name: _measured(check) for check in base_decision.checks}
    checks = tuple(
        _placed(check, sides, of_base.get(check.name)) for check in _checks(head, policy, comparisons)
    )  # fmt: skip
    return PullRequestReport(
        workload=sides.required.workload.name,
        file=sides.file,
        base=sides.base,
        head=sides.head,
        tier=sides.required.workload.attack.tier,
        policy_from=sides.policy_from,
        policy_name=policy.name,
        policy=policy.digest,
        alpha=policy.alpha,
        requirements_changed=sides.requirements_changed,
        data_changed=sides.data_changed,
        notes=tuple(note[:_LONGEST] for note in sides.notes),
        checks=checks,
        verdict=worst(check.verdict for check in checks),
    )


def _checks(head: Path, policy: Policy, comparisons: Sequence[ModelComparison]) -> Iterator[ComparedCheck]:
    taken = {comparison.whose for comparison in comparisons}
    for check in _of_head(head, policy):
        if not check.name.startswith(_CHAMPION):
            yield _compared(check, of_head=_measured(check))
        elif _CHAMPION.rstrip("_") not in taken:
            yield _against_registered(check, head)
    for comparison in comparisons:
        yield from _rows(comparison, policy)


def _of_head(head: Path, policy: Policy) -> Iterator[Check]:
    """The gate's checks; where the delivery was stopped before the gate, those of the delivery."""
    if _there(head, GateDecision):
        yield from read_artifact(head, GateDecision).document.checks
        return
    for kind, name in ((SchemaReport, "schema_anomalies"), (DriftReport, "drift")):
        if _there(head, kind):
            asked = getattr(policy.checks, name) or VerdictCheck()
            found = RULES[name].judge(read_artifact(head, kind).document, asked)
            yield found.named(name)


def _there(run: Path, kind: type[Document]) -> bool:
    return (place_of(run, kind) / DOCUMENT).exists()


def _against_registered(check: Check, head: Path) -> ComparedCheck:
    """A check against the registry's champion, as the gate decided it."""
    part = check.name.removeprefix(_CHAMPION)
    pairs = _pairs(read_artifact(head, RobustnessReport).document, part) if _there(head, RobustnessReport) else None
    return _with_pairs(check, pairs, "champion")


def _rows(comparison: ModelComparison, policy: Policy) -> Iterator[ComparedCheck]:
    for part in ("clean", "robust", "class_recall"):
        asked = getattr(policy.checks, f"{_CHAMPION}{part}")
        if asked is None and part == "class_recall":
            continue
        result = _judged(comparison, part, asked or Margin(margin=1.0), policy.alpha)
        if asked is None:
            result = result.model_copy(update={"required": _NOT_ASKED, "verdict": Verdict.PASS})
        check = _in_words(result, comparison.whose).named(f"{comparison.whose}_{part}")
        yield _with_pairs(check, comparison.pairs(part), comparison.whose)


def _judged(comparison: ModelComparison, part: str, asked: Margin, alpha: float) -> CheckResult:
    if comparison.report is None:
        return CheckResult(required="a comparison", verdict=Verdict.INCONCLUSIVE, reason=comparison.reason)
    # Another contract than a branch's harms no client; where it can still be measured, it is.
    allowed = comparison.whose == "base"
    return RULES[f"{_CHAMPION}{part}"].judge(comparison.report, asked, alpha, allowed)


def _in_words(result: CheckResult, whose: str) -> CheckResult:
    if whose != "base":
        return result
    texts = {"required": result.required, "reason": result.reason.replace(", allowed by the policy", "")}
    for old, new in _WORDS.items():
        texts = {key: text.replace(old, new) for key, text in texts.items()}
    return result.model_copy(update=texts)


def _pairs(report: RobustnessReport, part: str) -> Paired | None:
    return {"clean": report.champion_clean, "robust": report.champion_worst_case}.get(part)


def _with_pairs(check: Check, pairs: Paired | None, whose: str) -> ComparedCheck:
    if pairs is None:
        return _compared(check)
    found = None
    if check.measured is not None and check.lower is not None and check.upper is not None:
        found = Difference(value=check.measured, lower=check.lower, upper=check.upper)
    mine = Measurement(
        value=(pairs.both + pairs.only_candidate) / max(pairs.n, 1),
        count=Count(k=pairs.both + pairs.only_candidate, n=pairs.n),
    )
    theirs = {f"of_{whose}": Measurement(value=pairs.champion_right.share, count=pairs.champion_right)}
    return _compared(check, of_head=mine, difference=found, **theirs)


def _compared(check: Check, **found: Measurement | Difference | None) -> ComparedCheck:
    return ComparedCheck.model_validate({**dict(check), "reason": check.reason[:_LONGEST], **found})


def _placed(check: ComparedCheck, sides: Sides, of_base: Measurement | None) -> ComparedCheck:
    """With its line in the workload file, what the base branch reaches, and what helps."""
    found: Mapping[str, object] = {
        "line": _line(check.name, sides.text),
        "of_base": check.of_base or of_base,
        "advice": "" if check.verdict is Verdict.PASS else _advice(check),
    }
    return check.model_copy(update=dict(found))


def _line(name: str, text: str) -> int:
    key = name.replace("base_", _CHAMPION, 1) if name.startswith("base_") else name
    return line_of(text, ("gate", "override", key))


def _advice(check: ComparedCheck) -> str:
    if check.measured is None and check.name.startswith("base_"):
        return "Mend the base branch, or judge the head alone (`--no-compare`)."
    if check.name.startswith("base_"):
        return "Find which examples were lost (`flags.npz` of both attack reports), or evaluate more of them."
    return what_to_do(check)


def _measured(check: Check) -> Measurement | None:
    return None if check.measured is None else Measurement(value=check.measured, count=check.count)
