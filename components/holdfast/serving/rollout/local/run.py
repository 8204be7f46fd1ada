"""A rollout on this machine: two servers, an Envoy and the traffic, all of them processes that it starts.

Everything that a rollout needs to go on after a crash is in one folder next to its output.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from holdfast.errors import FencedError, RolloutError
from holdfast.serving.predictor.game_day import BEGINS
from holdfast.serving.rollout import registry_worker
from holdfast.serving.rollout.engine.journal import JOURNAL, TIMELINE, Journal, checkpoint_of, open_journal
from holdfast.serving.rollout.engine.requests import FOLDER, TOLD, Stop, Wishes
from holdfast.serving.rollout.local import launch
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.serving.rollout.matchup import Contest, digests_of, require_same_contract
from holdfast.serving.rollout.stage import Stage, Traffic
from holdfast.serving.rollout.traffic.sender import BEFORE, TALLY, Load, Unpairing, sending
from holdfast.workload.schema import RolloutPlan

LINGER_SECONDS = 15.0
"""How long the servers of a rollout wait for another driver when theirs is gone."""


@contextmanager
def local_stage(contest: Contest, state: Path, stop: Stop) -> Iterator[Stage]:
    """This machine, with the rollout's journal open.

    Raises:
        RolloutError: the models' contracts differ, or the folder is another rollout's or another driver's.
    """
    require_same_contract(contest)
    with open_journal(state / JOURNAL) as journal:
        began, wishes = _require_same_rollout(journal, contest), Wishes(state, stop, contest.expires_at)
        traffic = partial(_traffic, contest, journal, stop)
        yield Stage(journal, wishes, began, traffic, put_aside=partial(_put_aside, state, journal))


@contextmanager
def _traffic(contest: Contest, journal: Journal, stop: Stop, config: RolloutPlan, seed: int) -> Iterator[Traffic]:
    """Finds the servers that an earlier driver started, or starts them; ends them after the block."""
    state = journal.path.parent
    site = launch.attach(state, site_spec(contest, config), partial(stop.check, str(state)))
    driver = LocalDriver(site.socket, journal.fence)
    try:
        driver.health()  # from now on connected: the site waits for as long as the traffic takes to start
        journal.write("started", pids={**site.pids, "site": site.pid}, found=site.found)
        with sending(state, site.url, _load(contest, config, seed, site.probes)) as sender:
            sender.wait(stop)
            traffic = Traffic(driver, sender, sender, (Unpairing(sender),), sender.lag)
            yield traffic
        sender.refresh()
        traffic.tail, traffic.fault_at = _last_words(driver)
    finally:
        launch.end(site, driver)


def site_spec(contest: Contest, config: RolloutPlan) -> dict[str, object]:
    """What the site is told (`holdfast.serving.rollout.local.deployment.Spec`)."""
    return {
        "stable": contest.stable.served.as_json(),
        "candidate": contest.candidate.served.as_json(),
        "slow_ms": config.latency_limit_ms,
        "ttl_seconds": config.ttl_seconds,
        "linger_seconds": LINGER_SECONDS,
        "max_body_bytes": config.max_body_bytes,
        "arm_header_from": list(config.arm_header_from),
    }


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
    """A rollout that was told to stop has no verdict: its journal is kept under another name."""
    journal.write("end", state="Inconclusive", reason=TOLD)
    # The next run may meet another champion, and the ledger has another line.
    fetched = state / registry_worker.FETCHED
    for path in (checkpoint_of(journal.path), state / TIMELINE, state / TALLY, state / BEFORE, fetched):
        path.unlink(missing_ok=True)
    shutil.rmtree(state / FOLDER, ignore_errors=True)
    number = 1 + len(list(state.glob("stopped-*.jsonl")))
    journal.path.replace(journal.path.with_name(f"stopped-{number}.jsonl"))


def _load(contest: Contest, config: RolloutPlan, seed: int, probes: Path) -> Load:
    classes = len(contest.candidate.model.document.classes)
    return Load(contest.rows, contest.attacks, classes, config.rate, config.clients, seed, probes)


def _last_words(driver: LocalDriver) -> tuple[str, float | None]:
    """The end of the candidate's log, and when its game day began; neither of servers that are gone."""
    try:
        found = driver.ask("tail", arm="candidate")
    except FencedError:
        raise
    except RolloutError as error:
        return f"not to be had: {error}", None
    begins = found["begins"]
    return str(found["tail"]), float(begins[0].removeprefix(BEGINS)) if begins else None
