"""One tampering, tried: refused, accepted, or the very same claims in other bytes."""

import json
import random
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Literal

from holdfast.attestation.demands import Demands
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import PrivateKey, make_key, read_signer
from holdfast.attestation.predicates import Occasion
from holdfast.attestation.release import Release, release_statement
from holdfast.errors import HoldfastError
from tests.attestation.chains import NOW, Made, make_run, sign_run, signed_run, trust_in
from tests.attestation.people_tamperings import make_people
from tests.attestation.tamperings import World, tamperings
from tests.attestation.versions import StoredVersion, store_version

Outcome = Literal["refused", "accepted", "the same"]


def make_world(folder: Path) -> tuple[World, StoredVersion]:
    """An honest version, a second one under the same keys, and a key of no role."""
    made = signed_run(folder / "one")
    (folder / "two").mkdir()
    artifacts = make_run(folder / "two", seed=1)
    sign_run(folder / "two", artifacts, made.keys)
    other = Made(folder / "two", artifacts, made.keys, made.trust)
    make_key(folder / "stranger.pem")
    stranger = read_signer(str(folder / "stranger.pem"))
    assert isinstance(stranger, PrivateKey)
    versions = [store_version(run, folder / f"version{n}", made.keys["gate"]) for n, run in enumerate((made, other))]
    trust = trust_in(made.folder / "keys")
    _released(versions, made, folder / "seen.json")
    people = make_people(folder / "people", made)
    return World(made, other, versions[1], stranger, Demands(trust, NOW), people), versions[0]


def tried(world: World, version: StoredVersion, name: str, rng: random.Random, place: Path) -> Outcome:
    """What becomes of one copy that was changed in the way of this name; the copy is removed."""
    copy = version.copy(place)
    before = _facts(version)
    try:
        asked = tamperings()[name](world, copy, rng)
        found = copy.taken_in(asked or world.demands)
    except HoldfastError:
        return "refused"
    finally:
        same = before == _facts(copy)
        shutil.rmtree(place, ignore_errors=True)
        place.with_name(f"{place.name}.moved").unlink(missing_ok=True)
    signed = (found.model.digest, found.decision.digest) == (version.tags[_MODEL], version.tags[_DECISION])
    return "the same" if signed and same and asked is None and copy.name == version.name else "accepted"


def _released(versions: list[StoredVersion], made: Made, seen: Path) -> None:
    """The second version was released first, then the first one; a reader has seen both."""
    statements = []
    for sequence, version in enumerate(reversed(versions), start=1):
        release = Release(sequence, version.tags[_MODEL], 3 - sequence)
        statement = release_statement(version.name, release, Occasion("", NOW - timedelta(days=1)))
        statements.append(sign_payload(statement.payload(), made.keys["release"]))
    seen.write_text(json.dumps({versions[0].name: len(statements)}))
    for version in versions:
        version.released, version.seen = tuple(statements), seen


_MODEL, _DECISION = "holdfast.model_digest", "holdfast.decision_digest"


def _facts(version: StoredVersion) -> dict[str, bytes]:
    """Path -> bytes of everything that is not a signed statement itself, and the tags."""
    files = {
        path.relative_to(version.folder).as_posix(): path.read_bytes()
        for path in version.folder.rglob("*")
        if path.is_file() and path.parent.name != "attestations" and path.name not in ("bundle.json", "model.sig")
    }
    return files | {f"tag {_MODEL}": version.tags.get(_MODEL, "").encode()}
