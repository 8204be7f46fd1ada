"""Counters from Prometheus: what is fresh and whole is counted, everything else is an error and never a number."""

import http.client
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest
from pydantic import ValidationError

from holdfast.errors import RolloutError
from holdfast.processes import dying_with_us
from holdfast.prometheus import selector
from holdfast.serving.envoy.config import Ingress, Layout, binary, bootstrap, clusters
from holdfast.serving.envoy.routes import LiveTraffic, probe_routes, routes
from holdfast.serving.rollout.cluster.prometheus import Prometheus
from holdfast.serving.rollout.cluster.series import SETS, MetricsSource

NOW = 1_700_000_000.0
COUNT, BUCKET = (
    "seldon_api_executor_server_requests_seconds_count",
    "seldon_api_executor_server_requests_seconds_bucket",
)


class Fake(http.server.BaseHTTPRequestHandler):
    """Prometheus' answer to a query: the server's `answer(metric, labels)` gives series, or a raw body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.queries.append(form["query"][0])
        metric = form["query"][0].partition("{")[0]
        found = self.server.answer(metric, form["query"][0])
        status, body = found if isinstance(found, tuple) else (200, matrix(found))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def matrix(series):
    result = [{"metric": labels, "values": [[at, value]]} for labels, at, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A reader that has gone is none of ours."""


@pytest.fixture
def server():
    made = Quiet(("127.0.0.1", 0), Fake)
    made.queries, made.providers = [], []
    made.answer = healthy
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    for one in made.providers:
        one.close()
    made.shutdown()
    made.server_close()
    thread.join()


def healthy(metric, query):
    """Candidate: 40 answers of which 3 were 500; champion: 400 and 8. Two pods each; edges at 0.1 and 0.5 s."""
    scale = 1 if "candidate" in query else 10
    if metric == BUCKET:
        counts = {"0.1": 10, "0.5": 18, "+Inf": 20}
        return [({"pod": p, "le": le}, NOW - 3, str(scale * n)) for p in "ab" for le, n in counts.items()]
    if 'code=~"[^24].*|404"' in query:
        return [({"pod": "a", "code": "500"}, NOW - 3, str(3 if scale == 1 else 8))]
    good = 37 if scale == 1 else 392
    bad = 3 if scale == 1 else 8
    return [({"pod": "a", "code": "200"}, NOW - 3, str(good)), ({"pod": "a", "code": "500"}, NOW - 3, str(bad))]


def provider(server, **more):
    url = f"http://127.0.0.1:{server.server_address[1]}"
    base = {"prometheus": url, "series": "seldon-v1", "scrape_seconds": 5}
    arms = {"champion": {"predictor_name": "main"}, "candidate": {"predictor_name": "candidate"}}
    made = Prometheus(MetricsSource.model_validate({**base, **arms, **more}), wall=lambda: NOW, clock=lambda: 7.0)
    server.providers.append(made)
    return made


def spoil(server, metric, change):
    """The healthy answers, but for one metric's of the candidate."""

    def answer(name, query):
        found = healthy(name, query)
        return change(found) if name == metric and "candidate" in query and "[^24]" not in query else found

    server.answer = answer


def test_counters_of_all_pods_are_added_up(server):
    seen = provider(server).read()
    assert (seen.candidate.answered, seen.candidate.failed) == (40, 3)
    assert (seen.champion.answered, seen.champion.failed) == (400, 8)
    assert seen.edges_ms == (100.0, 500.0)
    assert (seen.candidate.timed, seen.candidate.within) == (40, (20, 36))
    assert (seen.at, seen.live, seen.mirrored, seen.routed) == (7.0, 0, 0, 0)


def test_samples_are_asked_for_with_their_times_and_all_at_one_moment(server):
    provider(server).read()
    assert f'{COUNT}{{predictor_name=~"candidate"}}[20000ms]' in server.queries
    assert all(query.endswith("[20000ms]") for query in server.queries)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda series: [], "expected .*_count of the candidate, found no series"),
        (lambda series: [(series[0][0], NOW - 3, "NaN")], "expected a count, found NaN"),
        (lambda series: [(series[0][0], NOW - 3, "+Inf")], r"expected a count, found \+Inf"),
        (lambda series: [(series[0][0], NOW - 3, "-1")], "expected a count, found -1"),
        (lambda series: [(series[0][0], NOW - 3, "many")], "expected a count, found many"),
        (lambda series: [(series[0][0], NOW - 11, "40")], "expected a sample of the last 10 s, found one 11 s old"),
        (lambda series: [series[0], (series[1][0], NOW - 11, "3")], "found one 11 s old"),
        (lambda series: [(series[0][0], NOW + 60, "40")], "expected a sample of the past, found one 60 s ahead"),
        (lambda series: [*series, series[0]], "expected every series once, found one twice"),
        (lambda series: (500, b"boom"), "expected a matrix, found 500 boom"),
        (lambda series: (200, b"<html>"), "expected a matrix, found 200 <html>"),
        (lambda series: (200, b'{"status": "error", "error": "query timed out"}'), "expected a matrix.*timed out"),
        (lambda series: (200, b'{"status": "success", "data": {"resultType": "vector", "result": []}}'), "matrix"),
        (lambda series: (200, b'{"status":"success","data":{"resultType":"matrix","result":[7]}}'), "expected samples"),
        (lambda series: [({"pod": "a"}, NOW - 3, "2")], "expected at most 2 failures of the candidate, found 3"),
    ],
)
def test_what_is_not_known_to_be_true_is_an_error_that_says_which(server, change, found):
    spoil(server, COUNT, change)
    with pytest.raises(RolloutError, match=found) as caught:
        provider(server).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda series: [item for item in series if item[0]["le"] != "+Inf"], r"expected rising buckets up to \+Inf"),
        (lambda series: [(labels, at, "1" if labels["le"] == "0.5" else n) for labels, at, n in series], "rising"),
        (lambda series: [({"pod": "a"}, NOW - 3, "1")], "expected a label le"),
        (lambda series: [item for item in series if item[0]["le"] != "0.1"], "expected the same buckets"),
    ],
)
def test_buckets_that_cannot_be_are_an_error(server, change, found):
    spoil(server, BUCKET, change)
    with pytest.raises(RolloutError, match=found):
        provider(server).read()


def test_a_server_that_hangs_is_left_in_time(server, monkeypatch):
    monkeypatch.setattr("holdfast.prometheus.SECONDS", 0.3)
    server.answer = lambda metric, query: time.sleep(2) or []
    began = time.monotonic()
    with pytest.raises(RolloutError, match="no answer: .*(timed out|no whole answer)"):
        provider(server).read()
    assert time.monotonic() - began < 1.5


def test_a_server_that_is_not_there_is_an_error():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        arms = {"champion": {"arm": "a"}, "candidate": {"arm": "b"}}
        with pytest.raises(RolloutError, match="no answer: .*refused"):
            Prometheus(MetricsSource.model_validate({"prometheus": url, **arms})).read()


def test_an_answer_without_end_is_not_read_to_the_end(server):
    server.answer = lambda metric, query: (200, b" " * (5 * 2**20))
    with pytest.raises(RolloutError, match="expected at most 4194304 bytes, found more"):
        provider(server).read()


@pytest.mark.parametrize(("up", "alive"), [("1", True), ("0", False)])
def test_an_arm_that_is_scraped_and_has_never_answered_has_0_answers(server, up, alive):
    def answer(metric, query):
        if metric == "up":
            return [({"pod": "a"}, NOW - 3, up if "candidate" in query else "1")]
        return [] if "candidate" in query else healthy(metric, query)

    server.answer = answer
    if alive:
        seen = provider(server, up=True).read()
        assert (seen.candidate.answered, seen.candidate.within, seen.candidate_alive) == (0, (0, 0), True)
    else:
        with pytest.raises(RolloutError, match="of the candidate, found no series"):
            provider(server, up=True).read()


def test_an_arm_that_is_not_up_any_more_is_dead_and_keeps_its_counts(server):
    def answer(metric, query):
        if metric == "up":
            return [({"pod": "a"}, NOW - 3, "0" if "candidate" in query else "1")]
        return healthy(metric, query)

    server.answer = answer
    seen = provider(server, up=True).read()
    assert (seen.candidate.answered, seen.candidate_alive, seen.champion_alive) == (40, False, True)


def test_a_failure_counter_of_ones_own_that_does_not_exist_is_not_read_as_no_failures(server):
    own = {"answered": [{"metric": COUNT}], "failed": [{"metric": "my_failures_total"}]}
    server.answer = lambda metric, query: [] if metric == "my_failures_total" else healthy(metric, query)
    with pytest.raises(RolloutError, match="my_failures_total.*expected a series, found none"):
        provider(server, series=own).read()


@pytest.mark.parametrize("name", SETS)
def test_every_built_in_set_counts_failures_among_the_answers(name):
    chosen = SETS[name]
    counted = {(item.metric, tuple(sorted(item.labels.items()))) for item in chosen.answered}
    names = {metric for metric, _ in counted}
    assert {item.metric for item in chosen.failed} <= names


def test_a_label_cannot_end_the_selector():
    arms = {"champion": {"arm": 'x"} or up{a="'}, "candidate": {"arm": "b"}}
    made = MetricsSource.model_validate({"prometheus": "http://p", **arms})
    assert selector(COUNT, made.champion) == f'{COUNT}{{arm=~"x\\"}} or up{{a=\\""}}'
    with pytest.raises(ValidationError, match="pattern"):
        MetricsSource.model_validate({"prometheus": "http://p", **arms, "candidate": {'a="",b': "x"}})


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.path.endswith("?bad") else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture
def scraped(tmp_path):
    """A real Envoy and a real Prometheus that scrapes it every second: Envoy's port, Prometheus' URL."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs the program prometheus (Debian: apt-get install prometheus)")
    try:
        envoy = binary()
    except RolloutError as error:
        pytest.skip(str(error))
    echo = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    echo.daemon_threads = True
    threading.Thread(target=echo.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    layout, port, admin, web = Layout(tmp_path / "envoy"), free_port(), free_port(), free_port()
    for path in (layout.clusters, layout.routes):
        path.parent.mkdir(parents=True)
    ingress = Ingress("m", 1, 2)
    static = bootstrap(layout, port, 250.0, ingress)
    static["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}
    layout.bootstrap.write_text(json.dumps(static))
    ports = {"stable": echo.server_address[1], "candidate": echo.server_address[1]}
    layout.clusters.write_text(json.dumps(clusters(ports, 0)))
    layout.routes.write_text(json.dumps(routes(0, ingress, LiveTraffic(shadow=True))))
    layout.probe_routes.write_text(json.dumps(probe_routes(0, LiveTraffic(shadow=True))))
    job = {
        "job_name": "envoy",
        "metrics_path": "/stats/prometheus",
        "static_configs": [{"targets": [f"127.0.0.1:{admin}"]}],
    }
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    commands = [
        [str(envoy), "-c", str(layout.bootstrap), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
        [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{web}"],
    ]
    logs = [(tmp_path / f"{name}.log").open("wb") for name in ("envoy", "prometheus")]
    running = [
        subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, preexec_fn=dying_with_us(9))
        for command, log in zip(commands, logs, strict=True)
    ]
    yield port, f"http://127.0.0.1:{web}"
    for process, log in zip(running, logs, strict=True):
        process.kill()
        process.wait()
        log.close()
    echo.shutdown()
    echo.server_close()


def test_a_real_prometheus_says_of_a_real_envoy_what_was_sent(scraped):
    port, url = scraped
    labels = {
        "champion": {"envoy_cluster_name": "stable|stable_probe"},
        "candidate": {"envoy_cluster_name": "candidate|candidate_then_stable"},
    }
    made = Prometheus(
        MetricsSource.model_validate({"prometheus": url, "series": "envoy", "scrape_seconds": 1, **labels})
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            made.read()
            break
        except RolloutError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for query in ["good"] * 45 + ["bad"] * 2:
        connection.request("POST", f"/v2/models/m/infer?{query}", b"{}")
        connection.getresponse().read()
    connection.close()
    # The 2 bad ones are tried twice at stable: 49 attempts, 4 failures; the mirror sees 47 of which 2 failed.
    while (seen := made.read()).champion.timed < 47 or seen.candidate.timed < 47:
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
    made.close()
    assert (seen.champion.answered, seen.champion.failed) == (49, 4)
    assert (seen.candidate.answered, seen.candidate.failed) == (47, 2)
    assert (seen.mirrored, seen.live, seen.routed, seen.ejections) == (47, 0, 47, 0)
    assert seen.candidate.within == tuple(sorted(seen.candidate.within))
    assert 250.0 in seen.edges_ms
