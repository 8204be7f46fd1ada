"""Statements: in-toto's format v1 (https://github.com/in-toto/attestation/tree/main/spec/v1), one subject each."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast.artifacts.documents import Sha256
from holdfast.artifacts.folder import strict_json
from holdfast.errors import IntegrityError

PROJECT = "https://github.com/holdfast-ml/holdfast"
"""Names of our own types begin with it; nothing is fetched from there."""
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
VERDICT = "https://in-toto.io/attestation/svr/v0.1"
"""Simple verification result: the gate's word about a model, written only where it passed."""
RELEASE = "https://in-toto.io/attestation/release/v0.1"
APPROVAL = f"{PROJECT}/attestation/approval/v0.1"
WAIVER = f"{PROJECT}/attestation/waiver/v0.1"
CLOSING = f"{PROJECT}/attestation/incident-closed/v0.1"
"""A person closed an incident: the subject is its last record."""
MODEL_FILES = "https://model_signing/signature/v1.0"
"""OpenSSF model-signing: the files of a model's folder."""
Predicate = dict[str, Any]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SubjectDigest(_Closed):
    """The digest of a statement's subject."""

    sha256: Sha256
    """Of the subject's bytes: of `artifact.json`, for an artifact."""


class StatementSubject(_Closed):
    """What a statement is about."""

    name: Annotated[str, Field(max_length=300)]
    """KIND/WORKLOAD for an artifact; for people, verifiers go by the digest."""
    digest: SubjectDigest
    """Of its bytes."""


class Statement(_Closed):
    """A claim about one subject."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field("https://in-toto.io/Statement/v1", alias="_type")
    """Always in-toto's version 1."""
    subject: tuple[StatementSubject] = Field()
    """Exactly one."""
    predicateType: Annotated[str, Field(max_length=300)]  # noqa: N815
    """What is claimed, as a URI."""
    predicate: Predicate
    """The claim."""

    @property
    def digest(self) -> str:
        """Of the subject."""
        return self.subject[0].digest.sha256

    def payload(self) -> bytes:
        """The bytes that are signed."""
        value = self.model_dump(mode="json", by_alias=True)
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def about(name: str, digest: str, predicate_type: str, predicate: Predicate) -> Statement:
    """A statement about the artifact of this digest."""
    subject = StatementSubject(name=name, digest=SubjectDigest(sha256=digest))
    return Statement(subject=(subject,), predicateType=predicate_type, predicate=predicate)


def parse_statement(payload: bytes, name: str) -> Statement:
    """The statement in exactly these bytes; `name` is what messages call it.

    Raises:
        IntegrityError: something else, or a key that is given twice.
    """
    try:
        return Statement.model_validate(strict_json(payload, name))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        raise IntegrityError(f"{name}: expected an in-toto statement, found {first['msg']} at {where}") from None


def payload_digest(payload: bytes) -> str:
    """By which a signed statement is known: an envelope's own bytes can be written in several ways."""
    return hashlib.sha256(payload).hexdigest()


def stamp(at: datetime) -> str:
    """A time as statements write it: UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def made_at(statement: Statement) -> datetime | None:
    """When its signer claims to have written it; None where it has no time."""
    place: Any = statement.predicate
    for key in _TIMES.get(statement.predicateType, ("timeCreated",)):
        place = place.get(key) if isinstance(place, dict) else None
    if not isinstance(place, str):
        return None
    try:
        return datetime.strptime(place, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


_TIMES = {PROVENANCE: ("runDetails", "metadata", "finishedOn")}
