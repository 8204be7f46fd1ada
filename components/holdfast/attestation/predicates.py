"""What a step's statement claims: read off its document alone, so that a verifier with the document writes it again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.artifacts.documents import Document, GateDecision, Verdict
from holdfast.artifacts.inspect import verdict_of
from holdfast.attestation.statement import (
    PROJECT,
    PROVENANCE,
    TEST_RESULT,
    VERDICT,
    Predicate,
    Statement,
    about,
    stamp,
)
from holdfast.steps import Step, writer

_RESULTS = {Verdict.PASS: "PASSED", Verdict.INCONCLUSIVE: "WARNED", Verdict.FAIL: "FAILED"}
_LISTS = {Verdict.PASS: "passedTests", Verdict.INCONCLUSIVE: "warnedTests", Verdict.FAIL: "failedTests"}
GATE_PASSED = "HOLDFAST_GATE_PASSED"
"""Property of a verdict: every check of the policy passed, or was waived."""
NO_WAIVERS = "HOLDFAST_NO_WAIVERS"
"""Property of a verdict: no person waived a check."""


@dataclass(frozen=True)
class Occasion:
    """What a statement holds besides the document: documents have no clock."""

    run: str
    """Which run it was, in the words of its runner; may be empty."""
    at: datetime


def statement_of(document: Document, digest: str, occasion: Occasion) -> Statement:
    """The statement of the step that wrote `document`: how it was made, or, where it judges, the result."""
    step = writer(type(document))
    if step.judges:
        return about(subject_name(document), digest, TEST_RESULT, _test_result(document, step, occasion))
    return about(subject_name(document), digest, PROVENANCE, _provenance(document, step, occasion))


def verdict_statement(decision: GateDecision, digest: str, occasion: Occasion) -> Statement:
    """The gate's verdict on the model that it judged; only for a decision that passed.

    SVR: https://github.com/in-toto/attestation/blob/main/spec/predicates/svr.md, with its extension `policy`, and the
    decision that it rests on.
    """
    predicate: Predicate = {
        "verifier": {
            "id": f"{PROJECT}/gate/v1",
            "policy": {"uri": f"{PROJECT}/policy/{decision.policy_name}", "digest": {"sha256": decision.policy}},
        },
        "timeCreated": stamp(occasion.at),
        "properties": [GATE_PASSED, *([] if decision.waivers else [NO_WAIVERS])],
        "decision": {"digest": {"sha256": digest}},
        "invocationId": occasion.run,
    }
    return about(f"model/{decision.name}", decision.inputs["model"], VERDICT, predicate)


def made_of(statement: Statement) -> dict[str, str]:
    """Role -> digest of what an artifact was made from, as its statement claims."""
    predicate: Any = statement.predicate
    built = predicate.get("buildDefinition")
    listed = built.get("resolvedDependencies") if isinstance(built, dict) else predicate.get("configuration")
    found: dict[str, str] = {}
    for one in listed if isinstance(listed, list) else ():
        digest = one.get("digest") if isinstance(one, dict) else None
        if isinstance(digest, dict) and isinstance(one.get("name"), str) and isinstance(digest.get("sha256"), str):
            found[one["name"]] = digest["sha256"]
    return found


def subject_name(document: Document) -> str:
    """KIND/WORKLOAD."""
    name = getattr(document, "name", "")
    kind = str(type(document).model_fields["kind"].default)
    return f"{kind}/{name}" if name else kind


def _provenance(document: Document, step: Step, occasion: Occasion) -> Predicate:
    """SLSA provenance v1: https://slsa.dev/spec/v1.0/provenance."""
    return {
        "buildDefinition": {
            "buildType": f"{PROJECT}/step/v1",
            "externalParameters": {"step": step.name, "workload": getattr(document, "name", "")},
            "resolvedDependencies": _resources(document.inputs),
        },
        "runDetails": {
            "builder": {"id": f"{PROJECT}/role/{step.signed_by}"},
            "metadata": {"invocationId": occasion.run, "finishedOn": stamp(occasion.at)},
        },
    }


def _test_result(document: Document, step: Step, occasion: Occasion) -> Predicate:
    """Test result v0.1: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md."""
    tests: dict[str, list[str]] = {name: [] for name in _LISTS.values()}
    for name, verdict in _checks(document, step):
        tests[_LISTS[verdict]].append(name)
    policy = [_resource("policy", document.policy)] if isinstance(document, GateDecision) else []
    return {
        "result": _RESULTS[Verdict(verdict_of(document))],
        "configuration": [*_resources(document.inputs), *policy],
        **tests,
        "timeCreated": stamp(occasion.at),
        "invocationId": occasion.run,
    }


def _checks(document: Document, step: Step) -> list[tuple[str, Verdict]]:
    """The checks of the gate, one name for other evidence."""
    if isinstance(document, GateDecision):
        return [(check.name, check.verdict) for check in document.checks]
    return [(step.name, Verdict(verdict_of(document)))]


def _resources(inputs: dict[str, str]) -> list[dict[str, Any]]:
    return [_resource(role, digest) for role, digest in sorted(inputs.items())]


def _resource(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}
