"""Who meets whom in a rollout, on which rows, and what must hold before it may begin."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import GateDecision, Model
from holdfast.artifacts.folder import Artifact, load
from holdfast.errors import RefusedError, RegistryError, RolloutError
from holdfast.progress import say
from holdfast.registry.notes import Note, Outcome
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.contract.side import Side, side
from holdfast.serving.rollout.engine.journal import JOURNAL
from holdfast.serving.rollout.reporting import status
from holdfast.workload.schema import RolloutPlan


@dataclass(frozen=True)
class Contest:
    """Who meets whom, on which rows."""

    candidate: Side
    champion: Side | None
    rows: Path
    """NPZ file: x are network inputs of held-out rows."""
    attacks: Path | None = None
    """NPZ file of adversarial rows for the candidate."""
    expires_at: float | None = None
    """Unix seconds until which the gate's decision holds."""
    metrics_port: int | None = None
    """Where the controller's metrics are served, on loopback; None: only the file."""

    @property
    def stable(self) -> Side:
        """The stable arm: the champion, or (first rollout) a second server of the candidate."""
        return self.champion or Side(replace(self.candidate.served, game_day=None), self.candidate.model)


def fetch(tracking: str, name: str, version: int, state: Path) -> registry_worker.Fetched:
    """As `registry_worker.fetch`; a version that is refused leaves no folder behind."""
    try:
        return registry_worker.fetch(tracking, name, version, state)
    except RefusedError:
        forget(state)
        raise


def contest_of(
    fetched: registry_worker.Fetched, name: str, version: int, game_day: str | None, config: RolloutPlan
) -> Contest:
    """From verified bundles; both models are admitted once more."""
    attacks = fetched.candidate / "attacks.npz"
    champion = (
        side(name, fetched.champion_version, fetched.champion)
        if fetched.champion is not None and fetched.champion_version is not None
        else None
    )
    return Contest(
        side(name, version, fetched.candidate, game_day),
        champion,
        fetched.candidate / "replay.npz",
        attacks if attacks.exists() else None,
        fetched.decided + config.max_decision_days * 86400,
    )


def require_fresh(contest: Contest, state: Path, config: RolloutPlan) -> None:
    """A rollout under way is not refused here but turned back by its controller, which can."""
    if contest.expires_at is not None and time.time() > contest.expires_at and not (state / JOURNAL).exists():
        forget(state)
        raise RefusedError(
            f"{contest.candidate.served.name} version {contest.candidate.served.version}: expected a gate decision of "
            f"the last {config.max_decision_days:g} days (max_decision_days), found an older one; let the gate judge "
            "again and register what it passes"
        )


def forget(state: Path) -> None:
    """Nothing began that another run would have to know of."""
    if not (state / JOURNAL).exists():
        shutil.rmtree(state, ignore_errors=True)


def require_same_contract(contest: Contest) -> None:
    """Clients must be able to send the same rows to both arms and read the same answers."""
    if contest.champion is None:
        return
    found, expected = (_contract(arm.model) for arm in (contest.candidate, contest.champion))
    if found != expected:
        raise RolloutError(
            f"{contest.candidate.served.name} version {contest.candidate.served.version}: expected the champion's "
            f"contract {expected}, found {found}; clients could not read both, serve it under a new name"
        )


def _contract(model: Artifact[Model]) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    document = model.document
    return document.input.dtype, document.input.shape, document.classes


def digests_of(contest: Contest) -> dict[str, str]:
    """Role -> digest of the model."""
    sides = {"candidate": contest.candidate, "champion": contest.champion}
    return {role: arm.model.digest for role, arm in sides.items() if arm is not None}


def note_of(contest: Contest, about: status.Status, outcome: Outcome, reason: str, cause: Cause) -> Note:
    """What the ledger keeps."""
    served = contest.candidate.served
    return Note(
        version=served.version,
        outcome=outcome,
        reason=reason,
        began=about.began,
        ended=round(time.time(), 3),
        champion_before=about.champion,
        model=contest.candidate.model.digest,
        decision=load(served.decision, GateDecision).digest,
        game_day=served.game_day,
        cause=cause,
    )


def status_of(contest: Contest, config: RolloutPlan, fence: int, began: float) -> status.Status:
    """Where a rollout stands whose servers are about to be started."""
    served, now = contest.candidate.served, time.time()
    return status.Status(
        rollout=f"{served.name}-{served.version}-{began * 1000:.0f}",
        name=served.name,
        version=served.version,
        champion=contest.champion.served.version if contest.champion else None,
        driver=status.DriverProcess.here(fence),
        began=began,
        at=now,
        since=now,
        ttl_seconds=config.ttl_seconds,
        asks_approval=config.approval,
    )


def say_starting(state: Path, name: str, version: int) -> None:
    """Before the journal is open; says nothing over a driver that runs."""
    before = status.read(state / status.FILE)
    if before is None or not before.driver.runs:
        now = time.time()
        status.write(
            state / status.FILE,
            status.Status(f"{name}-{version}", name, version, None, status.DriverProcess.here(), now, now, now),
        )


def hand_in(out: Path) -> None:
    """Hands the ledger's waiting notes to MLflow, or says that they wait on."""
    try:
        registry_worker.hand_in(out.absolute().parent)
    except RegistryError as error:
        say(f"rollout: {error}; the note about this rollout waits beside {out} for the next start or history")
