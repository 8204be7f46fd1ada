"""A real Envoy between two small servers: who gets what, who stays where, what is counted, and what is let in."""

import asyncio
import json
import stat
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import aiohttp
import pytest

from holdfast.errors import RolloutError
from holdfast.processes import children, reserved_ports, start, wait_ready
from holdfast.serving.envoy import config as envoy_config
from holdfast.serving.envoy.config import STICKY, Ingress, Timeouts
from holdfast.serving.rollout.contract.arms import ARM_HEADER, CANDIDATE, STABLE
from holdfast.serving.rollout.local.envoy import EnvoyDriver, ServerPair
from tests.faults.live.malformed import Target, for_routers

INFER = "/v2/models/m/infer"
TRUSTED = ("127.0.0.1/32",)
TARGET = Target("m", (2,), (0.0, 1.0))


@dataclass
class Upstream:
    """A server that answers with its name; a body may ask for another status or for time."""

    name: str
    status: int
    port: int = 0
    silent: bool = False
    """Whether it never answers."""
    requests: list[bytes] = field(default_factory=list)

    async def talk(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head)
                lengths = [x for x in head.split(b"\r\n") if x.startswith(b"content-length")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                asked = json.loads(body or b"{}")
                await asyncio.sleep(60 if self.silent else asked.get("seconds", 0))
                answer = (asked.get(self.name, self.status), len(self.name), self.name.encode())
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()


@dataclass
class Scene:
    """What runs, and a client."""

    driver: EnvoyDriver
    session: aiohttp.ClientSession
    upstreams: tuple[Upstream, Upstream]
    port: int

    async def post(self, path=INFER, body=b"{}", **headers) -> tuple[int, str]:
        async with self.session.post(f"http://127.0.0.1:{self.port}{path}", data=body, headers=headers) as response:
            return response.status, (await response.read()).decode()

    async def arm(self, **headers) -> str:
        """Who answers."""
        status, name = await self.post(**headers)
        assert status == 200
        return name

    async def arms_of_users(self, users: int) -> dict[str, str]:
        return {user: await self.arm(**{STICKY: user}) for user in map(str, range(users))}

    async def send(self, data: bytes, seconds: float = 5.0) -> int:
        """The status of an answer to raw bytes; 0: there was none."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            line = await asyncio.wait_for(reader.readline(), seconds)
        except (TimeoutError, ConnectionError):
            return 0
        finally:
            writer.close()
        return int(line[9:12] or 0)

    async def probe(self, arm: str | None, path=INFER) -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(self.driver.envoy.layout.probes))
        headers = {ARM_HEADER: arm} if arm else {}
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://probes{path}", data=b"{}", headers=headers) as response,
        ):
            return response.status, (await response.read()).decode()

    async def observe(self):
        await asyncio.sleep(0.3)  # histograms are merged every 0.1 s
        return await self.driver.observe()

    @property
    def reached(self) -> int:
        """Requests that came to either server."""
        return sum(len(upstream.requests) for upstream in self.upstreams)


@asynccontextmanager
async def envoy(tmp_path, candidate_status: int = 200, *, listens: bool = True, **ingress):
    """A fresh Envoy, everything on stable; a candidate that does not listen refuses connections."""
    upstreams = Upstream(STABLE, 200), Upstream(CANDIDATE, candidate_status)
    servers = [await asyncio.start_server(upstream.talk, "127.0.0.1", 0) for upstream in upstreams]
    for upstream, server in zip(upstreams, servers, strict=True):
        upstream.port = server.sockets[0].getsockname()[1]
    arms = ServerPair({upstream.name: upstream.port for upstream in upstreams}, lambda arm: True)
    with children() as started, reserved_ports(1) as (deaf,):
        if not listens:
            arms = replace(arms, ports={**arms.ports, CANDIDATE: deaf})
        driver = EnvoyDriver.prepare(tmp_path / "e", arms, 250.0, Ingress("m", 1, 2, **ingress))
        started.append(start("envoy", driver.envoy.command, tmp_path))
        await wait_ready(started[0], driver.envoy.live)
        try:
            async with aiohttp.ClientSession() as session:
                yield Scene(driver, session, upstreams, await driver.envoy.port())
        finally:
            await driver.close()
    for server in servers:
        server.close()


def test_weights_are_kept_and_each_kind_of_request_is_counted_apart(tmp_path):
    async def measure():
        async with envoy(tmp_path, arm_header_from=TRUSTED) as scene:
            await scene.driver.apply(25, shadow=False)
            seen = Counter([await scene.arm() for _ in range(800)])
            probed = {arm: (await scene.probe(arm))[1] for arm in (STABLE, CANDIDATE)}
            chosen = {arm: await scene.arm(**{ARM_HEADER: arm}) for arm in (STABLE, CANDIDATE)}
            return seen, probed, chosen, await scene.observe()

    seen, probed, chosen, snapshot = asyncio.run(measure())
    assert probed == chosen == {STABLE: STABLE, CANDIDATE: CANDIDATE}
    # Six standard deviations of a binomial with n = 800 and p = 1/4.
    assert abs(seen[CANDIDATE] - 200) < 6 * (800 * 0.25 * 0.75) ** 0.5
    assert snapshot.routed == 800
    assert (snapshot.live, snapshot.chosen, snapshot.mirrored) == (seen[CANDIDATE] + 1, 1, 1)
    # The champion answers one more: a copy of the request that chose the candidate, so that it is as busy.
    assert (snapshot.candidate.answered, snapshot.champion.answered) == (seen[CANDIDATE] + 2, seen[STABLE] + 3)
    assert snapshot.weight == 25
    assert snapshot.candidate.timed == snapshot.candidate.answered


def test_a_client_that_the_plan_does_not_name_cannot_choose_its_arm(tmp_path):
    async def measure():
        async with envoy(tmp_path, arm_header_from=("192.0.2.0/24",)) as scene:
            await scene.driver.apply(50, shadow=False)
            choosing = Counter([await scene.arm(**{ARM_HEADER: CANDIDATE}) for _ in range(200)])
            sticking = Counter([await scene.arm(**{STICKY: "me"}) for _ in range(200)])
            heads = b"".join(head for upstream in scene.upstreams for head in upstream.requests).lower()
            return choosing, sticking, heads, await scene.observe()

    choosing, sticking, heads, snapshot = asyncio.run(measure())
    for seen in (choosing, sticking):  # six standard deviations
        assert abs(seen[CANDIDATE] - 100) < 6 * (200 * 0.25) ** 0.5
    assert ARM_HEADER.encode() not in heads, "a server would take it for a probe"
    assert (snapshot.routed, snapshot.chosen, snapshot.mirrored) == (400, 0, 0)


def test_who_is_on_the_candidate_stays_there_as_its_weight_grows(tmp_path):
    async def measure():
        async with envoy(tmp_path, arm_header_from=TRUSTED) as scene:
            found = []
            for weight in (10, 10, 50):
                await scene.driver.apply(weight, shadow=False)
                found.append(await scene.arms_of_users(300))
            return found

    first, again, later = asyncio.run(measure())
    assert first == again
    early = {user for user, arm in first.items() if arm == CANDIDATE}
    assert 5 <= len(early) <= 70  # 30 expected of 300
    assert early <= {user for user, arm in later.items() if arm == CANDIDATE}
    assert Counter(later.values())[CANDIDATE] > len(early)


def test_failures_of_the_candidate_are_absorbed_and_counted(tmp_path):
    async def measure():
        async with envoy(tmp_path, candidate_status=500) as scene:
            await scene.driver.apply(50, shadow=False)
            return {await scene.arm() for _ in range(100)}, await scene.observe()

    answers, snapshot = asyncio.run(measure())
    assert answers == {STABLE}, "no client sees the candidate's failures"
    assert snapshot.candidate.failed == snapshot.candidate.answered == 5, "then it was ejected"
    assert (snapshot.ejections, snapshot.candidate.unanswered, snapshot.candidate.wrong) == (1, 0, 5)


def test_a_candidate_whose_address_refuses_connections_gave_no_answer(tmp_path):
    async def measure():
        async with envoy(tmp_path, listens=False) as scene:
            await scene.driver.apply(50, shadow=False)
            return {await scene.arm() for _ in range(100)}, await scene.observe()

    answers, snapshot = asyncio.run(measure())
    assert answers == {STABLE}
    assert snapshot.candidate.unanswered == snapshot.candidate.failed > 0


@pytest.mark.parametrize(("weight", "share"), [(50, 0.0), (75, 0.5), (100, 1.0)])
def test_above_half_of_the_traffic_the_champion_gets_copies_and_is_as_busy(tmp_path, weight, share):
    async def measure():
        async with envoy(tmp_path) as scene:
            await scene.driver.apply(weight, shadow=False)
            for _ in range(400):
                await scene.arm()
            return await scene.observe()

    seen = asyncio.run(measure())
    copies = seen.champion.answered - (seen.routed - seen.live)
    # Six standard deviations of a binomial with n = 400; copies are no live requests.
    assert abs(copies - 400 * share) <= 6 * (400 * share * (1 - share)) ** 0.5
    assert (seen.routed, seen.balanced) == (400, True)
    assert seen.champion.timed == seen.champion.answered


def test_silence_is_counted_as_such_and_ejects_nobody(tmp_path):
    async def measure():
        async with envoy(tmp_path) as scene:
            await scene.driver.apply(100, shadow=False)
            scene.upstreams[1].silent = True
            answers = await asyncio.gather(*(scene.post() for _ in range(12)))
            return answers, await scene.observe()

    answers, seen = asyncio.run(measure())
    assert answers == [(200, STABLE)] * 12
    assert (seen.candidate.failed, seen.candidate.timed_out, seen.candidate.wrong) == (12, 12, 0)
    assert seen.ejections == 0


def test_a_removed_candidate_cannot_come_back(tmp_path):
    async def measure():
        async with envoy(tmp_path, arm_header_from=TRUSTED) as scene:
            await scene.driver.apply(100, shadow=False)
            await scene.driver.remove_candidate()
            with pytest.raises(RolloutError, match="the candidate was removed"):
                await scene.driver.apply(5, shadow=False)
            answers = [await scene.arm(**{ARM_HEADER: CANDIDATE}) for _ in range(20)]
            return answers, await scene.probe(CANDIDATE), await scene.driver.observe()

    answers, probed, snapshot = asyncio.run(measure())
    assert set(answers) == {STABLE}
    assert probed[0] == 404
    assert (snapshot.weight, snapshot.candidate.answered) == (0, 0)


def test_a_404_of_the_one_model_that_is_served_is_the_arms_failure(tmp_path):
    async def measure():
        async with envoy(tmp_path) as scene:
            await scene.driver.apply(100, shadow=False)
            gone = await scene.post(body=b'{"candidate": 404}')
            await scene.probe(STABLE)
            return gone, await scene.observe()

    gone, snapshot = asyncio.run(measure())
    assert gone == (200, STABLE), "tried again where the model is"
    assert (snapshot.candidate.failed, snapshot.candidate.answered) == (1, 1)
    assert snapshot.champion.failed == 0


def test_what_a_client_got_wrong_is_no_answer_of_an_arm(tmp_path):
    wrong = json.dumps({arm: 400 for arm in (STABLE, CANDIDATE)}).encode()

    async def measure():
        async with envoy(tmp_path) as scene:
            await scene.driver.apply(50, shadow=True)
            before = await scene.observe()
            statuses = {(await scene.post(body=wrong))[0] for _ in range(40)}
            after = await scene.observe()
            return statuses, scene.reached, before, after

    statuses, reached, before, after = asyncio.run(measure())
    assert (statuses, reached) == ({400}, 80), "each was seen by its arm and mirrored; none was tried again"
    for name in ("live", "mirrored", "routed", "chosen", "ejections"):
        assert getattr(after, name) == getattr(before, name) == 0
    for arm in (after.candidate, after.champion):
        assert (arm.answered, arm.failed) == (0, 0)


def test_a_client_that_hangs_up_is_no_failure_of_an_arm(tmp_path):
    async def measure():
        async with envoy(tmp_path) as scene:
            await scene.driver.apply(50, shadow=False)
            slow = TARGET.post(b'{"seconds": 1}')
            assert {await scene.send(slow, 0.1) for _ in range(20)} == {0}
            reached = scene.reached
            return reached, await scene.observe()

    reached, snapshot = asyncio.run(measure())
    assert reached == 20
    assert (snapshot.candidate.failed, snapshot.champion.failed, snapshot.ejections) == (0, 0, 0)


def test_a_client_cannot_speak_for_the_router(tmp_path):
    """With a timeout of 1 ms, or more retries, one client could fail either arm."""
    headers = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-max-retries": "9", "x-forwarded-for": "10.0.0.1"}

    async def measure():
        async with envoy(tmp_path) as scene:
            await scene.driver.apply(50, shadow=False)
            names = {(await scene.post(body=b'{"seconds": 0.05}', host="m-shadow", **headers))[0] for _ in range(10)}
            heads = b"".join(head for upstream in scene.upstreams for head in upstream.requests)
            return names, heads, await scene.observe()

    statuses, heads, snapshot = asyncio.run(measure())
    assert statuses == {200}
    assert (snapshot.candidate.failed, snapshot.champion.failed) == (0, 0)
    assert b"-shadow" not in heads, "a server would take it for a mirrored request"


def test_clients_reach_the_protocols_calls_of_the_served_model_and_nothing_else(tmp_path):
    wrong = for_routers(TARGET, 2**20)

    async def measure():
        async with envoy(tmp_path) as scene:
            found = {m.name: (await scene.send(m.data), m.statuses) for m in wrong}
            refused, questions = scene.reached, {}
            for path in ("/v2", "/v2/health/live", "/v2/health/ready", *_model("", "/ready"), *_model("/versions/1")):
                async with scene.session.get(f"http://127.0.0.1:{scene.port}{path}") as response:
                    questions[path] = response.status
            answers = [await scene.post(path=path) for path in (INFER, f"{INFER}?a=b", *_model("/versions/1/infer"))]
            unknown = await scene.post(path="/v2/models/m/versions/2/infer")
            await scene.driver.apply(100, shadow=False)
            promoted = await scene.post(path="/v2/models/m/versions/2/infer")
            return found, refused, questions, answers, unknown, promoted, await scene.observe()

    found, refused, questions, answers, unknown, promoted, snapshot = asyncio.run(measure())
    assert [name for name, (status, right) in found.items() if status not in right] == []
    assert refused == 0
    assert set(questions.values()) == {200}
    assert answers == [(200, STABLE)] * 3
    assert unknown[0] == 404
    assert "expected POST /v2/models/m/infer" in json.loads(unknown[1])["error"]
    assert promoted == (200, CANDIDATE)
    assert snapshot.champion.answered == 2, "neither questions nor requests by version are judged"


def _model(*ends: str) -> tuple[str, ...]:
    return tuple(f"/v2/models/m{end}" for end in ends)


def test_probes_have_a_socket_of_their_own_in_the_private_folder(tmp_path):
    async def measure():
        async with envoy(tmp_path) as scene:
            mode = stat.S_IMODE(scene.driver.envoy.layout.probes.stat().st_mode)
            folder = stat.S_IMODE(scene.driver.envoy.layout.routes.parent.stat().st_mode)
            return mode, folder, await scene.probe(None)

    mode, folder, without = asyncio.run(measure())
    assert (mode, folder) == (0o600, 0o700)
    assert without[0] == 404


def test_half_a_request_reaches_no_server_and_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(envoy_config, "Timeouts", partial(Timeouts, headers=0.3, body=0.6))
    half = TARGET.post(b"{}" * 50)[:-60]

    async def measure():
        async with envoy(tmp_path) as scene:
            open_ = [asyncio.create_task(scene.send(half, 10)) for _ in range(50)]
            headless = [asyncio.create_task(scene.send(half[:30], 10)) for _ in range(50)]
            served = [(await scene.post())[0] for _ in range(20)]
            return served, set(await asyncio.gather(*open_)), set(await asyncio.gather(*headless)), scene.reached

    served, open_, headless, reached = asyncio.run(measure())
    assert set(served) == {200}
    assert (open_, headless) == ({408}, {408})
    assert reached == 20


def test_a_flood_of_connections_does_not_touch_those_that_are_open(tmp_path):
    async def measure():
        async with envoy(tmp_path, max_connections=30) as scene:
            first = await scene.post()
            flood = [await asyncio.open_connection("127.0.0.1", scene.port) for _ in range(60)]
            served = [first[0], *[(await scene.post())[0] for _ in range(20)]]
            turned_away = await asyncio.gather(*(_closed(reader) for reader, _ in flood))
            probed = await scene.probe(CANDIDATE)
            for _, writer in flood:
                writer.close()
            return served, turned_away, probed

    served, turned_away, probed = asyncio.run(measure())
    assert set(served) == {200}
    assert sum(turned_away) >= 30
    assert probed == (200, CANDIDATE)


async def _closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), 0.2) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True
