"""The register step: puts a model that passed into MLflow, with its evidence; refuses any other."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast import registry
from holdfast.artifacts import admission
from holdfast.artifacts.admission import Confirm, NotPassed
from holdfast.artifacts.contract import published
from holdfast.artifacts.documents import (
    AnswerTimes,
    Document,
    GateDecision,
    Model,
    Registration,
    RobustnessReport,
    ScanReport,
    SchemaReport,
    Snapshot,
)
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, load_any, save
from holdfast.artifacts.policies import PolicyList
from holdfast.attestation import store
from holdfast.attestation.demands import Demands
from holdfast.attestation.keys import Signer
from holdfast.errors import RefusedError
from holdfast.modality import modality_of
from holdfast.model.answers import softmax
from holdfast.model.register import carried, materials, page, pyfunc
from holdfast.steps import by_role, role_of, writer

if TYPE_CHECKING:
    import pandas as pd

REPLAY_ROWS = 500
REFERENCE_ROWS = 20_000
EXAMPLE_ROWS = 3
"""Held-out rows, as they were delivered, that MLflow shows."""
ATTACKS = "attacks.npz"
MAX_EVIDENCE_FILE_BYTES = 8 * 2**20
"""Larger files of the evidence stay with the run that made them."""


@dataclass(frozen=True)
class Signed:
    """Where the statements about everything lie, and which must be there."""

    demands: Demands = field(default_factory=Demands)
    folder: Path | None = None
    """The bundles of the run; None: there are none."""
    signer: Signer | None = None
    """What signs the version's files; None: no one does."""

    def bundles(self) -> dict[str, list[bytes]]:
        """By the digest of their subject; not verified."""
        return {} if self.folder is None else store.read_all(self.folder)


UNSIGNED = Signed(Demands())
ONLY_SHIPPED = PolicyList()


@dataclass(frozen=True)
class Admitted:
    """A model with a passing decision about it, and everything that the decision read."""

    model: Artifact[Model]
    decision: Artifact[GateDecision]
    snapshot: Artifact[Snapshot]
    evidence: Mapping[str, Artifact[Any]]
    bundles: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """What was signed about all of it: digest of the subject -> bundles."""

    @property
    def artifacts(self) -> tuple[Artifact[Any], ...]:
        """All of them."""
        return (self.model, self.decision, self.snapshot, *self.evidence.values())

    def report(self, kind: type[Document]) -> Artifact[Any] | None:
        """The evidence of this kind; None: the decision read none."""
        return self.evidence.get(role_of(kind))


def register(
    model: Ref,
    out: Path,
    *,
    decision: Ref,
    snapshot: Ref,
    evidence: Mapping[str, Ref],
    tracking: str,
    policy: str | None = None,
    signed: Signed = UNSIGNED,
) -> Artifact[Registration]:
    """Registers `model` as a version of its name, alias `candidate`; a second time gives the same version.

    `policy` is the one that must have decided: a name, a file or JSON; None: whichever the decision names. What was
    signed about all of it goes into the version.

    Raises:
        RefusedError: the decision is not a pass, not about this model, snapshot and evidence, or not what they lead to;
            or signatures that must be there are not.
        RegistryError: MLflow cannot be reached.
    """
    admitted = _with_statements(admit(model, decision, snapshot, evidence, policy, signed.demands.policies), signed)
    name, digest = admitted.model.document.name, admitted.model.digest
    done = registry.find(tracking, name, digest, decision=admitted.decision.digest)
    latency = _latency(admitted) if done is None else None
    with tempfile.TemporaryDirectory(prefix="holdfast-register-") as folder:
        work = Path(folder)
        if done is None:
            tags = {"holdfast.bundle_digest": _write_bundle(work / registry.BUNDLE, admitted, signed)}
            _write_package(work, admitted)
            _write_reports(work / "reports", admitted)
        else:
            tags = {}
        done = registry.register(
            tracking, _entry(admitted, tags, latency), package=work / "package", reports=work / "reports"
        )
    registration = Registration(
        inputs=by_role(admitted.model, admitted.decision, admitted.snapshot),
        name=name,
        model_version=done.version,
        model=digest,
        run_id=done.run_id,
        latency=page.answer_times(registry.metrics(tracking, done.run_id)),
    )
    return save(out, registration)


def _with_statements(admitted: Admitted, signed: Signed) -> Admitted:
    """What was admitted, with the bundles about it and about what it was made from."""
    bundles = signed.bundles()
    signed.demands.before_approval().meet(admitted.decision, admitted.artifacts, bundles)
    about = {one.digest for one in admitted.artifacts}
    about |= {digest for one in admitted.artifacts for digest in one.document.inputs.values()}
    return replace(admitted, bundles={digest: bundles[digest] for digest in about & {*bundles}})


def _latency(admitted: Admitted) -> AnswerTimes:
    """Of the network as servers load it, on held-out rows."""
    from holdfast.model.inputs import read_split
    from holdfast.model.networks import load_network
    from holdfast.model.register.latency import measure

    rows = read_split(admitted.snapshot, "test", admitted.model.document.input)
    return measure(load_network(admitted.model, "cpu"), rows.x, clock=time.perf_counter)


def admit(
    model: Ref,
    decision: Ref,
    snapshot: Ref,
    evidence: Mapping[str, Ref],
    policy: str | None = None,
    policies: PolicyList | None = ONLY_SHIPPED,
) -> Admitted:
    """Everything that is registered, after it was held against the decision.

    Raises:
        RefusedError: the decision is not a pass, is about something else, or is not what the evidence leads to.
    """
    judged = load(decision, GateDecision)
    trained, data = load(model, Model), load(snapshot, Snapshot)
    given: dict[str, Artifact[Any]] = {role_of(Model): trained, role_of(Snapshot): data}
    given |= {role: load_any(ref) for role, ref in evidence.items()}
    digests = {role: artifact.digest for role, artifact in given.items()}
    wrong = admission.objection(judged.document, trained.digest, digests)
    if isinstance(wrong, NotPassed):
        raise RefusedError(f"{judged.folder}: expected the verdict pass, found {wrong.verdict}")
    if wrong is not None:
        raise RefusedError(
            f"{given[wrong.role].folder}: expected the {wrong.role} that the gate judged ({_short(wrong.judged)}), "
            f"found {_short(wrong.given)}; run the gate again"
        )
    other = admission.foreign(judged, policies)
    if other is not None:
        raise RefusedError(f"{judged.folder}: {other}")
    missing = admission.left_out(judged.document, digests)
    if missing is not None:
        raise RefusedError(f"{judged.folder}: expected the {missing} report that the gate judged, found none given")
    read = {role: given[role] for role in evidence}
    # The step that wrote the decision can judge again; which one that is, is in the table of steps.
    confirm: Confirm = import_module(f"{writer(GateDecision).package}.confirm").confirm
    confirm(judged, trained, data, read, policy)
    return Admitted(trained, judged, data, read)


def _entry(admitted: Admitted, tags: Mapping[str, str], latency: AnswerTimes | None) -> registry.Entry:
    document = admitted.model.document
    table = admitted.decision.open("decision.md").read().decode()
    documents: list[Document] = [artifact.document for artifact in admitted.evidence.values()]
    return registry.Entry(
        name=document.name,
        model_digest=admitted.model.digest,
        tags={**page.tags(admitted.model, admitted.decision, admitted.snapshot), **_asked_by(admitted), **tags},
        description=page.description(admitted.decision.document, table),
        about=page.about(document),
        params=page.params(document),
        metrics=[*page.metrics(documents, _curve(admitted.model)), *page.latency(latency)],
        dataset=(admitted.snapshot.document.name, admitted.snapshot.document.root),
        parent=registry.EnclosingRun.of(os.environ),
    )


def _asked_by(admitted: Admitted) -> dict[str, str]:
    """The request of the monitor that the run answered, as tags; none where it answered none."""
    attack = admitted.report(RobustnessReport)
    older = None if attack is None else attack.document.older
    if older is None or older.request is None:
        return {}
    return {registry.RETRAIN_REQUEST: older.request, "holdfast.older_than": str(older.older_than)}


def _curve(model: Artifact[Model]) -> list[dict[str, object]]:
    if "curve.json" not in model.document.files:
        return []
    value = json.load(model.open("curve.json"))
    found = value.get("epochs", []) if isinstance(value, dict) else value
    return [row for row in found if isinstance(row, dict)]


# --- files ------------------------------------------------------------------------------------------------------------


def _write_bundle(bundle: Path, admitted: Admitted, signed: Signed) -> str:
    """Everything that serving and the next run need; returns the digest of its manifest."""
    bundle.mkdir()
    _copy(admitted.model, bundle / "model", limit=None)
    _copy(admitted.decision, bundle / "decision", limit=None)
    for role, artifact in admitted.evidence.items():
        _copy(artifact, bundle / registry.EVIDENCE / role, limit=MAX_EVIDENCE_FILE_BYTES)
    _write_held_out(bundle, admitted)
    _reference(admitted).to_parquet(bundle / "reference.parquet", index=False)
    store.copy_of(admitted.bundles, bundle / store.ATTESTATIONS)
    (bundle / materials.NAME).write_bytes(_bill(admitted))
    contract = admitted.report(SchemaReport)
    if contract is not None:
        (bundle / "schema.pbtxt").write_bytes(contract.open("schema.pbtxt").read())
    return registry.seal_bundle(bundle, signed.signer, admitted.model.document.name)


def _copy(artifact: Artifact[Any], into: Path, *, limit: int | None) -> None:
    """Copies an artifact; what is copied is what was hashed."""
    into.mkdir(parents=True)
    shutil.copyfile(artifact.folder / DOCUMENT, into / DOCUMENT)
    copied = load_any(Ref(into, artifact.digest))
    for name, pin in copied.document.files.items():
        if limit is None or pin.bytes <= limit:
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(artifact.open(name).read())


def _write_held_out(bundle: Path, admitted: Admitted) -> None:
    """Rows for a rollout, and the model's confidence.

    `replay.npz`: rows for replayed traffic; `attacks.npz`: adversarial rows, where the attack step kept some;
    `confidence.npz`: the confidence on all held-out rows.
    """
    from holdfast.model.inputs import read_split
    from holdfast.model.networks import load_network, logits

    document = admitted.model.document
    held_out = read_split(admitted.snapshot, "test", document.input)
    values = logits(load_network(admitted.model, "cpu"), held_out.x, device="cpu")
    confidence = softmax(values).max(axis=1)
    rng = np.random.default_rng(document.seed)
    chosen = rng.permutation(len(held_out))[:REPLAY_ROWS]
    np.savez(bundle / "replay.npz", x=held_out.x[chosen], y=held_out.y[chosen])
    np.savez(bundle / "confidence.npz", reference_confidence=confidence)
    attack = admitted.report(RobustnessReport)
    if attack is not None and ATTACKS in attack.document.files:
        (bundle / ATTACKS).write_bytes(attack.open(ATTACKS).read())


def _reference(admitted: Admitted) -> "pd.DataFrame":
    """A sample of the rows that the model was trained on, in the table view."""
    from holdfast.tables import read_table

    table = read_table(admitted.snapshot, "train")
    scan = admitted.report(ScanReport)
    left_out = admitted.snapshot.document.undecided.train if scan is None else scan.document.left_out
    kept = np.setdiff1d(np.arange(len(table)), left_out)
    if len(kept) > REFERENCE_ROWS:
        kept = np.sort(np.random.default_rng(admitted.model.document.seed).choice(kept, REFERENCE_ROWS, replace=False))
    return table.iloc[kept].reset_index(drop=True)


def _write_package(work: Path, admitted: Admitted) -> None:
    """The folder that MLflow loads: signature, example, pins, and the bundle as its data."""
    document = admitted.model.document
    example = modality_of(document.input.modality).example(admitted.snapshot, document.input, EXAMPLE_ROWS)
    with registry.quiet():
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            str(work / "package"),
            loader_module=carried.LOADER,
            code_paths=carried.write_code(work / "code"),
            data_path=str(work / registry.BUNDLE),
            signature=pyfunc.signature(document, example),
            input_example=example,
            pip_requirements=pyfunc.requirements(),
            metadata={
                "holdfast.model_digest": admitted.model.digest,
                "holdfast.contract": published(document),
                **page.operating_point(document),
            },
        )


def _bill(admitted: Admitted) -> bytes:
    return materials.bill(admitted.model, admitted.decision, admitted.snapshot, pyfunc.requirements())


def _write_reports(reports: Path, admitted: Admitted) -> None:
    """What people open from the run's page."""
    reports.mkdir()
    for name in ("decision.md", "junit.xml"):
        (reports / name).write_bytes(admitted.decision.open(name).read())
    contract = json.dumps(published(admitted.model.document), ensure_ascii=False, indent=1)
    (reports / "contract.json").write_text(contract, encoding="utf-8")
    (reports / materials.NAME).write_bytes(_bill(admitted))
    for role, artifact in admitted.evidence.items():
        for name, pin in artifact.document.files.items():
            if name.endswith((".html", ".png", ".svg", ".csv")) and pin.bytes <= MAX_EVIDENCE_FILE_BYTES:
                target = reports / role / Path(name).name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(artifact.open(name).read())


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "none"
