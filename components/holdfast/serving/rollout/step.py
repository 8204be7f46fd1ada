"""The rollout step: fetches candidate and champion, serves both, moves traffic, promotes or rolls back."""

import asyncio
import json
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Model, RolloutRecord, Transition, Verdict
from holdfast.artifacts.folder import Artifact, Ref, seal, write_artifact
from holdfast.errors import RolloutError
from holdfast.serving.predictor.admission import admit
from holdfast.serving.predictor.game_day import BEGINS, GameDay
from holdfast.serving.predictor.settings import Served
from holdfast.serving.rollout.conduct.conductor import Conductor
from holdfast.serving.rollout.conduct.journal import Journal, open_journal
from holdfast.serving.rollout.drivers.envoy_config import CANDIDATE
from holdfast.serving.rollout.judge.analysis import Limits
from holdfast.serving.rollout.judge.machine import Plan, Rollout, State
from holdfast.serving.rollout.replay import Rows, Traffic
from holdfast.serving.rollout.site.servers import Side, stage
from holdfast.serving.rollout.tell import incident
from holdfast.workload import RolloutPlan

_Outcome = Literal["promoted", "rolled-back", "inconclusive"]
_OUTCOMES: dict[State, tuple[_Outcome, Verdict]] = {
    State.PROMOTED: ("promoted", Verdict.PASS),
    State.ROLLED_BACK: ("rolled-back", Verdict.FAIL),
    State.INCONCLUSIVE: ("inconclusive", Verdict.INCONCLUSIVE),
}


@dataclass(frozen=True)
class Contest:
    """Who meets whom, on which rows."""

    candidate: Side
    champion: Side | None
    rows: NDArray[np.generic]
    """Network inputs of held-out rows."""

    @property
    def stable(self) -> Side:
        """The stable arm: the champion, or (first rollout) a second server of the candidate."""
        return self.champion or Side(_without_game_day(self.candidate.served), self.candidate.model)


@dataclass(frozen=True)
class Carried:
    """A rollout that came to its end."""

    rollout: Rollout
    conductor: Conductor
    seconds_to_rollback: float | None
    """Game day: from the moment at which the fault set in until weight 0 was in effect."""
    log: str
    """The end of the candidate's log."""


def rollout(
    name: str,
    out: Path,
    *,
    version: int,
    tracking: str,
    config: RolloutPlan,
    seed: int,
    game_day: str | None = None,
) -> Artifact[RolloutRecord]:
    """Rolls version `version` of model `name` out against the champion; writes the record whatever the outcome.

    Without a champion, the stable arm is a second server of the candidate, and the candidate is on probation: held to
    absolute limits beside the comparison.

    Raises:
        RefusedError: a model without a passing verdict for its very bytes.
        RolloutError: the version does not exist, a server does not start, or the process was told to stop.
        RegistryError: MLflow cannot be reached.
    """
    from holdfast import registry

    if game_day:
        GameDay.parse(game_day)
    with tempfile.TemporaryDirectory(prefix="holdfast-rollout-") as folder:
        bundle = registry.fetch(tracking, name, version, Path(folder) / "candidate-bundle")
        if bundle is None:
            raise RolloutError(f"{tracking}: expected version {version} of model {name}, found none")
        current = registry.fetch(tracking, name, "champion", Path(folder) / "champion-bundle")
        with np.load(bundle.path("replay.npz"), allow_pickle=False) as arrays:
            rows = arrays["x"]
        champion = (
            None if current is None or current.version == version else side(name, current.version, current.folder)
        )
        contest = Contest(side(name, version, bundle.folder, game_day), champion, rows)
        return compete(
            contest, out, config=config, seed=seed, promote=lambda: registry.promote(tracking, name, version)
        )


def side(name: str, version: int, bundle: Path, game_day: str | None = None) -> Side:
    """An arm from a bundle's folder (`model/`, `decision/`), after the model was admitted.

    Raises:
        RefusedError: no passing verdict for its very bytes.
    """
    model = admit(Ref(bundle / "model"), Ref(bundle / "decision"))
    served = Served(name, version, Ref(bundle / "model", model.digest), Ref(bundle / "decision"), game_day)
    return Side(served, model)


def compete(
    contest: Contest, out: Path, *, config: RolloutPlan, seed: int, promote: Callable[[], None]
) -> Artifact[RolloutRecord]:
    """Carries the rollout out and writes its record; `promote` is called once the last step has passed."""
    _require_same_contract(contest)
    journal_path = out.parent / f".{out.name}.journal.jsonl"
    with open_journal(journal_path) as journal:
        if journal.earlier:
            journal.write("resume", earlier=len(journal.earlier), found="its servers died with it; from the start")
        try:
            carried = asyncio.run(_carry_out(contest, journal, config=config, seed=seed, promote=promote))
        except asyncio.CancelledError:
            raise RolloutError(f"{out}: told to stop before the rollout had begun") from None
        journal.write("end", state=str(carried.rollout.state))
        if carried.conductor.stop.is_set() and carried.rollout.state is not State.PROMOTED:
            raise RolloutError(f"{out}: told to stop; the candidate is out, the champion was not moved")
        artifact = _write(contest, carried, out, journal_path.read_bytes())
        journal_path.unlink()
    return artifact


async def _carry_out(
    contest: Contest, journal: Journal, *, config: RolloutPlan, seed: int, promote: Callable[[], None]
) -> Carried:
    async def promote_aside() -> None:
        await asyncio.to_thread(promote)

    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder, _told_to_stop() as stop:
        arms = stage(Path(folder), stable=contest.stable, candidate=contest.candidate, slow_ms=config.latency_limit_ms)
        async with arms as live:
            journal.write("started", pids={name: child.process.pid for name, child in live.children.items()})
            traffic = _traffic(contest, live.url, config, seed)
            conductor = Conductor(live.driver, traffic, journal, promote_aside, stop.event)
            stop.graceful = True
            ended = await conductor.carry_out(_plan(contest, config))
            seconds = _seconds_to_rollback(live.children[CANDIDATE].log, conductor.weight_zero_at)
            return Carried(ended, conductor, seconds, live.children[CANDIDATE].tail())


@dataclass
class _Stop:
    """What SIGTERM and SIGINT do: before the rollout they cancel it, then they ask it to go back, twice they cancel."""

    task: "asyncio.Task[object]"
    event: asyncio.Event
    graceful: bool = False

    def told(self) -> None:
        """One signal came."""
        if not self.graceful or self.event.is_set():
            self.task.cancel()
        self.event.set()


@contextmanager
def _told_to_stop() -> Iterator[_Stop]:
    """Handles SIGTERM and SIGINT inside; only the main thread can."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    stop = _Stop(task, asyncio.Event())
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.told)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _require_same_contract(contest: Contest) -> None:
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


def _without_game_day(served: Served) -> Served:
    return replace(served, game_day=None)


def _traffic(contest: Contest, url: str, config: RolloutPlan, seed: int) -> Traffic:
    document = contest.candidate.model.document
    rows = Rows.of(contest.rows.astype(document.input.dtype), len(document.classes))
    return Traffic(url, rows, rate=config.rate, clients=config.clients, seed=seed)


def _plan(contest: Contest, config: RolloutPlan) -> Plan:
    limits = Limits(config.alpha, config.max_disagreement, config.max_step_seconds, probation=contest.champion is None)
    return Plan(limits, config.shadow_requests, config.steps, config.step_requests)


def _seconds_to_rollback(log: Path, weight_zero_at: float | None) -> float | None:
    """Both times are on the machine's monotonic clock."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(BEGINS)]
    if not lines or weight_zero_at is None:
        return None
    return round(weight_zero_at - float(lines[0].removeprefix(BEGINS)), 3)


def _write(contest: Contest, carried: Carried, out: Path, journal: bytes) -> Artifact[RolloutRecord]:
    record = _record(contest, carried)
    with write_artifact(out) as work:
        (work / "journal.jsonl").write_bytes(journal)
        (work / "timeline.json").write_text(json.dumps(carried.conductor.timeline))
        if record.outcome != "promoted":
            facts = _incident(contest, carried, record)
            (work / "incident.md").write_text(incident.markdown(facts))
            (work / "incident.html").write_text(incident.page(facts))
        sealed = seal(work, record)
    return Artifact(out, sealed.document, sealed.digest)


def _record(contest: Contest, carried: Carried) -> RolloutRecord:
    outcome, verdict = _OUTCOMES[carried.rollout.state]
    tally, day = carried.conductor.traffic.tally, contest.candidate.served.game_day
    reason = _reason(carried)
    return RolloutRecord(
        inputs=_digests(contest),
        name=contest.candidate.served.name,
        candidate_version=contest.candidate.served.version,
        champion_version=contest.champion.served.version if contest.champion else None,
        transitions=_transitions(carried),
        requests_sent=tally.sent,
        requests_failed=tally.failed,
        outcome=outcome,
        reason=f"{reason} (game day: {day})" if day else reason,
        verdict=verdict,
    )


def _reason(carried: Carried) -> str:
    if carried.rollout.state is State.PROMOTED:
        return "every step had its answers and no test objected"
    return carried.rollout.judgement.reason


def _transitions(carried: Carried) -> tuple[Transition, ...]:
    """Those of the rollout; the last one also says how long a game day's fault was in traffic."""
    found = tuple(carried.conductor.transitions)
    if carried.seconds_to_rollback is None:
        return found
    more = {**found[-1].evidence, "seconds_to_rollback": carried.seconds_to_rollback}
    return (*found[:-1], found[-1].model_copy(update={"evidence": more}))


def _digests(contest: Contest) -> dict[str, str]:
    sides = {"candidate": contest.candidate, "champion": contest.champion}
    return {role: arm.model.digest for role, arm in sides.items() if arm is not None}


def _incident(contest: Contest, carried: Carried, record: RolloutRecord) -> incident.Incident:
    return incident.Incident(
        name=record.name,
        candidate_version=record.candidate_version,
        champion_version=record.champion_version,
        reason=record.reason,
        digests=_digests(contest),
        sent=record.requests_sent,
        failed=record.requests_failed,
        transitions=record.transitions,
        timeline=tuple(carried.conductor.timeline),
        game_day=contest.candidate.served.game_day,
        log=carried.log,
    )
