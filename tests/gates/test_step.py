import json

import pytest

from holdfast.artifacts.documents import Count, GateDecision, Model, Snapshot, SourceFile, Verdict
from holdfast.artifacts.folder import Ref, load, save
from holdfast.errors import ArtifactError, IntegrityError, WorkloadError
from holdfast_gates.step import gate


@pytest.fixture
def chain(tmp_path, judged, make):
    """A model, its snapshot and all evidence, written as artifacts that name each other's digests."""
    data = save(
        tmp_path / "snapshot",
        Snapshot(
            name="digits",
            modality="image",
            root="1" * 64,
            sources=(SourceFile(path="digits.npz", sha256="2" * 64, bytes=9),),
            label="label",
            classes=("0", "1"),
            train_rows=2,
            test_rows=2,
            train_per_class=(1, 1),
            test_per_class=(1, 1),
            shape=(1, 8, 8),
            leaked_rows=0,
        ),
    )
    parts = {role: make[role](inputs={"snapshot": data.digest}) for role in ("schema", "drift", "scan")}
    evidence = {role: save(tmp_path / role, document) for role, document in parts.items()}
    inputs = {"snapshot": data.digest, "scan": evidence["scan"].digest}
    trained = save(tmp_path / "model", judged.model.model_copy(update={"inputs": inputs}))
    about = {"model": trained.digest, "snapshot": data.digest}
    evidence["backdoor"] = save(tmp_path / "backdoor", make["backdoor"](inputs=about))
    evidence["certify"] = save(tmp_path / "certify", make["certify"](inputs=about))
    evidence["attack"] = save(tmp_path / "attack", make["attack"](inputs={**about, "baseline": "d" * 64}))
    refs = {role: Ref(artifact.folder, artifact.digest) for role, artifact in evidence.items()}
    return {"model": Ref(trained.folder, trained.digest), "snapshot": Ref(data.folder, data.digest), "evidence": refs}


def test_the_decision_is_written_with_its_table_and_junit(policy, chain, tmp_path):
    decision = gate(policy, tmp_path / "gate", **chain)
    assert decision.document.verdict is Verdict.PASS
    assert set(decision.document.files) == {"decision.md", "junit.xml", "policy.json"}
    assert decision.document.inputs["model"] == chain["model"].digest
    assert json.loads(decision.open("policy.json").read())["name"] == "default"
    assert load(Ref(tmp_path / "gate", decision.digest), GateDecision).document == decision.document


def test_judging_twice_gives_the_same_bytes(policy, chain, tmp_path):
    assert gate(policy, tmp_path / "one", **chain).digest == gate(policy, tmp_path / "two", **chain).digest


def test_a_blocked_model_is_a_decision_and_not_a_failed_step(policy, chain, tmp_path):
    del chain["evidence"]["attack"]
    assert gate(policy, tmp_path / "gate", **chain).document.verdict is Verdict.INCONCLUSIVE


def test_a_model_that_was_trained_again_after_the_attack_is_not_passed(policy, chain, tmp_path):
    trained = load(chain["model"], Model).document
    again = save(tmp_path / "model", trained.model_copy(update={"seed": 1}))
    chain["model"] = Ref(again.folder, again.digest)
    decision = gate(policy, tmp_path / "gate", **chain)
    assert decision.document.verdict is Verdict.INCONCLUSIVE
    assert "about another model" in decision.open("decision.md").read().decode()


def test_evidence_that_was_altered_is_refused(policy, chain, tmp_path):
    path = chain["evidence"]["attack"].folder / "artifact.json"
    path.write_text(path.read_text().replace('"k":790', '"k":990'))
    with pytest.raises(IntegrityError, match="artifact.json: expected artifact"):
        gate(policy, tmp_path / "gate", **chain)
    assert not (tmp_path / "gate").exists()


def test_evidence_that_is_not_finite_is_refused(policy, chain, tmp_path):
    folder = chain["evidence"]["certify"].folder
    path = folder / "artifact.json"
    path.write_text('"noise":NaN'.join(path.read_text().rsplit('"noise":0.25', 1)))
    chain["evidence"]["certify"] = Ref(folder)
    with pytest.raises(ArtifactError, match=r"certify/artifact.json: .*finite number at certificate.noise"):
        gate(policy, tmp_path / "gate", **chain)


def test_evidence_of_another_kind_is_refused(policy, chain, tmp_path):
    chain["evidence"]["attack"] = chain["evidence"]["scan"]
    with pytest.raises(ArtifactError, match="expected a robustness-report, found a scan-report"):
        gate(policy, tmp_path / "gate", **chain)


def test_an_unknown_role_is_refused(policy, chain, tmp_path):
    chain["evidence"]["atack"] = chain["evidence"]["attack"]
    with pytest.raises(WorkloadError, match="evidence 'atack': expected one of schema, drift"):
        gate(policy, tmp_path / "gate", **chain)


def test_a_weak_model_fails(policy, chain, make, tmp_path):
    report = load(chain["evidence"]["attack"], type(make["attack"]())).document
    weak = save(tmp_path / "attack", report.model_copy(update={"worst_case": Count(k=100, n=1000)}))
    chain["evidence"]["attack"] = Ref(weak.folder, weak.digest)
    assert gate(policy, tmp_path / "gate", **chain).document.verdict is Verdict.FAIL
