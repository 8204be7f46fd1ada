"""A rollout on this machine: two servers, an Envoy and the traffic, all of them processes that it starts.

Everything that a rollout needs to go on after a crash is in one folder next to its output.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from holdfast.errors import RolloutError
from holdfast.serving.predictor.game_day import BEGINS
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.engine.journal import JOURNAL, TIMELINE, Journal, checkpoint_of, open_journal
from holdfast.serving.rollout.engine.requests import FOLDER, TOLD, OperatorRequests, Stop
from holdfast.serving.rollout.local import launch
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.serving.rollout.matchup import Matchup, digests_of, require_same_contract
from holdfast.serving.rollout.stage import Stage, Traffic
from holdfast.serving.rollout.traffic.sender import BEFORE, TALLY, Load, Unpairing, sending
from holdfast.workload.schema import RolloutPlan


@contextmanager
def local_stage(matchup: Matchup, state: Path, stop: Stop) -> Iterator[Stage]:
    """This machine, with the rollout's journal open.

    Raises:
        RolloutError: the models' contracts differ, or the folder is another rollout's or another driver's.
    """
    require_same_contract(matchup)
    with open_journal(state / JOURNAL) as journal:
        began, requests = _require_same_rollout(journal, matchup), OperatorRequests(state, stop, matchup.expires_at)
        traffic = partial(_traffic, matchup, journal, stop)
        yield Stage(journal, requests, began, traffic, put_aside=partial(_put_aside, state, journal))


@contextmanager
def _traffic(matchup: Matchup, journal: Journal, stop: Stop, config: RolloutPlan, seed: int) -> Iterator[Traffic]:
    """Finds the servers that an earlier driver started, or starts them; ends them after the block."""
    state = journal.path.parent
    found = launch.attach(state, deployment_spec(matchup, config), partial(stop.check, str(state)))
    driver = LocalDriver(found.socket, journal.fence)
    try:
        driver.health()  # from now on connected: the deployment waits for as long as the traffic takes to start
        journal.write("started", pids={**found.pids, "deployment": found.pid}, found=found.found)
        with sending(state, found.url, _load(matchup, config, seed, found.probes)) as sender:
            sender.wait(stop)
            traffic = Traffic(driver, sender, sender, (Unpairing(sender),), sender.lag)
            yield traffic
        sender.refresh()
        traffic.tail, traffic.fault_at = _last_words(driver)
    finally:
        launch.end(found, driver)


def deployment_spec(matchup: Matchup, config: RolloutPlan) -> launch.Spec:
    """What this machine serves during the rollout."""
    return launch.Spec(
        matchup.stable.served,
        matchup.candidate.served,
        config.latency_limit_ms,
        ttl_seconds=config.ttl_seconds,
        max_body_bytes=config.max_body_bytes,
        arm_header_from=config.arm_header_from,
    )


def _require_same_rollout(journal: Journal, matchup: Matchup) -> float:
    """A folder with another rollout's journal is not ours to go on with; returns when this one began (Unix seconds)."""
    digests = digests_of(matchup)
    for entry in journal.earlier:
        found = entry.get("digests")
        if found is not None and found != digests:
            raise RolloutError(
                f"{journal.path}: cannot go on: this is a rollout of {found}, not of {digests}; choose another --out"
            )
    began = next((float(str(entry["began"])) for entry in journal.earlier if "began" in entry), None)
    if began is None:
        began = round(time.time(), 3)
        journal.write("created", digests=digests, version=matchup.candidate.served.version, began=began)
    return began


def _put_aside(state: Path, journal: Journal) -> None:
    """A rollout that was told to stop has no verdict: its journal is kept under another name."""
    journal.write("end", state="Inconclusive", reason=TOLD)
    # The next run may meet another champion, and the ledger has another line.
    fetched = state / registry_worker.FETCHED
    for path in (checkpoint_of(journal.path), state / TIMELINE, state / TALLY, state / BEFORE, fetched):
        path.unlink(missing_ok=True)
    shutil.rmtree(state / FOLDER, ignore_errors=True)
    number = 1 + len(list(state.glob("stopped-*.jsonl")))
    journal.path.replace(journal.path.with_name(f"stopped-{number}.jsonl"))


def _load(matchup: Matchup, config: RolloutPlan, seed: int, probes: Path) -> Load:
    return Load(matchup.rows, matchup.attacks, matchup.classes, config.rate, config.clients, seed, probes)


def _last_words(driver: LocalDriver) -> tuple[str, float | None]:
    """The end of the candidate's log, and when its game day began; neither of servers that are gone."""
    try:
        found = driver.ask("tail", arm="candidate")
    except RolloutError as error:
        return f"not to be had: {error}", None
    begins = found["begins"]
    return str(found["tail"]), float(begins[0].removeprefix(BEGINS)) if begins else None
