"""The replayer against a small server of raw sockets that answers well, badly, or not at all."""

import json
import os
import signal
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from holdfast.artifacts.folder import Ref
from holdfast.errors import RolloutError
from holdfast.serving.predictor.core import load_predictor
from holdfast.serving.protocol import body
from holdfast.serving.rollout.contract.arms import Arms
from holdfast.serving.rollout.contract.counters import Probes
from holdfast.serving.rollout.engine.requests import Stop
from holdfast.serving.rollout.traffic import clients as traffic
from holdfast.serving.rollout.traffic import sender
from holdfast.serving.rollout.traffic.answers import Times
from holdfast.serving.rollout.traffic.clients import LoadProfile, replay
from holdfast.serving.rollout.traffic.rows import Attacks, Rows, read_attacks, read_rows
from holdfast.serving.rollout.traffic.tally import MAX_TALLY_BYTES, Latency, Tally, read_tally, write_tally
from holdfast.serving.rollout.traffic.wire import read_answer

CLASSES = 10
X = np.random.default_rng(0).random((40, 1, 4, 4), dtype=np.float32)
ROWS = Rows.of(X, CLASSES)


@dataclass(frozen=True)
class Request:
    """What came, and the server's end of the connection."""

    arm: str | None
    body: bytes
    connection: int
    stream: socketserver.StreamRequestHandler

    @property
    def row(self) -> int:
        """Which of the rows it is."""
        return ROWS.bodies.index(self.body)


Act = Callable[[Request], bytes | None]
"""The bytes of the answer; None: nothing more comes on this connection."""


@dataclass
class Server:
    """What a server was asked, and where it is."""

    url: str = ""
    asked: list[Request] = field(default_factory=list)

    def of(self, arm: str | None) -> list[Request]:
        """What one arm was asked; None: the clients' requests."""
        return [request for request in self.asked if request.arm == arm]


@contextmanager
def serving(act: Act) -> Iterator[Server]:
    """A server on loopback; it is gone afterwards, with all its connections."""
    seen = Server()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while (request := read_request(self)) is not None:
                seen.asked.append(request)
                answer = act(request)
                if answer is None:
                    return
                self.wfile.write(answer)

    class Quiet(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that has gone is none of ours."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        seen.url = f"http://127.0.0.1:{server.server_address[1]}/v2/models/tiny/infer"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield seen
        finally:
            server.shutdown()


def read_request(stream: socketserver.StreamRequestHandler) -> Request | None:
    head = {}
    line = stream.rfile.readline()
    while (line := stream.rfile.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        head[name.lower()] = value.strip()
    if not head:
        return None
    arm = head.get(b"x-rollout")
    data = stream.rfile.read(int(head[b"content-length"]))
    return Request(arm.decode() if arm else None, data, stream.client_address[1], stream)


def said(label: object = 3, probabilities: object = None, **more: object) -> bytes:
    """The body of an answer."""
    values = [0.1] * CLASSES if probabilities is None else probabilities
    outputs = [{"name": "label", "data": [label]}, {"name": "probabilities", "data": values}]
    return json.dumps({"model_version": "2", "outputs": outputs} | more).encode()


def answer(data: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An HTTP answer that says how long it is."""
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers, "\r\n")).encode() + data


def quick(url: str, requests: int = 40, **changes: object) -> LoadProfile:
    return LoadProfile(url, rate=4000, clients=4, requests=requests, probe_share=0, timeout=5, **changes)  # type: ignore[arg-type]


def reset(request: Request) -> None:
    """Closes with a reset instead of an end."""
    request.stream.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))


def hang(request: Request) -> None:
    """Answers nothing until the client goes away."""
    request.stream.connection.recv(1)


# --- client requests --------------------------------------------------------------------------------------------------


def test_every_good_answer_is_counted_once() -> None:
    with serving(lambda request: answer(said())) as server:
        found = replay(quick(server.url, 400), ROWS)
    assert (found.sent, found.failed, found.first_failure) == (400, 0, None)
    assert len(server.asked) == 400
    assert found.answers == {"2": 400}
    assert 0 < found.latency_ms.p50 <= found.latency_ms.p95 <= found.latency_ms.p99 <= found.latency_ms.max < 1000
    assert found.probes == Probes(gained=(0,) * 10, lost=(0,) * 10)
    assert found.ended


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD: dict[str, Act] = {
    "in chunks": lambda request: CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(said()), said()),
    "and closes": lambda request: answer(said(), "200 OK", "Connection: close"),
    "of HTTP/1.0": lambda request: request.stream.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + said()) and None,
    "in two pieces": lambda request: [
        request.stream.wfile.write(answer(said())[:70]),
        time.sleep(0.002),
        answer(said())[70:],
    ][-1],
}


@pytest.mark.parametrize("act", GOOD.values(), ids=GOOD)
def test_every_form_of_a_good_answer_is_read(act: Act) -> None:
    with serving(act) as server:
        found = replay(quick(server.url, 20), ROWS)
    assert (found.sent, found.failed, found.first_failure) == (20, 0, None)
    assert len(server.asked) == 20


def test_a_server_that_closes_while_nobody_asks_is_connected_to_anew() -> None:
    with serving(lambda request: request.stream.wfile.write(answer(said())) and None) as server:
        # Slow enough that the server's end comes before the next request.
        found = replay(LoadProfile(server.url, rate=20, clients=4, requests=12, probe_share=0), ROWS)
    assert (found.sent, found.failed, found.first_failure) == (12, 0, None)
    assert len({request.connection for request in server.asked}) == 12


BAD: dict[str, tuple[str, Act]] = {
    "500": ("status", lambda request: answer(b"out of order", "500 Internal Server Error")),
    "204": ("status", lambda request: b"HTTP/1.1 204 No Content\r\n\r\n"),
    "two labels": ("shape", lambda request: answer(said().replace(b"[3]", b"[3, 3]"))),
    "nine probabilities": ("shape", lambda request: answer(said(3, [0.1] * 9))),
    "NaN": ("shape", lambda request: answer(said(3, [0.1] * 9 + [float("nan")]))),
    "NaN first": ("shape", lambda request: answer(said(3, [float("nan")] + [0.1] * 9))),
    "infinity": ("shape", lambda request: answer(said(3, [0.1] * 9 + [float("inf")]))),
    "above one": ("shape", lambda request: answer(said(3, [0.1] * 9 + [1.01]))),
    "below zero": ("shape", lambda request: answer(said(3, [-0.01] + [0.1] * 9))),
    "words": ("shape", lambda request: answer(said(3, ["0.1"] * 10))),
    "an unknown class": ("shape", lambda request: answer(said(10))),
    "a name for a label": ("shape", lambda request: answer(said("3"))),
    "half a label": ("shape", lambda request: answer(said(3.5))),
    "no outputs": ("shape", lambda request: answer(b"{}")),
    "no object": ("shape", lambda request: answer(b"[1]")),
    "no JSON": ("shape", lambda request: answer(b"<html>")),
    "half of the JSON": ("shape", lambda request: answer(said()[:-9])),
    "too deep": ("shape", lambda request: answer(b"[" * 100_000)),
    "an end instead": ("connection", lambda request: None),
    "a reset": ("connection", reset),
    "half an answer": ("connection", lambda request: request.stream.wfile.write(answer(said())[:-5]) and None),
    "no HTTP": ("connection", lambda request: b"220 mail.example.org ESMTP\r\n\r\n"),
    "no length": ("connection", lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    "a huge length": ("connection", lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
    "an endless head": ("connection", lambda request: b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000),
    "a strange chunk": ("connection", lambda request: CHUNKED + b"-5\r\n"),
}


@pytest.mark.parametrize(("kind", "act"), BAD.values(), ids=BAD)
def test_every_bad_answer_is_counted_once_and_by_its_kind(kind: str, act: Act) -> None:
    with serving(act) as server:
        found = replay(quick(server.url), ROWS)
    assert (found.sent, found.failed, found.failures) == (40, 40, {kind: 40})
    assert len(server.asked) == 40, "a request is never sent twice"
    assert found.first_failure is not None
    assert found.first_failure.startswith(f"{kind}: ")
    assert "\n" not in found.first_failure


def test_good_and_bad_answers_in_turn_are_told_apart() -> None:
    turns, lock = iter([act for _, act in BAD.values()] * 5 + list(GOOD.values()) * 5), threading.Lock()

    def act(request: Request) -> bytes | None:
        with lock:
            chosen = next(turns)
        return chosen(request)

    with serving(act) as server:
        found = replay(
            LoadProfile(server.url, rate=400, clients=4, requests=5 * (len(BAD) + len(GOOD)), probe_share=0), ROWS
        )
    expected = Counter(kind for kind, _ in BAD.values())
    assert found.failures == {kind: 5 * count for kind, count in expected.items()}
    assert found.sent - found.failed == 5 * len(GOOD)


def test_the_arm_that_a_header_names_is_counted() -> None:
    arms = iter(["candidate", "stable", "stable", "stable"] * 10)
    with serving(lambda request: answer(said(), "200 OK", f"X-Rollout: {next(arms)}")) as server:
        assert replay(quick(server.url, 40), ROWS).answers == {"candidate": 10, "stable": 30}


def test_a_server_that_hangs_does_not_hang_the_replayer() -> None:
    with serving(hang) as server:  # type: ignore[arg-type]
        began = time.monotonic()
        found = replay(LoadProfile(server.url, rate=400, clients=4, seconds=0.5, timeout=0.3, probe_share=2), ROWS)
        assert time.monotonic() - began < 3
    assert found.failures == {"timeout": found.sent}
    assert 4 <= found.sent <= 12  # each of four clients waits 0.3 s for each answer
    assert len(server.of("candidate")) <= 2 * 64 + 64  # at most 64 pairs under way at once


def test_without_a_server_nothing_could_be_sent() -> None:
    with serving(lambda request: None) as server:
        gone = server.url
    with pytest.raises(RolloutError, match="expected a server, nothing could be sent: connection: .*refused"):
        replay(quick(gone), ROWS)


def test_the_same_seed_sends_the_same_rows_in_the_same_order_per_client() -> None:
    def orders(seed: int) -> list[list[int]]:
        with serving(lambda request: answer(said())) as server:
            replay(quick(server.url, 120, seed=seed), ROWS)
        each: dict[int, list[int]] = {}
        for request in server.asked:
            each.setdefault(request.connection, []).append(request.row)
        return [rows[:8] for rows in each.values()]

    first = orders(7)
    assert len(first) == 4
    assert sorted(first) == sorted(orders(7))
    assert sorted(first) != sorted(orders(8))


def test_requests_come_at_the_rate_that_was_asked_for() -> None:
    with serving(lambda request: answer(said())) as server:
        found = replay(LoadProfile(server.url, rate=100, clients=4, seconds=1.0, probe_share=0), ROWS)
    assert 50 <= found.sent <= 101  # a busy machine may be late, nobody catches up


# --- probes -----------------------------------------------------------------------------------------------------------


def test_probes_compare_the_arms_row_by_row() -> None:
    def act(request: Request) -> bytes:
        stable = request.row % CLASSES
        return answer(said(5 if request.arm == "candidate" and stable < 3 else stable))

    with serving(act) as server:
        found = replay(LoadProfile(server.url, rate=400, clients=2, requests=200, probe_share=0.5), ROWS)
    pairs = [request.row % CLASSES for request in server.of("candidate")]
    assert sorted(pairs) == sorted(request.row % CLASSES for request in server.of("stable"))
    lost = tuple(pairs.count(label) if label < 3 else 0 for label in range(CLASSES))
    assert found.probes.pairs == len(pairs) >= 60
    assert (found.probes.lost, found.probes.disagreements) == (lost, sum(lost))
    assert found.probes.gained == (0, 0, 0, 0, 0, sum(lost), 0, 0, 0, 0)
    assert (found.sent, found.failed, found.probes.broken) == (200, 0, 0)


@pytest.mark.parametrize("act", [act for _, act in BAD.values()], ids=BAD)
def test_a_candidate_that_answers_badly_is_broken(act: Act) -> None:
    with serving(lambda request: act(request) if request.arm == "candidate" else answer(said())) as server:
        found = replay(LoadProfile(server.url, rate=1000, clients=2, requests=20, probe_share=1), ROWS)
    assert found.probes.broken == len(server.of("candidate")) > 0
    assert (found.probes.pairs, found.failed) == (0, 0)


@pytest.mark.parametrize("status", ["503 Busy", "504 Late"])
def test_a_candidate_that_gives_no_answer_in_time_is_not_broken(status: str) -> None:
    # A busy machine does that too; the router counts it, and the test of latency judges it with a control.
    with serving(lambda request: answer(b"", status) if request.arm == "candidate" else answer(said())) as server:
        found = replay(LoadProfile(server.url, rate=1000, clients=2, requests=20, probe_share=1), ROWS)
    assert len(server.of("candidate")) > 0
    assert found.probes.broken == 0


def test_a_replay_that_is_kept_waiting_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing else runs in its event loop while one answer is read for half a second.
    def slowly(*args: object) -> object:
        time.sleep(0.5)
        monkeypatch.undo()
        return read(*args)  # type: ignore[arg-type]

    read = traffic.read
    monkeypatch.setattr(traffic, "read", slowly)
    with serving(lambda request: answer(said())) as server:
        found = replay(LoadProfile(server.url, rate=100, clients=2, seconds=0.9, probe_share=0), ROWS)
    assert found.lag >= 0.3


def test_where_the_champion_fails_nothing_is_compared() -> None:
    with serving(lambda request: answer(said()) if request.arm != "stable" else answer(b"", "503 No")) as server:
        found = replay(LoadProfile(server.url, rate=1000, clients=2, requests=20, probe_share=1), ROWS)
    assert len(server.of("stable")) > 0
    assert (found.probes.pairs, found.probes.broken, found.failed) == (0, 0, 0)


def test_adversarial_rows_go_to_the_candidate_in_turn_and_keep_the_champion_as_busy() -> None:
    hostile = Attacks(tuple(body(row) for row in 1 - X[:3]), labels=(3, 3, 4), fooling=1)
    with serving(lambda request: answer(said(3))) as server:
        found = replay(LoadProfile(server.url, rate=400, clients=2, requests=100, probe_share=0.2), ROWS, hostile)
    adversarial = [request for request in server.asked if request.body in hostile.bodies]
    sent = [request for request in adversarial if request.arm == "candidate"]
    assert Counter(request.arm for request in adversarial) == {"candidate": len(sent), "stable": len(sent)}
    each = Counter(hostile.bodies.index(request.body) for request in sent)
    assert each == Counter(n % 3 for n in range(len(sent)))
    assert found.probes.attacks == len(sent) >= 10
    assert found.probes.fooled == each[2]
    assert abs(found.probes.pairs - len(sent)) <= 1
    assert (found.attack_rows, found.attack_rows_fooling) == (3, 1)


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_only_the_judged_model_falls_for_exactly_the_recorded_rows(
    bundle: Path, make_bundle: Callable[..., Path], seed: int, same: bool
) -> None:
    x = np.load(bundle / "replay.npz")["x"][:30]
    judged = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision")).answer(x)
    # Every third label is another than the judged model's: 10 of the 30 rows fooled it.
    y = [int(label + (n % 3 == 0)) % CLASSES for n, label in enumerate(judged.label)]
    hostile = Attacks(tuple(body(row) for row in x), labels=tuple(y), fooling=10)
    other = make_bundle(seed=seed)
    served = load_predictor(Ref(other / "model"), Ref(other / "decision"))

    def act(request: Request) -> bytes:
        tensor = json.loads(request.body)["inputs"][0]
        found = served.answer(np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"]))
        return answer(said(int(found.label[0]), found.probabilities[0].tolist()))

    with serving(act) as server:
        load = LoadProfile(server.url, rate=100, clients=2, requests=80, probe_share=1)
        found = replay(load, Rows.of(x, CLASSES), hostile).probes
    assert found.attacks >= 30
    assert (found.fooled == sum(n % 3 == 0 for n in range(found.attacks))) is same
    assert found.broken == 0


def test_slow_probes_do_not_slow_down_the_others() -> None:
    def act(request: Request) -> bytes:
        time.sleep(0.4 if request.arm == "candidate" else 0)
        return answer(said())

    with serving(act) as server:
        found = replay(LoadProfile(server.url, rate=100, clients=4, seconds=1.0, probe_share=0.5), ROWS)
    assert found.probes.pairs >= 20  # of 50; one after the other it would be 3
    assert found.sent >= 50
    assert found.latency_ms.p50 < 100


def test_warming_up_is_not_counted() -> None:
    with serving(lambda request: answer(said())) as server:
        found = replay(quick(server.url, 10, warm=5), ROWS)
    assert [request.arm for request in server.asked[:10]].count("candidate") == 5
    assert (found.sent, found.probes.pairs, len(server.asked)) == (10, 0, 20)


def test_a_candidate_that_hangs_is_not_warmed_up_for_long() -> None:
    with serving(lambda request: hang(request) if request.arm == "candidate" else answer(said())) as server:  # type: ignore[func-returns-value]
        began = time.monotonic()
        load = LoadProfile(server.url, rate=1000, clients=2, requests=10, probe_share=0, warm=50, timeout=0.3)
        found = replay(load, ROWS)
        assert time.monotonic() - began < 5
    assert (found.sent, found.failed, len(server.of("stable"))) == (10, 0, 3)


# --- an address for either arm ----------------------------------------------------------------------------------------


def arms(champion: Server, candidate: Server, **headers: str) -> Arms:
    places = {"champion": {"url": champion.url}, "candidate": {"url": candidate.url, "headers": headers}}
    return Arms.model_validate(places)


def model(version: str, label: int = 3) -> Act:
    return lambda request: answer(
        said(label).replace(b'"model_version": "2"', f'"model_version": "{version}"'.encode())
    )


def test_with_an_address_for_either_arm_only_probes_are_sent() -> None:
    hostile = Attacks(tuple(body(row) for row in 1 - X[:2]), labels=(3, 5), fooling=0)
    with serving(model("1")) as champion, serving(model("2", 5)) as candidate:
        found = replay(
            LoadProfile(arms(champion, candidate, **{"x-rollout": "b"}), rate=100, seconds=1.0), ROWS, hostile
        )
    rows = Counter(request.body for request in candidate.asked if request.body not in hostile.bodies)
    assert rows == Counter(request.body for request in champion.asked)
    assert found.probes.pairs == found.probes.disagreements == len(champion.asked) >= 10
    assert found.probes.attacks == len(candidate.asked) - len(champion.asked) >= 10
    assert abs(2 * found.probes.fooled - found.probes.attacks) <= 1
    assert {request.arm for request in candidate.asked} == {"b"}
    assert {request.arm for request in champion.asked} == {None}
    assert (found.sent, found.failed, found.strays) == (0, 0, 0)


def flipping(first: str, later: str, after: int) -> Act:
    """Another version from some answer on."""
    count = iter(range(10**6))
    return lambda request: model(first if next(count) < after else later)(request)


@pytest.mark.parametrize("which", ["champion", "candidate"])
def test_answers_of_another_model_are_no_comparison(which: str) -> None:
    acts = {"champion": model("1"), "candidate": model("2"), which: flipping("12"[which != "champion"], "3", 30)}
    with serving(acts["champion"]) as champion, serving(acts["candidate"]) as candidate:
        found = replay(LoadProfile(arms(champion, candidate), rate=100, seconds=1.5, warm=10), ROWS)
    assert found.probes.pairs <= 20
    assert found.strays >= 10
    assert (found.probes.broken, found.probes.disagreements) == (0, 0)


WRONG_ARMS: dict[str, tuple[Act, Act, str]] = {
    "one model": (model("1"), model("1"), "expected two models, found version 1 as either arm"),
    "an address that leads to both": (flipping("1", "2", 5), model("2"), "answers of one model, found versions 1, 2"),
    "no champion": (BAD["500"][1], model("2"), "expected the champion's label and probabilities, found status: 500"),
    "another protocol": (BAD["no outputs"][1], model("2"), "label and probabilities, found shape: "),
}


@pytest.mark.parametrize(("champion", "candidate", "found"), WRONG_ARMS.values(), ids=WRONG_ARMS)
def test_arms_that_cannot_be_told_apart_are_refused_before_anything_counts(
    champion: Act, candidate: Act, found: str, tmp_path: Path
) -> None:
    with serving(champion) as one, serving(candidate) as other, pytest.raises(RolloutError, match=found):
        replay(LoadProfile(arms(one, other), rate=100, seconds=0.2, warm=10), ROWS, tally=tmp_path / "tally.json")
    assert not (tmp_path / "tally.json").exists()


def test_models_that_do_not_say_their_version_are_compared() -> None:
    unnamed = said().replace(b'"model_version": "2", ', b"")
    with serving(lambda request: answer(unnamed)) as one, serving(lambda request: answer(unnamed)) as other:
        found = replay(LoadProfile(arms(one, other), rate=100, seconds=0.3, warm=3), ROWS)
    assert found.probes.pairs >= 5
    assert found.strays == 0


def test_a_count_of_client_requests_does_not_end_probes() -> None:
    with serving(model("1")) as one, pytest.raises(RolloutError, match="found a count of client requests"):
        LoadProfile(arms(one, one), requests=5)


def test_a_sender_with_strays_has_seen_nothing_until_it_is_told_that_the_arms_go(
    rows_file: Path, tmp_path: Path
) -> None:
    load = sender.Load(rows_file, None, CLASSES, rate=100, clients=1, seed=0)
    with (
        serving(model("1")) as one,
        serving(flipping("2", "1", 60)) as other,
        sender.sending(tmp_path, arms(one, other), load) as running,
    ):
        running.wait(Stop())
        wait_for(tmp_path / "tally.json", lambda tally: tally.strays > 0)
        with pytest.raises(RolloutError, match="expected answers of the arm asked, found .* of another model"):
            running.probes()
        running.unpair()
        assert running.probes().pairs == running.answered() <= 40
        assert running.sent == 0


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "rows.npz", x=X, y=np.zeros(len(X), dtype=np.int64))
    return tmp_path / "rows.npz"


def command(*more: object) -> list[str]:
    return [sys.executable, "-m", "holdfast", "replay", "--classes", str(CLASSES), *map(str, more)]


def wait_for(path: Path, enough: Callable[[Tally], bool]) -> Tally:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and enough(read_tally(path)):
            return read_tally(path)
        time.sleep(0.02)
    raise AssertionError(f"{path}: the replay never came so far")


def test_sigterm_ends_it_well_and_sigusr1_its_probes(rows_file: Path, tmp_path: Path) -> None:
    def act(request: Request) -> bytes:
        time.sleep(0.1)
        return answer(said())

    path = tmp_path / "tally.json"
    with serving(act) as server:
        call = command("--url", server.url, "--rows", rows_file, "--rate", 200, "--tally", path, "--json")
        with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            wait_for(path, lambda tally: tally.sent >= 20 and tally.probes.pairs >= 3)
            running.send_signal(signal.SIGUSR1)
            told = read_tally(path)
            quiet = wait_for(path, lambda tally: tally.sent >= told.sent + 40)
            wait_for(path, lambda tally: tally.sent >= quiet.sent + 40)
            assert read_tally(path).probes == quiet.probes
            running.terminate()
            out, errors = running.communicate(timeout=20)
    assert running.returncode == 0, errors
    found = read_tally(path)
    assert found.ended
    assert json.loads(out)["sent"] == found.sent == len(server.of(None)), "what was under way was waited for"
    assert (found.failed, found.probes.pairs) == (0, quiet.probes.pairs)
    assert [name.name for name in tmp_path.iterdir() if name.name.startswith(".")] == []


def test_nothing_could_be_sent_is_exit_code_1_and_one_line(rows_file: Path) -> None:
    with serving(lambda request: None) as server:
        gone = server.url
    call = command("--url", gone, "--rows", rows_file, "--requests", 2, "--rate", 1000)
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"holdfast: {gone}: expected a server, nothing could be sent")
    assert "Traceback" not in done.stderr


def test_a_tally_that_cannot_be_kept_is_said_once_and_the_traffic_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tally").mkdir()  # a folder cannot be replaced by a file
    refused = pytest.raises(RolloutError, match="tally: expected to keep the tally, found: Is a directory")
    with serving(lambda request: answer(said())) as server, refused:
        replay(LoadProfile(server.url, rate=200, seconds=0.5, probe_share=0), ROWS, tally=tmp_path / "tally")
    assert len(server.asked) > 50
    assert capfd.readouterr().err.count("expected to keep the tally") == 1


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_reader_of_a_tally_loads_nothing_heavy() -> None:
    program = (
        "import sys, holdfast.serving.rollout.traffic.tally\n"
        "assert not {'numpy', 'aiohttp', 'uvloop', 'torch', 'mlflow', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


COUNT = st.integers(0, 2**53)
COUNTS = st.dictionaries(st.text(max_size=8), COUNT, max_size=3)
TIMES = st.floats(0, 1e9)
PER_CLASS = st.lists(COUNT, max_size=5).map(tuple)
TALLIES = st.builds(
    Tally,
    sent=COUNT,
    failed=COUNT,
    failures=COUNTS,
    first_failure=st.none() | st.text(max_size=20),
    answers=COUNTS,
    latency_ms=st.builds(Latency, TIMES, TIMES, TIMES, TIMES),
    probes=st.builds(Probes, COUNT, COUNT, PER_CLASS, PER_CLASS, COUNT, COUNT, COUNT),
    attack_rows=COUNT,
    attack_rows_fooling=COUNT,
    at=TIMES,
    ended=st.booleans(),
)


@settings(deadline=None)
@given(tally=TALLIES)
def test_a_tally_is_read_as_it_was_written(tally: Tally, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"tally-{os.getpid()}"
    write_tally(path, tally)
    assert read_tally(path) == tally


def test_half_a_tally_is_none(tmp_path: Path) -> None:
    path = tmp_path / "tally"
    write_tally(path, Tally(sent=3))
    whole = path.read_bytes().rstrip()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(RolloutError, match="tally: expected a whole tally, found"):
            read_tally(path)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ('"sent":3', '"sent":-3', "sent: expected a count or a time, found -3"),
        ('"sent":3', '"sent":3.0', "sent: Input should be a valid integer"),
        ('"sent":3', '"send":3', "expected the fields"),
        ('"at":0.0', '"at":NaN', "at: expected a count or a time, found nan"),
        ('"gained":[]', '"gained":[true]', r"probes.gained.0: Input should be a valid integer"),
        ('"ended":false', '"ended":0', "ended: Input should be a valid boolean"),
    ],
)
def test_a_tally_that_means_nothing_is_refused(tmp_path: Path, before: str, after: str, found: str) -> None:
    path = tmp_path / "tally"
    write_tally(path, Tally(sent=3))
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(RolloutError, match=found):
        read_tally(path)


def test_no_tally_and_a_huge_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="expected the tally of a replay, found none"):
        read_tally(tmp_path / "tally")
    (tmp_path / "tally").write_bytes(b" " * (MAX_TALLY_BYTES + 1))
    with pytest.raises(RolloutError, match="expected at most 1048576 bytes, found more"):
        read_tally(tmp_path / "tally")


@pytest.mark.parametrize(
    ("x", "found"),
    [
        (X.astype(np.float64), r"float32\[N, ...\] or int64\[N, L\], found float64\[40, 1, 4, 4\]"),
        (X[:0], r"found float32\[0, 1, 4, 4\]"),
        (X[0, 0, 0], r"found float32\[4\]"),
        (np.full((2, 3), np.nan, dtype=np.float32), "expected finite network inputs x, found NaN"),
        (np.array([[object()]]), "expected an NPZ file of plain arrays, found another"),
    ],
)
def test_rows_that_cannot_be_sent_are_refused(tmp_path: Path, x: np.ndarray, found: str) -> None:
    np.savez(tmp_path / "rows.npz", x=x)
    with pytest.raises(RolloutError, match=found):
        read_rows(tmp_path / "rows.npz", CLASSES)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"x": X[:3, :, :2]}, r"expected x as in .*rows.npz, float32\[40, 1, 4, 4\], found float32\[3, 1, 2, 4\]"),
        ({"y": np.array([1, 2, 10])}, "with classes below 10"),
        ({"y": np.array([1, 2])}, r"expected y int64\[3\]"),
        ({"fooled": np.zeros(3)}, r"expected fooled bool\[3\], found float64\[3\]"),
    ],
)
def test_attacks_that_cannot_be_sent_are_refused(
    rows_file: Path, tmp_path: Path, changed: dict[str, np.ndarray], found: str
) -> None:
    good = {"x": X[:3], "y": np.array([1, 2, 3]), "fooled": np.array([True, False, True])}
    np.savez(tmp_path / "good.npz", **good)
    assert read_attacks(tmp_path / "good.npz", rows_file, CLASSES).fooling == 2
    np.savez(tmp_path / "bad.npz", **{**good, **changed})
    with pytest.raises(RolloutError, match=found):
        read_attacks(tmp_path / "bad.npz", rows_file, CLASSES)


@pytest.mark.parametrize(
    "url", ["https://a/b", "ftp://a", "a", "http://", "http://u:p@a/", "http://a:x/", "http://a/\r\n"]
)
def test_another_address_than_http_is_refused(url: str) -> None:
    with pytest.raises(RolloutError, match="expected http://HOST:PORT/PATH, found"):
        replay(LoadProfile(url), ROWS)


# --- what it is built of ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(row=arrays(np.float32, (1, 6), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_row_arrives_as_the_very_same_float32(row: np.ndarray) -> None:
    sent = json.loads(body(row))["inputs"][0]
    assert sent["shape"] == [1, 1, 6]
    assert (np.array(sent["data"], dtype=np.float32) == row.ravel()).all()


@settings(deadline=None)
@given(parts=st.lists(st.binary(min_size=1, max_size=40), max_size=6), cut=st.integers(0, 400))
def test_an_answer_in_chunks_is_whole_or_waited_for(parts: list[bytes], cut: int) -> None:
    data = CHUNKED + b"".join(b"%X;x=y\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: 1\r\n\r\n"
    whole = read_answer(data, ended=False)
    assert whole is not None
    assert (whole.body, whole.reusable) == (b"".join(parts), True)
    if cut < len(data):
        assert read_answer(data[:cut], ended=False) is None
        with pytest.raises(ValueError, match="closed in the middle"):
            read_answer(data[:cut], ended=True)


@settings(deadline=None)
@given(values=st.lists(st.floats(0.02, 1e5), min_size=1, max_size=200))
def test_percentiles_are_at_most_two_percent_too_high(values: list[float]) -> None:
    times = Times()
    for value in values:
        times.add(value)
    found = times.latency()
    for share, percentile in ((50, found.p50), (95, found.p95), (99, found.p99)):
        true = np.percentile(values, share, method="inverted_cdf")
        assert true - 0.001 <= percentile <= 1.0201 * true + 0.001
    assert found.max == pytest.approx(max(values), abs=0.001)
