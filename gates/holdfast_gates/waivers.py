"""Waivers in a decision: what people accepted about this very model, as far as the policy lets it count.

The check stays as it was found, in the decision and everywhere else; it no longer decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from holdfast.artifacts.documents import NEVER_WAIVED, Check, CountedWaiver, GateDecision, Requirements, Verdict, worst
from holdfast.attestation.trust import TrustPolicy
from holdfast.attestation.waivers import NotCounted, ValidWaivers, read_waivers

MOST = 20
"""Lines about waivers that do not count."""


@dataclass(frozen=True)
class SignedWaivers:
    """What people signed, not verified, and whose signatures count at which time."""

    bundles: Mapping[str, Sequence[bytes]]
    trust: TrustPolicy
    now: datetime

    def read(self, model: str, require: Requirements) -> ValidWaivers:
        """Those for the model of this digest."""
        return read_waivers(chain.from_iterable(self.bundles.values()), model, require, self.trust, self.now)


def apply(decision: GateDecision, waivers: ValidWaivers) -> GateDecision:
    """The decision with the waivers that its policy counts; why others were not counted is in it, too."""
    checks = {check.name: check for check in decision.checks}
    order = list(checks)
    counted: list[CountedWaiver] = []
    refused: list[NotCounted] = []
    for one in sorted(waivers.counted, key=lambda one: order.index(one.check) if one.check in checks else len(order)):
        why = _not_counted(one, checks, decision.require, len(counted))
        if why:
            refused.append(NotCounted(one.check, f"the waiver of {one.check} by {one.owner}: {why}"))
        else:
            counted.append(one)
    waived = {one.check for one in counted}
    notes = [one.why for one in (*refused, *waivers.refused) if _matters(one, checks.get(one.check), waived)]
    return with_waivers(decision, tuple(counted), tuple(notes[:MOST]))


def with_waivers(
    decision: GateDecision, counted: tuple[CountedWaiver, ...], not_counted: tuple[str, ...]
) -> GateDecision:
    """The decision that rests on these waivers.

    Raises:
        ValueError: the policy does not let them count.
    """
    waived = {one.check for one in counted}
    verdict = worst(check.verdict for check in decision.checks if check.name not in waived)
    changed = {"waivers": counted, "waivers_not_counted": not_counted, "verdict": verdict}
    return GateDecision(**{**dict(decision), **changed})


def _not_counted(one: CountedWaiver, checks: Mapping[str, Check], require: Requirements, before: int) -> str:
    """Why a valid waiver does not count here; empty: it does."""
    if one.check in NEVER_WAIVED:
        return "no one can waive it"
    if one.check not in checks:
        return "the policy asks no check of this name"
    if checks[one.check].verdict is Verdict.PASS:
        return "the check passed"
    if before >= require.waivers_at_most:
        return f"the policy counts at most {require.waivers_at_most} (`require: {{waivers_at_most: …}}`)"
    return ""


def _matters(one: NotCounted, check: Check | None, waived: set[str]) -> bool:
    """Whether someone may wait for this waiver to count."""
    if one.check in waived or (check is not None and check.verdict is Verdict.PASS):
        return False
    return check is not None or not one.elsewhere
