"""Signatures by identities: certificates of a sigstore instance, checked offline (extra `keyless`).

A certificate lives for minutes; that the signature was made meanwhile is proven by the transparency log's entry, whose
time and inclusion the log itself signed. Nothing is asked of any server.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from holdfast.attestation.envelope import PAYLOAD_TYPE, SignedBytes
from holdfast.attestation.material import BROKEN, identity_fingerprint
from holdfast.errors import InputError, RefusedError
from holdfast.workload.schema import Section

Lifetime = tuple[datetime, datetime]
"""When a certificate begins and ends to be valid."""


class Identity(Section):
    """Who signs without a key of their own, as a provider of identities vouches for them; compared exactly."""

    identity: str = Field(max_length=1000, pattern=r"^[^\r\n]+$")
    """An e-mail address, or the URI of a workflow as the certificate has it."""
    issuer: str = Field(max_length=1000, pattern=r"^\S+$")
    """URL of the provider that vouches for it."""

    @property
    def fingerprint(self) -> str:
        """By which it is revoked."""
        return identity_fingerprint(self.identity, self.issuer)


@dataclass(frozen=True)
class IdentityVerifier:
    """What verifies certificates of one sigstore instance, and the identities that count."""

    identities: tuple[Identity, ...]
    verifier: Any

    @classmethod
    def of(cls, identities: Iterable[Identity], trusted_root: Path | None, name: str) -> "IdentityVerifier":
        """With the roots of an instance from its `trusted_root.json`; None: the public instance's, as known here.

        Args:
            identities: Those that count.
            trusted_root: File of the instance's certificate authorities and logs. The public instance's is what
                sigstore keeps in its cache, or brought with it; it is not fetched.
            name: What messages call the trust policy.

        Raises:
            InputError: sigstore is not installed, or the file is none.
        """
        require_sigstore(f"{name}: identities")
        from sigstore.errors import Error
        from sigstore.models import ClientTrustConfig, TrustedRoot
        from sigstore.verify import Verifier

        place = "the public sigstore instance" if trusted_root is None else str(trusted_root)
        try:
            root = (
                ClientTrustConfig.production(offline=True).trusted_root
                if trusted_root is None
                else TrustedRoot.from_file(str(trusted_root))
            )
            return cls(tuple(identities), Verifier(trusted_root=root))
        except (Error, *BROKEN) as error:
            raise InputError(f"{place}: expected the trusted root of an instance, found {reason(error)}") from None

    def signer(self, found: SignedBytes, name: str) -> tuple[str, Lifetime]:
        """The fingerprint of the identity that made the signature, and how long its certificate was valid.

        Raises:
            RefusedError: none of those that count, a certificate or log entry that does not hold, or one that is about
                another statement.
        """
        from sigstore.errors import Error
        from sigstore.models import Bundle
        from sigstore.verify.policy import Identity as Expected

        try:
            bundle = Bundle.from_json(found.text)
            certificate = bundle.signing_certificate
            who = next((one for one in self.identities if _names(certificate, one)), None)
            if who is None:
                raise RefusedError(f"{name}: expected a signature by an identity of the trust policy, found another's")
            kind, payload = self.verifier.verify_dsse(bundle, Expected(identity=who.identity, issuer=who.issuer))
        except (Error, *BROKEN) as error:
            raise RefusedError(f"{name}: expected a signature by an identity, found {reason(error)}") from None
        if (kind, payload) != (PAYLOAD_TYPE, found.payload):
            raise RefusedError(f"{name}: expected a signature of the statement, found one of another")
        return who.fingerprint, (certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def require_sigstore(name: str) -> None:
    """Nothing, where the library is installed.

    Raises:
        InputError: it is not.
    """
    try:
        import sigstore  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(f"{name}: expected the library sigstore, found none; install holdfast[keyless]") from None


def reason(error: BaseException) -> str:
    """What went wrong, as a part of a line: the error's words and those of its cause."""
    words = [" ".join(str(one).split())[:200] or type(one).__name__ for one in (error, error.__cause__) if one]
    return ": ".join(words)


def _names(certificate: Any, one: Identity) -> bool:
    """Whether a certificate, not verified yet, is about this identity by this issuer."""
    from sigstore.errors import VerificationError
    from sigstore.verify.policy import Identity as Expected

    try:
        Expected(identity=one.identity, issuer=one.issuer).verify(certificate)
    except VerificationError:
        return False
    return True
