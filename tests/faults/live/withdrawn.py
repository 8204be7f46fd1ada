"""F11 in real processes: what spoke for a model is withdrawn, and whoever takes it in next refuses it.

The version is signed as a real one is: model, decision and verdict, a waiver that the decision rests on, and an
approval. It is served by an MLServer with a trust policy; then a key is revoked, the waiver ends, the verdict gets too
old for the policy, or a byte is altered. A server that is started after that, and the arm of a rollout, must refuse it.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.artifacts.documents import Check, GateDecision, Model, Requirements, Verdict
from holdfast.artifacts.folder import Ref, load, save
from holdfast.artifacts.policies import shipped_digests
from holdfast.attestation import store
from holdfast.attestation.demands import candidate
from holdfast.attestation.envelope import sign_payload
from holdfast.attestation.keys import Signer, make_key, read_signer
from holdfast.attestation.people import SignerWords, approval_statement
from holdfast.attestation.sign import attest
from holdfast.attestation.trust import ROLES, read_trust, starter
from holdfast.attestation.waivers import WaiverTerms, read_waivers, waiver_statement
from holdfast.errors import HoldfastError
from holdfast.serving.rollout.contract.served_arm import served_arm
from holdfast.steps import Role
from tests.faults.live.bundles import Bundles
from tests.faults.races import race

SERVERS = 3
"""Servers that are started after each withdrawal."""
CHECK, WEIGHTS = "clean_accuracy", "weights.safetensors"
REQUIRE = Requirements(attested=True, approvals=1, waivers_at_most=1)


@dataclass(frozen=True)
class SignedModel:
    """A version that everything speaks for, and the keys that signed it."""

    folder: Path
    keys: Mapping[Role, Signer]
    trust: Path
    until: datetime
    """When its waiver ends."""

    @property
    def refs(self) -> tuple[Ref, Ref]:
        """Model and decision."""
        return Ref(self.folder / "model"), Ref(self.folder / "decision")

    def revoke(self, role: Role) -> None:
        """In the trust policy, as people do when a key was lost."""
        fingerprint = self.keys[role].fingerprint
        self.trust.write_text(f"{self.trust.read_text()}revoked:\n- fingerprint: {fingerprint}\n")

    def wait(self) -> None:
        """Until the waiver has ended."""
        time.sleep(max((self.until - datetime.now(UTC)).total_seconds(), 0.0))

    def age(self) -> None:
        """The trust policy asks for a younger verdict than any."""
        self.trust.write_text(f"{self.trust.read_text()}max_age_days: 0.000001\n")
        time.sleep(1.1)

    def alter(self) -> None:
        """One bit of the weights."""
        path = self.folder / "model" / WEIGHTS
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    def admitted(self) -> bool:
        """Whether a rollout would take it as an arm."""
        try:
            served_arm("digits", 1, self.folder, trust=self.trust)
        except HoldfastError:
            return False
        return True


KINDS: Mapping[str, Callable[[SignedModel], None]] = {
    "the gate's key revoked": lambda model: model.revoke("gate"),
    "the trainer's key revoked": lambda model: model.revoke("trainer"),
    "the approver's key revoked": lambda model: model.revoke("approver"),
    "the waiver ended": SignedModel.wait,
    "the verdict too old": SignedModel.age,
    "bytes altered": SignedModel.alter,
}


@dataclass(frozen=True)
class Withdrawn:
    """What became of one version."""

    kind: str
    before: tuple[bool, ...]
    """Whether the arm, and a server where one was started, took it while all was well."""
    after: tuple[bool, ...]
    """The same when what spoke for it was withdrawn."""


def play(bundles: Bundles, folder: Path, quick: bool) -> list[Withdrawn]:
    """Every kind, with a server before and several afterwards; quick: one kind."""
    request = race.question_of(bundles)

    def serves(model: SignedModel) -> bool:
        place = folder / f"server-{time.monotonic_ns()}"
        return race.started(*model.refs, place, request, model.trust) is not None

    found = []
    for number, kind in enumerate(list(KINDS)[: 1 if quick else None]):
        model = signed_model(bundles.candidate, folder / f"version-{number}", timedelta(seconds=90))
        found.append(withdraw(kind, model, serves, 1 if quick else SERVERS))
    return found


def withdraw(
    kind: str, model: SignedModel, serves: Callable[[SignedModel], bool] | None = None, servers: int = 1
) -> Withdrawn:
    """Takes one thing away; `serves` starts a server and returns whether it answers."""
    ask = [SignedModel.admitted, *([] if serves is None else [serves])]
    before = tuple(one(model) for one in ask)
    KINDS[kind](model)
    after = tuple(one(model) for one in (*ask, *(ask[1:] * (servers - 1))))
    return Withdrawn(kind, before, after)


def signed_model(bundle: Path, folder: Path, lasts: timedelta) -> SignedModel:
    """A signed version of the network in `bundle/model`; its waiver lasts so long."""
    shutil.copytree(bundle / "model", folder / "model")
    keys = _keys(folder / "keys")
    trust, now = folder / "keys" / "trust.yaml", datetime.now(UTC).replace(microsecond=0)
    network = load(folder / "model", Model)
    waiver = waiver_statement(network.digest, WaiverTerms(CHECK, "Ana", "for the fault", now + lasts), now)
    waived = sign_payload(waiver.payload(), keys["approver"])
    counted = read_waivers([waived], network.digest, REQUIRE, read_trust(trust), now).counted
    document = GateDecision(
        inputs={"model": network.digest}, name=network.document.name, policy=next(iter(shipped_digests())),
        policy_name="default", alpha=0.05, checks=(Check(name=CHECK, required="at least 0.999", verdict=Verdict.FAIL),
                            Check(name="lineage", required="together", verdict=Verdict.PASS)),
        waivers=counted, require=REQUIRE, verdict=Verdict.PASS,
    )  # fmt: skip
    decision = save(folder / "decision", document)
    approval = approval_statement(candidate(decision, 1), SignerWords("Ana", "for the fault"), now)
    place = folder / store.ATTESTATIONS
    attest(network, keys["trainer"], place, run="faults", at=now)
    attest(decision, keys["gate"], place, run="faults", at=now)
    for bundle_of_people in (waived, sign_payload(approval.payload(), keys["approver"])):
        store.keep(place, bundle_of_people)
    return SignedModel(folder, keys, trust, now + lasts)


def _keys(folder: Path) -> Mapping[Role, Signer]:
    for role in ROLES:
        make_key(folder / f"{role}.pem")
    (folder / "trust.yaml").write_text(starter({role: f"{role}.pub" for role in ROLES}))
    return {role: read_signer(str(folder / f"{role}.pem")) for role in ROLES}
