"""GitHub's REST API, as far as one comment takes: https://docs.github.com/en/rest/issues/comments, /rest/pulls."""

import re
from collections.abc import Iterator

from holdfast.errors import WorkloadError
from holdfast_pipelines.pull_request.api import JsonApi, number_of, text_of
from holdfast_pipelines.pull_request.comment import PostedComment

API = "https://api.github.com"
AUTHOR = "github-actions[bot]"
"""Whose comments the token of a workflow writes."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")


class GitHub:
    """A repository on GitHub."""

    def __init__(self, api: str, repository: str, token: str, author: str = AUTHOR) -> None:
        if not _REPOSITORY.fullmatch(repository) or repository.endswith(("/.", "/..")):
            raise WorkloadError(f"--repository {repository[:80]!r}: expected OWNER/NAME")
        self.author = author
        self._place = f"/repos/{repository}"
        headers = {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"}
        self._api = JsonApi(api, headers, "the workflow needs `permissions: pull-requests: write`")

    def open_requests(self, sha: str) -> Iterator[int]:
        """The open pull requests with this head, those from forks too, which the list by commit leaves out."""
        for found in self._api.pages(f"{self._place}/pulls?state=open&sort=updated&direction=desc"):
            if text_of(found, "head", "sha") == sha:
                yield number_of(found, "number")

    def comments(self, request: int) -> Iterator[PostedComment]:
        """The comments, the oldest first."""
        for found in self._api.pages(f"{self._place}/issues/{request}/comments"):
            yield PostedComment(number_of(found, "id"), text_of(found, "user", "login"), text_of(found, "body"))

    def create(self, request: int, text: str) -> None:
        """Writes a new comment."""
        self._api.send("POST", f"{self._place}/issues/{request}/comments", {"body": text})

    def replace(self, request: int, comment: int, text: str) -> None:
        """Writes another text into a comment."""
        self._api.send("PATCH", f"{self._place}/issues/comments/{comment}", {"body": text})
