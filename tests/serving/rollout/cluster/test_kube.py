"""The API client on its own: where it gets its access, and what it makes of answers. The real server: cluster/."""

import base64
import http.server
import json
import threading
import time

import pytest

from holdfast.errors import RolloutError, WorkloadError
from holdfast.serving.rollout.cluster import kube as module
from holdfast.serving.rollout.cluster.kube import (
    Access,
    ConflictError,
    Kube,
    KubeError,
    MissingError,
    PassingError,
    Resource,
    annotate,
    edit,
    from_kubeconfig,
    holds,
    in_cluster,
    pointer,
)
from holdfast.serving.rollout.cluster.wire import Wire, WireError

THINGS = Resource("example.org", "v1", "things", "here")


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers what the server's script says next: (status, body), or a callable that gets the handler."""

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
    + [(302, KubeError), (403, KubeError), (422, KubeError)],
)
def test_every_status_is_one_kind_of_error(server, status, kind):
    server.script = [(status, {"message": "because\nof this"})]
    with pytest.raises(kind, match=f"GET .*/things/a: expected to be done, found {status} because of this") as caught:
        Kube(Access(server.url)).get(THINGS, "a")
    assert type(caught.value) is kind


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
def test_an_answer_that_is_no_object_may_pass(server, body):
    server.script = [(200, body)]
    with pytest.raises(PassingError, match="expected to be done, found 200"):
        Kube(Access(server.url)).get(THINGS, "a")


def test_an_answer_that_trickles_is_cut_off_in_time(server):
    server.script = [trickle]
    began = time.monotonic()
    with pytest.raises(PassingError, match=r"no whole answer within 0\.3 s"):
        Kube(Access(server.url), Wire(server.url, seconds=0.3)).get(THINGS, "a")
    assert time.monotonic() - began < 1.5


def test_an_answer_without_end_is_not_read_to_the_end(server):
    server.script = [(200, b" " * 100_000)]
    with pytest.raises(PassingError, match="expected at most 1000 bytes, found more"):
        Kube(Access(server.url), Wire(server.url, max_bytes=1000)).get(THINGS, "a")


def test_a_kept_connection_that_the_server_closed_is_opened_anew_for_a_look_only(server):
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


def test_a_token_file_is_read_anew_for_every_call(server, tmp_path):
    token = tmp_path / "token"
    kube = Kube(Access(server.url, token_file=token))
    for text in ("first", "second\n"):
        token.write_text(text)
        kube.get(THINGS, "a")
    assert [headers["Authorization"] for _, _, headers, _ in server.seen] == ["Bearer first", "Bearer second"]
    token.unlink()
    with pytest.raises(RolloutError, match="token: expected a token"):
        kube.get(THINGS, "a")


def test_in_a_pod_the_service_account_is_used(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("models\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    found = in_cluster(tmp_path)
    assert (found.server, found.namespace, found.token_file) == ("https://[fd00::1]:6443", "models", tmp_path / "token")


def test_elsewhere_there_is_no_service_account(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(RolloutError, match="expected a pod's service account, found none; name a kubeconfig"):
        in_cluster(tmp_path)


def kubeconfig(path, user, cluster=None):
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config))
    return path


def test_a_kubeconfig_names_server_authority_and_token(tmp_path):
    authority = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()
    path = kubeconfig(tmp_path / "config", {"tokenFile": "token"}, {"certificate-authority-data": authority})
    found = from_kubeconfig(path)
    assert (found.server, found.namespace) == ("https://api:6443", "models")
    assert (found.token_file, found.trust.ca_data) == (tmp_path / "token", "-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    ("user", "cluster", "found"),
    [
        ({"auth-provider": {"name": "gcp"}}, {}, "expected a token, a client certificate or exec, found auth-provider"),
        ({"token": "t"}, {"insecure-skip-tls-verify": True}, "found insecure-skip-tls-verify"),
        ({"token": "t"}, {"certificate-authority-data": "???"}, "expected base64"),
    ],
)
def test_what_a_kubeconfig_may_not_ask_for_is_refused(tmp_path, user, cluster, found):
    with pytest.raises(WorkloadError, match=found):
        from_kubeconfig(kubeconfig(tmp_path / "config", user, cluster))


@pytest.mark.parametrize("text", ["", "- a", "a: [", "current-context: x", "x" * (module.MAX_CONFIG_BYTES + 1)])
def test_a_file_that_is_no_kubeconfig_is_an_error_in_one_line(tmp_path, text):
    (tmp_path / "config").write_text(text)
    with pytest.raises(WorkloadError, match="config: expected") as caught:
        from_kubeconfig(tmp_path / "config")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://a", "http://", "api:6443", "http://u:p@h", "http://h?x=1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(WorkloadError, match="expected http://HOST"):
        Wire(url)


def test_a_server_with_a_wrong_certificate_is_not_spoken_to(server):
    with pytest.raises(WireError, match="SSL|EOF"):
        Wire(server.url.replace("http:", "https:"), seconds=2).exchange("GET", "/", {})


def test_pointers_escape_and_annotations_come_in_whole():
    assert pointer("metadata", "annotations", "a/b~c", 0) == "/metadata/annotations/a~1b~0c/0"
    bare = {"metadata": {"name": "a"}}
    assert annotate(bare, {"x": "1", "y": None}) == [
        {"op": "add", "path": "/metadata/annotations", "value": {"x": "1"}}
    ]
    assert annotate(thing("1", x="1"), {"x": "1"}) == []
    assert annotate(thing("1", x="1"), {"x": None}) == [{"op": "remove", "path": "/metadata/annotations/x"}]


def test_an_object_holds_what_was_asked_for_when_the_server_added_defaults():
    assert holds({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"c": 2}]})
    assert not holds({"a": 1}, {"a": 2})
    assert not holds({"a": [1]}, {"a": [1, 2]})
    assert not holds({}, {"a": None})
