"""The comment on a pull request: made once, found again by its marker and its author, and replaced from then on.

The report may have been written by the pull request's own code. So the text is rendered again from its checked values,
and which request it goes to is what the code host knows of the commit, never what the report names.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from holdfast.errors import WorkloadError
from holdfast_pipelines.pull_request.markdown import marker, render
from holdfast_pipelines.pull_request.report import PullRequestReport

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class PostedComment:
    """A comment as the code host gives it."""

    number: int
    author: str
    """By whom: a login."""
    text: str


class CodeHost(Protocol):
    """What GitHub and GitLab both offer."""

    author: str
    """Whose comments are ours."""

    def open_requests(self, sha: str) -> Iterable[int]:
        """The numbers of the open pull requests whose head is this commit."""

    def comments(self, request: int) -> Iterator[PostedComment]:
        """The comments on a pull request, the oldest first."""

    def create(self, request: int, text: str) -> None:
        """Writes a new comment."""

    def replace(self, request: int, comment: int, text: str) -> None:
        """Writes another text into a comment."""


@dataclass(frozen=True)
class Posting:
    """What was done on one pull request."""

    request: int
    what: Literal["created", "replaced", "unchanged"]


def post(host: CodeHost, report: PullRequestReport, sha: str) -> tuple[Posting, ...]:
    """Writes the report on every open pull request whose head is `sha`; on none when there is none any more.

    Raises:
        WorkloadError: `sha` is no commit.
        InputError: the code host refuses, or gives no whole answer.
    """
    text = render(report, commit=checked_sha(sha))
    return tuple(Posting(one, _post(host, one, marker(report.workload), text)) for one in host.open_requests(sha))


def _post(host: CodeHost, request: int, mark: str, text: str) -> Literal["created", "replaced", "unchanged"]:
    ours = (one for one in host.comments(request) if one.author == host.author and one.text.startswith(mark))
    found = next(ours, None)
    if found is None:
        host.create(request, text)
        return "created"
    if found.text.strip() == text.strip():
        return "unchanged"
    host.replace(request, found.number, text)
    return "replaced"


def checked_sha(sha: str) -> str:
    """The commit, after it was found to be one.

    Raises:
        WorkloadError: it is none.
    """
    if not _SHA.fullmatch(sha):
        raise WorkloadError(f"--sha {sha[:80]!r}: expected the 40 (or 64) hexadecimal digits of a commit")
    return sha


def checked_api(url: str) -> str:
    """The address of an API, after it was found to be one that a token may be sent to.

    Raises:
        WorkloadError: neither https nor this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise WorkloadError(f"--api {url[:200]}: expected an https address, found another; a token is sent there")
    return url
