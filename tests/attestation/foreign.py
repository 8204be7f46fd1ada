"""Verifiers that know nothing of Holdfast."""

import json
from typing import Any

from tests.attestation.chains import Made


def read_by_sigstore(made: Made) -> int:
    """How many bundles of a run sigstore-python verifies, each with exactly one of the run's public keys."""
    from sigstore import dsse

    keys = [made.trust.keys[key.fingerprint].key for key in made.keys.values()]
    bundles = [json.loads(bundle) for found in made.bundles.values() for bundle in found]
    envelopes = [dsse.Envelope._from_json(json.dumps(bundle["dsseEnvelope"])) for bundle in bundles]
    return sum(sum(_verifies(dsse, key, envelope) for key in keys) == 1 for envelope in envelopes)


def _verifies(dsse: Any, key: Any, envelope: Any) -> bool:
    from sigstore.errors import VerificationError

    try:
        dsse._verify(key, envelope)
    except VerificationError:
        return False
    return True
