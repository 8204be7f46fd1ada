"""A workload's model, trained and judged in this process: the steps from snapshot to certificate, then the gate."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.artifacts.documents import (
    Certificate,
    Check,
    Document,
    GateDecision,
    Model,
    RobustnessReport,
    Snapshot,
    Verdict,
)
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.data.snapshot.step import snapshot
from holdfast.model.attack.step import attack
from holdfast.model.certify.step import certify
from holdfast.model.train.step import train
from holdfast.steps import role_of
from holdfast.workload.schema import SnapshotConfig, Workload, read_workload
from holdfast_gates.decide import Evidence, Judged, decide
from holdfast_gates.policy import Policy, find
from holdfast_gates.rules import RULES


@dataclass(frozen=True)
class JudgedModel:
    """What the steps wrote, and what the gate made of it."""

    data: Artifact[Snapshot]
    model: Artifact[Model]
    attacked: Artifact[RobustnessReport]
    certified: Artifact[Certificate]
    decision: GateDecision

    @property
    def passed(self) -> bool:
        """Whether every check of the model passed."""
        return self.decision.verdict is Verdict.PASS

    @property
    def held_by(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.decision.checks if check.verdict is not Verdict.PASS]

    def recalls(self) -> Mapping[str, float]:
        """Share of the held-out rows of each class that are answered with it, without an attack."""
        found = self.attacked.document.clean_performance
        assert found is not None, "the attack step counts by class"
        return {one.name: one.recall.share for one in found.classes}


def judge(workload_file: Path, folder: Path, *, seed: int) -> JudgedModel:
    """Runs the model's steps for a workload file and asks the default policy's checks about the model.

    No scan, schema, drift or backdoor step runs: their checks are not asked, so that a pass here is easier than one of
    `holdfast run`.
    """
    workload = read_workload(workload_file)
    settings = Compute(seed, "cpu", 1)
    data = snapshot(_snapshot_config(workload), folder / "snapshot")
    place = _ref(data)
    model = train(place, folder / "model", scan=None, config=workload.train_config, settings=settings, checkpoint=None)
    net = _ref(model)
    attacked = attack(net, place, folder / "attack", config=workload.attack, baseline=None, settings=settings)
    certified = certify(net, place, folder / "certify", config=workload.certify, settings=settings)
    found = {
        role_of(RobustnessReport): Evidence(attacked.document, attacked.digest),
        role_of(Certificate): Evidence(certified.document, certified.digest),
    }
    judged = Judged(model.document, model.digest, data.document, data.digest)
    return JudgedModel(
        data,
        model,
        attacked,
        certified,
        decide(only_about(find("default"), {RobustnessReport, Certificate}), judged, found),
    )


def only_about(policy: Policy, kinds: Collection[type[Document]]) -> Policy:
    """The policy without checks that read other evidence than `kinds`, or a champion's."""
    about_others = {name for name, rule in RULES.items() if rule.reads not in kinds}
    without = dict.fromkeys(about_others | {"champion_clean", "champion_robust", "champion_class_recall"})
    return policy.model_copy(update={"checks": policy.checks.model_copy(update=without)})


def _snapshot_config(workload: Workload) -> SnapshotConfig:
    return SnapshotConfig(name=workload.name, modality=workload.modality, data=workload.data)


def _ref(artifact: "Artifact[Snapshot] | Artifact[Model]") -> Ref:
    return Ref(artifact.folder, artifact.digest)
