"""Access to an API server: its address, whom to trust, and what lets us in."""

import os
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import ClusterError
from holdfast.http_client import Trust, bearer
from holdfast.kubernetes.exec_plugin import Credential, Plugin

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Access:
    """Address of an API server, and what lets us in."""

    server: str
    trust: Trust = Trust()
    token: str | None = None
    token_file: Path | None = None
    """Read again for every call: projected tokens are rotated."""
    namespace: str = "default"
    plugin: Plugin | None = None
    """Gives the token or the client certificate, where there is no other."""

    def headers(self, credential: Credential | None = None) -> dict[str, str]:
        """The headers that let a call in; with the plug-in's `credential`."""
        if self.token_file is not None:
            return bearer(self.token_file)
        token = self.token if credential is None else credential.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def in_cluster(folder: Path = IN_CLUSTER) -> Access:
    """The access of a pod.

    Raises:
        ClusterError: this is not a pod, or its service account's token is not mounted.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (folder / "token").is_file():
        raise ClusterError(f"{folder}: no service account of a pod is there; name a kubeconfig")
    space = folder / "namespace"
    namespace = space.read_text().strip() if space.is_file() else "default"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, Trust(ca_file=folder / "ca.crt"), token_file=folder / "token", namespace=namespace)
