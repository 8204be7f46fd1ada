"""Ways to serve a version that people did not approve, or that rests on a waiver which does not count."""

import base64
import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from holdfast.artifacts.documents import GateDecision, Requirements
from holdfast.artifacts.folder import load
from holdfast.attestation import store
from holdfast.attestation.demands import TAG, Demands, candidate
from holdfast.attestation.envelope import read_bundle, sign_payload
from holdfast.attestation.keys import PrivateKey
from holdfast.attestation.people import SignerWords, approval_statement
from holdfast.attestation.statement import WAIVER, Statement, parse_statement
from holdfast.attestation.trust import Revocation
from holdfast.attestation.waivers import WaiverTerms, waiver_statement
from holdfast.steps import Role
from holdfast_gates.policy import AtLeast, Policy, find
from holdfast_gates.waivers import SignedWaivers
from tests.attestation.chains import NOW, Made, make_run, sign_run, trust_in
from tests.attestation.versions import StoredVersion, store_version

CHECK, TAGGED = "clean_accuracy", f"{TAG}approval.1"
UNTIL = NOW + timedelta(days=30)
SEED = 2


@dataclass(frozen=True)
class PeopleWorld:
    """A version that one person approved, after another one had waived a check of it."""

    version: StoredVersion
    keys: Mapping[Role, PrivateKey]
    demands: Demands
    policy: str
    folder: Path
    """Of the public keys."""

    def trust(self, **changes: object) -> Demands:
        return Demands(trust_in(self.folder, policies=(self.policy,), **changes), NOW)

    def put(self, version: StoredVersion) -> None:
        """Makes `version` a copy of it."""
        shutil.rmtree(version.package)
        copied = self.version.copy(version.package)
        version.tags, version.released, version.seen = copied.tags, copied.released, copied.seen


def make_people(folder: Path, made: Made) -> PeopleWorld:
    """Under the keys of `made`."""
    policy, keys = _policy(), made.keys
    (folder / "first").mkdir(parents=True)
    model = make_run(folder / "first", policy, seed=SEED)["train"].digest
    waiver = sign_payload(_waiver(model).payload(), keys["approver"])
    (folder / "run").mkdir()
    given = SignedWaivers(store.by_subject([waiver]), made.trust, NOW)
    artifacts = make_run(folder / "run", policy, seed=SEED, waivers=given)
    sign_run(folder / "run", artifacts, keys)
    store.keep(folder / "run" / store.ATTESTATIONS, waiver)
    run = Made(folder / "run", artifacts, keys, made.trust)
    version = store_version(run, folder / "version", keys["gate"])
    version.tags[TAGGED] = _approval(version, keys["approver"])
    keys_folder, digest = made.folder / "keys", artifacts["gate"].document.policy
    demands = Demands(trust_in(keys_folder, policies=(digest,)), NOW)
    return PeopleWorld(version, keys, demands, digest, keys_folder)


def tamper(world: PeopleWorld, version: StoredVersion, stranger: PrivateKey, rng: random.Random) -> Demands:
    """Changes `version`, which becomes a copy of the one that people let through; returns what its reader asks."""
    world.put(version)
    others = [stranger, *(key for role, key in world.keys.items() if role != "approver")]
    return rng.choice((_approvals, _waivers))(world, version, rng, rng.choice(others))


def _approvals(world: PeopleWorld, version: StoredVersion, rng: random.Random, forger: PrivateKey) -> Demands:
    match rng.randrange(6):
        case 0:
            del version.tags[TAGGED]
        case 1:
            version.tags[TAGGED] = _approval(version, forger)
        case 2:
            version.tags[TAGGED] = _approval(version, world.keys["approver"], decision=f"{rng.getrandbits(256):064x}")
        case 3:
            version.tags[TAGGED] = _approval(version, world.keys["approver"], model=f"{rng.getrandbits(256):064x}")
        case 4:
            version.tags[TAGGED] = _flipped(version.tags[TAGGED].encode(), rng).decode()
        case _:
            since = rng.choice([None, NOW - timedelta(seconds=rng.randrange(1, 10**6))])
            lost = Revocation(fingerprint=world.keys["approver"].fingerprint, since=since)
            return world.trust(revoked=(lost,))
    return world.demands


def _waivers(world: PeopleWorld, version: StoredVersion, rng: random.Random, forger: PrivateKey) -> Demands:
    bundles = version.bundles()
    model = version.tags["holdfast.model_digest"]
    rest = [one for one in bundles[model] if not _is_waiver(one)]
    (waiver,) = (one for one in bundles[model] if _is_waiver(one))
    changed = rng.choice(
        [
            [],
            [_flipped(waiver, rng)],
            [sign_payload(read_bundle(waiver, "").payload, forger)],
            [sign_payload(_waiver(f"{rng.getrandbits(256):064x}").payload(), world.keys["approver"])],
            [sign_payload(_waiver(model, check="robust_accuracy").payload(), world.keys["approver"])],
            None,
        ]
    )
    if changed is None:  # the honest one, after its end, or with an end that only the decision claims
        if rng.random() < 0.5:
            return Demands(world.demands.trust, UNTIL + timedelta(seconds=rng.randrange(1, 10**6)))
        _extend(version, rng)
        changed = [waiver]
    bundles[model] = [*rest, *changed]
    version.put_bundles(bundles)
    version.seal_again()
    return world.demands


def _extend(version: StoredVersion, rng: random.Random) -> None:
    """Edits the end, the owner or the check of the waiver in the decision."""
    path = version.folder / "decision" / "artifact.json"
    value = json.loads(path.read_bytes())
    key, new = rng.choice([("until", "2090-01-01T00:00:00Z"), ("owner", "Eve"), ("check", "robust_accuracy")])
    value["waivers"][0][key] = new
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n")


def _policy() -> Policy:
    """The default one, under which the toy model lacks clean accuracy."""
    default = find("default")
    checks = default.checks.model_copy(update={CHECK: AtLeast(at_least=0.999)})
    require = Requirements(attested=True, approvals=1, waivers_at_most=1)
    return default.model_copy(update={"checks": checks, "require": require})


def _waiver(model: str, check: str = CHECK) -> Statement:
    return waiver_statement(model, WaiverTerms(check, "Ana", "ships on Monday", UNTIL), NOW)


def _approval(version: StoredVersion, key: PrivateKey, *, decision: str = "", model: str = "") -> str:
    honest = candidate(load(version.folder / "decision", GateDecision), 1)
    one = replace(honest, decision=decision or honest.decision, model=model or honest.model)
    statement = approval_statement(one, SignerWords("Ben", "read the table"), NOW)
    return sign_payload(statement.payload(), key).decode()


def _is_waiver(bundle: bytes) -> bool:
    return parse_statement(read_bundle(bundle, "").payload, "").predicateType == WAIVER


def _flipped(bundle: bytes, rng: random.Random) -> bytes:
    """With one bit of what is signed changed."""
    value = json.loads(bundle)
    payload = bytearray(base64.b64decode(value["dsseEnvelope"]["payload"]))
    payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(7)
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(value).encode()
