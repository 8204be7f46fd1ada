"""One comment on each pull request, against a server that plays the REST APIs of GitHub and GitLab."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app
from holdfast.errors import InputError, WorkloadError
from holdfast_pipelines.pull_request import api
from holdfast_pipelines.pull_request.comment import checked_api, post
from holdfast_pipelines.pull_request.github import GitHub
from holdfast_pipelines.pull_request.gitlab import GitLab
from holdfast_pipelines.pull_request.results import write_results

SHA, OTHER = "a" * 40, "c" * 40
MARK = "<!-- holdfast:gate:toy -->"
BOT = "github-actions[bot]"


@dataclass
class Forge:
    """What the server holds, and what it was asked."""

    url: str = ""
    token: str = "secret"
    requests: list[tuple[int, str]] = field(default_factory=lambda: [(7, SHA)])
    """Number and head of each open pull request."""
    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refuses: int | None = None
    body: bytes | None = None

    def add(self, author: str, text: str) -> None:
        number = 100 + len(self.comments)
        user = {"login": author, "username": author}
        self.comments.append({"id": number, "user": user, "author": user, "body": text})

    def answer(self, method: str, path: str, page: slice, body: dict[str, Any]) -> object:
        """GitHub's and GitLab's paths: https://docs.github.com/en/rest, https://docs.gitlab.com/api."""
        if path == "/user":
            return {"username": "gate-bot"}
        if re.fullmatch(r"/repos/o/r/pulls", path):
            return [{"number": number, "head": {"sha": sha}} for number, sha in self.requests][page]
        if path == "/projects/group/sub/r/merge_requests":
            return [{"iid": number, "sha": sha} for number, sha in self.requests][page]
        if method == "GET":
            return self.comments[page]
        if method == "POST":
            self.add("gate-bot" if "projects" in path else BOT, body["body"])
            return self.comments[-1]
        number = int(path.rpartition("/")[2])
        next(one for one in self.comments if one["id"] == number)["body"] = body["body"]
        return {}


@pytest.fixture
def forge() -> Iterator[Forge]:
    found = Forge()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            parts = urlsplit(self.path)
            query = {key: value[0] for key, value in parse_qs(parts.query).items()}
            size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
            found.asked.append((self.command, self.path))
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            given = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("PRIVATE-TOKEN")
            status = found.refuses or (200 if given == found.token else 401)
            value = found.answer(self.command, unquote(parts.path), slice((page - 1) * size, page * size), body)
            data = json.dumps(value if status == 200 else {"message": "not allowed\x1b[31m"}).encode()
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(found.body if found.body is not None else data)

        do_GET = do_POST = do_PATCH = do_PUT = _do  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["github", "gitlab"])
def host(request, forge):
    if request.param == "github":
        return GitHub(forge.url, "o/r", "secret")
    return GitLab(forge.url, "group/sub/r", "secret")


def test_the_first_gate_creates_a_comment_and_the_next_replaces_it(host, forge, report):
    assert [one.what for one in post(host, report, SHA)] == ["created"]
    better = report.model_copy(update={"notes": ("again",)})
    assert [(one.request, one.what) for one in post(host, better, SHA)] == [(7, "replaced")]
    assert [one.what for one in post(host, better, SHA)] == ["unchanged"]
    (comment,) = forge.comments
    assert comment["body"].startswith(MARK)
    assert "- again" in comment["body"]


def test_a_comment_of_somebody_else_with_the_marker_is_left_alone(host, forge, report):
    forge.add("mallory", f"{MARK}\nall is well")
    assert [one.what for one in post(host, report, SHA)] == ["created"]
    assert forge.comments[0]["body"] == f"{MARK}\nall is well"


def test_the_marker_counts_on_the_first_line_only_and_for_its_workload(host, forge, report):
    forge.add(host.author, f"someone quoted {MARK}")
    forge.add(host.author, "<!-- holdfast:gate:toy-two -->\nanother workload")
    assert [one.what for one in post(host, report, SHA)] == ["created"]
    assert len(forge.comments) == 3


def test_our_comment_is_found_on_a_later_page(host, forge, report):
    for number in range(130):
        forge.add("ann", f"comment {number}")
    forge.add(host.author, f"{MARK}\nold")
    assert [one.what for one in post(host, report, SHA)] == ["replaced"]
    assert forge.comments[-1]["body"] != f"{MARK}\nold"


def test_the_pull_request_is_the_one_with_the_events_commit(host, forge, report):
    forge.requests = [(number, OTHER) for number in range(1, 120)] + [(200, SHA)]
    assert [one.request for one in post(host, report, SHA)] == [200]


def test_a_commit_that_is_no_head_any_more_is_not_commented(host, forge, report):
    forge.requests = [(7, OTHER)]
    assert post(host, report, SHA) == ()
    assert {method for method, _ in forge.asked} == {"GET"}


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 429, 500])
def test_a_refusal_is_one_line_without_the_token(host, forge, report, status):
    forge.refuses = status
    with pytest.raises(InputError) as caught:
        post(host, report, SHA)
    assert str(status) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(forge.asked) <= 2, "no redirect is followed"


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'[{"head": {"sha": "%s"}, "sha": "%s", "number": "7"}]' % ((SHA.encode(),) * 2)]
)
def test_an_answer_that_is_none_is_one_line(host, forge, report, body):
    forge.body = body
    with pytest.raises(InputError, match="expected (JSON|a list|a number)"):
        post(host, report, SHA)


def test_a_list_without_end_ends(host, forge, report, monkeypatch):
    monkeypatch.setattr(api, "MOST_PAGES", 2)
    forge.requests = [(number, OTHER) for number in range(1, 400)]
    with pytest.raises(InputError, match="expected at most 200 entries"):
        post(host, report, SHA)


def test_a_token_goes_over_https_or_to_this_machine_only():
    for url in ("https://api.github.com", "http://127.0.0.1:80/api/v4", "http://localhost:1"):
        assert checked_api(url) == url
    for url in ("http://api.github.com", "http://127.0.0.1.evil.org", "ftp://localhost", "https:/x@"[:4]):
        with pytest.raises(WorkloadError, match="expected an https address"):
            checked_api(url)


@pytest.mark.parametrize("name", ["o", "o/..", "o/r/x", "o/r?x=1", "../r", "o/r\n", "o r/x"])
def test_a_repository_is_owner_and_name(forge, name):
    with pytest.raises(WorkloadError, match="expected OWNER/NAME"):
        GitHub(forge.url, name, "secret")


def comment(*words: str, token: str | None = "secret") -> Any:
    return CliRunner().invoke(app, ["pr-comment", *words], env={"GITHUB_TOKEN": token, "GITLAB_TOKEN": token})


def test_the_command_posts(forge, report, tmp_path):
    write_results(report, tmp_path)
    done = comment(f"--artifact={tmp_path}", f"--sha={SHA}", "--repository=o/r", f"--api={forge.url}")
    assert (done.exit_code, done.stderr) == (0, "pr-comment: o/r: the comment on 7 was created\n")
    assert len(forge.comments) == 1


def test_the_command_prints_without_a_repository(report, tmp_path):
    write_results(report, tmp_path)
    (tmp_path / "summary.md").write_text("![evil](http://evil/x.png)")
    done = comment(f"--artifact={tmp_path}", f"--sha={OTHER}", token=None)
    assert done.exit_code == 0
    assert done.stdout.startswith(MARK)
    assert "`cccccccccccc`" in done.stdout
    assert "evil" not in done.stdout


def test_the_command_names_the_variable_of_a_missing_token(report, tmp_path):
    write_results(report, tmp_path)
    done = comment(f"--artifact={tmp_path}", f"--sha={SHA}", "--repository=o/r", token=None)
    assert "GITHUB_TOKEN: expected the token" in str(done.exception)


def test_a_commit_is_hexadecimal(report, tmp_path):
    write_results(report, tmp_path)
    done = comment(f"--artifact={tmp_path}", "--sha=main")
    assert isinstance(done.exception, WorkloadError)
