"""A run in miniature with every artifact of the pipelines, judged by the real gate, and keys for every role."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from holdfast.artifacts.cause import Cause
from holdfast.artifacts.documents import Baseline, Count, Document, Registration, RolloutRecord, Transition, Verdict
from holdfast.artifacts.folder import Artifact, Ref, save
from holdfast.attestation import store
from holdfast.attestation.keys import PrivateKey, make_key, read_signer
from holdfast.attestation.sign import attest
from holdfast.attestation.trust import RoleKeys, TrustFile, TrustPolicy, starter, trust_of
from holdfast.steps import STEPS, Role
from holdfast_gates.policy import Policy, find
from holdfast_gates.step import gate
from holdfast_gates.waivers import SignedWaivers
from tests.gates.conftest import MAKERS, model, snapshot

NOW = datetime.now(UTC).replace(microsecond=0)
"""What is signed by the clock of the machine is signed then, too."""
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Made:
    """A signed run: its artifacts by step, its keys by role, and the folder of its bundles."""

    folder: Path
    artifacts: Mapping[str, Artifact[Any]]
    keys: Mapping[Role, PrivateKey]
    trust: TrustPolicy

    @property
    def bundles(self) -> dict[str, list[bytes]]:
        return store.read_all(self.folder / store.ATTESTATIONS)

    @property
    def documents(self) -> dict[str, Document]:
        return {artifact.digest: artifact.document for artifact in self.artifacts.values()}

    @property
    def top(self) -> str:
        return self.artifacts["rollout"].digest


def make_keys(folder: Path) -> dict[Role, PrivateKey]:
    """A key for every role, as PEM files."""
    for role in ROLES:
        make_key(folder / f"{role}.pem")
    (folder / "trust.yaml").write_text(starter({role: f"{role}.pub" for role in ROLES}))
    return {role: read_signer(str(folder / f"{role}.pem")) for role in ROLES}  # type: ignore[misc]


def trust_in(folder: Path, **changes: Any) -> TrustPolicy:
    """The trust policy over the keys in `folder`."""
    roles = {role: RoleKeys(keys=(f"{role}.pub",)) for role in ROLES}
    return trust_of(TrustFile(version=1, roles={**roles, **changes.pop("roles", {})}, **changes), folder)


def make_run(
    folder: Path, policy: Policy | None = None, seed: int = 0, waivers: SignedWaivers | None = None
) -> dict[str, Artifact[Any]]:
    """The artifacts of a run, each made from the ones before, below `folder/steps`."""
    made: dict[str, Artifact[Any]] = {}

    def put(step: str, document: Document) -> None:
        made[step] = save(folder / "steps" / step, document, {"made.txt": step.encode()})

    def of(*steps: str) -> dict[str, str]:
        roles = {step.name: step.role for step in STEPS}
        return {roles[step]: made[step].digest for step in steps}

    put("snapshot", snapshot(root=f"{seed:064x}"))
    put("baseline", Baseline(inputs=of("snapshot"), name="digits", present=False))
    for step in ("schema", "drift"):
        put(step, MAKERS[step](inputs=of("snapshot", "baseline")))
    put("scan", MAKERS["scan"](inputs=of("snapshot")))
    put("train", model(inputs=of("snapshot", "scan", "baseline"), seed=seed))
    for step in ("backdoor", "certify"):
        put(step, MAKERS[step](inputs=of("train", "snapshot")))
    put("attack", MAKERS["attack"](inputs=of("train", "snapshot", "baseline")))
    made["gate"] = _judged(folder, made, policy or find("default"), waivers)
    inputs, digest = of("train", "gate", "snapshot"), made["train"].digest
    put("register", Registration(inputs=inputs, name="digits", model=digest, model_version=1, run_id="r"))
    put("rollout", _rolled_out(of("register", "train", "gate")))
    return made


def sign_run(
    folder: Path, made: Mapping[str, Artifact[Any]], keys: Mapping[Role, PrivateKey], at: datetime = NOW
) -> None:
    """The statement of every step, and the gate's verdict, in `folder/attestations`."""
    for step in STEPS:
        attest(made[step.name], keys[step.signed_by], folder / store.ATTESTATIONS, run="toy", at=at)


def signed_run(folder: Path, **changes: Any) -> Made:
    """All of it."""
    keys = make_keys(folder / "keys")
    made = make_run(folder)
    sign_run(folder, made, keys)
    return Made(folder, made, keys, trust_in(folder / "keys", **changes))


def _judged(
    folder: Path, made: Mapping[str, Artifact[Any]], policy: Policy, waivers: SignedWaivers | None
) -> Artifact[Any]:
    refs = {name: Ref(artifact.folder, artifact.digest) for name, artifact in made.items()}
    evidence = {name: refs[name] for name in MAKERS}
    out = folder / "steps" / "gate"
    return gate(policy, out, model=refs["train"], snapshot=refs["snapshot"], evidence=evidence, waivers=waivers)


def _rolled_out(inputs: dict[str, str]) -> RolloutRecord:
    some = Count(k=0, n=100)
    move = Transition(
        state_before="canary", state_after="promoted", weight=100, reason="", candidate=some, champion=some
    )
    return RolloutRecord(
        inputs=inputs, name="digits", candidate_version=1, champion_version=None, transitions=(move,),
        requests_sent=100, requests_failed=0, outcome="promoted", reason="", cause=Cause.NONE, verdict=Verdict.PASS,
    )  # fmt: skip
