"""A real Envoy between two small servers: who gets what, who stays where, and what is counted."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
import pytest

from holdfast.errors import RolloutError
from holdfast.serving.rollout.drivers.envoy import Arms, Envoy
from holdfast.serving.rollout.drivers.envoy_config import ARM_HEADER, CANDIDATE, STABLE, STICKY
from holdfast.serving.rollout.site.processes import children, reserved_ports, start, wait_ready


@asynccontextmanager
async def answering(name: str, status: int | None = 200):
    """A server on a free port that answers every request with its name; without a status it never answers."""

    async def talk(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"content-length")), 0
                )
                await reader.readexactly(length)
                if status is None:
                    await asyncio.sleep(60)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(name), name.encode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def envoy(tmp_path, candidate_status: int | None = 200, listens: bool = True):
    """(driver, url, session) with a fresh Envoy; a candidate that does not listen refuses connections."""
    async with answering(STABLE) as stable, answering(CANDIDATE, candidate_status) as candidate:
        with children() as started, reserved_ports(1) as (deaf,):
            candidate = candidate if listens else deaf
            driver = Envoy.prepare(
                tmp_path / "e", Arms({STABLE: stable, CANDIDATE: candidate}, lambda arm: True), 250.0
            )
            started.append(start("envoy", driver.command, tmp_path))
            await wait_ready(started[0], driver.live, 20.0)
            try:
                async with aiohttp.ClientSession() as session:
                    yield driver, f"http://127.0.0.1:{await driver.port()}/", session
            finally:
                await driver.close()


async def arm_of(session, url, **headers) -> str:
    async with session.post(url, data=b"{}", headers=headers) as response:
        assert response.status == 200
        return (await response.read()).decode()


async def arms_of_users(session, url, users: int) -> dict[str, str]:
    return {user: await arm_of(session, url, **{STICKY: user}) for user in map(str, range(users))}


def test_weights_are_kept_and_the_header_chooses_an_arm(tmp_path):
    async def measure():
        async with envoy(tmp_path) as (driver, url, session):
            await driver.apply(25, shadow=False)
            seen = Counter([await arm_of(session, url) for _ in range(800)])
            chosen = {arm: await arm_of(session, url, **{ARM_HEADER: arm}) for arm in (STABLE, CANDIDATE)}
            await asyncio.sleep(0.3)
            return seen, chosen, await driver.observe()

    seen, chosen, snapshot = asyncio.run(measure())
    assert chosen == {STABLE: STABLE, CANDIDATE: CANDIDATE}
    # Six standard deviations of a binomial with n = 800 and p = 1/4.
    assert abs(seen[CANDIDATE] - 200) < 6 * (800 * 0.25 * 0.75) ** 0.5
    assert (snapshot.live, snapshot.routed) == (seen[CANDIDATE], 800)
    assert (snapshot.candidate.answered, snapshot.champion.answered) == (seen[CANDIDATE] + 1, seen[STABLE] + 1)
    assert (snapshot.mirrored, snapshot.weight) == (1, 25)
    assert snapshot.candidate.timed == snapshot.candidate.answered


def test_who_is_on_the_candidate_stays_there_as_its_weight_grows(tmp_path):
    async def measure():
        async with envoy(tmp_path) as (driver, url, session):
            found = []
            for weight in (10, 10, 50):
                await driver.apply(weight, shadow=False)
                found.append(await arms_of_users(session, url, 300))
            return found

    first, again, later = asyncio.run(measure())
    assert first == again
    early = {user for user, arm in first.items() if arm == CANDIDATE}
    assert 5 <= len(early) <= 70  # 30 expected of 300
    assert early <= {user for user, arm in later.items() if arm == CANDIDATE}
    assert Counter(later.values())[CANDIDATE] > len(early)


def test_failures_of_the_candidate_are_absorbed_and_counted(tmp_path):
    async def measure():
        async with envoy(tmp_path, candidate_status=500) as (driver, url, session):
            await driver.apply(50, shadow=False)
            answers = {await arm_of(session, url) for _ in range(100)}
            await asyncio.sleep(0.3)
            return answers, await driver.observe()

    answers, snapshot = asyncio.run(measure())
    assert answers == {STABLE}, "no client sees the candidate's failures"
    assert snapshot.candidate.failed == snapshot.candidate.answered == 5, "then it was ejected"
    assert (snapshot.ejections, snapshot.candidate.unanswered) == (1, 0)


def test_a_candidate_whose_address_refuses_connections_gave_no_answer(tmp_path):
    async def measure():
        async with envoy(tmp_path, listens=False) as (driver, url, session):
            await driver.apply(50, shadow=False)
            answers = {await arm_of(session, url) for _ in range(100)}
            await asyncio.sleep(0.3)
            return answers, await driver.observe()

    answers, snapshot = asyncio.run(measure())
    assert answers == {STABLE}
    assert snapshot.candidate.unanswered == snapshot.candidate.failed > 0


@pytest.mark.parametrize(("weight", "share"), [(50, 0.0), (75, 0.5), (100, 1.0)])
def test_above_half_of_the_traffic_the_champion_gets_copies_and_is_as_busy(tmp_path, weight, share):
    async def measure():
        async with envoy(tmp_path) as (driver, url, session):
            await driver.apply(weight, shadow=False)
            for _ in range(400):
                await arm_of(session, url)
            await asyncio.sleep(0.3)
            return await driver.observe()

    seen = asyncio.run(measure())
    copies = seen.champion.answered - (seen.routed - seen.live)
    # Six standard deviations of a binomial with n = 400; copies are no live requests.
    assert abs(copies - 400 * share) <= 6 * (400 * share * (1 - share)) ** 0.5
    assert (seen.routed, seen.balanced) == (400, True)
    assert seen.champion.timed == seen.champion.answered


def test_silence_is_counted_as_such_and_ejects_nobody(tmp_path):
    async def measure():
        async with envoy(tmp_path, candidate_status=None) as (driver, url, session):
            await driver.apply(100, shadow=False)
            answers = await asyncio.gather(*(arm_of(session, url) for _ in range(12)))
            await asyncio.sleep(0.3)
            return answers, await driver.observe()

    answers, seen = asyncio.run(measure())
    assert answers == [STABLE] * 12
    assert (seen.candidate.failed, seen.candidate.timed_out, seen.candidate.wrong) == (12, 12, 0)
    assert seen.ejections == 0


def test_bad_answers_in_a_row_eject_the_candidate(tmp_path):
    async def measure():
        async with envoy(tmp_path, candidate_status=500) as (driver, url, session):
            await driver.apply(100, shadow=False)
            answers = [await arm_of(session, url) for _ in range(12)]
            await asyncio.sleep(0.3)
            return answers, await driver.observe()

    answers, seen = asyncio.run(measure())
    assert answers == [STABLE] * 12
    assert (seen.ejections, seen.candidate.wrong) == (1, 5)


def test_a_removed_candidate_cannot_come_back(tmp_path):
    async def measure():
        async with envoy(tmp_path) as (driver, url, session):
            await driver.apply(100, shadow=False)
            await driver.remove_candidate()
            with pytest.raises(RolloutError, match="the candidate was removed"):
                await driver.apply(5, shadow=False)
            return [await arm_of(session, url) for _ in range(20)], await driver.observe()

    answers, snapshot = asyncio.run(measure())
    assert set(answers) == {STABLE}
    assert (snapshot.weight, snapshot.candidate.answered) == (0, 0)
