"""A rollout on a cluster, seen and ended from anywhere: its state is in the object, so its folder is not needed.

Whoever is on call has a kubeconfig and the target file, not the pod that drives.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from holdfast.artifacts.cause import Cause
from holdfast.errors import HoldfastError, RolloutError
from holdfast.kubernetes.api import Kube
from holdfast.kubernetes.objects import Json, annotations
from holdfast.serving.rollout.cluster.open import candidate_digest, open_cluster
from holdfast.serving.rollout.cluster.store import STATE, SUBJECT, fence_of, read_history, read_state
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.engine.analysis import Conclusion
from holdfast.serving.rollout.engine.machine import TERMINAL, State
from holdfast.waiting import retry

RETRY_SECONDS = 1.0
NO_ROLLOUT = "none"


@dataclass(frozen=True)
class Remote:
    """A rollout as its object has it."""

    name: str
    """Kind and name of the object."""
    state: str
    """One of `State`; `none` when the object knows of no rollout."""
    step: int
    """Number of the canary step, from 0."""
    reason: str
    subject: str
    """Digests of candidate and decision."""
    weights: tuple[tuple[str, str], ...]
    """Shares of traffic now, as the cluster has them."""
    fence: int
    expires_at: str | None
    """End of the lease: then the watchdog takes the candidate out."""
    candidate: tuple[int, int]
    """Failed, answered."""
    champion: tuple[int, int]
    history: tuple[Json, ...]
    cause: str = Cause.NONE.value
    """One of `Cause`, when it has ended."""

    @property
    def ended(self) -> bool:
        """Whether nothing is under way."""
        return self.state == NO_ROLLOUT or self.state in TERMINAL

    def as_dict(self) -> dict[str, object]:
        """Plain values, for `--json`."""
        return asdict(self)


def see(target: Target, kube: Kube) -> Remote:
    """Reads the target's object; changes nothing, and takes no fence.

    Raises:
        RolloutError: the object is not there, or its annotations have no meaning.
    """
    driver = DRIVERS[target.driver]
    resource, name = driver.home(target)
    found = kube.get(resource, name)
    traffic = driver.traffic(target, kube, found)
    state = read_state(found) or {}
    total, judgement = (_part(state, key, name) for key in ("total", "judgement"))
    return Remote(
        name=f"{resource.plural} {name} in {target.namespace}",
        state=str(state.get("state", NO_ROLLOUT)),
        step=_count(state, "step", name),
        reason=str(judgement.get("reason", "")),
        subject=annotations(found).get(SUBJECT, ""),
        weights=tuple((f"  {arm}", share) for arm, share in traffic.weights),
        fence=fence_of(found),
        expires_at=traffic.expires_at,
        candidate=_counted(total, "candidate", name),
        champion=_counted(total, "champion", name),
        history=tuple(read_history(found)),
        cause=str(judgement.get("cause", Cause.NONE.value)),
    )


def abort(target: Target, kube: Kube, reason: str, seconds: float, tell: Callable[[str], None]) -> Remote:
    """Takes the candidate out of traffic, now and from here, which is no verdict on it.

    A driver that runs is refused from then on. A verdict that is being carried out stays one.

    Args:
        target: where; the candidate must be the one whose rollout is under way.
        kube: its API server.
        reason: for the history.
        seconds: how long to try.
        tell: hears of every try that failed.

    Raises:
        RolloutError: nothing is under way, or another candidate's rollout; or the API could not do it in time.
        FencedError: another driver took over meanwhile.
    """
    seen = see(target, kube)
    digest, _, decision = seen.subject.partition("@")
    _require_running(seen.state, seen.name)
    if digest != candidate_digest(target):
        other = f"another candidate than the target's ({digest[:12]}…)"
        raise RolloutError(f"{seen.name}: cannot abort: the rollout under way is of {other}")
    cluster = open_cluster(target, kube, decision)
    state = cluster.store.state or {}
    _require_running(str(state.get("state", "")), seen.name)  # it may have ended before the fence was ours
    _insist(cluster.driver.remove_candidate, seconds, tell)
    ended = _ended(state, reason, seen.name)
    _insist(lambda: cluster.store.write("aborted", ended, reason=reason), seconds, tell)
    return see(target, kube)


def _require_running(state: str, name: str) -> None:
    if state == NO_ROLLOUT:
        raise RolloutError(f"{name}: cannot abort: no rollout is under way")
    if state in TERMINAL:
        raise RolloutError(f"{name}: cannot abort: the rollout has ended already: {state}")


def _ended(state: Mapping[str, object], reason: str, name: str) -> dict[str, object]:
    """The state after an abort; a verdict against the candidate that is being carried out stays one."""
    if state.get("state") == State.ROLLING_BACK:
        return {**state, "state": state.get("ending", State.ROLLED_BACK.value)}
    out = State.INCONCLUSIVE.value
    judgement = {**_part(state, "judgement", name), "outcome": Conclusion.INCONCLUSIVE.value, "reason": reason}
    judgement["cause"] = Cause.OPERATOR.value
    return {**state, "state": out, "ending": out, "judgement": judgement}


def _counted(total: Mapping[str, object], arm: str, name: str) -> tuple[int, int]:
    found = _part(total, arm, name)
    return _count(found, "failed", name), _count(found, "answered", name)


def _part(values: Mapping[str, object], key: str, name: str) -> Mapping[str, object]:
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise RolloutError(f"{name}: expected an object as {key} in {STATE}, found {str(found)[:40]}")
    return found


def _count(values: Mapping[str, object], key: str, name: str) -> int:
    found = values.get(key, 0)
    if type(found) is not int:
        raise RolloutError(f"{name}: expected a count as {key} in {STATE}, found {str(found)[:40]}")
    return found


def _insist(act: Callable[[], None], seconds: float, tell: Callable[[str], None]) -> None:
    """Tries for `seconds`, unless another driver has taken over."""

    def pause(error: HoldfastError) -> float | None:
        return RETRY_SECONDS if isinstance(error, RolloutError) else None

    retry(act, pause, seconds, lambda error: tell(f"{error}; trying again"))
