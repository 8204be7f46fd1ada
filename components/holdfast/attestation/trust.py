"""Whose signature counts for what: `trust.yaml`, and the verdict on one bundle."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from holdfast.artifacts.documents import Sha256
from holdfast.artifacts.policies import SHIPPED, PolicyList
from holdfast.attestation.envelope import SignedBytes, read_bundle
from holdfast.attestation.identities import Identity, IdentityVerifier, Lifetime
from holdfast.attestation.keys import PublicKey, parse_public, read_public
from holdfast.attestation.statement import (
    APPROVAL,
    CLOSING,
    MODEL_FILES,
    PROVENANCE,
    RELEASE,
    TEST_RESULT,
    VERDICT,
    WAIVER,
    Statement,
    made_at,
    parse_statement,
    payload_digest,
    stamp,
)
from holdfast.errors import HoldfastError, RefusedError, WorkloadError
from holdfast.steps import Role, every
from holdfast.workload.schema import Section
from holdfast.workload.yaml import read_yaml

ROLES: tuple[Role, ...] = get_args(Role)
SKEW = timedelta(minutes=5)
"""How far the clock of a signer may be ahead of ours."""
PEM = "-----BEGIN "
MAX_KEYS = 100
"""Of a role."""


def _in_utc(value: object) -> object:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


Instant = Annotated[datetime, BeforeValidator(_in_utc)]
"""A date or a time; without a zone it is UTC."""


class RoleKeys(Section):
    """Who acts in a role."""

    keys: tuple[str, ...] = Field((), max_length=MAX_KEYS)
    """Public keys: PEM text, or the path of a PEM file from the folder of this one."""
    identities: tuple[Identity, ...] = Field((), max_length=MAX_KEYS)
    """Who signs with certificates of a sigstore instance."""
    threshold: int = Field(1, ge=1)
    """How many different keys and identities of the role must have signed."""
    valid_from: Instant | None = None
    """Statements that claim an earlier time do not count."""
    valid_until: Instant | None = None
    """Statements that claim a later time do not count."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        signers = len(self.keys) + len(self.identities)
        if self.threshold > signers:
            raise ValueError(f"threshold {self.threshold} but {signers} keys and identities: nothing could be accepted")
        return self


class Revocation(Section):
    """A key that was lost or stolen, or an identity whose account or workflow was."""

    fingerprint: Sha256
    """SHA-256 of the key's public PEM file, or of the identity's issuer, a newline and the identity."""
    since: Instant | None = None
    """Statements that claim an earlier time still count; left out: none does. Who stole a key can claim any time."""


class Sigstore(Section):
    """The sigstore instance that certifies the identities."""

    trusted_root: str | None = None
    """Path of its `trusted_root.json` from the folder of this file; left out: the public instance's, as known here."""


class TrustFile(Section):
    """`trust.yaml`."""

    version: Literal[1]
    """Of this format."""
    roles: dict[Role, RoleKeys] | None = None
    """Who acts in which role; in a role that is left out no one can sign. Without roles nothing need be signed: the
    file is about policies only."""
    revoked: tuple[Revocation, ...] = ()
    """Keys and identities that no longer count."""
    policies: tuple[Sha256 | Literal["shipped"], ...] = Field((SHIPPED,), min_length=1)
    """The policies whose verdicts count: digests, and `shipped` for those that ship."""
    max_age_days: float | None = Field(None, gt=0)
    """The age at which a verdict no longer counts; left out: never."""
    sigstore: Sigstore = Sigstore()
    """Asked where a role has identities."""

    @property
    def counted(self) -> PolicyList:
        """The policies whose verdicts count."""
        return PolicyList(frozenset(self.policies) - {SHIPPED}, SHIPPED in self.policies)

    @property
    def signs(self) -> bool:
        """Whether anything must be signed."""
        return self.roles is not None

    @field_validator("roles", mode="before")
    @classmethod
    def _no_empty_key(cls, found: object) -> object:
        # `roles:` with nothing after it would otherwise ask for no signature without a word.
        if found is None:
            raise ValueError("expected roles, found none; leave the key out where nothing need be signed")
        return found

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.signs and ("policies" not in self.model_fields_set or self.revoked or self.max_age_days):
            raise ValueError("expected roles; without them the file has policies, and nothing about signatures")
        return self


@dataclass(frozen=True)
class Signed:
    """A statement whose signature counts."""

    statement: Statement
    role: Role
    signer: str
    """Fingerprint of the key, or of the identity."""
    at: datetime
    """When the signer claims to have written it."""
    bundle: bytes

    @property
    def identity(self) -> str:
        """By which it is known: SHA-256 of what was signed."""
        return payload_digest(self.statement.payload())


@dataclass(frozen=True)
class TrustPolicy:
    """A trust policy with its keys read."""

    file: TrustFile
    keys: Mapping[str, PublicKey]
    """By fingerprint."""
    holders: Mapping[str, tuple[Role, ...]]
    """Fingerprint -> the roles of the key or identity."""
    identities: IdentityVerifier | None = None
    """None: no identity counts."""

    @property
    def roles(self) -> Mapping[Role, RoleKeys]:
        """Who acts in which role."""
        return self.file.roles or {}

    def accept(self, text: bytes, now: datetime, name: str = "a bundle") -> Signed:
        """The statement in a bundle, after everything about its signature was found to count.

        Raises:
            RefusedError: signed by no key or identity of this policy, by one that was revoked, by one whose role may
                not sign this, or at a time at which it does not count.
            IntegrityError: not a bundle, or not a statement.
        """
        found = read_bundle(text, name)
        signer, lifetime = self._signer(found, name)
        statement = parse_statement(found.payload, name)
        at = made_at(statement)
        if at is None:
            raise RefusedError(f"{name}: expected the time at which it was signed, found none")
        if at > now + SKEW:
            raise RefusedError(f"{name}: expected a time that has come, found {stamp(at)}")
        _refuse_outside(lifetime, at, name)
        self._refuse_revoked(signer, at, name)
        return Signed(statement, self._role(signer, statement, at, name), signer, at, text)

    def accepted(self, texts: Iterable[bytes], now: datetime) -> "tuple[list[Signed], list[str]]":
        """The statements that count, each once, and why each of the others does not."""
        kept: dict[tuple[str, str], Signed] = {}
        refused: list[str] = []
        for number, text in enumerate(texts):
            try:
                one = self.accept(text, now, f"bundle {number + 1}")
            except HoldfastError as error:
                refused.append(str(error))
                continue
            kept.setdefault((one.identity, one.signer), one)
        return list(kept.values()), refused

    def _signer(self, found: SignedBytes, name: str) -> tuple[str, Lifetime | None]:
        """The fingerprint of the trusted key or identity that made the signature, and its certificate's lifetime."""
        if not found.keyless:
            return self._key(found, name), None
        if self.identities is None:
            raise RefusedError(f"{name}: expected a signature by a key, found one by an identity")
        return self.identities.signer(found, name)

    def _key(self, found: SignedBytes, name: str) -> str:
        """The fingerprint of the trusted key that made the signature; the hint is only what to try first."""
        order = sorted(self.keys, key=lambda fingerprint: fingerprint != found.hint)
        signer = next((key for key in order if self.keys[key].verifies(found.signature, found.message)), None)
        if signer is None:
            raise RefusedError(f"{name}: expected a signature by a key of the trust policy, found none of theirs")
        return signer

    def _refuse_revoked(self, signer: str, at: datetime, name: str) -> None:
        for one in self.file.revoked:
            if one.fingerprint == signer and (one.since is None or at >= one.since):
                kind = "a key" if signer in self.keys else "an identity"
                raise RefusedError(f"{name}: expected {kind} that is not revoked, found {signer[:12]}…, which is")

    def _role(self, signer: str, statement: Statement, at: datetime, name: str) -> Role:
        """The role in which this signer may sign this statement at that time."""
        roles = self.holders[signer]
        fitting = [role for role in roles if may_sign(role, statement)]
        if not fitting:
            raise RefusedError(
                f"{name}: expected a signer who may sign {statement.predicateType} about {statement.subject[0].name}, "
                f"found the role {', '.join(roles)}"
            )
        for role in fitting:
            keys = self.roles[role]
            if (keys.valid_from is None or at >= keys.valid_from) and (
                keys.valid_until is None or at <= keys.valid_until
            ):
                return role
        raise RefusedError(f"{name}: expected a time at which the role {fitting[0]} was valid, found {stamp(at)}")


def may_sign(role: Role, statement: Statement) -> bool:
    """Whether a statement of this type, about this kind of artifact, is the role's to sign."""
    kind = statement.subject[0].name.partition("/")[0]
    return (statement.predicateType, kind) in _MAY_SIGN[role]


def read_trust(path: Path) -> TrustPolicy:
    """The trust policy in a file, with the keys that it names.

    Raises:
        WorkloadError: not a trust policy.
        ArtifactError: a key file is not there.
        InputError: a key is none.
    """
    return trust_of(read_yaml(path, TrustFile), path.parent, str(path))


def trust_of(file: TrustFile, folder: Path, name: str = "trust.yaml") -> TrustPolicy:
    """A trust policy with its keys read; their paths are from `folder`.

    Raises:
        WorkloadError: a role with the same key or identity twice.
        InputError: identities, and neither sigstore nor the file of its roots is here.
    """
    keys: dict[str, PublicKey] = {}
    identities: dict[str, Identity] = {}
    holders: dict[str, tuple[Role, ...]] = {}
    for role, config in (file.roles or {}).items():
        found = [_public(text, folder, f"{name}: roles.{role}") for text in config.keys]
        signers = [*(key.fingerprint for key in found), *(one.fingerprint for one in config.identities)]
        if len(set(signers)) < len(signers):
            raise WorkloadError(f"{name}: roles.{role}: expected different keys, found one of them twice")
        keys |= {key.fingerprint: key for key in found}
        identities |= {one.fingerprint: one for one in config.identities}
        for signer in signers:
            holders[signer] = (*holders.get(signer, ()), role)
    return TrustPolicy(file, keys, holders, _verifier(file.sigstore, identities, folder, name))


def _verifier(config: Sigstore, identities: Mapping[str, Identity], folder: Path, name: str) -> IdentityVerifier | None:
    """None where no role has an identity: sigstore need not be installed then."""
    if not identities:
        return None
    root = None if config.trusted_root is None else folder / config.trusted_root
    return IdentityVerifier.of(identities.values(), root, name)


def starter(keys: Mapping[str, str]) -> str:
    """The text of a first `trust.yaml`: role -> the path of its public key."""
    lines = ["# Whose signature counts for what; see docs/signed-evidence.md.", "version: 1", "roles:"]
    lines += [f"  {role}: {{keys: [{path}]}}" for role, path in keys.items()]
    return "\n".join(lines) + "\n"


def _refuse_outside(lifetime: Lifetime | None, at: datetime, name: str) -> None:
    """A certificate's statement claims a time at which it was valid."""
    if lifetime is not None and not lifetime[0] - SKEW <= at <= lifetime[1] + SKEW:
        begins, ends = map(stamp, lifetime)
        raise RefusedError(
            f"{name}: expected a time while its certificate was valid, {begins} to {ends}, found {stamp(at)}"
        )


def _public(text: str, folder: Path, name: str) -> PublicKey:
    return parse_public(text.encode(), name) if text.lstrip().startswith(PEM) else read_public(folder / text)


def _table() -> Mapping[Role, frozenset[tuple[str, str]]]:
    """Role -> the types of statement and the kinds of artifact that it may sign."""
    may: dict[Role, set[tuple[str, str]]] = {
        "gate": {(VERDICT, "model"), (MODEL_FILES, "model")},
        "approver": {(APPROVAL, "model"), (WAIVER, "model"), (CLOSING, "incident")},
        "release": {(RELEASE, "model")},
    }
    for step in every():
        kinds = [str(document.model_fields["kind"].default) for document in step.documents]
        may.setdefault(step.signed_by, set()).update((TEST_RESULT if step.judges else PROVENANCE, k) for k in kinds)
    return {role: frozenset(pairs) for role, pairs in may.items()}


_MAY_SIGN = _table()
