"""Calls of the Kubernetes API, on the standard library.

`Kube` makes one call; `edit` is how an object is changed here: read, decide, compare-and-set, and again when another
writer was faster or the answer was lost.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from holdfast.errors import ClusterError, HoldfastError
from holdfast.http_client import HttpClient, HttpError, HttpResponse
from holdfast.kubernetes.access import Access
from holdfast.kubernetes.exec_plugin import Credential, PluginError
from holdfast.kubernetes.objects import Json, Operation
from holdfast.waiting import poll, retry

EDIT_SECONDS = 10.0
"""So long an edit is tried again after conflicts and passing errors."""
_FIRST_WAIT, _LONGEST_WAIT, _POLL_SECONDS = 0.02, 1.0, 0.05
_PAGE, _MAX_PAGES = 250, 40


class KubeError(ClusterError):
    """The API server refused; the same call will be refused again."""


class MissingError(KubeError):
    """There is no such object (404)."""


class ForbiddenError(KubeError):
    """We have no right to make the call (401, 403)."""


class ConflictError(KubeError):
    """The object is not what the call expected any more (409, or a `test` of a patch that failed)."""


class PassingError(KubeError):
    """429, 5xx, or no answer: it may pass. Whether the call had an effect is not known."""

    retry_after: float | None = None


@dataclass(frozen=True)
class Resource:
    """One kind of object in one namespace."""

    group: str
    version: str
    plural: str
    namespace: str | None

    def path(self, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection, of one object, or of its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{self.namespace}" if self.namespace else ""
        parts = [root + inside, self.plural, *(part for part in (name, subresource) if part)]
        return "/".join(parts)


class Kube:
    """An API server. Calls take at most the client's seconds; none is tried again here."""

    def __init__(self, access: Access, http: HttpClient | None = None) -> None:
        self.access = access
        self.http = http or HttpClient(access.server, access.trust)

    def get(self, resource: Resource, name: str) -> Json:
        """One object.

        Raises:
            MissingError: there is none.
            KubeError: as every call.
        """
        return self._call("GET", resource.path(name))

    def list(self, resource: Resource, selector: str = "") -> list[Json]:
        """All objects of the kind with the labels of `selector`."""
        found: list[Json] = []
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        for _ in range(_MAX_PAGES):
            page = self._call("GET", f"{resource.path()}?{urlencode(query)}")
            found += page.get("items") or []
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return found
        raise KubeError(f"{resource.path()}: expected at most {_PAGE * _MAX_PAGES} objects, found more")

    def served(self, group: str, version: str) -> frozenset[str]:
        """The plural names of the kinds that the server has in a version of a group; none without that version."""
        try:
            found = self._call("GET", f"/apis/{group}/{version}" if group else f"/api/{version}")
        except MissingError:
            return frozenset()
        return frozenset(str(one["name"]) for one in found.get("resources") or [])

    def create(self, resource: Resource, body: Json) -> Json:
        """A new object; a ConflictError when there is one of that name."""
        return self._call("POST", resource.path(), body)

    def patch(
        self, resource: Resource, name: str, operations: Sequence[Operation], subresource: str | None = None
    ) -> Json:
        """Applies a JSON patch, all of it or nothing. A `test` that fails is a KubeError: the server answers 422."""
        return self._call("PATCH", resource.path(name, subresource), list(operations), "application/json-patch+json")

    def merge(self, resource: Resource, name: str, body: Json, subresource: str | None = None) -> Json:
        """Applies a merge patch (RFC 7386)."""
        return self._call("PATCH", resource.path(name, subresource), body, "application/merge-patch+json")

    def delete(self, resource: Resource, name: str, *, only: Json | None = None) -> None:
        """Asks for the deletion of one object; of exactly `only` (its uid and resourceVersion) when that is given."""
        meta = (only or {}).get("metadata", {})
        conditions = {key: meta[key] for key in ("uid", "resourceVersion") if key in meta}
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": conditions}
        self._call("DELETE", resource.path(name), options)

    def close(self) -> None:
        """Ends the connection."""
        self.http.close()

    def _call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Json:
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = kind
        try:
            reply = self._exchange(method, path, headers, data)
        except (HttpError, PluginError) as error:
            raise PassingError(str(error)) from None
        return _answer(reply, f"{method} {path.partition('?')[0]}")

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], data: bytes | None) -> HttpResponse:
        """One exchange with our credential; a plug-in whose credential is refused (401) is asked once more."""
        plugin = self.access.plugin
        if plugin is None:
            return self.http.exchange(method, path, {**headers, **self.access.headers()}, data)
        reply = self._exchange_as(plugin.credential(), method, path, headers, data)
        return self._exchange_as(plugin.credential(), method, path, headers, data) if reply.status == 401 else reply

    def _exchange_as(
        self, credential: Credential, method: str, path: str, headers: Mapping[str, str], data: bytes | None
    ) -> HttpResponse:
        assert self.access.plugin is not None
        self.http.present(credential.certificate)
        reply = self.http.exchange(method, path, {**headers, **self.access.headers(credential)}, data)
        if reply.status == 401:
            self.access.plugin.forget(credential)
        return reply


Change = Callable[[Json], Sequence[Operation]]
"""Operations that an object needs, as it was found; none when it is as it should be. May raise."""


def edit(kube: Kube, resource: Resource, name: str, change: Change, seconds: float = EDIT_SECONDS) -> Json:
    """Changes one object by compare-and-set; returns it as it is then.

    A conflict, or an answer that was lost, leads to another read: whether the change is there is seen, not guessed.

    Raises:
        MissingError, KubeError: it cannot be done.
        PassingError, ConflictError: it was not done within `seconds`.
    """

    def once() -> Json:
        found = kube.get(resource, name)
        operations = change(found)
        return _swap(kube, resource, name, found, operations) if operations else found

    return retry(once, _Backoff(), seconds)


class _Backoff:
    """Pauses that double, between conflicts and passing errors; longer where the server asks for it."""

    def __init__(self) -> None:
        self.wait = _FIRST_WAIT

    def __call__(self, error: HoldfastError) -> float | None:
        if not isinstance(error, (ConflictError, PassingError)):
            return None
        asked = error.retry_after if isinstance(error, PassingError) else None
        pause = min(max(self.wait, asked or 0.0), _LONGEST_WAIT)
        self.wait *= 2
        return pause


def wait_until(missing: Callable[[], str | None], seconds: float, name: str) -> None:
    """Returns when nothing is missing any more; errors of the API that may pass are waited out.

    Raises:
        ClusterError: something is still missing after `seconds`, and what; or, at once, what `missing` raises.
    """

    def look() -> str | None:
        try:
            return missing()
        except (PassingError, MissingError) as error:
            return str(error)

    reason = poll(look, lambda reason: reason is None, seconds, _POLL_SECONDS)
    if reason is not None:
        raise ClusterError(f"{name}: the change is not in effect after {seconds:g} s: {reason}")


def _swap(kube: Kube, resource: Resource, name: str, found: Json, operations: Sequence[Operation]) -> Json:
    """Applies `operations` to exactly what was found."""
    version = found["metadata"]["resourceVersion"]
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    try:
        return kube.patch(resource, name, [test, *operations])
    except (MissingError, ConflictError, PassingError):
        raise
    except KubeError as error:
        # A failed test and an invalid object both answer 422: look which it was.
        if kube.get(resource, name)["metadata"]["resourceVersion"] != version:
            raise ConflictError(str(error)) from None
        raise


def _answer(reply: HttpResponse, call: str) -> Json:
    try:
        found = json.loads(reply.data)
    except ValueError:
        found = None
    if reply.status in (200, 201, 202) and isinstance(found, dict):
        return found
    message = str(found.get("message", "")) if isinstance(found, dict) else repr(reply.data[:100])
    text = f"{call}: the API answered {reply.status} {' '.join(message.split())[:240]}".rstrip()
    if reply.status == 404:
        raise MissingError(text)
    if reply.status == 409:
        raise ConflictError(text)
    if reply.status in (401, 403):
        raise ForbiddenError(text)
    if reply.status == 429 or reply.status >= 500 or reply.status < 300:
        error = PassingError(text)
        error.retry_after = reply.retry_after
        raise error
    raise KubeError(text)
