"""The API client on its own: what it makes of answers. The real server: tests/serving/rollout/cluster."""

import http.server
import json
import threading
import time

import pytest

from holdfast.errors import ClusterError
from holdfast.http_client import HttpClient, HttpError
from holdfast.kubernetes.access import Access
from holdfast.kubernetes.api import (
    ConflictError,
    ForbiddenError,
    Kube,
    KubeError,
    MissingError,
    PassingError,
    Resource,
    edit,
)
from holdfast.kubernetes.objects import annotate

THINGS = Resource("example.org", "v1", "things", "here")


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers the server's script, step by step: (status, body), or a callable that gets the handler."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        step = self.server.script.pop(0) if self.server.script else (200, {})
        if callable(step):
            step(self)
            return
        data = json.dumps(step[1]).encode() if not isinstance(step[1], bytes) else step[1]
        self.send_response(step[0])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PATCH = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    made.daemon_threads = True
    made.script, made.seen = [], []
    made.url = f"http://127.0.0.1:{made.server_address[1]}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def thing(version, **annotations):
    return {"metadata": {"name": "a", "resourceVersion": version, "annotations": annotations}}


def hang_up(handler):
    handler.close_connection = True


def trickle(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, MissingError), (409, ConflictError), (429, PassingError), (500, PassingError), (503, PassingError)]
    + [(302, KubeError), (403, ForbiddenError), (422, KubeError)],
)
def test_every_status_is_one_kind_of_error(server, status, kind):
    server.script = [(status, {"message": "because\nof this"})]
    with pytest.raises(kind, match=f"GET .*/things/a: the API answered {status} because of this") as caught:
        Kube(Access(server.url)).get(THINGS, "a")
    assert type(caught.value) is kind


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
def test_an_answer_that_is_no_object_may_pass(server, body):
    server.script = [(200, body)]
    with pytest.raises(PassingError, match="the API answered 200"):
        Kube(Access(server.url)).get(THINGS, "a")


def test_an_answer_that_trickles_is_cut_off_in_time(server):
    server.script = [trickle]
    began = time.monotonic()
    with pytest.raises(PassingError, match=r"no whole answer within 0\.3 s"):
        Kube(Access(server.url), HttpClient(server.url, seconds=0.3)).get(THINGS, "a")
    assert time.monotonic() - began < 1.5


def test_an_answer_without_end_is_not_read_to_the_end(server):
    server.script = [(200, b" " * 100_000)]
    with pytest.raises(PassingError, match="expected at most 1000 bytes, found more"):
        Kube(Access(server.url), HttpClient(server.url, max_bytes=1000)).get(THINGS, "a")


def test_a_kept_connection_that_the_server_closed_is_opened_again_for_a_read_only(server):
    kube = Kube(Access(server.url))
    server.script = [(200, {}), hang_up, (200, {"found": True})]
    kube.get(THINGS, "a")
    assert kube.get(THINGS, "a") == {"found": True}
    server.script = [hang_up]
    with pytest.raises(PassingError):
        kube.patch(THINGS, "a", [])
    assert [command for command, *_ in server.seen] == ["GET", "GET", "GET", "PATCH"]


def test_a_change_whose_answer_was_lost_is_looked_for_and_not_made_twice(server):
    after = thing("2", mark="1")
    server.script = [(200, thing("1")), hang_up, (200, after)]
    kube = Kube(Access(server.url))
    assert edit(kube, THINGS, "a", lambda found: annotate(found, {"mark": "1"})) == after
    assert [command for command, *_ in server.seen].count("PATCH") == 1


def test_a_patch_tests_the_version_that_was_read(server):
    server.script = [(200, thing("41", other="x")), (200, thing("42"))]
    edit(Kube(Access(server.url)), THINGS, "a", lambda found: annotate(found, {"mark": "1"}))
    assert json.loads(server.seen[1][3]) == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "41"},
        {"op": "add", "path": "/metadata/annotations/mark", "value": "1"},
    ]


def test_an_edit_gives_up_in_time(server):
    server.script = [(500, {})] * 50
    began = time.monotonic()
    with pytest.raises(PassingError):
        edit(Kube(Access(server.url)), THINGS, "a", lambda found: [], seconds=0.5)
    assert time.monotonic() - began < 1.5


def test_a_token_file_is_read_again_for_every_call(server, tmp_path):
    token = tmp_path / "token"
    kube = Kube(Access(server.url, token_file=token))
    for text in ("first", "second\n"):
        token.write_text(text)
        kube.get(THINGS, "a")
    assert [headers["Authorization"] for _, _, headers, _ in server.seen] == ["Bearer first", "Bearer second"]
    token.unlink()
    with pytest.raises(ClusterError, match="token: expected a token"):
        kube.get(THINGS, "a")


def test_a_server_with_a_wrong_certificate_is_not_spoken_to(server):
    with pytest.raises(HttpError, match="SSL|EOF"):
        HttpClient(server.url.replace("http:", "https:"), seconds=2).exchange("GET", "/", {})
