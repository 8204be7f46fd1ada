"""A kubeconfig with a plug-in, as EKS, GKE and AKS write them, before a real API server."""

import json

import pytest

from holdfast.kubernetes.api import Kube, KubeError, Resource
from holdfast.kubernetes.kubeconfig import from_kubeconfig

NAMESPACES = Resource("", "v1", "namespaces", None)
VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture
def kubeconfig(api, tmp_path):
    """A kubeconfig whose plug-in prints the token in the file `token`."""
    plugin = tmp_path / "plug-in"
    plugin.write_text(
        f"""#!/bin/sh
printf '{{"apiVersion": "{VERSION}", "kind": "ExecCredential", "status": {{"token": "%s"}}}}' "$(cat {tmp_path}/token)"
"""
    )
    plugin.chmod(0o755)
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": api.url, "certificate-authority": str(api.ca_file)}}],
        "users": [{"name": "u", "user": {"exec": {"apiVersion": VERSION, "command": "./plug-in"}}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    return tmp_path / "config"


def test_a_plug_in_lets_us_in_and_is_asked_again_when_the_server_refuses_its_token(kubeconfig, api, tmp_path):
    (tmp_path / "token").write_text("revoked")
    kube = Kube(from_kubeconfig(kubeconfig))
    with pytest.raises(KubeError, match="the API answered 401 Unauthorized"):
        kube.get(NAMESPACES, "default")
    (tmp_path / "token").write_text(api.kube().access.token)
    assert kube.get(NAMESPACES, "default")["metadata"]["name"] == "default"
