"""The decision: evidence in, verdict out; pure, so that the same evidence always gives the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from holdfast.artifacts.documents import (
    Check,
    CheckResult,
    Document,
    GateDecision,
    MeasuredSetting,
    Measurement,
    Modality,
    Model,
    RobustnessReport,
    ScanReport,
    Snapshot,
    Verdict,
    worst,
)
from holdfast.steps import evidence as evidence_steps
from holdfast.steps import made_from, role_of
from holdfast_gates import champion, checks, held_out, measurement
from holdfast_gates.policy import Margin, Policy
from holdfast_gates.rules import RULES, Rule

KINDS: dict[str, type[Document]] = {role: step.document for role, step in evidence_steps().items()}
"""Which document each role of evidence is."""

OLDER_MARGIN = Margin(margin=0.02)
"""For rows from before a monitor's alarm, under a policy that does not compare with the champion."""
ABOUT_THE_MODEL = frozenset(role for role, step in evidence_steps().items() if role_of(Model) in step.reads)
"""Evidence about the network's bytes; the rest is about the snapshot alone."""


@dataclass(frozen=True)
class Evidence:
    """A piece of evidence and the digest of its artifact."""

    document: Document
    digest: str


@dataclass(frozen=True)
class Judged:
    """What the decision is about."""

    model: Model
    model_digest: str
    snapshot: Snapshot
    snapshot_digest: str

    @property
    def modality(self) -> Modality:
        """What one example is."""
        return self.snapshot.modality


def decide(policy: Policy, judged: Judged, evidence: Mapping[str, Evidence]) -> GateDecision:
    """The verdict on a model: the worst check decides.

    Evidence that is missing, or is about another model or snapshot, makes its checks inconclusive.
    """
    asked = [_check(rule, policy, judged, evidence) for rule in _asked(policy, judged)]
    nothing = checks.no_evidence(f"{policy.name} asks nothing of the modality {judged.modality}").named("policy")
    lines = (lineage(judged, evidence), *(asked or [nothing]), *_on_older_rows(policy, judged, evidence))
    measured = [_settings(policy, role, judged, evidence) for role in KINDS]
    return GateDecision(
        inputs={
            role_of(Model): judged.model_digest,
            role_of(Snapshot): judged.snapshot_digest,
            **{role: found.digest for role, found in evidence.items()},
        },
        name=judged.model.name,
        policy=policy.digest,
        policy_name=policy.name,
        alpha=policy.alpha,
        checks=lines,
        measured_with=tuple(chain.from_iterable(measured)),
        require=policy.require,
        verdict=worst(line.verdict for line in lines),
    )


def _on_older_rows(policy: Policy, judged: Judged, evidence: Mapping[str, Evidence]) -> list[Check]:
    """The check that no policy leaves out: of a run that a monitor asked for."""
    document = _evidence(role_of(RobustnessReport), judged, evidence)
    if not isinstance(document, RobustnessReport):
        return []
    found = champion.older_rows(document, policy.checks.champion_clean or OLDER_MARGIN, policy.alpha)
    return [] if found is None else [found.named("older_rows")]


def lineage(judged: Judged, evidence: Mapping[str, Evidence]) -> Check:
    """The model names as its inputs this very snapshot, and this very scan, whose quarantine was left out."""
    scan = evidence.get(role_of(ScanReport))
    wanted: dict[type[Document], str] = {Snapshot: judged.snapshot_digest}
    wanted |= {ScanReport: scan.digest} if scan is not None else {}
    found = {kind: made_from(judged.model, kind) for kind in wanted}
    broken = [_other(role_of(kind), found[kind]) for kind, digest in wanted.items() if found[kind] != digest]
    return Check(
        name="lineage",
        measured=float(len(broken)),
        required="model, snapshot and scan belong together",
        verdict=Verdict.FAIL if broken else Verdict.PASS,
        reason="; ".join(broken),
    )


def stale(role: str, judged: Judged, document: Document) -> str | None:
    """Why `document` is no evidence about what is judged; None when it is."""
    wanted = {role_of(Snapshot): judged.snapshot_digest}
    if role in ABOUT_THE_MODEL:
        wanted[role_of(Model)] = judged.model_digest
    for part, digest in wanted.items():
        found = document.inputs.get(part)
        if found != digest:
            return f"the {role} report is about another {part} ({_short(found)}, not {_short(digest)}): run it again"
    return None


def _asked(policy: Policy, judged: Judged) -> list[Rule]:
    sections = {name: getattr(policy.checks, name) for name in RULES}
    return [RULES[name] for name, section in sections.items() if section and judged.modality in section.applies_to]


def _check(rule: Rule, policy: Policy, judged: Judged, evidence: Mapping[str, Evidence]) -> Check:
    found = _judge(rule, policy, judged, evidence)
    result = held_out.labels_first(rule.name, found, _scan(judged, evidence))
    return _as_asked(rule, policy, judged, evidence, result).named(rule.name)


def _scan(judged: Judged, evidence: Mapping[str, Evidence]) -> ScanReport | None:
    """The scan of the very snapshot that is judged."""
    found = evidence.get(role_of(ScanReport))
    document = found.document if found is not None else None
    if not isinstance(document, ScanReport) or stale(role_of(ScanReport), judged, document) is not None:
        return None
    return document


def _judge(rule: Rule, policy: Policy, judged: Judged, evidence: Mapping[str, Evidence]) -> CheckResult:
    document = judged.snapshot if rule.reads is Snapshot else _evidence(role_of(rule.reads), judged, evidence)
    if isinstance(document, CheckResult):
        return document
    thresholds = getattr(policy.checks, rule.name)
    alpha = (policy.alpha,) if rule.takes_alpha else ()
    contract = (policy.allow_new_contract,) if rule.takes_contract else ()
    return rule.judge(document, thresholds, *alpha, *contract)


def _as_asked(
    rule: Rule, policy: Policy, judged: Judged, evidence: Mapping[str, Evidence], result: CheckResult
) -> CheckResult:
    """The result of a check; a fail where its evidence was measured more weakly than the policy asks."""
    role = "" if rule.reads is Snapshot else role_of(rule.reads)
    found = _settings(policy, role, judged, evidence)
    if any(one.measured is None and not one.kept for one in found):
        return checks.no_evidence(f"the {role} report does not name all that it was measured with")
    weak = measurement.weaknesses(found)
    if not weak:
        return result
    return result.model_copy(
        update={"verdict": Verdict.FAIL, "reason": f"{weak}; {result.reason}" if result.reason else weak}
    )


def _settings(
    policy: Policy, role: str, judged: Judged, evidence: Mapping[str, Evidence]
) -> tuple[MeasuredSetting, ...]:
    """What the evidence in this role was measured with; nothing where there is none about what is judged."""
    document = _evidence(role, judged, evidence)
    if not isinstance(document, Measurement):
        return ()
    return measurement.settings(policy.measured_with, role, document, judged.model, judged.snapshot)


def _evidence(role: str, judged: Judged, evidence: Mapping[str, Evidence]) -> Document | CheckResult:
    """The document of a role, or the result of a check that has none."""
    found = evidence.get(role)
    if found is None:
        return checks.no_evidence(f"no {role} report was given")
    reason = stale(role, judged, found.document)
    return found.document if reason is None else checks.no_evidence(reason)


def _other(part: str, digest: str | None) -> str:
    return f"the model was trained on another {part} ({_short(digest)})" if digest else f"the model names no {part}"


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "none"
