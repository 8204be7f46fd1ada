"""Who signed, as a bundle has it: a hint at a key, or a certificate with its entry in a transparency log.

Closed and bounded forms of sigstore's `VerificationMaterial`; nothing here is verified.
"""

import base64
import hashlib
import struct
from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from pydantic import BaseModel, ConfigDict, Field

MAX_PROOF = 64
"""Hashes of an inclusion proof: a log of 2^64 entries."""
MAX_TIMESTAMPS = 32
"""What sigstore's own verifiers look at."""
BROKEN = (
    ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError, struct.error, InvalidSignature,
    UnsupportedAlgorithm, x509.DuplicateExtension, x509.ExtensionNotFound, x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What parsers of certificates raise on bytes that are none, or of a kind that they do not know."""
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_Text = Annotated[str, Field(max_length=2**14)]
_Base64 = Annotated[str, Field(max_length=2**16)]
_Number = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]


class Closed(BaseModel):
    """A part of a bundle: no other keys, no other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Hint(Closed):
    hint: str = Field(default="", max_length=128)


class _Certificate(Closed):
    rawBytes: _Base64  # noqa: N815


class _LogId(Closed):
    keyId: _Base64  # noqa: N815


class _KindVersion(Closed):
    kind: Literal["dsse", "hashedrekord"]
    version: Literal["0.0.1", "0.0.2"]


class _Promise(Closed):
    signedEntryTimestamp: _Base64  # noqa: N815


class _Checkpoint(Closed):
    envelope: _Text


class _Proof(Closed):
    logIndex: _Number  # noqa: N815
    rootHash: _Base64  # noqa: N815
    treeSize: _Number  # noqa: N815
    hashes: list[_Base64] = Field(max_length=MAX_PROOF)
    checkpoint: _Checkpoint


class _Entry(Closed):
    logIndex: _Number  # noqa: N815
    logId: _LogId  # noqa: N815
    kindVersion: _KindVersion  # noqa: N815
    integratedTime: _Number | None = None  # noqa: N815
    inclusionPromise: _Promise | None = None  # noqa: N815
    inclusionProof: _Proof  # noqa: N815
    canonicalizedBody: _Base64  # noqa: N815


class _Timestamp(Closed):
    signedTimestamp: _Base64  # noqa: N815


class _Timestamps(Closed):
    rfc3161Timestamps: list[_Timestamp] = Field(default=[], max_length=MAX_TIMESTAMPS)  # noqa: N815


class Material(Closed):
    """Who signed, as the envelope has it: not signed itself, so only a hint where to look."""

    publicKey: _Hint | None = None  # noqa: N815
    certificate: _Certificate | None = None
    tlogEntries: list[_Entry] = Field(default=[], max_length=1)  # noqa: N815
    timestampVerificationData: _Timestamps | None = None  # noqa: N815

    @property
    def hint(self) -> str:
        """Fingerprint of the key that the bundle names, or of the identity in its certificate; empty: neither."""
        if self.certificate is None:
            return self.publicKey.hint if self.publicKey is not None else ""
        try:
            return certified(x509.load_der_x509_certificate(base64.b64decode(self.certificate.rawBytes)))
        except BROKEN:
            return ""


def identity_fingerprint(identity: str, issuer: str) -> str:
    r"""SHA-256 of the issuer, a newline and the identity: `printf '%s\n%s' ISSUER IDENTITY | sha256sum`."""
    return hashlib.sha256(f"{issuer}\n{identity}".encode()).hexdigest()


def certified(certificate: x509.Certificate) -> str:
    """The fingerprint of the one identity that a certificate of a sigstore instance names.

    Raises:
        ValueError, LookupError, ExtensionNotFound, or others of `BROKEN`: it names none, or several.
    """
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    issuer = certificate.extensions.get_extension_for_oid(_ISSUER).value
    (identity,) = (name.value for name in names if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier))
    return identity_fingerprint(identity, issuer.public_bytes().decode())
