"""The record of a rollout that came to its end: journal, log, timeline, plan and, unless promoted, the incident."""

import json
import shutil
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import GateDecision, RolloutRecord, Transition, Verdict
from holdfast.artifacts.folder import DOCUMENT, Artifact, load, save, seal, write_artifact
from holdfast.progress import say
from holdfast.serving.rollout.engine.journal import JOURNAL
from holdfast.serving.rollout.engine.machine import Rollout, State
from holdfast.serving.rollout.matchup import Matchup, digests_of
from holdfast.serving.rollout.reporting import incident, log
from holdfast.serving.rollout.reporting.timeline import Timeline
from holdfast.workload.schema import RolloutPlan

_Ending = Literal["promoted", "rolled-back", "inconclusive"]
OUTCOMES: dict[State, tuple[_Ending, Verdict]] = {
    State.PROMOTED: ("promoted", Verdict.PASS),
    State.ROLLED_BACK: ("rolled-back", Verdict.FAIL),
    State.INCONCLUSIVE: ("inconclusive", Verdict.INCONCLUSIVE),
}


@dataclass(frozen=True)
class Carried:
    """A rollout that came to its end."""

    rollout: Rollout
    config: RolloutPlan
    """The plan in effect."""
    timeline: Timeline
    sent: int
    failed: int
    seconds_to_rollback: float | None
    """Game day: from the moment at which the fault set in until weight 0 was in effect."""
    log: str
    """The end of the candidate's log."""


def write(matchup: Matchup, carried: Carried, out: Path, state: Path) -> Artifact[RolloutRecord]:
    """Writes what happened to `out`; `state` is the rollout's folder."""
    record = _record(matchup, carried)
    _keep_earlier(out)
    with write_artifact(out) as work:
        for name in (JOURNAL, log.FILE):
            if (state / name).exists():
                shutil.copyfile(state / name, work / name)
        (work / "timeline.json").write_text(json.dumps([asdict(sample) for sample in carried.timeline.samples]))
        (work / "plan.json").write_text(json.dumps(_plan(matchup.policy, carried.config)))
        if record.outcome != "promoted":
            facts = _incident(matchup, carried, record)
            (work / "incident.md").write_text(incident.markdown(facts))
            (work / "incident.html").write_text(incident.page(facts))
        sealed = seal(work, record)
    return Artifact(out, sealed.document, sealed.digest)


def write_serving(matchup: Matchup, out: Path) -> Artifact[RolloutRecord]:
    """Writes to `out` that there was nothing to roll out: the candidate is the champion."""
    served = matchup.candidate.served
    record = RolloutRecord(
        inputs=digests_of(matchup),
        name=served.name,
        candidate_version=served.version,
        champion_version=served.version,
        transitions=(),
        requests_sent=0,
        requests_failed=0,
        outcome="promoted",
        reason=f"version {served.version} is the champion already, so there was nothing to roll out",
        cause=Cause.NONE,
        verdict=Verdict.PASS,
    )
    _keep_earlier(out)
    return save(out, record, {"timeline.json": b"[]"})


def _keep_earlier(out: Path) -> None:
    """The record of a rollout that was started before with the same `out` is kept under another name."""
    if not (out / DOCUMENT).exists():
        return
    kept = next(place for number in count(1) if not (place := out.with_name(f"{out.name}-earlier-{number}")).exists())
    out.rename(kept)
    say(f"rollout: the earlier record is kept in {kept}")


def _record(matchup: Matchup, carried: Carried) -> RolloutRecord:
    outcome, verdict = OUTCOMES[carried.rollout.state]
    day = matchup.candidate.served.game_day
    reason = reason_of(carried)
    return RolloutRecord(
        inputs=digests_of(matchup),
        name=matchup.candidate.served.name,
        candidate_version=matchup.candidate.served.version,
        champion_version=matchup.champion.served.version if matchup.champion else None,
        transitions=_transitions(carried),
        requests_sent=carried.sent,
        requests_failed=carried.failed,
        outcome=outcome,
        reason=f"{reason} (game day: {day})" if day else reason,
        cause=cause_of(carried),
        verdict=verdict,
    )


def reason_of(carried: Carried) -> str:
    """One sentence."""
    if carried.rollout.state is State.PROMOTED:
        return "every step had its answers and no test objected"
    return carried.rollout.judgement.reason


def cause_of(carried: Carried) -> Cause:
    """Where the fault was."""
    return Cause.NONE if carried.rollout.state is State.PROMOTED else carried.rollout.judgement.cause


def _plan(policy: RolloutPlan, plan: RolloutPlan) -> dict[str, object]:
    """The plan in effect, what the policy asks of every rollout, and where the workload overrode that."""
    in_effect, asked = plan.complete.model_dump(mode="json"), policy.model_dump(mode="json")
    overridden = {key: in_effect[key] for key, value in asked.items() if in_effect[key] != value}
    return {"plan": in_effect, "policy": asked, "overridden": overridden}


def _transitions(carried: Carried) -> tuple[Transition, ...]:
    """Those of the rollout; the evidence of the last one has how long a game day's fault was in traffic."""
    found = tuple(carried.timeline.transitions)
    if carried.seconds_to_rollback is None:
        return found
    more = {**found[-1].evidence, "seconds_to_rollback": carried.seconds_to_rollback}
    return (*found[:-1], found[-1].model_copy(update={"evidence": more}))


def _incident(matchup: Matchup, carried: Carried, record: RolloutRecord) -> incident.Incident:
    return incident.Incident(
        record,
        digests={**record.inputs, "gate decision": load(matchup.candidate.served.decision, GateDecision).digest},
        timeline=tuple(carried.timeline.samples),
        limits=carried.rollout.plan.limits,
        game_day=matchup.candidate.served.game_day,
        log=carried.log,
    )
