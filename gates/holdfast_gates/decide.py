"""The decision: evidence in, verdict out; pure, so that the same evidence always gives the same bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.artifacts.documents import Check, Document, GateDecision, Modality, Model, Verdict, worst
from holdfast.steps import evidence as evidence_steps
from holdfast_gates import checks
from holdfast_gates.policy import Policy

KINDS: dict[str, type[Document]] = {role: step.document for role, step in evidence_steps().items()}
"""Which document each role of evidence is."""

SOURCES: dict[str, str] = {
    "schema_anomalies": "schema",
    "drift": "drift",
    "poison": "scan",
    "backdoor": "backdoor",
    "clean_accuracy": "attack",
    "robust_accuracy": "attack",
    "gradient_masking": "attack",
    "certified_accuracy": "certify",
    "abstention": "certify",
    "champion_clean": "attack",
    "champion_robust": "attack",
}
"""Which evidence each check reads; also the order of the table."""

ABOUT_THE_MODEL = frozenset(role for role, step in evidence_steps().items() if "model" in step.reads)
"""Evidence about the network's bytes; the rest is about the snapshot alone."""

WITH_ALPHA = frozenset(
    {"clean_accuracy", "robust_accuracy", "certified_accuracy", "abstention", "champion_clean", "champion_robust"}
)


@dataclass(frozen=True)
class Exhibit:
    """A piece of evidence and the digest of its artifact."""

    document: Document
    digest: str


@dataclass(frozen=True)
class Judged:
    """What the decision is about."""

    model: Model
    model_digest: str
    snapshot_digest: str
    modality: Modality


def decide(policy: Policy, judged: Judged, evidence: Mapping[str, Exhibit]) -> GateDecision:
    """The verdict on a model: the worst check decides.

    Evidence that is missing, or is about another model or snapshot, makes its checks inconclusive.
    """
    asked = [_check(name, policy, judged, evidence) for name in _asked(policy, judged)]
    nothing = checks.no_evidence("policy", f"{policy.name} asks nothing of the modality {judged.modality}")
    lines = (lineage(judged, evidence), *(asked or [nothing]))
    return GateDecision(
        inputs={
            "model": judged.model_digest,
            "snapshot": judged.snapshot_digest,
            **{role: exhibit.digest for role, exhibit in evidence.items()},
        },
        name=judged.model.name,
        policy=policy.digest,
        policy_name=policy.name,
        alpha=policy.alpha,
        checks=lines,
        verdict=worst(line.verdict for line in lines),
    )


def lineage(judged: Judged, evidence: Mapping[str, Exhibit]) -> Check:
    """The model says that it was trained on this very snapshot, less what this very scan set aside."""
    read = judged.model.inputs
    broken = [] if read.get("snapshot") == judged.snapshot_digest else [_other("snapshot", read.get("snapshot"))]
    if "scan" in evidence and read.get("scan") != evidence["scan"].digest:
        broken.append(_other("scan", read.get("scan")))
    return Check(
        name="lineage",
        measured=float(len(broken)),
        required="model, snapshot and scan belong together",
        verdict=Verdict.FAIL if broken else Verdict.PASS,
        reason="; ".join(broken),
    )


def stale(role: str, judged: Judged, document: Document) -> str | None:
    """Why `document` says nothing about what is judged; None when it does."""
    wanted = {"snapshot": judged.snapshot_digest}
    if role in ABOUT_THE_MODEL:
        wanted["model"] = judged.model_digest
    for part, digest in wanted.items():
        found = document.inputs.get(part)
        if found != digest:
            return f"the {role} report is about another {part} ({_short(found)}, not {_short(digest)}): run it again"
    return None


def _asked(policy: Policy, judged: Judged) -> list[str]:
    sections = {name: getattr(policy.checks, name) for name in SOURCES}
    return [name for name, section in sections.items() if section and judged.modality in section.applies_to]


def _check(name: str, policy: Policy, judged: Judged, evidence: Mapping[str, Exhibit]) -> Check:
    role = SOURCES[name]
    exhibit = evidence.get(role)
    if exhibit is None:
        return checks.no_evidence(name, f"no {role} report was given")
    reason = stale(role, judged, exhibit.document)
    if reason is not None:
        return checks.no_evidence(name, reason)
    # Each function takes the kind of document that KINDS promises for its role; `_asked` keeps the names to SOURCES.
    judge: Callable[..., Check] = getattr(checks, name)
    arguments: list[Any] = [exhibit.document, getattr(policy.checks, name)]
    return judge(*arguments, policy.alpha) if name in WITH_ALPHA else judge(*arguments)


def _other(part: str, digest: str | None) -> str:
    return f"the model was trained on another {part} ({_short(digest)})" if digest else f"the model names no {part}"


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "none"
