"""A key that never leaves a Vault or OpenBao server: the transit engine signs, `ecdsa-p256`.

The address and the token are read from VAULT_ADDR and VAULT_TOKEN, as Vault's own command does.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from holdfast.attestation.keys import VAULT, parse_public
from holdfast.errors import InputError, RegistryError

T = TypeVar("T")
_SECONDS = 10
_PLACE = re.compile(r"([\w.-]+(?:/[\w.-]+)*)/([\w.-]+)")
_SIGNATURE = re.compile(r"vault:v([0-9]+):([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class VaultKey:
    """One version of a key of a server: the latest when it was read."""

    client: Any
    mount: str
    name: str
    version: int
    fingerprint: str

    @classmethod
    def at(cls, named: str) -> "VaultKey":
        """The key `vault://MOUNT/NAME`.

        Raises:
            InputError: the name is none, hvac is not installed, or the key is of another kind.
            RegistryError: the server does not answer, refuses, or has no such key.
        """
        found = _PLACE.fullmatch(named.removeprefix(VAULT))
        if found is None:
            raise InputError(f"{named}: expected vault://MOUNT/NAME, such as vault://transit/gate")
        mount, name = found.groups()
        client = _client(named)
        key = _asked(named, lambda: client.secrets.transit.read_key(name=name, mount_point=mount))["data"]
        if key.get("type") != "ecdsa-p256":
            raise InputError(f"{named}: expected a key of type ecdsa-p256, found {key.get('type')}")
        version = int(key["latest_version"])
        public = parse_public(str(key["keys"][str(version)]["public_key"]).encode(), named)
        return cls(client, mount, name, version, public.fingerprint)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, DER-encoded.

        Raises:
            RegistryError: the server does not answer or refuses.
        """
        named = f"{VAULT}{self.mount}/{self.name}"
        answer = _asked(
            named,
            lambda: self.client.secrets.transit.sign_data(
                name=self.name,
                mount_point=self.mount,
                hash_input=base64.b64encode(message).decode(),
                hash_algorithm="sha2-256",
                marshaling_algorithm="asn1",
                key_version=self.version,
            ),
        )
        found = _SIGNATURE.fullmatch(str(answer["data"]["signature"]))
        if found is None or int(found[1]) != self.version:
            raise RegistryError(f"{named}: expected a signature by version {self.version} of the key, found another")
        try:
            return base64.b64decode(found[2], validate=True)
        except binascii.Error as error:
            raise RegistryError(f"{named}: expected a signature in base64, found {error}") from None


def _client(named: str) -> Any:
    try:
        import hvac
    except ModuleNotFoundError:
        raise InputError(f"{named}: expected the library hvac, found none; install holdfast[vault]") from None
    address = os.environ.get("VAULT_ADDR", "")
    if urlsplit(address).scheme not in ("http", "https"):
        raise InputError(f"{named}: expected the server's address in VAULT_ADDR, found {address or 'none'}")
    return hvac.Client(url=address, token=os.environ.get("VAULT_TOKEN"), timeout=_SECONDS)


def _asked(named: str, call: Callable[[], T]) -> T:
    from hvac.exceptions import VaultError
    from requests import RequestException

    try:
        return call()
    except VaultError as error:
        reason = str(error.args[0] if error.args else "") or type(error).__name__
        raise RegistryError(f"{named}: expected the server to answer, found {reason}") from None
    except RequestException as error:
        raise RegistryError(f"{named}: expected the server to answer, found {type(error).__name__}") from None
