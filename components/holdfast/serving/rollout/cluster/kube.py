"""A light client of the Kubernetes API: what a rollout needs, on the standard library.

`Kube` makes one call; `edit` is how an object is changed here: read, decide, compare-and-set, and again when somebody
was faster or the answer was lost.
"""

import base64
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from holdfast.errors import RolloutError, WorkloadError
from holdfast.serving.rollout.cluster.exec_plugin import Credential, Plugin, PluginError, command_of
from holdfast.serving.rollout.cluster.wire import Reply, Trust, Wire, WireError

Json = dict[str, Any]
"""One object of the API."""
Operation = Mapping[str, object]
"""One operation of a JSON patch (RFC 6902)."""

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EDIT_SECONDS = 10.0
"""So long an edit is tried again after conflicts and passing errors."""
MAX_CONFIG_BYTES = 2**20
_FIRST_WAIT, _LONGEST_WAIT, _POLL_SECONDS = 0.02, 1.0, 0.05
_PAGE, _MAX_PAGES = 250, 40


class KubeError(RolloutError):
    """The API server refused; the same call will be refused again."""


class MissingError(KubeError):
    """There is no such object (404)."""


class ConflictError(KubeError):
    """The object is not what the call expected any more (409, or a `test` of a patch that failed)."""


class PassingError(KubeError):
    """429, 5xx, or no answer: it may pass. Whether the call had an effect is not known."""

    retry_after: float | None = None


@dataclass(frozen=True)
class Access:
    """How to reach an API server."""

    server: str
    trust: Trust = Trust()
    token: str | None = None
    token_file: Path | None = None
    """Read anew for every call: projected tokens are rotated."""
    namespace: str = "default"
    plugin: Plugin | None = None
    """Gives the token or the client certificate, where there is no other."""

    def headers(self, credential: Credential | None = None) -> dict[str, str]:
        """Who asks; with the plug-in's `credential`."""
        token = self.token if credential is None else credential.token
        if self.token_file is not None:
            try:
                token = self.token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise RolloutError(f"{self.token_file}: expected a token, found none ({error})") from None
        return {"Authorization": f"Bearer {token}"} if token else {}


@dataclass(frozen=True)
class Resource:
    """One kind of object in one namespace."""

    group: str
    version: str
    plural: str
    namespace: str | None

    def path(self, name: str | None = None, subresource: str | None = None) -> str:
        """Of the collection, of one object, or of its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{self.namespace}" if self.namespace else ""
        parts = [root + inside, self.plural, *(part for part in (name, subresource) if part)]
        return "/".join(parts)


class Kube:
    """An API server. Calls take at most the wire's seconds; none is tried again here."""

    def __init__(self, access: Access, wire: Wire | None = None) -> None:
        self.access = access
        self.wire = wire or Wire(access.server, access.trust)

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
        self.wire.close()

    def _call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Json:
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = kind
        try:
            reply = self._exchange(method, path, headers, data)
        except (WireError, PluginError) as error:
            raise PassingError(str(error)) from None
        return _answer(reply, f"{method} {path.partition('?')[0]}")

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], data: bytes | None) -> Reply:
        """One exchange with our credential; a plug-in whose credential is refused (401) is asked once more."""
        plugin = self.access.plugin
        if plugin is None:
            return self.wire.exchange(method, path, {**headers, **self.access.headers()}, data)
        reply = self._exchange_as(plugin.credential(), method, path, headers, data)
        return self._exchange_as(plugin.credential(), method, path, headers, data) if reply.status == 401 else reply

    def _exchange_as(
        self, credential: Credential, method: str, path: str, headers: Mapping[str, str], data: bytes | None
    ) -> Reply:
        assert self.access.plugin is not None
        self.wire.present(credential.certificate)
        reply = self.wire.exchange(method, path, {**headers, **self.access.headers(credential)}, data)
        if reply.status == 401:
            self.access.plugin.forget(credential)
        return reply


Change = Callable[[Json], Sequence[Operation]]
"""What to do to the object that was found: operations, or none when it is as it should be. May raise."""


def edit(kube: Kube, resource: Resource, name: str, change: Change, seconds: float = EDIT_SECONDS) -> Json:
    """Changes one object by compare-and-set; returns it as it is then.

    A conflict, or an answer that was lost, leads to another read: whether the change is there is seen, not guessed.

    Raises:
        MissingError, KubeError: it cannot be done.
        PassingError, ConflictError: it was not done within `seconds`.
    """
    deadline, wait = time.monotonic() + seconds, _FIRST_WAIT
    while True:
        try:
            found = kube.get(resource, name)
            operations = change(found)
            return _swap(kube, resource, name, found, operations) if operations else found
        except (ConflictError, PassingError) as error:
            asked = getattr(error, "retry_after", None) or 0.0
            pause = min(max(wait, asked), _LONGEST_WAIT)
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        wait *= 2


def wait_until(missing: Callable[[], str | None], seconds: float, name: str) -> None:
    """Returns when nothing is missing any more; errors of the API that may pass are waited out.

    Raises:
        RolloutError: something is still missing after `seconds`, and what.
        FencedError: at once.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            reason = missing()
        except (PassingError, MissingError) as error:
            reason = str(error)
        if reason is None:
            return
        if time.monotonic() > deadline:
            raise RolloutError(f"{name}: expected the change in effect within {seconds:g} s, found {reason}")
        time.sleep(_POLL_SECONDS)


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


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def annotations(found: Json) -> dict[str, str]:
    """Those of an object."""
    return dict(found["metadata"].get("annotations") or {})


def annotate(found: Json, values: Mapping[str, str | None]) -> list[Operation]:
    """Operations that give an object these annotations, or take away those that are None; only what differs."""
    here = annotations(found)
    new = {key: value for key, value in values.items() if value is not None and here.get(key) != value}
    gone = [key for key, value in values.items() if value is None and key in here]
    if new and not here:
        return [{"op": "add", "path": "/metadata/annotations", "value": new}]
    add = [{"op": "add", "path": pointer("metadata", "annotations", key), "value": new[key]} for key in new]
    return [*add, *({"op": "remove", "path": pointer("metadata", "annotations", key)} for key in gone)]


def holds(found: object, wanted: object) -> bool:
    """Whether everything of `wanted` stands in `found`; a server adds defaults."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(key in found and holds(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(holds, found, wanted))
    return found == wanted


def in_cluster(folder: Path = IN_CLUSTER) -> Access:
    """The access that a pod has.

    Raises:
        RolloutError: this is not a pod, or its service account's token is not mounted.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (folder / "token").is_file():
        raise RolloutError(f"{folder}: expected a pod's service account, found none; name a kubeconfig")
    space = folder / "namespace"
    namespace = space.read_text().strip() if space.is_file() else "default"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, Trust(ca_file=folder / "ca.crt"), token_file=folder / "token", namespace=namespace)


def from_kubeconfig(path: Path, context: str | None = None) -> Access:
    """The access that a kubeconfig describes: token, token file, client certificate, or the plug-in that gives one.

    A plug-in (`exec`) is asked once, so that what is wrong with it is known at the start.

    Raises:
        WorkloadError: it cannot be read, names what it does not hold, or asks for what is not done here (an unchecked
            certificate, a proxy, `auth-provider`, which kubectl itself has left for `exec`).
        PluginError: the plug-in gives no credential.
    """
    config = _config(path)
    chosen = context or config.get("current-context")
    view = _named(config, "contexts", "context", chosen, path)
    cluster = _named(config, "clusters", "cluster", view.get("cluster"), path)
    user = _named(config, "users", "user", view.get("user"), path)
    for section, refused in ((cluster, ("insecure-skip-tls-verify", "proxy-url")), (user, ("auth-provider",))):
        for key in refused:
            if section.get(key):
                raise WorkloadError(f"{path}: expected a token, a client certificate or exec, found {key}")
    authority = cluster.get("certificate-authority-data")
    certificate, private = (_beside(path, user.get(f"client-{part}")) for part in ("certificate", "key"))
    trust = Trust(
        ca_file=_beside(path, cluster.get("certificate-authority")) if authority is None else None,
        ca_data=_decoded(path, authority).decode() if authority is not None else None,
        certificate=(certificate, private) if certificate and private else None,
        certificate_data=_inline(path, user),
    )
    token_file = _beside(path, user.get("tokenFile"))
    plugin = None if user.get("token") or token_file else _plugin(path, user.get("exec"), cluster)
    namespace = view.get("namespace") or "default"
    return Access(str(cluster.get("server")), trust, user.get("token"), token_file, namespace, plugin)


def _answer(reply: Reply, call: str) -> Json:
    try:
        found = json.loads(reply.data)
    except ValueError:
        found = None
    if reply.status in (200, 201, 202) and isinstance(found, dict):
        return found
    message = str(found.get("message", "")) if isinstance(found, dict) else repr(reply.data[:100])
    text = f"{call}: expected to be done, found {reply.status} {' '.join(message.split())[:240]}".rstrip()
    if reply.status == 404:
        raise MissingError(text)
    if reply.status == 409:
        raise ConflictError(text)
    if reply.status == 429 or reply.status >= 500 or reply.status < 300:
        error = PassingError(text)
        error.retry_after = reply.retry_after
        raise error
    raise KubeError(text)


def _config(path: Path) -> Json:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
        found = yaml.safe_load(data[:MAX_CONFIG_BYTES])
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: expected a kubeconfig, found {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict) or len(data) > MAX_CONFIG_BYTES:
        raise WorkloadError(f"{path}: expected a kubeconfig of at most {MAX_CONFIG_BYTES} bytes, found something else")
    return found


def _named(config: Json, section: str, key: str, name: object, path: Path) -> Json:
    entries = [entry for entry in config.get(section) or [] if isinstance(entry, dict)]
    found = next((entry.get(key) for entry in entries if entry.get("name") == name), None)
    if not isinstance(found, dict):
        raise WorkloadError(f"{path}: expected {name!r} in {section}, found none")
    return found


def _beside(path: Path, name: str | None) -> Path | None:
    return path.parent / name if name else None


def _decoded(path: Path, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise WorkloadError(f"{path}: expected base64, found {text[:20]!r}") from None


def _inline(path: Path, user: Json) -> tuple[bytes, bytes] | None:
    certificate, key = (user.get(f"client-{part}-data") for part in ("certificate", "key"))
    return (_decoded(path, certificate), _decoded(path, key)) if certificate and key else None


def _plugin(path: Path, section: object, cluster: Json) -> Plugin | None:
    """The plug-in of an `exec` section, after it gave a first credential."""
    if not section:
        return None
    plugin = Plugin(command_of(path, section, cluster))
    plugin.credential()
    return plugin
