"""Signing without a key that anyone keeps: a sigstore instance certifies who a process is (extra `keyless`).

A key is made for this process, certified for minutes under the identity of its token, and forgotten; a public log keeps
what was signed. The token is that of SIGSTORE_ID_TOKEN or of the CI job; at a terminal a person logs in.
"""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import read_bounded
from holdfast.attestation.identities import reason, require_sigstore
from holdfast.attestation.keys import KEYLESS, BundleSigner
from holdfast.attestation.material import BROKEN, certified
from holdfast.errors import InputError, RegistryError

TOKEN = "SIGSTORE_ID_TOKEN"
"""Environment variable with an identity token."""
MAX_CONFIG_BYTES = 2**20
_SECONDS = 30
"""For one answer of the instance."""
_MARGIN = timedelta(minutes=1)
"""A certificate that ends so soon is not used any more."""


@functools.cache
def keyless(named: str) -> "KeylessSigner":
    """The signer of this name, one for the whole process, so that one certificate serves all its statements."""
    return KeylessSigner.at(named)


class KeylessSigner(BundleSigner):
    """An identity, with the certificate that it was given last."""

    def __init__(self, named: str, config: Any, token: Any) -> None:
        self.named, self.config, self.token = named, config, token
        self._signer: Any = None
        self._until = datetime.now(UTC)

    @classmethod
    def at(cls, named: str) -> "KeylessSigner":
        """The identity of this process at `keyless://`, the public instance, or at `keyless://FILE`, a private one.

        Raises:
            InputError: sigstore is not installed, the file is no client trust config, or there is no valid token.
            ArtifactError: the file cannot be read.
            RegistryError: the public instance's settings, or the token, cannot be fetched.
        """
        require_sigstore(named)
        config = _config(named)
        return cls(named, config, _token(named, config))

    @property
    def fingerprint(self) -> str:
        """Of the identity in the certificate, which is asked for.

        Raises:
            RegistryError: the instance does not answer, refuses, or certifies something else.
            InputError: the token has ended, and there is no other.
        """
        try:
            return certified(self._certified()._signing_cert())
        except BROKEN as error:
            raise RegistryError(
                f"{self.named}: expected a certificate of one identity, found {reason(error)}"
            ) from None

    def bundle(self, payload: bytes) -> bytes:
        """The bundle of a statement: certificate, signature and the log's entry.

        Raises:
            RegistryError: the instance does not answer or refuses.
            InputError: the token has ended, and there is no other.
        """
        from sigstore.dsse import Statement

        signer = self._certified()
        with _asked(self.named):
            return str(signer.sign_dsse(Statement(payload)).to_json()).encode()

    def _certified(self) -> Any:
        """What signs, with a certificate that is valid for a while."""
        if self._signer is None or datetime.now(UTC) > self._until - _MARGIN:
            if not self.token.in_validity_period():
                self.token = _token(self.named, self.config)
            with _asked(self.named), _context(self.config).signer(self.token) as signer:
                self._until = signer._signing_cert().not_valid_after_utc
            self._signer = signer
        return self._signer


def _config(named: str) -> Any:
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig

    place = named.removeprefix(KEYLESS)
    if not place:
        with _asked(named):
            return ClientTrustConfig.production()
    text = read_bounded(Path(place), MAX_CONFIG_BYTES, "a client trust config")
    try:
        config = ClientTrustConfig.from_json(text.decode())
        _context(config)
    except (Error, ValueError) as error:
        raise InputError(f"{place}: expected a client trust config of sigstore, found {reason(error)}") from None
    return config


def _context(config: Any) -> Any:
    """What signs with the instance; a server that does not answer is not waited for."""
    from sigstore.sign import SigningContext

    chosen = config.signing_config
    fulcio, rekor = chosen.get_fulcio(), chosen.get_tlogs()[0]
    for session in (fulcio.session, rekor._session):
        session.request = functools.partial(session.request, timeout=_SECONDS)
    return SigningContext(fulcio=fulcio, rekor=rekor, trusted_root=config.trusted_root, tsa_clients=chosen.get_tsas())


def _token(named: str, config: Any) -> Any:
    from sigstore.oidc import IdentityError, IdentityToken, Issuer, detect_credential

    try:
        text = os.environ.get(TOKEN) or detect_credential()
        if text:
            return IdentityToken(text)
    except IdentityError as error:
        raise InputError(f"{named}: expected a valid identity token, found {reason(error)}") from None
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError(
            f"{named}: expected an identity token in {TOKEN}, or a CI job that may ask for one (GitHub: permissions "
            f"`id-token: write`; GitLab: `id_tokens` with {TOKEN}), found neither, and no terminal to log in at"
        )
    with _asked(named):
        return Issuer(config.signing_config.get_oidc_url()).identity_token()


@contextmanager
def _asked(named: str) -> Iterator[None]:
    from requests import RequestException
    from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
    from sigstore._internal.rekor import RekorClientError
    from sigstore.errors import Error
    from sigstore.oidc import ExpiredIdentity, IssuerError

    try:
        yield
    except (ExpiredCertificate, ExpiredIdentity, FulcioClientError, RekorClientError, IssuerError) as error:
        raise RegistryError(f"{named}: expected the sigstore instance to sign, found {reason(error)}") from None
    except (Error, RequestException, LookupError, ValueError) as error:
        raise RegistryError(f"{named}: expected the sigstore instance to answer, found {reason(error)}") from None
