"""Brings the parts together: looks, decides, writes the journal, then acts.

The decision is the machine's, the traffic the driver's. What is announced in the journal may have to be done again
after a crash; every act is idempotent.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypedDict

from holdfast.artifacts.documents import Count, Transition
from holdfast.errors import RolloutError
from holdfast.progress import say
from holdfast.serving.rollout.conduct.journal import Journal
from holdfast.serving.rollout.drivers.driver import Driver
from holdfast.serving.rollout.judge.analysis import evidence
from holdfast.serving.rollout.judge.counters import Arm, Snapshot
from holdfast.serving.rollout.judge.machine import (
    TERMINAL,
    Plan,
    Rollout,
    State,
    abort,
    begin,
    confirm,
    desired,
    look,
    start,
)
from holdfast.serving.rollout.replay import Traffic

LOOK_SECONDS = 0.25
WARM_ROUNDS = 20
AFTERMATH_SECONDS = 0.75
"""How long traffic goes on after a rollback, to see that it is well."""
RETRIES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to take the candidate out; the last one repeats for ever."""


class Sample(TypedDict):
    """One row of `timeline.json`; counts are since the start, `disagreement` is a share."""

    t: float
    state: str
    weight: int
    sent: int
    failed: int
    candidate_requests: int
    candidate_errors: int
    champion_requests: int
    champion_errors: int
    slow_candidate: int
    slow_champion: int
    disagreement: float
    e_errors: float
    e_slow: float
    e_disagreement: float


@dataclass
class Conductor:
    """One rollout being carried out."""

    driver: Driver
    traffic: Traffic
    journal: Journal
    promote: Callable[[], Awaitable[None]]
    stop: asyncio.Event
    """Set from outside: back to weight 0 and out."""
    began: float = field(default_factory=time.monotonic)
    transitions: list[Transition] = field(default_factory=list)
    timeline: list[Sample] = field(default_factory=list)
    weight_zero_at: float | None = None
    """Monotonic second at which a rollback was in effect."""

    async def carry_out(self, plan: Plan) -> Rollout:
        """From Pending to a terminal state, with traffic all the way."""
        await self.traffic.warm(WARM_ROUNDS)
        sending = asyncio.create_task(self.traffic.run())
        try:
            rollout = await self._move(begin(plan), start(begin(plan), await self._observe()))
            while rollout.state not in TERMINAL:
                rollout = await self._one_round(rollout)
            await self._aftermath(rollout)
        finally:
            self.traffic.ended.set()
            await sending
        return rollout

    async def _one_round(self, rollout: Rollout) -> Rollout:
        if rollout.state is State.PROMOTING:
            await self.promote()
            return await self._move(rollout, confirm(rollout))
        if rollout.state is State.ROLLING_BACK:
            return await self._move(rollout, confirm(rollout))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), LOOK_SECONDS)
        if self.stop.is_set():
            return await self._move(rollout, abort(rollout, "told to stop"))
        seen = look(rollout, await self._observe())
        self._sample(seen if seen.state is rollout.state else replace(seen, state=rollout.state, step=rollout.step))
        if (seen.state, seen.step) == (rollout.state, rollout.step):
            return seen
        return await self._move(rollout, seen)

    async def _move(self, before: Rollout, after: Rollout) -> Rollout:
        """Announces a transition, carries it out, and notes that it is done."""
        transition = self._transition(before, after)
        self.journal.write("intent", **transition.model_dump(mode="json"))
        await self._act(after)
        self.journal.write("done", state=after.name, weight=transition.weight)
        self.transitions.append(transition)
        say(f"rollout: {before.name} -> {after.name}: {transition.reason}")
        self._sample(after)
        return after

    async def _act(self, rollout: Rollout) -> None:
        wish = desired(rollout)
        if wish.candidate:
            await self.driver.apply(wish.weight, wish.shadow)
            return
        self.traffic.unpaired.set()
        if self.weight_zero_at is None:
            await self._take_out()
            self.weight_zero_at = time.monotonic()

    async def _take_out(self) -> None:
        """Takes the candidate out, however long it takes: giving up would leave live traffic on a bad model."""
        attempt = 0
        while True:
            try:
                await self.driver.remove_candidate()
                return
            except RolloutError as error:
                if not (await self.driver.health()).router:
                    raise  # no router, no traffic on the candidate
                self.journal.write("retry", reason=str(error))
                await asyncio.sleep(RETRIES[min(attempt, len(RETRIES) - 1)])
                attempt += 1

    async def _aftermath(self, rollout: Rollout) -> None:
        """Some more traffic, so that the record shows the state that was reached."""
        until = time.monotonic() + AFTERMATH_SECONDS
        while time.monotonic() < until and not self.stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), LOOK_SECONDS)
            rollout = replace(rollout, last=await self._observe())
            self._sample(rollout)

    async def _observe(self) -> Snapshot:
        tally = self.traffic.tally
        return replace(await self.driver.observe(), pairs=tally.pairs, disagreements=tally.disagreements)

    def _transition(self, before: Rollout, after: Rollout) -> Transition:
        candidate, champion = _arms(after)
        return Transition(
            state_before=before.name,
            state_after=after.name,
            weight=desired(after).weight,
            reason=after.judgement.reason,
            candidate=_count(candidate),
            champion=_count(champion),
            evidence={
                "t": round(time.monotonic() - self.began, 3),
                "sent": self.traffic.tally.sent,
                "failed": self.traffic.tally.failed,
                **evidence(after.tests, after.start, after.last),
            },
        )

    def _sample(self, rollout: Rollout) -> None:
        candidate, champion = _arms(rollout)
        tally, facts = self.traffic.tally, evidence(rollout.tests, rollout.start, rollout.last)
        self.timeline.append(
            Sample(
                t=round(time.monotonic() - self.began, 3),
                state=rollout.name,
                weight=desired(rollout).weight,
                sent=tally.sent,
                failed=tally.failed,
                candidate_requests=candidate.answered,
                candidate_errors=candidate.failed,
                champion_requests=champion.answered,
                champion_errors=champion.failed,
                slow_candidate=candidate.slow,
                slow_champion=champion.slow,
                disagreement=round(facts["disagreements"] / max(facts["pairs"], 1), 4),
                e_errors=facts["e_errors"],
                e_slow=facts["e_slow"],
                e_disagreement=facts["e_disagreement"],
            )
        )


def _arms(rollout: Rollout) -> tuple[Arm, Arm]:
    return (
        rollout.last.candidate.since(rollout.start.candidate),
        rollout.last.champion.since(rollout.start.champion),
    )


def _count(arm: Arm) -> Count:
    return Count(k=arm.failed, n=arm.answered)
