"""Whether a decision is the one that its policy and its evidence lead to; a written verdict is not taken at its word.

Who can write to a folder can edit a decision and compute its digest again. What they can't do is make the same evidence
lead to another verdict: `decide` is pure, so it is asked again.
"""

from collections.abc import Mapping
from math import isclose
from typing import Any

from pydantic import ValidationError

from holdfast.artifacts.documents import GateDecision, Model, RobustnessReport, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.artifacts.policies import MAX_POLICY_BYTES, POLICY
from holdfast.errors import RefusedError
from holdfast_gates.decide import Evidence, Judged, decide
from holdfast_gates.policy import Policy, find
from holdfast_gates.report import to_junit, to_markdown
from holdfast_gates.waivers import with_waivers

CLOSE = 1e-9
"""Relative difference of two bounds that other processors or library versions may make."""


def confirm(
    decision: Artifact[GateDecision],
    model: Artifact[Model],
    snapshot: Artifact[Snapshot],
    evidence: Mapping[str, Artifact[Any]],
    asked: str | None = None,
) -> None:
    """Judges the model again, by the policy in the decision's folder, and compares.

    The waivers that the decision names are taken as given: whether people signed them is asked with the signatures.

    Args:
        decision: What was written.
        model: The model that it is about.
        snapshot: What the model was trained on.
        evidence: Everything that the gate read, by role.
        asked: The policy that must have decided: a name, a file or JSON. None: whichever the decision names.

    Raises:
        RefusedError: policy and evidence lead to another decision, its pages show another, or another policy decided.
        WorkloadError: there is no policy `asked`.
    """
    policy, written = _policy(decision), decision.document
    wanted = policy if asked is None else find(asked)
    if wanted.digest != policy.digest:
        raise RefusedError(
            f"{decision.folder}: expected a decision by the policy {wanted.name} ({wanted.digest[:12]}…), found one by "
            f"{policy.name} ({policy.digest[:12]}…); run the gate again"
        )
    judged = Judged(model.document, model.digest, snapshot.document, snapshot.digest)
    read = {role: Evidence(artifact.document, artifact.digest) for role, artifact in evidence.items()}
    where = _difference(_plain(written), _plain(_waived(decide(policy, judged, read), decision)))
    if where is not None:
        raise RefusedError(
            f"{decision.folder}: expected the decision that its policy and its evidence lead to, "
            f"found another {where}; run the gate again"
        )
    for name, page in pages(written, policy, read).items():
        if name not in written.files or decision.open(name).read() != page:
            raise RefusedError(f"{decision.folder / name}: expected the page of the decision, found another one")


def pages(decision: GateDecision, policy: Policy, evidence: Mapping[str, Evidence]) -> dict[str, bytes]:
    """The decision for people (`decision.md`) and for test runners (`junit.xml`)."""
    reports = [found.document for found in evidence.values()]
    operating = next((report.operating_point for report in reports if isinstance(report, RobustnessReport)), None)
    return {
        "decision.md": to_markdown(decision, policy, operating).encode(),
        "junit.xml": to_junit(decision),
    }


def _policy(decision: Artifact[GateDecision]) -> Policy:
    pin = decision.document.files.get(POLICY)
    if pin is None or pin.bytes > MAX_POLICY_BYTES:
        found = "none" if pin is None else f"{pin.bytes} bytes"
        raise RefusedError(f"{decision.folder / POLICY}: expected the policy in effect, found {found}")
    try:
        policy = Policy.model_validate_json(decision.open(POLICY).read())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its text"
        raise RefusedError(f"{decision.folder / POLICY}: expected a policy, found at {where}: {first['msg']}") from None
    named = decision.document.policy
    if policy.digest != named:
        raise RefusedError(
            f"{decision.folder / POLICY}: expected the policy that the decision names ({named[:12]}…), "
            f"found {policy.digest[:12]}…"
        )
    return policy


def _waived(again: GateDecision, decision: Artifact[GateDecision]) -> GateDecision:
    """What was judged again, with the waivers that were written into the decision."""
    written = decision.document
    try:
        return with_waivers(again, written.waivers, written.waivers_not_counted)
    except ValidationError as error:
        raise RefusedError(
            f"{decision.folder}: expected waivers that its policy counts, found {error.errors()[0]['msg']}; "
            "run the gate again"
        ) from None


def _plain(decision: GateDecision) -> dict[str, object]:
    value = decision.model_dump(mode="json", exclude={"files"})
    # By name, so that a difference is named by its check and not by its place.
    return {**value, "checks": {check.name: check.model_dump(mode="json") for check in decision.checks}}


def _difference(written: object, again: object, where: str = "") -> str | None:
    """Where two values differ first, in dots; None: nowhere."""
    if isinstance(written, dict) and isinstance(again, dict):
        for key in sorted({*written, *again}, key=str):
            place = f"{where}.{key}" if where else str(key)
            found = _difference(written.get(key), again.get(key), place)
            if found is not None:
                return found
        return None
    if isinstance(written, float) and isinstance(again, float):
        return None if isclose(written, again, rel_tol=CLOSE, abs_tol=CLOSE) else where
    return None if written == again else f"{where} ({written!r}, not {again!r})"
