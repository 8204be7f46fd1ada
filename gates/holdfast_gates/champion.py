"""The checks against the champion: as good as it, on the very same held-out rows. Pure, as those in `checks`.

While there is a champion, no check passes that did not measure it, and none passes a model with another contract: its
clients would be misunderstood. A policy with `allow_new_contract: true` accepts both, and the decision names what
was accepted.
"""

from collections.abc import Mapping

from holdfast.artifacts.documents import (
    Baseline,
    CheckResult,
    ClassPaired,
    Paired,
    RobustnessReport,
    Verdict,
    worst,
)
from holdfast.statistics import paired_difference
from holdfast.steps import made_from
from holdfast_gates.checks import UNDECIDED, at_least, no_evidence, some
from holdfast_gates.policy import Margin

NEW_CONTRACT = "another contract"
"""How the reason of a check begins that a new contract alone keeps from passing."""


def champion_clean(
    report: RobustnessReport, asked: Margin, alpha: float, allow_new_contract: bool = False
) -> CheckResult:
    """As good as the champion on the same examples without an attack."""
    pairs = report.champion_clean
    found = None if pairs is None else not_inferior(pairs, asked, alpha)
    return _with_contract(report, found, _within(asked), allow_new_contract)


def champion_robust(
    report: RobustnessReport, asked: Margin, alpha: float, allow_new_contract: bool = False
) -> CheckResult:
    """As good as the champion on the same examples under attack."""
    pairs = report.champion_worst_case
    found = None if pairs is None else not_inferior(pairs, asked, alpha)
    return _with_contract(report, found, _within(asked), allow_new_contract)


def champion_class_recall(
    report: RobustnessReport, asked: Margin, alpha: float, allow_new_contract: bool = False
) -> CheckResult:
    """In no class worse than the champion, on the same examples, by proof; a class is too small to prove the contrary.

    Fails when the upper bound of a class's difference, at alpha / comparisons, lies below the margin.
    """
    required = f"no class proven worse than the champion by more than {asked.margin:.3f}"
    found = _no_class_worse(report.champion_classes, asked, alpha, required) if report.champion_classes else None
    return _with_contract(report, found, required, allow_new_contract)


def older_rows(report: RobustnessReport, asked: Margin, alpha: float) -> CheckResult | None:
    """As good as the champion on rows from before the hour that a monitor named; None: no monitor asked for this run.

    New rows may be poisoned: a challenger that is better on them alone is not better.
    """
    older = report.older
    if older is None or older.request is None:
        return None
    if older.pairs is None:
        return no_evidence(f"no rows from before {older.older_than} were compared: {older.not_compared}")
    found = not_inferior(older.pairs, asked, alpha)
    return found.model_copy(update={"reason": f"rows from before {older.older_than}: {found.reason}"})


def not_inferior(pairs: Paired, asked: Margin, alpha: float) -> CheckResult:
    """Paired non-inferiority: the candidate is not worse than the champion by more than the margin."""
    bounds = paired_difference(pairs.only_candidate, pairs.only_champion, pairs.n, alpha)
    verdict = at_least(bounds, -asked.margin)
    return CheckResult(
        measured=(pairs.only_candidate - pairs.only_champion) / max(pairs.n, 1),
        lower=bounds.lower,
        upper=bounds.upper,
        required=_within(asked),
        champion=pairs.champion_right.share,
        verdict=verdict,
        reason=UNDECIDED if verdict is Verdict.INCONCLUSIVE else _discordant(pairs),
    )


def _with_contract(report: RobustnessReport, found: CheckResult | None, required: str, allowed: bool) -> CheckResult:
    """What was measured, held back where the contract is a new one; what is known instead where nothing was."""
    compared = report.champion
    if found is not None and (compared is None or not compared.differences):
        return found
    if made_from(report, Baseline) is None:
        # Whether there is a champion is not known, which is not the same as there being none.
        return no_evidence("the attack report was made without a baseline")
    if compared is None:
        return no_evidence("the attack report does not say whether there is a champion")
    if compared.model_version is None:
        return CheckResult(required=required, verdict=Verdict.PASS, reason="skipped: no champion to compare with")
    why = some([*compared.differences, *_unmeasured(found, compared.not_compared or compared.not_attacked)])
    if found is None:
        found = CheckResult(required=required, verdict=Verdict.PASS)
    reason = "; ".join(part for part in (_told(why, allowed), found.reason) if part)
    verdict = found.verdict if allowed else worst((found.verdict, Verdict.INCONCLUSIVE))
    return found.model_copy(update={"verdict": verdict, "reason": reason})


def _unmeasured(found: CheckResult | None, why: str | None) -> list[str]:
    return [] if found is not None else [f"not compared: {why or 'the report holds no comparison'}"]


def _told(why: str, allowed: bool) -> str:
    return f"{NEW_CONTRACT} than the champion's" + (", allowed by the policy: " if allowed else ": ") + why


def _no_class_worse(classes: tuple[ClassPaired, ...], asked: Margin, alpha: float, required: str) -> CheckResult:
    found = [line for one in classes for line in _losses(one, asked, alpha, len(classes))]
    return CheckResult(
        measured=float(len(found)),
        required=required,
        verdict=Verdict.FAIL if found else Verdict.PASS,
        reason=some(found) or f"{len(classes)} classes compared, none is proven worse",
    )


def _losses(one: ClassPaired, asked: Margin, alpha: float, classes: int) -> list[str]:
    """What was lost against the champion in one class, without and under attack."""
    parts: Mapping[str, Paired] = {"clean": one.clean, "under attack": one.worst_case}
    return [
        f"{one.name!r} {when}: {pairs.both + pairs.only_candidate} of {pairs.n}, the champion {pairs.champion_right.k}"
        for when, pairs in parts.items()
        if _is_worse(pairs, asked.margin, alpha / (2 * classes))
    ]


def _is_worse(pairs: Paired, margin: float, alpha: float) -> bool:
    return paired_difference(pairs.only_candidate, pairs.only_champion, pairs.n, alpha).upper < -margin


def _within(asked: Margin) -> str:
    return f"at least {-asked.margin:+.3f} against the champion"


def _discordant(pairs: Paired) -> str:
    return f"{pairs.only_candidate} examples only the candidate gets right, {pairs.only_champion} only the champion"
