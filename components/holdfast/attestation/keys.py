"""Keys: ECDSA on P-256 with SHA-256, what OpenSSF model-signing, cosign and Vault's transit engine all speak.

A key's *fingerprint* is the SHA-256 of its public PEM file: `sha256sum gate.pub` prints it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from holdfast.artifacts.folder import read_bounded, write_new
from holdfast.errors import InputError

MAX_KEY_BYTES = 2**14
VAULT = "vault://"
"""Prefix of a key that stays in a Vault server: `vault://transit/NAME`."""
KEYLESS = "keyless://"
"""Prefix of an identity of the public sigstore instance, or of the one whose client trust config follows."""
_ALGORITHM = ec.ECDSA(SHA256())


class KeySigner(Protocol):
    """A private key, or a server that holds one."""

    @property
    def fingerprint(self) -> str:
        """Of the public key: 64 hexadecimal digits."""

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, DER-encoded."""


class BundleSigner(ABC):
    """Who signs by an identity: what proves it is different for each statement."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Of the identity: 64 hexadecimal digits."""

    @abstractmethod
    def bundle(self, payload: bytes) -> bytes:
        """The whole bundle of a statement's `payload`, one line of JSON."""


Signer = KeySigner | BundleSigner
"""Who signs statements."""


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies."""

    key: ec.EllipticCurvePublicKey
    fingerprint: str

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the private half made `signature` of exactly `message`."""
        try:
            self.key.verify(signature, message, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A key from a PEM file."""

    key: ec.EllipticCurvePrivateKey

    @property
    def fingerprint(self) -> str:
        """Of the public key."""
        return fingerprint_of(self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, DER-encoded."""
        return self.key.sign(message, _ALGORITHM)


def fingerprint_of(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the key's PEM text: what sigstore bundles of model-signing give as their hint."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """The key as a PEM file has it (SubjectPublicKeyInfo)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def make_key(private: Path) -> PublicKey:
    """Makes a key: `private`, which only its owner reads, and the public half next to it, with the suffix `.pub`.

    Raises:
        InputError: one of them is there already; nothing is overwritten.
    """
    key, public = ec.generate_private_key(ec.SECP256R1()), private.with_suffix(".pub")
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise InputError(f"{path}: expected no file, found one; a key is never overwritten, name another place")
    private.parent.mkdir(parents=True, exist_ok=True)
    write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    write_new(public, public_pem(key.public_key()), 0o644)
    return PublicKey(key.public_key(), fingerprint_of(key.public_key()))


def read_signer(named: str) -> Signer:
    """What `--key` names: a private PEM file, `vault://MOUNT/NAME`, `keyless://`, or `keyless://FILE`.

    Raises:
        InputError: no such key, another kind of key, an encrypted one, or no identity token.
        RegistryError: the server does not answer or refuses.
    """
    if named.startswith(KEYLESS):
        from holdfast.attestation.keyless import keyless

        return keyless(named)
    if named.startswith(VAULT):
        from holdfast.attestation.vault import VaultKey

        return VaultKey.at(named)
    path = Path(named)
    with _as_key(str(path), "a private key"):
        key = load_pem_private_key(_bytes(path), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != ec.SECP256R1.name:
        raise InputError(f"{path}: expected a private key on P-256, found another kind; `holdfast keys new` makes one")
    return PrivateKey(key)


def parse_public(pem: bytes, name: str) -> PublicKey:
    """A public key from the text of its PEM file; `name` is what messages call it.

    Raises:
        InputError: no public key, or one of another kind.
    """
    with _as_key(name, "a public key"):
        key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != ec.SECP256R1.name:
        raise InputError(f"{name}: expected a public key on P-256, found another kind")
    return PublicKey(key, fingerprint_of(key))


def read_public(path: Path) -> PublicKey:
    """A public key from its PEM file."""
    return parse_public(_bytes(path), str(path))


def _bytes(path: Path) -> bytes:
    return read_bounded(path, MAX_KEY_BYTES, "a key")


@contextmanager
def _as_key(name: str, wanted: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        first = str(error).partition("\n")[0][:80]
        raise InputError(f"{name}: expected {wanted} in PEM form without a passphrase, found none ({first})") from None
