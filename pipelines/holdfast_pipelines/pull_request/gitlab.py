"""GitLab's REST API, as far as one note takes: https://docs.gitlab.com/api/notes/, /api/merge_requests/."""

from collections.abc import Iterator
from urllib.parse import quote

from holdfast_pipelines.pull_request.api import JsonApi, number_of, text_of
from holdfast_pipelines.pull_request.comment import PostedComment

API = "https://gitlab.com/api/v4"


class GitLab:
    """A project on GitLab."""

    def __init__(self, api: str, project: str, token: str, author: str | None = None) -> None:
        self._place = f"/projects/{quote(project, safe='')}"
        self._api = JsonApi(api, {"PRIVATE-TOKEN": token}, "the token needs the scope `api` and the role Reporter")
        self.author = author or text_of(self._api.get("/user"), "username")

    def open_requests(self, sha: str) -> Iterator[int]:
        """The open merge requests with this head."""
        for found in self._api.pages(f"{self._place}/merge_requests?state=opened&order_by=updated_at&sort=desc"):
            if text_of(found, "sha") == sha:
                yield number_of(found, "iid")

    def comments(self, request: int) -> Iterator[PostedComment]:
        """The notes, the oldest first."""
        for found in self._api.pages(f"{self._notes(request)}?order_by=created_at&sort=asc"):
            yield PostedComment(number_of(found, "id"), text_of(found, "author", "username"), text_of(found, "body"))

    def create(self, request: int, text: str) -> None:
        """Writes a new note."""
        self._api.send("POST", self._notes(request), {"body": text})

    def replace(self, request: int, comment: int, text: str) -> None:
        """Writes another text into a note."""
        self._api.send("PUT", f"{self._notes(request)}/{comment}", {"body": text})

    def _notes(self, request: int) -> str:
        return f"{self._place}/merge_requests/{request}/notes"
