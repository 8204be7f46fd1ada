"""Release statements of the versions of a model: signed here, kept as a tag of the version, read from all of them."""

from datetime import UTC, datetime
from pathlib import Path

from holdfast.attestation.demands import TAG, Demands, bundles_of
from holdfast.attestation.envelope import read_bundle as read_envelope
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import Signer
from holdfast.attestation.predicates import Occasion
from holdfast.attestation.release import Release, release_statement, releases, require_newest
from holdfast.attestation.statement import stamp
from holdfast.attestation.trust import TrustPolicy
from holdfast.errors import IntegrityError, RefusedError
from holdfast.registry.bundle import Bundle
from holdfast.registry.version import CHAMPION, Version, tag, versions

RELEASE_TAG = f"{TAG}release."
"""Begins the tag with a version's release statement; then come the sequence number and the key."""
_MODEL = "holdfast.model_digest"


def release(tracking: str, name: str, version: int, signer: Signer) -> Release:
    """Signs that version `version` is the one to serve from now on; the next sequence number after all there are.

    Where the newest release is of this version already, and by other keys, this key joins them under the same number.

    Raises:
        RefusedError: there is no such version, or it did not pass.
        RegistryError: MLflow cannot be reached.
    """
    known = versions(tracking, name)
    chosen = next((one for one in known if one.number == version), None)
    verdict = None if chosen is None else chosen.tags.get("holdfast.verdict")
    if chosen is None or verdict != "pass":
        raise RefusedError(f"{name} version {version}: expected the verdict pass, found {verdict or 'no version'}")
    newest = max((_sequence(key) for one in known for key in one.tags), default=0)
    keys = {_hint(value) for key, value in chosen.tags.items() if newest and _sequence(key) == newest}
    sequence = newest if keys and signer.fingerprint not in keys else newest + 1
    made = Release(sequence, chosen.tags.get(_MODEL, ""), version)
    before = next((one.tags.get(_MODEL) for one in known if CHAMPION in one.aliases and one.number != version), None)
    statement = release_statement(name, made, Occasion("", datetime.now(UTC)), before)
    key = f"{RELEASE_TAG}{sequence}.{signer.fingerprint[:12]}"
    tag(tracking, name, version, key, sign_payload(statement.payload(), signer).decode())
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
    return require_newest(releases(bundles, name, trust, now), model, name, state)


def require_in_turn(tracking: str, candidate: Bundle, champion: Bundle | None, demands: Demands) -> None:
    """Refuses to go back: what passed before the champion did serves again only with a release statement.

    Without a trust policy nothing is asked: no time in the store could be believed.

    Raises:
        RefusedError: the candidate passed before the champion, and is not the newest release.
        RegistryError: MLflow cannot be reached.
    """
    trust = demands.signatures
    if trust is None or champion is None:
        return
    passed = [demands.passed_at(one.model.digest, bundles_of(one.folder, one.tags)) for one in (candidate, champion)]
    before, since = passed
    if before is None or since is None or before >= since or candidate.model.digest == champion.model.digest:
        return
    try:
        require_released(tracking, candidate.name, candidate.model.digest, trust, demands.now)
    except RefusedError as error:
        raise RefusedError(
            f"{candidate.name} version {candidate.version}: expected a model that passed after the champion, version "
            f"{champion.version}, did ({stamp(since)}), found one of {stamp(before)}; to go back to it: "
            f"holdfast release {candidate.name}@{candidate.version} ({error})"
        ) from None


def _statements(version: Version) -> list[str]:
    return [value for key, value in version.tags.items() if key.startswith(RELEASE_TAG)]


def _sequence(key: str) -> int:
    number = key.removeprefix(RELEASE_TAG).partition(".")[0]
    return int(number) if key.startswith(RELEASE_TAG) and number.isdecimal() and len(number) < 10 else 0


def _hint(bundle: str) -> str:
    """The key that a bundle names, not verified; empty where it is none."""
    try:
        return read_envelope(bundle.encode(), "a release").hint
    except IntegrityError:
        return ""
