import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException

import holdfast
from holdfast import registry
from holdfast.artifacts.contract import published
from holdfast.artifacts.documents import Check, Count, GateDecision, Model, Snapshot, Verdict
from holdfast.artifacts.folder import Ref, load, save
from holdfast.attestation.demands import Demands
from holdfast.errors import ArtifactError, HoldfastError, InputError, IntegrityError, RefusedError
from holdfast.model.inputs import encode, read_split
from holdfast.model.networks import load_network, logits
from holdfast.model.register.page import description
from holdfast.model.register.step import Signed, admit, register
from tests.model.register.conftest import toy_policy


def call(chain, tmp_path, tracking, name="registration"):
    return register(
        chain.model,
        tmp_path / name,
        decision=chain.decision,
        snapshot=chain.snapshot,
        evidence=chain.evidence,
        tracking=tracking,
    )


def trusting(folder, *listed):
    """A trust policy that lists policies, and asks for no signature."""
    path = folder / "trust.yaml"
    path.write_text(f"version: 1\npolicies: [{', '.join(listed)}]\n")
    return path


def client(tracking):
    from mlflow import MlflowClient

    return MlflowClient(tracking, tracking)


def by_network(chain, x):
    model = load(chain.model, Model)
    return logits(load_network(model, "cpu"), encode(x, model.document.input), device="cpu")


def pyfunc(tracking, uri):
    import mlflow

    mlflow.set_tracking_uri(tracking)
    try:
        return mlflow.pyfunc.load_model(uri)
    finally:
        mlflow.set_tracking_uri(None)


def test_a_model_that_passed_becomes_a_version_with_alias_tags_and_table(chain, tracking, tmp_path):
    passed = chain()
    done = call(passed, tmp_path, tracking).document
    assert (done.name, done.model_version, done.model) == ("demo-image", 1, passed.model.digest)
    version = client(tracking).get_model_version("demo-image", "1")
    assert version.tags["holdfast.model_digest"] == passed.model.digest
    assert version.tags["holdfast.decision_digest"] == passed.decision.digest
    assert version.tags["holdfast.verdict"] == "pass"
    # People search for versions by these names.
    assert version.tags["holdfast.workload"] == "demo-image"
    assert set(version.tags) == {
        *(f"holdfast.{name}" for name in ("workload", "modality", "threat", "verdict", "policy")),
        *(f"holdfast.{of}_digest" for of in ("model", "snapshot", "decision", "policy", "bundle", "package")),
    }
    assert version.description.startswith("verdict pass, clean accuracy 0.900\n\n# demo-image: pass\n")
    assert registry.aliases(tracking, "demo-image") == {"candidate": 1}
    assert "models:/demo-image@champion" in client(tracking).get_registered_model("demo-image").description


def test_the_run_holds_metrics_params_curve_and_reports(chain, tracking, tmp_path):
    run_id = call(chain(), tmp_path, tracking).document.run_id
    run = client(tracking).get_run(run_id)
    # The counts are those of the fixture: 18, 15, 16, 12 and 1 of 20.
    assert run.data.metrics["clean_accuracy"] == 0.9
    assert run.data.metrics["robust_accuracy"] == 0.75
    assert run.data.metrics["robust_accuracy/pgd"] == 0.8
    assert run.data.metrics["certified_accuracy/0.25"] == 0.6
    assert run.data.metrics["abstained"] == 0.05
    # By class 16 of 17 and 2 of 3 without an attack, 15 of 17 and 0 of 3 under it.
    assert run.data.metrics["recall/odd_no__"] == pytest.approx(2 / 3)
    assert run.data.metrics["robust_recall/odd_no__"] == 0
    assert run.data.metrics["balanced_accuracy"] == pytest.approx((16 / 17 + 2 / 3) / 2)
    assert run.data.metrics["robust_balanced_accuracy"] == pytest.approx(15 / 34)
    assert (run.data.metrics["roc_auc"], run.data.metrics["robust_pr_auc"]) == (0.9, 0.3)
    assert run.data.params["recipe.epochs"] == "2"
    history = client(tracking).get_metric_history(run_id, "curve/loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.7), (1, 0.5)]
    reports = {"attack", "bom.cdx.json", "contract.json", "decision.md", "junit.xml"}
    assert {f.path for f in client(tracking).list_artifacts(run_id)} == reports
    assert run.info.status == "FINISHED"


def test_registering_twice_makes_one_version_and_the_same_artifact(chain, tracking, tmp_path):
    passed = chain()
    first, second = call(passed, tmp_path, tracking, "one"), call(passed, tmp_path, tracking, "two")
    assert first.digest == second.digest
    assert len(client(tracking).search_model_versions("name='demo-image'")) == 1


def test_the_time_of_an_answer_is_measured_once_and_is_in_the_run_and_in_the_registration(chain, tracking, tmp_path):
    passed = chain()
    first, second = call(passed, tmp_path, tracking, "one"), call(passed, tmp_path, tracking, "two")
    found = client(tracking).get_run(first.document.run_id).data.metrics
    assert first.document.latency == second.document.latency
    assert found["latency_ms/single_row"] == first.document.latency.single_row_ms > 0
    # The snapshot has 20 held-out rows.
    assert found["latency_ms/batch_of_20"] == first.document.latency.batch_ms > 0


def test_two_processes_that_register_one_model_into_a_new_store_at_once_make_one_version(chain, tmp_path):
    passed, uri = chain("tabular"), f"sqlite:///{tmp_path}/new/mlflow.db"
    roles = {"model": passed.model, "decision": passed.decision, "snapshot": passed.snapshot, **passed.evidence}
    options = [word for role, ref in roles.items() for word in (f"--{role}", str(ref.folder))]
    options += ["--trust", str(trusting(tmp_path, toy_policy(Verdict.PASS).digest)), "--tracking", uri, "--json"]
    command = [sys.executable, "-m", "holdfast", "register", *options, "--out"]
    made = [
        subprocess.Popen([*command, str(tmp_path / name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    said = [process.communicate(timeout=240) for process in made]
    assert [process.returncode for process in made] == [0, 0], said
    assert [json.loads(out)["model_version"] for out, _ in said] == [1, 1]
    assert len(client(uri).search_model_versions("name='demo-tabular'")) == 1
    assert registry.aliases(uri, "demo-tabular") == {"candidate": 1}


def test_another_model_of_the_same_name_is_the_next_version(chain, tracking, tmp_path):
    call(chain(seed=0), tmp_path, tracking, "one")
    assert call(chain(seed=1), tmp_path, tracking, "two").document.model_version == 2


def test_files_lie_beside_the_database_and_not_where_the_step_was_called(chain, tracking, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "..")
    call(chain(), tmp_path, tracking)
    assert list((tmp_path / "artifacts" / "demo-image").iterdir())
    assert not (tmp_path / ".." / "mlruns").exists()


def test_images_in_delivered_units_get_the_predictions_that_the_gate_judged(chain, tracking, tmp_path):
    passed = chain("image")
    call(passed, tmp_path, tracking)
    with np.load(load(passed.snapshot, Snapshot).open("test.npz")) as arrays:
        x = arrays["x"]
    answer = pyfunc(tracking, "models:/demo-image@candidate").predict(x)
    expected = by_network(passed, x)
    np.testing.assert_array_equal(answer[["logit_ham", "logit_spam"]].to_numpy(np.float32), expected)
    assert answer["class"].tolist() == [("ham", "spam")[i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose(answer[["probability_ham", "probability_spam"]].sum(axis=1), 1)


def test_a_table_gets_the_predictions_that_the_gate_judged(chain, tracking, tmp_path):
    passed = chain("tabular")
    call(passed, tmp_path, tracking)
    # Snapshots store numbers as floats; whole ones come as integers from a user's CSV.
    frame = pd.read_parquet(load(passed.snapshot, Snapshot).open("test.parquet")).astype({"age": "int64"})
    answer = pyfunc(tracking, "models:/demo-tabular/1").predict(frame.drop(columns="label"))
    np.testing.assert_array_equal(answer[["logit_ham", "logit_spam"]].to_numpy(), by_network(passed, frame))


def test_mlflow_shows_the_contract_of_a_table(chain, tracking, tmp_path):
    passed = chain("tabular")
    run_id = call(passed, tmp_path, tracking).document.run_id
    contract = published(load(passed.model, Model).document)
    model = pyfunc(tracking, "models:/demo-tabular/1")
    assert model.metadata.metadata["holdfast.contract"] == contract
    assert model.metadata.get_input_schema().input_names() == [column["name"] for column in contract["columns"]]
    kept = client(tracking).download_artifacts(run_id, "contract.json", str(tmp_path))
    assert json.loads(Path(kept).read_text()) == contract
    page = client(tracking).get_registered_model("demo-tabular").description
    assert "| column | kind | values |\n|---|---|---|\n| age | number |" in page


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.astype({"age": "float64"}),
        lambda frame: frame.astype(str),
        lambda frame: frame[frame.columns[::-1]],
        lambda frame: frame.assign(note=None),
        lambda frame: frame.to_dict("records"),
    ],
)
def test_mlflow_hands_over_the_same_rows_in_other_types(chain, tracking, tmp_path, change):
    passed = chain("tabular")
    call(passed, tmp_path, tracking)
    model = pyfunc(tracking, "models:/demo-tabular/1")
    frame = pd.read_parquet(load(passed.snapshot, Snapshot).open("test.parquet")).drop(columns="label")
    pd.testing.assert_frame_equal(model.predict(change(frame)), model.predict(frame))


@pytest.mark.parametrize("modality", ["tabular", "text"])
def test_no_rows_give_no_answers_and_a_missing_value_is_refused(chain, tracking, tmp_path, modality):
    passed = chain(modality)
    call(passed, tmp_path, tracking)
    model = pyfunc(tracking, f"models:/demo-{modality}/1")
    frame = pd.read_parquet(load(passed.snapshot, Snapshot).open("test.parquet")).drop(columns="label")
    answer = model.predict(frame.head(0))
    assert (len(answer), list(answer.columns)) == (0, list(model.predict(frame.head(1)).columns))
    first = frame.columns[0]
    with pytest.raises(InputError, match="in every row"):
        model.predict(frame.astype(object).assign(**{first: [None, *frame[first][1:]]}))


@pytest.mark.parametrize("kind", [list, pd.Series, lambda m: pd.DataFrame({"message": m})])
def test_messages_get_the_predictions_that_the_gate_judged(chain, tracking, tmp_path, kind):
    passed = chain("text")
    call(passed, tmp_path, tracking)
    messages = ["WIN a prize now", "see you at eight", ""]
    answer = pyfunc(tracking, "models:/demo-text/1").predict(kind(messages))
    np.testing.assert_array_equal(answer[["logit_ham", "logit_spam"]].to_numpy(), by_network(passed, messages))


@pytest.mark.parametrize("load", [pyfunc, lambda tracking, uri: holdfast.load_model(uri, tracking=tracking)])
def test_weights_altered_in_the_store_are_not_loaded(chain, tracking, tmp_path, load):
    call(chain(), tmp_path, tracking)
    flip_a_bit(next((tmp_path / "artifacts").rglob("weights.safetensors")))
    with pytest.raises(IntegrityError, match="weights.safetensors: .*altered after the model was registered"):
        load(tracking, "models:/demo-image@candidate")


@pytest.mark.parametrize("uri", ["models:/demo-tabular@candidate", "models:/demo-tabular/1"])
def test_our_own_loader_runs_no_code_of_the_store(chain, tracking, tmp_path, monkeypatch, uri):
    passed = chain("tabular")
    call(passed, tmp_path, tracking)
    frame = pd.read_parquet(load(passed.snapshot, Snapshot).open("test.parquet"))
    package = next((tmp_path / "artifacts").rglob("MLmodel")).parent
    name = f"other_{len(uri)}"  # a module of its own: the second import of one runs nothing
    (package / "code").mkdir(exist_ok=True)
    (package / "code" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n_load_pyfunc = str\n")
    described = yaml.safe_load((package / "MLmodel").read_text())
    described["flavors"]["python_function"] |= {"code": "code", "loader_module": name}
    (package / "MLmodel").write_text(yaml.safe_dump(described))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    with pytest.raises(
        IntegrityError, match=r"version 1: expected the files .*; MLmodel, or what it names, was altered"
    ):
        holdfast.load_model(uri)
    # Nor where whoever can write files can write the tag, too.
    registry.tag(tracking, "demo-tabular", 1, registry.PACKAGE, registry.package_digest(package))
    answer = holdfast.load_model(uri).predict(frame)
    np.testing.assert_array_equal(answer[["logit_ham", "logit_spam"]].to_numpy(), by_network(passed, frame))
    assert not (tmp_path / "ran").exists()
    # What MLflow does with the same version, and why the pages name our loader.
    with pytest.raises(MlflowException, match="missing required predict"):
        pyfunc(tracking, uri)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("models:/demo-image@champion", "expected a registered version, found none in sqlite"),
        ("models:/demo-image/2", "expected a registered version, found none in sqlite"),
        ("models:/demo-image", "expected models:/NAME@ALIAS or models:/NAME/VERSION, found"),
        ("runs:/abc/model", "expected models:/NAME@ALIAS"),
        ("models:/../x@y", "expected models:/NAME@ALIAS"),
    ],
)
def test_a_model_that_is_not_there_is_named(chain, tracking, tmp_path, uri, found):
    call(chain(), tmp_path, tracking)
    with pytest.raises(HoldfastError, match=found):
        holdfast.load_model(uri, tracking=tracking)


def test_the_bundle_holds_what_serving_and_the_next_run_need(chain, tracking, tmp_path):
    passed = chain()
    call(passed, tmp_path, tracking)
    bundle = registry.fetch(tracking, "demo-image", 1, tmp_path / "bundle")
    held_out = read_split(load(passed.snapshot, Snapshot), "test", bundle.model.document.input)
    with np.load(bundle.path("replay.npz")) as replay:
        assert replay["x"].shape == (20, 1, 8, 8)
        assert sorted(replay["y"].tolist()) == sorted(held_out.y.tolist())
    with np.load(bundle.path("confidence.npz")) as scores:
        values = logits(load_network(bundle.model, "cpu"), held_out.x, device="cpu").astype(np.float64)
        # Independent route: 1 / sum(exp(z - max)) is the largest softmax.
        np.testing.assert_allclose(
            scores["reference_confidence"], 1 / np.exp(values - values.max(1, keepdims=True)).sum(1), rtol=1e-12
        )
    assert len(pd.read_parquet(bundle.path("reference.parquet"))) == 40 - 2  # two rows are in quarantine
    assert bundle.path("schema.pbtxt").read_bytes() == b"feature {}\n"
    assert bundle.path("evidence/attack/curve.html").is_file()
    assert bundle.path("attacks.npz").read_bytes() == b"adversarial rows"


def test_a_model_whose_attack_step_kept_no_rows_is_registered_without(chain, tracking, tmp_path):
    call(chain("tabular"), tmp_path, tracking)
    bundle = registry.fetch(tracking, "demo-tabular", 1, tmp_path / "bundle")
    with pytest.raises(ArtifactError, match="expected a file attacks.npz, found none"):
        bundle.path("attacks.npz")


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_a_model_that_did_not_pass_is_refused_and_nothing_is_registered(chain, tracking, tmp_path, verdict):
    with pytest.raises(RefusedError, match=f"expected the verdict pass, found {verdict}"):
        call(chain(verdict=verdict), tmp_path, tracking)
    assert registry.aliases(tracking, "demo-image") == {}
    assert not (tmp_path / "registration").exists()


@pytest.mark.parametrize("part", ["model", "snapshot"])
def test_another_model_or_snapshot_than_the_judged_one_is_refused(chain, tracking, tmp_path, part):
    judged, other = chain(seed=0), chain("tabular", seed=1)
    with pytest.raises(RefusedError, match=f"expected the {part} that the gate judged"):
        call(replace(judged, **{part: getattr(other, part)}), tmp_path, tracking)


def test_other_evidence_than_the_judged_one_is_refused(chain, tracking, tmp_path):
    judged, other = chain(seed=0), chain(seed=1)
    with pytest.raises(RefusedError, match="expected the attack that the gate judged"):
        call(replace(judged, evidence={**judged.evidence, "attack": other.evidence["attack"]}), tmp_path, tracking)


def test_evidence_that_is_held_back_is_asked_for(chain, tracking, tmp_path):
    judged = chain()
    rest = {role: ref for role, ref in judged.evidence.items() if role != "scan"}
    with pytest.raises(RefusedError, match="expected the scan report that the gate judged, found none"):
        call(replace(judged, evidence=rest), tmp_path, tracking)


def test_weights_altered_after_the_decision_are_not_registered(chain, tracking, tmp_path):
    judged = chain()
    flip_a_bit(judged.model.folder / "weights.safetensors")
    with pytest.raises(IntegrityError, match="weights.safetensors"):
        call(judged, tmp_path, tracking)
    assert registry.aliases(tracking, "demo-image") == {}


def test_a_decision_that_was_edited_is_refused(chain, tracking, tmp_path):
    failed = chain(verdict=Verdict.FAIL)
    path = failed.decision.folder / "artifact.json"
    path.write_text(path.read_text().replace('"verdict":"fail"', '"verdict":"pass"'))
    with pytest.raises(IntegrityError, match="expected artifact"):
        call(failed, tmp_path, tracking)
    # Nor where its digest was computed again, or was never asked for.
    with pytest.raises(RefusedError, match=r"found another checks\.clean_accuracy.* run the gate again"):
        call(replace(failed, decision=Ref(failed.decision.folder)), tmp_path, tracking)


def test_a_laxer_policy_under_the_same_name_is_refused_where_the_run_s_own_is_known(chain, tracking, tmp_path):
    judged = chain()
    data = json.loads(load(judged.decision, GateDecision).open("policy.json").read())
    assert data["checks"]["clean_accuracy"]["at_least"] == 0.5
    asked = tmp_path / "policy.yaml"
    asked.write_text(yaml.safe_dump({**data, "checks": {"clean_accuracy": {"at_least": 0.6}}}))
    with pytest.raises(RefusedError, match=r"expected a decision by the policy default \(.*found one by default"):
        admit(judged.model, judged.decision, judged.snapshot, judged.evidence, str(asked))
    with pytest.raises(RefusedError, match="found one by default"):
        admit(judged.model, judged.decision, judged.snapshot, judged.evidence, "default")
    admit(judged.model, judged.decision, judged.snapshot, judged.evidence, json.dumps(data))


def test_a_policy_that_is_only_named_default_registers_nothing_and_nothing_is_loaded_by_it(
    chain, tracking, tmp_path, monkeypatch
):
    passed, uri = chain(), "models:/demo-image/1"
    call(passed, tmp_path, tracking)
    ours = toy_policy(Verdict.PASS).digest
    monkeypatch.undo()
    with pytest.raises(RefusedError, match=rf"expected a verdict by a policy that counts.* default \({ours}\)"):
        call(passed, tmp_path, tracking, "again")
    with pytest.raises(RefusedError, match=rf"default \({ours}\)"):
        holdfast.load_model(uri, tracking=tracking)
    with pytest.raises(RefusedError, match=rf"default \({ours}\)"):
        holdfast.load_model(uri, tracking=tracking, trust=trusting(tmp_path, "shipped"))
    assert holdfast.load_model(uri, tracking=tracking, trust=trusting(tmp_path, "shipped", ours))


def test_a_policy_of_ones_own_registers_where_the_trust_policy_lists_it(chain, tracking, tmp_path, monkeypatch):
    passed = chain()
    monkeypatch.undo()
    listed = Demands.of(trusting(tmp_path, toy_policy(Verdict.PASS).digest))
    done = register(
        passed.model, tmp_path / "done", decision=passed.decision, snapshot=passed.snapshot,
        evidence=passed.evidence, tracking=tracking, signed=Signed(listed),
    )  # fmt: skip
    assert done.document.model_version == 1
    with pytest.raises(RefusedError, match="a policy that counts"):
        registry.fetch(tracking, "demo-image", 1, tmp_path / "bundle")
    assert registry.fetch(tracking, "demo-image", 1, tmp_path / "bundle", listed)


def test_no_single_value_of_a_decision_can_be_another(chain, tracking, tmp_path):
    judged = chain()
    path = judged.decision.folder / "artifact.json"
    written = json.loads(path.read_text())
    given = replace(judged, decision=Ref(judged.decision.folder))
    leaves = list(edits(written))
    assert len(leaves) > 30
    for where, edited in leaves:
        path.write_text(json.dumps(edited))
        assert refused(given), where
    path.write_text(json.dumps(written))
    assert not refused(given)


def refused(given):
    try:
        admit(given.model, given.decision, given.snapshot, given.evidence)
    except HoldfastError:
        return True
    return False


def edits(value, where=""):
    """Copies of a JSON value in each of which one leaf is another, or one member of a list is gone."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ((place, {**value, key: edited}) for place, edited in edits(part, f"{where}.{key}"))
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield f"{where}[{i}] left out", value[:i] + value[i + 1 :]
            yield from ((p, [*value[:i], edited, *value[i + 1 :]]) for p, edited in edits(part, f"{where}[{i}]"))
        yield f"{where} longer", [*value, *(value[:1] or ["clean_accuracy"])]
    elif isinstance(value, str):
        other = "pass" if value == "fail" else "fail" if value == "pass" else None
        yield where, other or value[:-1] + ("0" if value[-1:] != "0" else "1")
    elif value is None:
        yield where, 0.5
    else:
        yield (
            where,
            not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 0.9 * value + 0.01,
        )


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("policy.json", b'{"alpha":0.05,"checks":{"drift":{}},"name":"default"}', "expected the policy that"),
        ("policy.json", b"[]", "expected a policy"),
        ("policy.json", b'{"alpha":0.05,"checks":{},"name":"default"}', "asks for at least one check"),
        ("policy.json", b"!" + b" " * 2**20, "found 1048577 bytes"),
        ("policy.json", None, "expected the policy in effect, found none"),
        ("decision.md", b"# demo-image: pass, really\n", "expected the page of the decision"),
        ("junit.xml", None, "expected the page of the decision"),
    ],
)
def test_other_pages_or_another_policy_than_the_decision_s_are_refused(chain, tracking, tmp_path, file, text, found):
    judged = chain()
    decision = load(judged.decision, GateDecision)
    files = {name: decision.open(name).read() for name in decision.document.files} | {file: text}
    forged = save(
        tmp_path / "forged",
        decision.document.model_copy(update={"files": {}}),
        {name: data for name, data in files.items() if data is not None},
    )
    with pytest.raises(RefusedError, match=found):
        call(replace(judged, decision=Ref(forged.folder, forged.digest)), tmp_path, tracking)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_model_that_was_changed_is_refused_also_when_no_digest_was_asked_for(chain, tracking, tmp_path):
    judged = chain()
    path = judged.model.folder / "artifact.json"
    path.write_text(path.read_text().replace('"best_epoch":1', '"best_epoch":2'))
    with pytest.raises(RefusedError, match="expected the model that the gate judged"):
        call(replace(judged, model=Ref(judged.model.folder)), tmp_path, tracking)


def test_lists_of_versions_show_the_rates_first(chain):
    rate = Check(
        name="clean_accuracy",
        measured=0.9,
        count=Count(k=9, n=10),
        lower=0.6,
        upper=1.0,
        required="x",
        verdict=Verdict.PASS,
    )
    decision = load(chain().decision, GateDecision).document.model_copy(update={"checks": (rate,)})
    assert description(decision, "# t").splitlines()[0] == "verdict pass, clean accuracy 0.900"
