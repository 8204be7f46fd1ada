"""The rollout step: fetches candidate and champion, serves both, moves traffic, promotes or rolls back.

Everything that a rollout needs to go on after a crash lies in one folder beside its output; run it again and it goes
on where it stood. This process stays small: MLflow, the servers and the traffic live in others.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from holdfast.artifacts.documents import GateDecision, Model, RolloutRecord, Transition, Verdict
from holdfast.artifacts.folder import Artifact, load, seal, write_artifact
from holdfast.errors import RefusedError, RegistryError, RolloutError
from holdfast.ledger import Note, Outcome
from holdfast.progress import say
from holdfast.serving.predictor.game_day import BEGINS, GameDay
from holdfast.serving.rollout.conduct import errands
from holdfast.serving.rollout.conduct.controller import Controller
from holdfast.serving.rollout.conduct.journal import Journal, checkpoint_of, open_journal, state_folder
from holdfast.serving.rollout.conduct.plan import plan_of
from holdfast.serving.rollout.conduct.wishes import FOLDER, TOLD, Wishes, told_to_stop
from holdfast.serving.rollout.drivers.local import LocalDriver
from holdfast.serving.rollout.judge.machine import Rollout, State
from holdfast.serving.rollout.site import launch
from holdfast.serving.rollout.site.sender import BEFORE, TALLY, Load, Sender, sending
from holdfast.serving.rollout.site.side import Side, side
from holdfast.serving.rollout.tell import incident, log, metrics, status
from holdfast.serving.rollout.tell.announce import Announced, Several
from holdfast.serving.rollout.tell.timeline import Timeline
from holdfast.workload import RolloutPlan

JOURNAL, TIMELINE = "journal.jsonl", "timeline.jsonl"
_Ending = Literal["promoted", "rolled-back", "inconclusive"]
_OUTCOMES: dict[State, tuple[_Ending, Verdict]] = {
    State.PROMOTED: ("promoted", Verdict.PASS),
    State.ROLLED_BACK: ("rolled-back", Verdict.FAIL),
    State.INCONCLUSIVE: ("inconclusive", Verdict.INCONCLUSIVE),
}
LINGER_SECONDS = 15.0
"""How long the servers of a rollout wait for another driver when theirs is gone."""


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


@dataclass(frozen=True)
class Carried:
    """A rollout that came to its end."""

    rollout: Rollout
    timeline: Timeline
    sent: int
    failed: int
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
    metrics_port: int | None = None,
) -> Artifact[RolloutRecord]:
    """Rolls version `version` of model `name` out against the champion; writes the record whatever the outcome.

    Without a champion, the stable arm is a second server of the candidate, and the candidate is on probation: held to
    absolute limits beside the comparison. After a crash, the same call goes on where the rollout stood.

    Raises:
        RefusedError: a model without a passing verdict for its very bytes, with one that is too old, or with the one
            under which it was rolled back.
        RolloutError: the version does not exist, a server does not start, or the process was told to stop.
        RegistryError: MLflow cannot be reached.
    """
    if game_day:
        GameDay.parse(game_day)
    state = state_folder(out)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    _say_starting(state, name, version)
    fetched = _fetch(tracking, name, version, state)
    contest = replace(_contest(fetched, name, version, game_day, config), metrics_port=metrics_port)
    _require_fresh(contest, state, config)
    artifact = compete(
        contest,
        out,
        config=config,
        seed=seed,
        promote=partial(errands.promote, tracking, name, version),
        note=partial(errands.leave_note, out, tracking, name),
    )
    try:
        errands.hand_in(out.absolute().parent)
    except RegistryError as error:
        say(f"rollout: {error}; the note about this rollout waits beside {out} for the next start or history")
    return artifact


def _fetch(tracking: str, name: str, version: int, state: Path) -> errands.Fetched:
    try:
        return errands.fetch(tracking, name, version, state)
    except RefusedError:
        _forget(state)
        raise


def _contest(fetched: errands.Fetched, name: str, version: int, game_day: str | None, config: RolloutPlan) -> Contest:
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


def _require_fresh(contest: Contest, state: Path, config: RolloutPlan) -> None:
    """A rollout under way is not refused here but turned back by its controller, which can."""
    if contest.expires_at is not None and time.time() > contest.expires_at and not (state / JOURNAL).exists():
        _forget(state)
        raise RefusedError(
            f"{contest.candidate.served.name} version {contest.candidate.served.version}: expected a gate decision of "
            f"the last {config.max_decision_days:g} days (max_decision_days), found an older one; let the gate judge "
            "again and register what it passes"
        )


def _forget(state: Path) -> None:
    """Nothing began that another run would have to know of."""
    if not (state / JOURNAL).exists():
        shutil.rmtree(state, ignore_errors=True)


def site_spec(contest: Contest, config: RolloutPlan) -> dict[str, object]:
    """What the site is told (`holdfast.serving.rollout.site.site.Spec`)."""
    return {
        "stable": contest.stable.served.as_json(),
        "candidate": contest.candidate.served.as_json(),
        "slow_ms": config.latency_limit_ms,
        "ttl_seconds": config.ttl_seconds,
        "linger_seconds": LINGER_SECONDS,
    }


def compete(
    contest: Contest,
    out: Path,
    *,
    config: RolloutPlan,
    seed: int,
    promote: Callable[[], None],
    note: Callable[[Note], None] = lambda note: None,
) -> Artifact[RolloutRecord]:
    """Carries the rollout out and writes its record.

    Args:
        contest: who meets whom.
        out: of the record.
        config: the plan.
        seed: of the traffic.
        promote: called once the last step has passed; idempotent.
        note: called with the outcome before the rollout's folder is given up; idempotent.
    """
    _require_same_contract(contest)
    state = state_folder(out)
    with told_to_stop() as stop, open_journal(state / JOURNAL) as journal:
        began = _require_same_rollout(journal, contest)
        about = _status(contest, config, journal.fence, began)
        status.write(state / status.FILE, about)
        wishes = Wishes(state, stop, contest.expires_at)
        carried = _carry_out(contest, journal, wishes, about, config=config, seed=seed, promote=promote)
        if wishes.stopped and carried.rollout.state is not State.PROMOTED:
            note(_note(contest, about, "stopped", TOLD))
            _put_aside(state, journal)
            raise RolloutError(f"{out}: {TOLD}; the candidate is out, the champion was not moved")
        note(_note(contest, about, _OUTCOMES[carried.rollout.state][0], _reason(carried)))
        artifact = _write(contest, carried, out, state)
        shutil.rmtree(state)
    return artifact


def _carry_out(
    contest: Contest,
    journal: Journal,
    wishes: Wishes,
    about: status.Status,
    *,
    config: RolloutPlan,
    seed: int,
    promote: Callable[[], None],
) -> Carried:
    state, stop = journal.path.parent, wishes.stop
    spec = site_spec(contest, config)
    site = launch.attach(state, spec, partial(stop.check, str(state)))
    driver = LocalDriver(site.socket, journal.fence)
    try:
        journal.write("started", pids={**site.pids, "site": site.pid}, found=site.found)
        with sending(state, site.url, _load(contest, config, seed)) as sender:
            sender.wait(stop)
            timeline = Timeline.at(state / TIMELINE, lambda: sender)
            plan = plan_of(
                config,
                classes=len(contest.candidate.model.document.classes),
                attacks=sender.offline(),
                probation=contest.champion is None,
            )
            listeners = _listeners(state, sender, about)
            watcher, store = Several((timeline, *listeners)), Announced(journal, listeners)
            with metrics.served(listeners[-1], contest.metrics_port):
                ended = Controller(
                    plan, driver, store, stop, watcher, wishes=wishes, probes=sender.probes, mirror=promote
                ).run()
        sender.refresh()
        tail = driver.ask("tail", arm="candidate")
        seconds = _seconds_to_rollback(tail["begins"], timeline.weight_zero_at)
        return Carried(ended, timeline, sender.sent, sender.failed, seconds, str(tail["tail"]))
    finally:
        launch.end(site, driver)


def _note(contest: Contest, about: status.Status, outcome: Outcome, reason: str) -> Note:
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
    )


def _listeners(state: Path, sender: Sender, about: status.Status) -> tuple[status.StatusFile, log.Log, metrics.Metrics]:
    return (
        status.StatusFile(state / status.FILE, sender, about),
        log.Log(state / log.FILE, about.rollout, about.driver.fence),
        metrics.Metrics(state / metrics.FILE, sender, {"name": about.name, "version": str(about.version)}),
    )


def _say_starting(state: Path, name: str, version: int) -> None:
    """Before the journal is open; says nothing over a driver that runs."""
    before = status.read(state / status.FILE)
    if before is None or not before.driver.runs:
        now = time.time()
        status.write(
            state / status.FILE,
            status.Status(f"{name}-{version}", name, version, None, status.Driver.here(), now, now, now),
        )


def _status(contest: Contest, config: RolloutPlan, fence: int, began: float) -> status.Status:
    """Where a rollout stands whose servers are about to be started."""
    served, now = contest.candidate.served, time.time()
    return status.Status(
        rollout=f"{served.name}-{served.version}-{began * 1000:.0f}",
        name=served.name,
        version=served.version,
        champion=contest.champion.served.version if contest.champion else None,
        driver=status.Driver.here(fence),
        began=began,
        at=now,
        since=now,
        ttl_seconds=config.ttl_seconds,
        asks_approval=config.approval,
    )


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


def _require_same_rollout(journal: Journal, contest: Contest) -> float:
    """A folder with another rollout's journal is not ours to go on with; returns when this one began (Unix seconds)."""
    digests = _digests(contest)
    for entry in journal.earlier:
        found = entry.get("digests")
        if found is not None and found != digests:
            raise RolloutError(
                f"{journal.path}: expected a rollout of {digests}, found one of {found}; choose another --out"
            )
    began = next((float(str(entry["began"])) for entry in journal.earlier if "began" in entry), None)
    if began is None:
        began = round(time.time(), 3)
        journal.write("created", digests=digests, version=contest.candidate.served.version, began=began)
    return began


def _put_aside(state: Path, journal: Journal) -> None:
    """A rollout that was told to stop has no verdict: its journal is kept beside, and the next run begins anew."""
    journal.write("end", state="Inconclusive", reason=TOLD)
    # The next run may meet another champion, and the ledger has another line.
    fetched = state / errands.FETCHED
    for path in (checkpoint_of(journal.path), state / TIMELINE, state / TALLY, state / BEFORE, fetched):
        path.unlink(missing_ok=True)
    shutil.rmtree(state / FOLDER, ignore_errors=True)
    journal.path.replace(journal.path.with_name(f"stopped-{journal.fence}.jsonl"))


def _load(contest: Contest, config: RolloutPlan, seed: int) -> Load:
    classes = len(contest.candidate.model.document.classes)
    return Load(contest.rows, contest.attacks, classes, config.rate, config.clients, seed)


def _seconds_to_rollback(begins: Sequence[str], weight_zero_at: float | None) -> float | None:
    """Both times are on the machine's monotonic clock."""
    if not begins or weight_zero_at is None:
        return None
    return round(weight_zero_at - float(begins[0].removeprefix(BEGINS)), 3)


def _write(contest: Contest, carried: Carried, out: Path, state: Path) -> Artifact[RolloutRecord]:
    record = _record(contest, carried)
    with write_artifact(out) as work:
        for name in (JOURNAL, log.FILE):
            if (state / name).exists():
                shutil.copyfile(state / name, work / name)
        (work / "timeline.json").write_text(json.dumps(carried.timeline.samples))
        if record.outcome != "promoted":
            facts = _incident(contest, carried, record)
            (work / "incident.md").write_text(incident.markdown(facts))
            (work / "incident.html").write_text(incident.page(facts))
        sealed = seal(work, record)
    return Artifact(out, sealed.document, sealed.digest)


def _record(contest: Contest, carried: Carried) -> RolloutRecord:
    outcome, verdict = _OUTCOMES[carried.rollout.state]
    day = contest.candidate.served.game_day
    reason = _reason(carried)
    return RolloutRecord(
        inputs=_digests(contest),
        name=contest.candidate.served.name,
        candidate_version=contest.candidate.served.version,
        champion_version=contest.champion.served.version if contest.champion else None,
        transitions=_transitions(carried),
        requests_sent=carried.sent,
        requests_failed=carried.failed,
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
    found = tuple(carried.timeline.transitions)
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
        outcome=record.outcome,
        reason=record.reason,
        digests={**_digests(contest), "gate decision": load(contest.candidate.served.decision, GateDecision).digest},
        sent=record.requests_sent,
        failed=record.requests_failed,
        transitions=record.transitions,
        timeline=tuple(carried.timeline.samples),
        limits=carried.rollout.plan.limits,
        game_day=contest.candidate.served.game_day,
        log=carried.log,
    )
