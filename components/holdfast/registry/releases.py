"""Release statements of the versions of a model: signed here, kept as a tag of the version, read from all of them."""

from datetime import UTC, datetime
from pathlib import Path

from holdfast.attestation.demands import TAG
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import Signer
from holdfast.attestation.predicates import Occasion
from holdfast.attestation.release import Release, release_statement, releases, require_newest
from holdfast.attestation.trust import TrustPolicy
from holdfast.errors import RefusedError
from holdfast.registry.version import CHAMPION, Version, tag, versions

RELEASE_TAG = f"{TAG}release."
"""Begins the tag with a version's release statement; its end is the sequence number."""
_MODEL = "holdfast.model_digest"


def release(tracking: str, name: str, version: int, signer: Signer) -> Release:
    """Signs that version `version` is the one to serve from now on; the next sequence number after all there are.

    Raises:
        RefusedError: there is no such version, or it did not pass.
        RegistryError: MLflow cannot be reached.
    """
    known = versions(tracking, name)
    chosen = next((one for one in known if one.number == version), None)
    verdict = None if chosen is None else chosen.tags.get("holdfast.verdict")
    if chosen is None or verdict != "pass":
        raise RefusedError(f"{name} version {version}: expected the verdict pass, found {verdict or 'no version'}")
    sequence = 1 + max((_sequence(key) for one in known for key in one.tags), default=0)
    made = Release(sequence, chosen.tags.get(_MODEL, ""), version)
    before = next((one.tags.get(_MODEL) for one in known if CHAMPION in one.aliases and one.number != version), None)
    statement = release_statement(name, made, Occasion("", datetime.now(UTC)), before)
    tag(tracking, name, version, f"{RELEASE_TAG}{sequence}", sign_payload(statement.payload(), signer).decode())
    return made


def require_released(
    tracking: str, name: str, model: str, trust: TrustPolicy, now: datetime, state: Path | None = None
) -> Release:
    """The release of the model of this digest, after no other release was found to be newer.

    Raises:
        RefusedError: it was not released, or another one was released after it.
        RegistryError: MLflow cannot be reached.
    """
    bundles = [value.encode() for one in versions(tracking, name) for value in _statements(one)]
    return require_newest(releases(trust.accepted(bundles, now)[0], name), model, name, state)


def _statements(version: Version) -> list[str]:
    return [value for key, value in version.tags.items() if key.startswith(RELEASE_TAG)]


def _sequence(key: str) -> int:
    number = key.removeprefix(RELEASE_TAG)
    return int(number) if key.startswith(RELEASE_TAG) and number.isdecimal() and len(number) < 10 else 0
