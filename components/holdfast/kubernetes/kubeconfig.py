"""Kubeconfigs: an API server, and what lets us in."""

import base64
import re
from pathlib import Path

from holdfast.artifacts.regular import at_home, open_regular
from holdfast.errors import WorkloadError
from holdfast.http_client import Trust
from holdfast.kubernetes.access import Access
from holdfast.kubernetes.exec_plugin import Plugin, command_of
from holdfast.kubernetes.objects import Json
from holdfast.workload.yaml import parse_plain

MAX_CONFIG_BYTES = 2**20
_HOST = re.compile(r"(?=.{1,253}\Z)[\w-]{1,63}(\.[\w-]{1,63})*|[0-9a-fA-F]*:[0-9a-fA-F:.]+", re.ASCII)


def from_kubeconfig(path: Path, context: str | None = None) -> Access:
    """The access that a kubeconfig describes: token, token file, client certificate, or the plug-in that gives one.

    A plug-in (`exec`) is asked once, so that what is wrong with it is known at the start.

    Raises:
        WorkloadError: it cannot be read, names what it does not hold, or asks for what is not done here (an unchecked
            certificate, a proxy, `auth-provider`, which kubectl itself has left for `exec`).
        PluginError: the plug-in gives no credential.
    """
    path = at_home(path, WorkloadError)
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
    certificate, private = (_relative(path, user.get(f"client-{part}")) for part in ("certificate", "key"))
    trust = Trust(
        ca_file=_relative(path, cluster.get("certificate-authority")) if authority is None else None,
        ca_data=_decoded(path, authority).decode() if authority is not None else None,
        certificate=(certificate, private) if certificate and private else None,
        certificate_data=_inline(path, user),
        server_name=_server_name(path, cluster.get("tls-server-name")),
    )
    token_file = _relative(path, user.get("tokenFile"))
    plugin = None if user.get("token") or token_file else _plugin(path, user.get("exec"), cluster)
    namespace = view.get("namespace") or "default"
    return Access(str(cluster.get("server")), trust, user.get("token"), token_file, namespace, plugin)


def _config(path: Path) -> Json:
    try:
        with open_regular(path, "a kubeconfig", links=True, error=WorkloadError) as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
        found = parse_plain(data[:MAX_CONFIG_BYTES].decode(), name=str(path))
    except (OSError, UnicodeDecodeError) as error:
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


def _relative(path: Path, name: str | None) -> Path | None:
    return path.parent / name if name else None


def _decoded(path: Path, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise WorkloadError(f"{path}: expected base64, found {text[:20]!r}") from None


def _inline(path: Path, user: Json) -> tuple[bytes, bytes] | None:
    certificate, key = (user.get(f"client-{part}-data") for part in ("certificate", "key"))
    return (_decoded(path, certificate), _decoded(path, key)) if certificate and key else None


def _server_name(path: Path, name: object) -> str | None:
    """The name that the server's certificate must have, where it is not the host of the address."""
    if not name:
        return None
    if not isinstance(name, str) or not _HOST.fullmatch(name):
        raise WorkloadError(f"{path}: expected a host name in tls-server-name, found {str(name)[:80]!r}")
    return name


def _plugin(path: Path, section: object, cluster: Json) -> Plugin | None:
    """The plug-in of an `exec` section, after it gave a first credential."""
    if not section:
        return None
    plugin = Plugin(command_of(path, section, cluster))
    plugin.credential()
    return plugin
