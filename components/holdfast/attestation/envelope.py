"""The signed envelope: DSSE around a statement, in a sigstore bundle v0.3.

DSSE: https://github.com/secure-systems-lab/dsse (protocol 1.0). The bytes of an envelope can be changed without
changing what was signed (base64 has spare bits, `keyid` is not signed), so a statement is known by the digest of its
payload.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from holdfast.artifacts.folder import strict_json
from holdfast.attestation.keys import BundleSigner, Signer
from holdfast.attestation.material import Closed, Material
from holdfast.errors import IntegrityError

MAX_BUNDLE_BYTES = 2**20
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class _Signature(Closed):
    sig: str
    keyid: str = ""


class _Dsse(Closed):
    payload: str
    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815
    signatures: list[_Signature] = Field(min_length=1, max_length=1)


class _Bundle(Closed):
    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]  # noqa: N815
    verificationMaterial: Material  # noqa: N815
    dsseEnvelope: _Dsse  # noqa: N815


@dataclass(frozen=True)
class SignedBytes:
    """A bundle that was read, not yet verified."""

    payload: bytes
    signature: bytes
    hint: str
    """The fingerprint that the bundle gives, of a key or an identity; anyone can write it."""
    keyless: bool
    text: bytes
    """The bundle as it was read."""

    @property
    def message(self) -> bytes:
        """What the signature is about (pre-authentication encoding)."""
        return _message(self.payload)


def sign_payload(payload: bytes, signer: Signer) -> bytes:
    """The bundle of `payload`, one line of JSON."""
    if isinstance(signer, BundleSigner):
        return signer.bundle(payload)
    signature = signer.sign(_message(payload))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": signer.fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, separators=(",", ":"), sort_keys=True).encode()


def read_bundle(text: bytes, name: str) -> SignedBytes:
    """A bundle's payload and signature; `name` is what messages call it.

    Raises:
        IntegrityError: not a bundle with exactly one signature, in strict JSON and base64, of at most a mebibyte.
    """
    if len(text) > MAX_BUNDLE_BYTES:
        raise IntegrityError(f"{name}: expected a bundle of at most {MAX_BUNDLE_BYTES} bytes, found {len(text)}")
    try:
        bundle = _Bundle.model_validate(strict_json(text, name))
        envelope, material = bundle.dsseEnvelope, bundle.verificationMaterial
        payload, signature = _decoded(envelope.payload), _decoded(envelope.signatures[0].sig)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        raise IntegrityError(f"{name}: expected a sigstore bundle, found {first['msg']} at {where}") from None
    except (ValueError, binascii.Error) as error:
        raise IntegrityError(f"{name}: expected base64, found {error}") from None
    return SignedBytes(payload, signature, material.hint, material.certificate is not None, text)


def _message(payload: bytes) -> bytes:
    # Ten megabytes that a rollout's controller does not need.
    from securesystemslib.dsse import Envelope

    return bytes(Envelope(payload, PAYLOAD_TYPE, {}).pae())


def _decoded(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii"), validate=True)
