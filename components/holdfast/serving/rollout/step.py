"""The rollout step: fetches candidate and champion, serves both, moves traffic, promotes or rolls back.

Everything that a rollout needs to go on after a crash lies in one folder beside its output; run it again and it goes
on where it stood. This process stays small: MLflow, the servers and the traffic live in others.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from holdfast.artifacts.documents import RolloutRecord
from holdfast.artifacts.folder import Artifact
from holdfast.errors import FencedError, RolloutError
from holdfast.registry.notes import Note
from holdfast.serving.predictor.game_day import BEGINS, GameDay
from holdfast.serving.rollout.conduct import errands
from holdfast.serving.rollout.conduct.controller import Controller
from holdfast.serving.rollout.conduct.journal import (
    JOURNAL,
    TIMELINE,
    Journal,
    checkpoint_of,
    open_journal,
    state_folder,
)
from holdfast.serving.rollout.conduct.plan import plan_of
from holdfast.serving.rollout.conduct.wishes import FOLDER, TOLD, Wishes, told_to_stop
from holdfast.serving.rollout.contest import (
    Contest,
    contest_of,
    digests_of,
    fetch,
    hand_in,
    note_of,
    require_fresh,
    require_same_contract,
    say_starting,
    status_of,
)
from holdfast.serving.rollout.drivers.local import LocalDriver
from holdfast.serving.rollout.judge.cause import Cause
from holdfast.serving.rollout.judge.machine import State
from holdfast.serving.rollout.record import OUTCOMES, Carried, cause_of, reason_of, write, write_serving
from holdfast.serving.rollout.replay.sender import BEFORE, TALLY, Load, Sender, Unpairing, sending
from holdfast.serving.rollout.site import launch
from holdfast.serving.rollout.tell import log, metrics, status
from holdfast.serving.rollout.tell.announce import Announced, Several
from holdfast.serving.rollout.tell.timeline import Timeline
from holdfast.workload import RolloutPlan

LINGER_SECONDS = 15.0
"""How long the servers of a rollout wait for another driver when theirs is gone."""


@errands.office()
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
    absolute limits beside the comparison. After a crash, the same call goes on where the rollout stood. What is the
    champion already is not rolled out, unless a fault is to be planted in it.

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
    say_starting(state, name, version)
    fetched = fetch(tracking, name, version, state)
    contest = replace(contest_of(fetched, name, version, game_day, config), metrics_port=metrics_port)
    require_fresh(contest, state, config)
    if fetched.serving and not game_day and not (state / JOURNAL).exists():
        artifact = write_serving(contest, out)
        shutil.rmtree(state)
        return artifact
    artifact = compete(
        contest,
        out,
        config=config,
        seed=seed,
        promote=partial(errands.promote, tracking, name, version),
        note=partial(errands.leave_note, out, tracking, name),
    )
    hand_in(out)
    return artifact


def site_spec(contest: Contest, config: RolloutPlan) -> dict[str, object]:
    """What the site is told (`holdfast.serving.rollout.site.site.Spec`)."""
    return {
        "stable": contest.stable.served.as_json(),
        "candidate": contest.candidate.served.as_json(),
        "slow_ms": config.latency_limit_ms,
        "ttl_seconds": config.ttl_seconds,
        "linger_seconds": LINGER_SECONDS,
        "max_body_bytes": config.max_body_bytes,
        "arm_header_from": list(config.arm_header_from),
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
    require_same_contract(contest)
    state = state_folder(out)
    with told_to_stop() as stop, open_journal(state / JOURNAL) as journal:
        began = _require_same_rollout(journal, contest)
        about = status_of(contest, config, journal.fence, began)
        status.write(state / status.FILE, about)
        wishes = Wishes(state, stop, contest.expires_at)
        carried = _carry_out(contest, journal, wishes, about, config=config, seed=seed, promote=promote)
        if wishes.stopped and carried.rollout.state is not State.PROMOTED:
            note(note_of(contest, about, "stopped", TOLD, Cause.OPERATOR))
            _put_aside(state, journal)
            raise RolloutError(
                f"{out}: {TOLD}; the candidate is out, the champion was not moved; "
                "the same command starts it again as it is"
            )
        note(note_of(contest, about, OUTCOMES[carried.rollout.state][0], reason_of(carried), cause_of(carried)))
        artifact = write(contest, carried, out, state)
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
        driver.health()  # from now on connected: the site waits for as long as the traffic takes to start
        journal.write("started", pids={**site.pids, "site": site.pid}, found=site.found)
        with sending(state, site.url, _load(contest, config, seed, site.probes)) as sender:
            sender.wait(stop)
            timeline = Timeline.at(state / TIMELINE, lambda: sender)
            plan = plan_of(
                config,
                classes=len(contest.candidate.model.document.classes),
                attacks=sender.offline(),
                probation=contest.champion is None,
            )
            listeners = _listeners(state, sender, about)
            watcher, store = Several((Unpairing(sender), timeline, *listeners)), Announced(journal, listeners)
            with metrics.served(listeners[-1], contest.metrics_port):
                ended = Controller(
                    plan,
                    driver,
                    store,
                    stop,
                    watcher,
                    wishes=wishes,
                    probes=sender.probes,
                    traffic_lag=sender.lag,
                    mirror=promote,
                ).run()
        sender.refresh()
        tail, begins = _last_words(driver)
        seconds = _seconds_to_rollback(begins, timeline.weight_zero_at)
        return Carried(ended, timeline, sender.sent, sender.failed, seconds, tail)
    finally:
        launch.end(site, driver)


def _require_same_rollout(journal: Journal, contest: Contest) -> float:
    """A folder with another rollout's journal is not ours to go on with; returns when this one began (Unix seconds)."""
    digests = digests_of(contest)
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
    number = 1 + len(list(state.glob("stopped-*.jsonl")))
    journal.path.replace(journal.path.with_name(f"stopped-{number}.jsonl"))


def _load(contest: Contest, config: RolloutPlan, seed: int, probes: Path) -> Load:
    classes = len(contest.candidate.model.document.classes)
    return Load(contest.rows, contest.attacks, classes, config.rate, config.clients, seed, probes)


def _last_words(driver: LocalDriver) -> tuple[str, Sequence[str]]:
    """The end of the candidate's log, and when its game day began; neither of servers that are gone."""
    try:
        found = driver.ask("tail", arm="candidate")
    except FencedError:
        raise
    except RolloutError as error:
        return f"not to be had: {error}", ()
    return str(found["tail"]), found["begins"]


def _seconds_to_rollback(begins: Sequence[str], weight_zero_at: float | None) -> float | None:
    """Both times are on the machine's monotonic clock."""
    if not begins or weight_zero_at is None:
        return None
    return round(weight_zero_at - float(begins[0].removeprefix(BEGINS)), 3)


def _listeners(state: Path, sender: Sender, about: status.Status) -> tuple[status.StatusFile, log.Log, metrics.Metrics]:
    return (
        status.StatusFile(state / status.FILE, sender, about),
        log.Log(state / log.FILE, about.rollout, about.driver.fence),
        metrics.Metrics(state / metrics.FILE, sender, {"name": about.name, "version": str(about.version)}),
    )
