"""JSON over the bounded HTTP client, for the REST interfaces of code hosts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import InputError
from holdfast.http_client import HttpClient, HttpError
from holdfast.wording import printable

PAGE = 100
"""Entries of a page."""
MOST_PAGES = 50
SECONDS = 30.0
MAX_BYTES = 64 * 2**20
"""A page of 100 comments, each as long as it may be."""


@dataclass(frozen=True)
class JsonApi:
    """An API that speaks JSON and gives lists in pages; redirects are not followed."""

    url: str
    headers: dict[str, str] = field(repr=False)
    hint: str
    """What to look at when it refuses."""

    def get(self, path: str) -> Any:
        """What is at `path`."""
        return self._exchange("GET", path, None)

    def send(self, method: str, path: str, value: object) -> Any:
        """Sends `value` and gives the answer."""
        return self._exchange(method, path, json.dumps(value).encode())

    def pages(self, path: str) -> Iterator[Any]:
        """The entries of a list, page by page.

        Raises:
            InputError: no list, or one without end.
        """
        joint = "&" if "?" in path else "?"
        for page in range(1, MOST_PAGES + 1):
            found = self.get(f"{path}{joint}per_page={PAGE}&page={page}")
            if not isinstance(found, list):
                raise InputError(f"{self.url}{path}: expected a list, found {type(found).__name__}")
            yield from found
            if len(found) < PAGE:
                return
        raise InputError(f"{self.url}{path}: expected at most {MOST_PAGES * PAGE} entries, found more")

    def _exchange(self, method: str, path: str, body: bytes | None) -> Any:
        client = HttpClient(self.url, seconds=SECONDS, max_bytes=MAX_BYTES)
        headers = {"Accept": "application/json", "User-Agent": "holdfast", **self.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = client.exchange(method, path, headers, body)
        except HttpError as error:
            raise InputError(str(error)) from None
        finally:
            client.close()
        if not 200 <= answer.status < 300:
            raise InputError(f"{self.url}: {method} {path}: {answer.status} {_reason(answer.data)}; {self.hint}")
        return _decoded(answer.data, f"{self.url}: {method} {path}")


def text_of(entry: Any, *keys: str) -> str:
    """A text inside nested objects; empty where there is none."""
    for key in keys:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry if isinstance(entry, str) else ""


def number_of(entry: Any, key: str) -> int:
    """A positive whole number of an object.

    Raises:
        InputError: there is none.
    """
    found = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found <= 0:
        raise InputError(f"expected a number under {key!r} in an answer of the API, found {str(found)[:40]!r}")
    return found


def _decoded(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{what}: expected JSON, found {printable(repr(data[:40]))}") from None


def _reason(data: bytes) -> str:
    try:
        found = json.loads(data[:10_000])
    except (ValueError, RecursionError):
        return ""
    words = found.get("message") or found.get("error") if isinstance(found, dict) else ""
    return printable(str(words))[:200]
