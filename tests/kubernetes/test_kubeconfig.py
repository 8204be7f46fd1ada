"""Where a client gets its access: a kubeconfig, or a pod's service account."""

import base64
from itertools import pairwise

import pytest

from holdfast.errors import ClusterError, WorkloadError
from holdfast.kubernetes.access import in_cluster
from holdfast.kubernetes.api import Kube, PassingError, Resource
from holdfast.kubernetes.kubeconfig import MAX_CONFIG_BYTES, from_kubeconfig

THINGS = Resource("example.org", "v1", "things", "here")


def test_in_a_pod_the_service_account_is_used(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("models\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    found = in_cluster(tmp_path)
    assert (found.server, found.namespace, found.token_file) == ("https://[fd00::1]:6443", "models", tmp_path / "token")


def test_elsewhere_there_is_no_service_account(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="no service account of a pod is there; name a kubeconfig"):
        in_cluster(tmp_path)


def test_a_kubeconfig_that_becomes_large_is_refused(tmp_path):
    path = tmp_path / "config"
    many = "".join(f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in pairwise("abcdefghi"))
    path.write_text("a: &a [x, x, x, x, x, x, x, x, x]\n" + many)
    with pytest.raises(WorkloadError, match="config:1: expected at most 100000 values, found more"):
        from_kubeconfig(path)


def test_a_kubeconfig_names_server_authority_and_token(write_kubeconfig, tmp_path):
    authority = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()
    path = write_kubeconfig({"tokenFile": "token"}, {"certificate-authority-data": authority})
    found = from_kubeconfig(path)
    assert (found.server, found.namespace) == ("https://api:6443", "models")
    assert (found.token_file, found.trust.ca_data) == (tmp_path / "token", "-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    ("user", "cluster", "found"),
    [
        ({"auth-provider": {"name": "gcp"}}, {}, "expected a token, a client certificate or exec, found auth-provider"),
        ({"token": "t"}, {"insecure-skip-tls-verify": True}, "found insecure-skip-tls-verify"),
        ({"token": "t"}, {"certificate-authority-data": "???"}, "expected base64"),
        ({"token": "t"}, {"tls-server-name": "a..b"}, "expected a host name in tls-server-name, found 'a..b'"),
        ({"token": "t"}, {"tls-server-name": ["api"]}, "expected a host name in tls-server-name"),
    ],
)
def test_what_a_kubeconfig_may_not_ask_for_is_refused(write_kubeconfig, user, cluster, found):
    with pytest.raises(WorkloadError, match=found):
        from_kubeconfig(write_kubeconfig(user, cluster))


@pytest.mark.parametrize("text", ["", "- a", "a: [", "current-context: x", "x" * (MAX_CONFIG_BYTES + 1)])
def test_a_file_that_is_no_kubeconfig_is_an_error_in_one_line(tmp_path, text):
    (tmp_path / "config").write_text(text)
    with pytest.raises(WorkloadError, match=r"config(:1)?: expected") as caught:
        from_kubeconfig(tmp_path / "config")
    assert "\n" not in str(caught.value)


@pytest.fixture
def tunnelled(write_kubeconfig, serve, authority):
    """A client whose server is reached at 127.0.0.1 and has a certificate for `api.internal` only; and that server."""

    def make(name):
        server = serve(context=authority.context("api.internal", ask=False))
        cluster = {
            "server": f"https://127.0.0.1:{server.server_address[1]}",
            "certificate-authority": "ca.crt",
            **({"tls-server-name": name} if name else {}),
        }
        return Kube(from_kubeconfig(write_kubeconfig({"token": "t"}, cluster))), server

    return make


def test_behind_a_tunnel_the_certificate_must_be_for_the_name_in_the_kubeconfig(tunnelled):
    kube, server = tunnelled("api.internal")
    kube.get(THINGS, "a")
    kube.close()
    assert server.tokens == ["t"]


@pytest.mark.parametrize("name", [None, "other.internal"])
def test_a_certificate_for_another_name_is_refused_before_the_token_is_sent(tunnelled, name):
    kube, server = tunnelled(name)
    with pytest.raises(PassingError, match="certificate verify failed"):
        kube.get(THINGS, "a")
    assert server.tokens == []
