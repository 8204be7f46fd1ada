"""The rule of trust: verdict pass, about these very bytes; everything else is an objection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.artifacts import admission
from holdfast.artifacts.admission import NotPassed, OtherBytes, left_out, objection
from holdfast.artifacts.documents import (
    Architecture,
    Baseline,
    Check,
    Count,
    GateDecision,
    InputSpec,
    Model,
    ThreatModel,
    Verdict,
)
from holdfast.artifacts.folder import Ref, save
from holdfast.errors import ArtifactError, IntegrityError

MODEL, OTHER = "a" * 64, "b" * 64


def decision(verdict=Verdict.PASS, **inputs):
    check = Check(name="c", required="r", verdict=verdict)
    return GateDecision(
        inputs=inputs, name="toy", policy=OTHER, policy_name="p", alpha=0.05, checks=(check,), verdict=verdict
    )


@pytest.fixture
def model(tmp_path):
    document = Model(
        name="toy",
        architecture=Architecture(name="cnn", parameters=1),
        input=InputSpec(modality="image", shape=(1, 2, 2), dtype="float32"),
        classes=("0", "1"),
        threat=ThreatModel(norm="linf", epsilon="1/255", unit="input units [0, 1]"),
        recipe={},
        seed=0,
        threads=1,
        device="cpu",
        best_epoch=0,
        clean=Count(k=0, n=0),
        robust=Count(k=0, n=0),
    )
    return save(tmp_path / "model", document, {"weights.safetensors": b"w" * 100, "curve.json": b"[]"})


def test_a_pass_about_these_very_bytes_lets_the_model_in():
    assert objection(decision(model=MODEL), MODEL) is None


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_any_other_verdict_is_an_objection(verdict):
    assert objection(decision(verdict, model=MODEL), MODEL) == NotPassed(verdict)


def test_a_pass_about_other_bytes_is_an_objection():
    assert objection(decision(model=OTHER), MODEL) == OtherBytes("model", MODEL, OTHER)


def test_a_pass_about_no_model_is_an_objection():
    assert objection(decision(snapshot=MODEL), MODEL) == OtherBytes("model", MODEL, None)


def test_a_verdict_on_other_bytes_is_not_taken_for_one_on_these():
    assert objection(decision(Verdict.FAIL, model=OTHER), MODEL) == OtherBytes("model", MODEL, OTHER)


def test_what_goes_with_the_model_must_be_what_the_gate_judged_too():
    judged = decision(model=MODEL, snapshot=OTHER)
    assert objection(judged, MODEL, {"snapshot": OTHER}) is None
    assert objection(judged, MODEL, {"snapshot": MODEL}) == OtherBytes("snapshot", MODEL, OTHER)
    assert objection(judged, MODEL, {"attack": OTHER}) == OtherBytes("attack", OTHER, None)


@given(
    verdict=st.sampled_from(Verdict), judged=st.sampled_from(["", MODEL, OTHER]), asked=st.sampled_from([MODEL, OTHER])
)
def test_nothing_but_a_pass_about_the_same_bytes_goes_without_objection(verdict, judged, asked):
    # The rule itself, by brute force over all that a decision can say about one model.
    inputs = {"model": judged} if judged else {}
    assert (objection(decision(verdict, **inputs), asked) is None) == (verdict == "pass" and judged == asked)


def test_a_report_that_the_gate_read_and_nobody_hands_in_is_named():
    judged = decision(model=MODEL, scan=OTHER, attack=OTHER)
    assert left_out(judged, {"model", "scan"}) == "attack"
    assert left_out(judged, {"model", "scan", "attack"}) is None


def test_a_model_and_its_decision_are_read_after_every_file_was_hashed(model, tmp_path):
    save(tmp_path / "decision", decision(model=model.digest))
    judged = admission.read(Ref(tmp_path / "model"), Ref(tmp_path / "decision"))
    assert (judged.model.digest, judged.objection(None)) == (model.digest, None)


def test_a_decision_about_another_model_on_disk_is_an_objection(model, tmp_path):
    save(tmp_path / "decision", decision(model=OTHER))
    judged = admission.read(Ref(tmp_path / "model"), Ref(tmp_path / "decision"))
    assert judged.objection(None) == OtherBytes("model", model.digest, OTHER)


@pytest.mark.parametrize("name", ["weights.safetensors", "curve.json"])
def test_one_altered_byte_in_any_file_is_found(model, tmp_path, name):
    save(tmp_path / "decision", decision(model=model.digest))
    path = model.folder / name
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(IntegrityError, match=f"{name}: expected sha256"):
        admission.read(Ref(tmp_path / "model"), Ref(tmp_path / "decision"))


@pytest.mark.parametrize("role", ["model", "decision"])
def test_another_kind_of_artifact_is_neither_a_model_nor_a_decision(model, tmp_path, role):
    save(tmp_path / "decision", decision(model=model.digest))
    save(tmp_path / role, Baseline(name="toy", present=False))
    with pytest.raises(ArtifactError, match="found a baseline"):
        admission.read(Ref(tmp_path / "model"), Ref(tmp_path / "decision"))


@pytest.mark.parametrize("role", ["model", "decision"])
def test_an_artifact_with_another_digest_than_promised_is_refused(model, tmp_path, role):
    save(tmp_path / "decision", decision(model=model.digest))
    refs = {name: Ref(tmp_path / name, OTHER if name == role else None) for name in ("model", "decision")}
    with pytest.raises(IntegrityError, match="expected artifact bbbb"):
        admission.read(**refs)
