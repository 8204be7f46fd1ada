"""Candidate, champion, test data and preconditions of a rollout."""

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.contract import objection
from holdfast.artifacts.documents import GateDecision
from holdfast.artifacts.folder import Ref, load
from holdfast.errors import RefusedError, RegistryError, RolloutError
from holdfast.progress import say
from holdfast.registry.notes import Note, Outcome
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.contract.served_arm import ServedArm, served_arm
from holdfast.serving.rollout.engine.journal import JOURNAL
from holdfast.serving.rollout.reporting import status
from holdfast.workload.schema import RolloutPlan
from holdfast.workload.yaml import parse_yaml

POLICY = "policy.json"
"""The file of a gate's decision with the policy in effect."""


@dataclass(frozen=True)
class Matchup:
    """Candidate and champion, and the rows that they are compared on."""

    candidate: ServedArm
    champion: ServedArm | None
    rows: Path
    """NPZ file: x are network inputs of held-out rows."""
    attacks: Path | None = None
    """NPZ file of adversarial rows for the candidate."""
    expires_at: float | None = None
    """Unix seconds until which the gate's decision holds."""
    metrics_port: int | None = None
    """Where the controller's metrics are served, on loopback; None: only the file."""
    policy: RolloutPlan = RolloutPlan()
    """What the gate's policy asks of every rollout."""

    @property
    def classes(self) -> int:
        """How many probabilities an answer has."""
        return len(self.candidate.model.document.classes)

    @property
    def stable(self) -> ServedArm:
        """The stable arm: the champion, or (first rollout) a second server of the candidate."""
        return self.champion or ServedArm(replace(self.candidate.served, game_day=None), self.candidate.model)


def fetch(tracking: str, name: str, version: int, state: Path, trust: Path | None = None) -> registry_worker.Fetched:
    """As `registry_worker.fetch`; a version that is refused leaves no folder behind."""
    try:
        return registry_worker.fetch(tracking, name, version, state, trust)
    except RefusedError:
        forget(state)
        raise


def policy_plan(decision: Ref) -> RolloutPlan:
    """The keys of the section `rollout` of the policy under which the gate decided; no keys where it has none.

    Raises:
        ArtifactError, WorkloadError: the decision or its policy cannot be read.
    """
    section = _policy(decision).get("rollout", {})
    return parse_yaml(json.dumps(section), RolloutPlan, name=f"{decision.folder / POLICY}: rollout")


def _policy(decision: Ref) -> dict[str, Any]:
    judged = load(decision, GateDecision)
    found: dict[str, Any] = json.loads(judged.open(POLICY).read()) if POLICY in judged.document.files else {}
    return found


def matchup_of(
    fetched: registry_worker.Fetched, name: str, version: int, game_day: str | None, config: RolloutPlan
) -> Matchup:
    """From verified bundles; both models are admitted once more."""
    attacks = fetched.candidate / "attacks.npz"
    champion = (
        served_arm(name, fetched.champion_version, fetched.champion, trust=fetched.trust, incumbent=True)
        if fetched.champion is not None and fetched.champion_version is not None
        else None
    )
    return Matchup(
        served_arm(name, version, fetched.candidate, game_day, fetched.trust),
        champion,
        fetched.candidate / "replay.npz",
        attacks if attacks.exists() else None,
        fetched.decided + config.max_decision_days * 86400,
    )


def require_fresh(matchup: Matchup, state: Path, config: RolloutPlan) -> None:
    """A rollout under way is not refused here but turned back by its controller, which can."""
    if matchup.expires_at is not None and time.time() > matchup.expires_at and not (state / JOURNAL).exists():
        forget(state)
        raise RefusedError(
            f"{matchup.candidate.served.name} version {matchup.candidate.served.version}: cannot start: the gate's "
            f"decision is older than {config.max_decision_days:g} days (max_decision_days); let the gate judge again "
            "and register what it passes"
        )


def forget(state: Path) -> None:
    """Nothing began that another run would have to know of."""
    if not (state / JOURNAL).exists():
        shutil.rmtree(state, ignore_errors=True)


def require_same_contract(matchup: Matchup) -> None:
    """Clients must be able to send the same rows to both arms and read the same answers; the policy may allow others.

    Raises:
        RolloutError: names the differences, and what to do.
    """
    if matchup.champion is None:
        return
    served, allowed = matchup.candidate.served, _policy(matchup.candidate.served.decision).get("allow_new_contract")
    why = objection(matchup.candidate.model.document, matchup.champion.model.document, allowed=allowed is True)
    if why:
        raise RolloutError(f"{served.name} version {served.version}: {why}")


def digests_of(matchup: Matchup) -> dict[str, str]:
    """Role -> digest of the model."""
    arms = {"candidate": matchup.candidate, "champion": matchup.champion}
    return {role: arm.model.digest for role, arm in arms.items() if arm is not None}


def note_of(matchup: Matchup, about: status.Status, outcome: Outcome, reason: str, cause: Cause) -> Note:
    """What the ledger keeps."""
    served = matchup.candidate.served
    return Note(
        version=served.version,
        outcome=outcome,
        reason=reason,
        began=about.began,
        ended=round(time.time(), 3),
        champion_before=about.champion,
        model=matchup.candidate.model.digest,
        decision=load(served.decision, GateDecision).digest,
        game_day=served.game_day,
        cause=cause,
    )


def status_of(matchup: Matchup, config: RolloutPlan, fence: int, began: float) -> status.Status:
    """The status of a rollout whose servers are about to be started."""
    served, now = matchup.candidate.served, time.time()
    return status.Status(
        rollout=f"{served.name}-{served.version}-{began * 1000:.0f}",
        name=served.name,
        version=served.version,
        champion=matchup.champion.served.version if matchup.champion else None,
        driver=status.DriverProcess.here(fence),
        began=began,
        at=now,
        since=now,
        ttl_seconds=config.ttl_seconds,
        asks_approval=config.approval,
    )


def say_starting(state: Path, name: str, version: int) -> None:
    """Writes a first status before the journal is open, unless a driver runs."""
    before = status.read(state / status.FILE)
    if before is None or not before.driver.runs:
        now = time.time()
        status.write(
            state / status.FILE,
            status.Status(f"{name}-{version}", name, version, None, status.DriverProcess.here(), now, now, now),
        )


def hand_in(out: Path) -> None:
    """Hands the ledger's waiting notes to MLflow, or prints that they wait on."""
    try:
        registry_worker.hand_in(out.absolute().parent)
    except RegistryError as error:
        say(f"rollout: {error}; the note about this rollout waits next to {out} for the next start or history")
