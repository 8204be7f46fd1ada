"""Credentials from the plug-in that a kubeconfig names under `exec`: how EKS, GKE and AKS let their users in.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins

A plug-in is a command that prints an ExecCredential: a token or a client certificate, and until when it is good. It
gets no terminal and a limited time; while its last credential is still good, a failure is not an error yet.
"""

import base64
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from holdfast.errors import ClusterError, WorkloadError
from holdfast.processes import dying_with_us, signal_group

AUTHORITY = "certificate-authority-data"
SECONDS = 20.0
"""A plug-in gets no more time; those of the clouds take one to five seconds."""
EARLY_SECONDS = 60.0
"""A credential is asked for again so long before it expires, or after nine tenths of a shorter life."""
RETRY_SECONDS = 10.0
"""Between two questions while the last credential is still good."""

ClientCertificate = tuple[bytes, bytes]
"""A client's certificate and its key, as PEM."""


class PluginError(ClusterError):
    """The plug-in gave no credential; it may another time."""


@dataclass(frozen=True)
class Credential:
    """A token or a client certificate that a plug-in gave, or both."""

    token: str | None = field(default=None, repr=False)
    certificate: ClientCertificate | None = field(default=None, repr=False)
    expires: float | None = None
    """Unix seconds; None: until the server refuses it."""


@dataclass(frozen=True)
class Command:
    """Command line and environment of a plug-in."""

    argv: tuple[str, ...]
    api_version: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to ours."""
    cluster: Mapping[str, Any] | None = field(default=None, repr=False)
    """Facts about the cluster, for a plug-in that wants them."""
    hint: str = ""
    """Its way to be installed, for people."""
    named_in: str = "kubeconfig"
    """The file that names it; errors begin with it."""


@dataclass
class Plugin:
    """A plug-in and its last credential; thread-safe."""

    command: Command
    seconds: float = SECONDS
    clock: Callable[[], float] = time.time
    _last: Credential | None = field(default=None, init=False, repr=False)
    _again: float = field(default=0.0, init=False)
    """Unix seconds: from then on it is asked again."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def credential(self) -> Credential:
        """The last credential while it is good, else a new one.

        Raises:
            PluginError: the plug-in failed, or took too long.
        """
        with self._lock:
            if self._last is None or self.clock() >= self._again:
                self._last = self._ask()
            return self._last

    def forget(self, refused: Credential) -> None:
        """Asks again at the next call: the server refused this credential."""
        with self._lock:
            if self._last is refused:
                self._last = None

    def _ask(self) -> Credential:
        began = self.clock()
        try:
            found = run(self.command, self.seconds)
        except PluginError:
            if self._last is None or self._last.expires is None or self.clock() >= self._last.expires:
                raise
            self._again = self.clock() + RETRY_SECONDS
            return self._last
        self._again = float("inf") if found.expires is None else _renewal(began, found.expires)
        return found


class _Variable(BaseModel):
    name: str
    value: str


class _Section(BaseModel):
    """`exec` of a kubeconfig's user; other keys do not matter here."""

    command: str = Field(min_length=1)
    api_version: Literal["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"] = Field(
        alias="apiVersion"
    )
    args: tuple[str, ...] | None = None
    env: tuple[_Variable, ...] | None = None
    install_hint: str | None = Field(None, alias="installHint")
    provide_cluster_info: bool = Field(False, alias="provideClusterInfo")
    interactive_mode: Literal["Never", "IfAvailable"] | None = Field(None, alias="interactiveMode")
    """Not `Always`: there is no terminal."""


def command_of(kubeconfig: Path, section: object, cluster: Mapping[str, Any]) -> Command:
    """The command of a user's `exec` section; one with a slash lies relative to the kubeconfig, as kubectl has it.

    Raises:
        WorkloadError: the section names no plug-in, or one that needs a terminal.
    """
    try:
        found = _Section.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("exec", *first["loc"]))
        raise WorkloadError(f"{kubeconfig}: expected a plug-in, found {place}: {first['msg']}") from None
    program = str(kubeconfig.absolute().parent / found.command) if "/" in found.command else found.command
    return Command(
        argv=(program, *(found.args or ())),
        api_version=found.api_version,
        environment={variable.name: variable.value for variable in found.env or ()},
        cluster=_cluster_info(kubeconfig, cluster) if found.provide_cluster_info else None,
        hint=found.install_hint or "",
        named_in=str(kubeconfig),
    )


def _cluster_info(kubeconfig: Path, cluster: Mapping[str, Any]) -> dict[str, Any]:
    """The facts about the cluster that its plug-in gets."""
    kept = {key: cluster[key] for key in ("server", "tls-server-name", AUTHORITY) if cluster.get(key)}
    file = cluster.get("certificate-authority")
    if file and AUTHORITY not in kept:
        kept[AUTHORITY] = base64.b64encode(_bytes_of(kubeconfig.parent / file)).decode()
    extensions = [one for one in cluster.get("extensions") or () if isinstance(one, Mapping)]
    settings = [one.get("extension") for one in extensions if one.get("name") == "client.authentication.k8s.io/exec"]
    return kept | ({"config": settings[0]} if settings else {})


def _bytes_of(authority: Path) -> bytes:
    try:
        return authority.read_bytes()
    except OSError as error:
        raise WorkloadError(f"{authority}: expected a certificate authority, found: {error.strerror}") from None


def run(command: Command, seconds: float) -> Credential:
    """Runs a plug-in once, for at most `seconds`.

    Raises:
        PluginError: it is not there, failed, took too long, or printed something else.
    """
    output = _output(command, seconds)
    try:
        return _credential(json.loads(output), command.api_version)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        # Never the output: it may hold a token.
        reason = str(error) if type(error) is _MalformedError else "no ExecCredential"
        raise _failed(command, f"{reason} in its output") from None


class _MalformedError(ValueError):
    """An ExecCredential that gives nothing, and why."""


def _renewal(began: float, expires: float) -> float:
    return expires - min(EARLY_SECONDS, max(expires - began, 0.0) / 10)


def _output(command: Command, seconds: float) -> bytes:
    with _started(command) as process:
        try:
            output, complaint = process.communicate(timeout=seconds)
        except BaseException as error:
            signal_group(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _failed(command, f"no answer within {seconds:g} s") from None
            raise
    if process.returncode != 0:
        last = next((line for line in reversed(complaint.decode(errors="replace").splitlines()) if line.strip()), "")
        raise _failed(command, f"exit code {process.returncode}{': ' if last else ''}{' '.join(last.split())[:200]}")
    return output


def _started(command: Command) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            list(command.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **command.environment, "KUBERNETES_EXEC_INFO": _request(command)},
            start_new_session=True,
            preexec_fn=dying_with_us(signal.SIGKILL),
        )
    except (OSError, ValueError) as error:
        hint = f"; {' '.join(command.hint.split())[:200]}" if command.hint else ""
        raise _failed(command, f"{getattr(error, 'strerror', None) or error}{hint}") from None


def _request(command: Command) -> str:
    spec = {"interactive": False, **({"cluster": command.cluster} if command.cluster is not None else {})}
    return json.dumps({"apiVersion": command.api_version, "kind": "ExecCredential", "spec": spec})


def _credential(found: Any, version: str) -> Credential:
    if (found["kind"], found["apiVersion"]) != ("ExecCredential", version):
        raise _MalformedError(f"{found['kind']} {found['apiVersion']}"[:100])
    status = found["status"]
    token, certificate, key = (_text(status, name) for name in ("token", "clientCertificateData", "clientKeyData"))
    if bool(certificate) != bool(key):
        raise _MalformedError("a client certificate without its key, or a key without its certificate,")
    if not token and not certificate:
        raise _MalformedError("neither a token nor a client certificate")
    until = _text(status, "expirationTimestamp")
    expires = _seconds(until) if until else None
    return Credential(token, (certificate.encode(), key.encode()) if certificate and key else None, expires)


def _text(status: Mapping[str, object], name: str) -> str | None:
    value = status.get(name)
    if value is not None and not isinstance(value, str):
        raise _MalformedError(f"{name} that is no text")
    return value or None


def _seconds(moment: str) -> float:
    """RFC 3339 as Unix seconds."""
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        raise _MalformedError("an expirationTimestamp that is no date") from None
    if found.tzinfo is None:
        raise _MalformedError("an expirationTimestamp without a time zone")
    return found.timestamp()


def _failed(command: Command, reason: str) -> PluginError:
    return PluginError(f"{command.named_in}: the plug-in {command.argv[0]} gave no credential: {reason}")
