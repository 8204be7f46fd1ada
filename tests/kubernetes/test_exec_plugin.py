"""Plug-ins of kubeconfigs: small shell scripts that print an ExecCredential, fail, hang, or give a short life."""

import base64
import datetime
import json
import time

import pytest
from cryptography import x509

from holdfast.errors import WorkloadError
from holdfast.kubernetes import exec_plugin
from holdfast.kubernetes.api import Kube, PassingError, Resource
from holdfast.kubernetes.exec_plugin import Command, Plugin, PluginError, command_of
from holdfast.kubernetes.kubeconfig import from_kubeconfig
from holdfast.processes import runs

VERSION = "client.authentication.k8s.io/v1"
THINGS = Resource("example.org", "v1", "things", "here")


@pytest.fixture
def plugin(tmp_path):
    """Makes an executable shell script of these lines, in the kubeconfig's folder; returns its name."""

    def make(*lines, name="plug-in"):
        script = tmp_path / name
        script.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
        script.chmod(0o755)
        return f"./{name}"

    return make


@pytest.fixture
def command(tmp_path, plugin):
    """The command that runs a script of these lines."""

    def make(*lines, **section):
        section = {"apiVersion": VERSION, "command": plugin(*lines), **section}
        return command_of(tmp_path / "config", section, {"server": "https://api:6443"})

    return make


@pytest.fixture
def kubeconfig(write_kubeconfig):
    """Writes a kubeconfig whose user has this `exec` section; returns its path."""

    def write(section, cluster=None, **user):
        return write_kubeconfig({"exec": {"apiVersion": VERSION, **section}, **user}, cluster)

    return write


def credential(version=VERSION, kind="ExecCredential", **status):
    return json.dumps({"apiVersion": version, "kind": kind, "status": status})


def printing(**status):
    return f"echo '{credential(**status)}'"


def moment(seconds):
    found = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


def reach(path, server, scheme="http", **cluster):
    """The API client of the kubeconfig at `path`, its server replaced."""
    config = json.loads(path.read_text())
    config["clusters"][0]["cluster"].update(server=f"{scheme}://127.0.0.1:{server.server_address[1]}", **cluster)
    path.write_text(json.dumps(config))
    return Kube(from_kubeconfig(path))


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_the_token_of_a_plug_in_goes_with_every_call_and_the_plug_in_is_asked_once(plugin, kubeconfig, serve, tmp_path):
    path = kubeconfig({"command": plugin(f"echo asked >> {tmp_path}/asked", printing(token="t1"))})
    server = serve()
    kube = reach(path, server)
    kube.get(THINGS, "a")
    kube.get(THINGS, "a")
    assert server.tokens == ["t1", "t1"]
    assert (tmp_path / "asked").read_text().splitlines() == ["asked"]


def test_an_expired_token_is_asked_for_again(command, tmp_path):
    now = 1_800_000_000.0
    count = f"echo >> {tmp_path}/asked; count=$(wc -l < {tmp_path}/asked)"
    answer = printing(token="t'$count'", expirationTimestamp=moment(now + 900))
    clock = [now]
    found = Plugin(command(count, answer), clock=lambda: clock[0])
    assert found.credential().token == "t1"
    clock[0] = now + 839
    assert found.credential().token == "t1"
    clock[0] = now + 841  # 60 s before its end
    assert found.credential().token == "t2"


def test_a_token_that_the_server_refuses_is_asked_for_again_and_the_call_made_once_more(
    plugin, kubeconfig, serve, tmp_path
):
    script = (f"token=$(cat {tmp_path}/token)", printing(token="'$token'"))  # the quotes let the shell put it in
    path = kubeconfig({"command": plugin(*script)})
    (tmp_path / "token").write_text("old")
    server = serve(known={"old"})
    kube = reach(path, server)
    kube.get(THINGS, "a")
    server.known = {"new"}
    (tmp_path / "token").write_text("new")
    kube.patch(THINGS, "a", [])
    assert server.tokens == ["old", "old", "new"]


def test_a_plug_in_that_gives_the_refused_token_again_is_an_error_and_no_loop(plugin, kubeconfig, serve):
    server = serve(known={"other"})
    kube = reach(kubeconfig({"command": plugin(printing(token="wrong"))}), server)
    with pytest.raises(Exception, match="the API answered 401 Unauthorized"):
        kube.get(THINGS, "a")
    assert server.tokens == ["wrong", "wrong"]


def test_a_plug_in_that_fails_while_its_token_is_good_is_no_error_yet(command, tmp_path):
    now = 1_800_000_000.0
    clock, status = [now], {"token": "t", "expirationTimestamp": moment(now + 900)}
    found = Plugin(command(f"[ -e {tmp_path}/broken ] && exit 1", printing(**status)), clock=lambda: clock[0])
    found.credential()
    (tmp_path / "broken").touch()
    clock[0] = now + 899
    assert found.credential().token == "t"
    clock[0] = now + 910
    with pytest.raises(PluginError, match="no credential: exit code 1"):
        found.credential()


def test_during_a_rollout_a_plug_in_that_fails_is_an_error_that_may_pass(plugin, kubeconfig, serve, tmp_path):
    path = kubeconfig({"command": plugin(f"[ -e {tmp_path}/broken ] && exit 7", printing(token="t"))})
    server = serve(known=())
    kube = reach(path, server)
    (tmp_path / "broken").touch()
    with pytest.raises(PassingError, match="config: the plug-in .* gave no credential: exit code 7"):
        kube.get(THINGS, "a")


def test_a_token_in_the_kubeconfig_is_used_and_the_plug_in_left_alone(kubeconfig):
    found = from_kubeconfig(kubeconfig({"command": "no-such-command"}, token="t"))
    assert (found.token, found.plugin) == ("t", None)


# --- what a plug-in is told -------------------------------------------------------------------------------------------


def test_a_plug_in_gets_arguments_variables_and_the_protocols_request(command, tmp_path):
    script = f'printf "%s|%s|%s" "$1" "$REGION" "$KUBERNETES_EXEC_INFO" > {tmp_path}/seen'
    exec_plugin.run(
        command(script, printing(token="t"), args=["get-token"], env=[{"name": "REGION", "value": "eu"}]), 5
    )
    argument, region, request = (tmp_path / "seen").read_text().split("|")
    assert (argument, region) == ("get-token", "eu")
    assert json.loads(request) == {"apiVersion": VERSION, "kind": "ExecCredential", "spec": {"interactive": False}}


def test_a_plug_in_that_wants_it_is_told_about_the_cluster(tmp_path):
    (tmp_path / "ca.crt").write_text("PEM")
    cluster = {
        "server": "https://api:6443",
        "certificate-authority": "ca.crt",
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}],
    }
    section = {"apiVersion": VERSION, "command": "gke", "provideClusterInfo": True}
    assert command_of(tmp_path / "config", section, cluster).cluster == {
        "server": "https://api:6443",
        "certificate-authority-data": base64.b64encode(b"PEM").decode(),
        "config": {"audience": "a"},
    }


def test_a_command_with_a_slash_lies_in_the_folder_of_the_kubeconfig_and_one_without_on_the_path(tmp_path):
    config = tmp_path / "config"
    for given, expected in (("bin/plug", str(tmp_path / "bin/plug")), ("/opt/plug", "/opt/plug"), ("aws", "aws")):
        assert command_of(config, {"apiVersion": VERSION, "command": given}, {}).argv == (expected,)


def test_a_plug_in_reads_nothing_from_our_terminal(command):
    found = exec_plugin.run(command("read answer && exit 9", printing(token="t")), 5)
    assert found.token == "t"


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_plug_in_that_fails_is_one_line_with_its_name_and_last_words(plugin, kubeconfig):
    path = kubeconfig({"command": plugin("echo first >&2; echo 'Unable to locate credentials.' >&2; echo; exit 255")})
    with pytest.raises(PluginError) as caught:
        from_kubeconfig(path)
    name = path.parent / "plug-in"
    reason = "exit code 255: Unable to locate credentials."
    assert str(caught.value) == f"{path}: the plug-in {name} gave no credential: {reason}"


def test_a_plug_in_that_hangs_is_ended_with_its_children_in_time(command, tmp_path):
    asked = command(f"sleep 60 & echo $! > {tmp_path}/child; wait")
    began = time.monotonic()
    with pytest.raises(PluginError, match=r"the plug-in .*/plug-in gave no credential: no answer within 0\.5 s"):
        exec_plugin.run(asked, 0.5)
    assert time.monotonic() - began < 3
    child = int((tmp_path / "child").read_text())
    while runs(child):  # it was killed, and the kernel may still be ending it
        assert time.monotonic() - began < 5
        time.sleep(0.01)


def test_a_plug_in_that_is_not_there_is_an_error_with_the_way_to_install_it(kubeconfig):
    path = kubeconfig({"command": "no-such-plug-in", "installHint": "Install it\nfrom https://example.org"})
    expected = (
        "the plug-in no-such-plug-in gave no credential: No such file or directory; Install it from https://example.org"
    )
    with pytest.raises(PluginError, match=expected):
        from_kubeconfig(path)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("no JSON", "no ExecCredential"),
        ("[]", "no ExecCredential"),
        ("{}", "no ExecCredential"),
        (credential(kind="Secret", token="secret"), f"Secret {VERSION}"),
        (credential(version="client.authentication.k8s.io/v2", token="secret"), "ExecCredential .*/v2"),
        (credential(), "neither a token nor a client certificate"),
        (credential(token=""), "neither a token nor a client certificate"),
        (credential(token=7), "token that is no text"),
        (credential(clientCertificateData="secret"), "a client certificate without its key"),
        (credential(token="secret", expirationTimestamp="tomorrow"), "an expirationTimestamp that is no date"),
        (
            credential(token="secret", expirationTimestamp="2026-01-01T00:00:00"),
            "an expirationTimestamp without a time zone",
        ),
    ],
)
def test_output_that_is_no_credential_is_refused_without_being_shown(command, output, found):
    with pytest.raises(PluginError, match=f"plug-in gave no credential: {found}.* in its output$") as caught:
        exec_plugin.run(command(f"echo '{output}'"), 5)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ({"command": ""}, "exec.command"),
        ({"command": "aws", "apiVersion": "client.authentication.k8s.io/v1alpha1"}, "exec.apiVersion"),
        ({"command": "aws", "args": "get-token"}, "exec.args"),
        ({"command": "aws", "interactiveMode": "Always"}, "exec.interactiveMode"),
        ({"command": "aws", "env": [{"name": "A"}]}, "exec.env.0.value"),
    ],
)
def test_an_exec_section_that_cannot_be_run_is_an_error_in_one_line(kubeconfig, section, found):
    with pytest.raises(WorkloadError, match=f"config: expected a plug-in, found {found}") as caught:
        from_kubeconfig(kubeconfig(section))
    assert "\n" not in str(caught.value)


def test_a_credential_is_not_shown_where_an_access_is_printed(plugin, kubeconfig):
    found = from_kubeconfig(kubeconfig({"command": plugin(printing(token="secret"))}))
    assert "secret" not in repr(found)
    assert isinstance(found.plugin.command, Command)


# --- client certificates ----------------------------------------------------------------------------------------------


def test_the_client_certificate_of_a_plug_in_is_shown_and_a_new_one_after_it_expired(
    plugin, kubeconfig, serve, authority, tmp_path
):
    def give(name, expires):
        certificate, key = authority.issue(name)
        (tmp_path / "answer").write_text(
            credential(clientCertificateData=certificate, clientKeyData=key, expirationTimestamp=moment(expires))
        )
        return f"{x509.load_pem_x509_certificate(certificate.encode()).serial_number:X}"

    server = serve(context=authority.context())
    first = give("first", time.time() + 3600)
    path = kubeconfig({"command": plugin(f"cat {tmp_path}/answer")}, {"certificate-authority": "ca.crt"})
    kube = reach(path, server, "https")
    kube.get(THINGS, "a")
    second = give("second", time.time() + 7200)
    kube.get(THINGS, "a")
    kube.access.plugin.clock = lambda: time.time() + 3590  # 10 s before the first one ends
    kube.get(THINGS, "a")
    kube.close()
    assert [int(serial, 16) for serial in server.certificates] == [int(first, 16)] * 2 + [int(second, 16)]
    assert server.tokens == ["", "", ""]


def test_without_the_plug_ins_certificate_that_server_lets_no_call_in(plugin, kubeconfig, serve, authority):
    server = serve(context=authority.context())
    path = kubeconfig({"command": plugin(printing(token="t"))}, {"certificate-authority": "ca.crt"})
    with pytest.raises(PassingError):
        reach(path, server, "https").get(THINGS, "a")
    assert server.tokens == []
