"""The messages of KFP are read and written without kfp; kfp's own classes are the oracle."""

import json

import pytest

pytest.importorskip("kfp", reason="the oracle is kfp (environment .venv)")

from google.protobuf import json_format
from kfp import dsl
from kfp.local import executor_output_utils
from kfp.pipeline_spec import pipeline_spec_pb2 as spec

from holdfast.artifacts.documents import Check, Count, DriftReport, GateDecision, Verdict
from holdfast.artifacts.folder import save
from holdfast.errors import ArtifactError
from holdfast.executor import ExecutorInput, read_executor_input, read_metadata, write_executor_output
from holdfast.measured import Matrix
from holdfast.options import show_in_kubeflow

KINDS = {"artifact": dsl.Artifact, "metrics": dsl.Metrics, "confusion_matrix": dsl.ClassificationMetrics}


def message(tmp_path, *, where="", kinds=KINDS, **more):
    """As KFP's launcher writes it: the JSON of its protobuf message."""
    artifacts = {
        name: {
            "artifacts": [
                {"name": name, "type": {"schemaTitle": kind.schema_title, "schemaVersion": "0.0.1"},
                 "uri": where or str(tmp_path / name), "metadata": {}}
            ]
        }
        for name, kind in kinds.items()
    }  # fmt: skip
    outputs = {"artifacts": artifacts, "parameters": {"digest": {"outputFile": str(tmp_path / "digest")}}}
    outputs["outputFile"] = str(tmp_path / "deep" / "output_metadata.json")
    value = {"inputs": {"parameterValues": {"config": '{"a": "{{$}}"}', "seed": 0.0}}, "outputs": outputs, **more}
    return json_format.ParseDict(value, spec.ExecutorInput())


def text(found):
    return json_format.MessageToJson(found, indent=None)


def read_by_kfp(found):
    output = executor_output_utils.load_executor_output(found.outputs.output_file)
    component = spec.ComponentSpec()
    json_format.ParseDict({"parameters": {"digest": {"parameterType": "STRING"}}}, component.output_definitions)
    return executor_output_utils.get_outputs_from_executor_output(output, found, component)


def test_kfp_reads_what_was_written_as_artifacts_of_the_types_that_it_asked_for(tmp_path):
    asked = message(tmp_path)
    matrix = Matrix(("a", "b"), ((3, 1), (0, 4)))
    shown = {"metrics": {"clean_accuracy": 0.875}, "confusion_matrix": matrix.for_kubeflow()}
    write_executor_output(read_executor_input(text(asked)), shown)
    found = read_by_kfp(asked)
    assert {name: type(one) for name, one in found.items()} == KINDS
    assert found["artifact"].path == str(tmp_path / "artifact")
    assert found["metrics"].metadata == {"clean_accuracy": 0.875}
    theirs = dsl.ClassificationMetrics()
    theirs.log_confusion_matrix(["a", "b"], [[3, 1], [0, 4]])
    assert found["confusion_matrix"].metadata == theirs.metadata


def test_what_was_read_is_what_kfp_s_message_holds(tmp_path):
    asked = message(tmp_path, where="minio://mlpipeline/v2/artifacts/x")
    found = read_executor_input(text(asked))
    assert str(found.output_file) == asked.outputs.output_file
    assert {name: one.uri for name, one in found.artifacts.items()} == {
        name: one.artifacts[0].uri for name, one in asked.outputs.artifacts.items()
    }
    assert {name: str(path) for name, path in found.parameters.items()} == {
        name: one.output_file for name, one in asked.outputs.parameters.items()
    }
    assert read_executor_input(found.message) == found


def test_what_a_later_kfp_adds_to_its_message_stops_no_step(tmp_path):
    value = json.loads(text(message(tmp_path)))
    value["outputs"]["artifacts"]["metrics"]["artifacts"][0]["customPath"] = "/x"
    assert read_executor_input(json.dumps({**value, "taskId": "7"})).artifacts["metrics"].name == "metrics"


def test_the_step_s_own_words_are_read_back(tmp_path):
    given = read_executor_input(text(message(tmp_path)))
    assert read_metadata(given) == {}
    write_executor_output(given, {"metrics": {"a": 1.5}})
    assert read_metadata(given) == {"artifact": {}, "metrics": {"a": 1.5}, "confusion_matrix": {}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "expected a JSON document"),
        ("[]", "list in the place of an object"),
        ("{}", "KeyError"),
        ('{"outputs": {}}', "KeyError"),
        ('{"outputs": {"outputFile": "output.json"}}', "in the place of an absolute path"),
        ('{"outputs": {"outputFile": "/tmp/../etc/passwd"}}', "in the place of an absolute path"),
        ('{"outputs": {"outputFile": 7}}', "7 in the place of a text"),
        ('{"outputs": {"outputFile": "/a", "outputFile": "/b"}}', "a key that is given twice"),
        ('{"outputs": {"outputFile": "/a", "artifacts": {"x": {"artifacts": []}}}}', "IndexError"),
        ('{"outputs": {"outputFile": "/a", "artifacts": {"x": {"artifacts": [{"uri": []}]}}}}', "in the place of a"),
        ('{"outputs": {"outputFile": "/a", "parameters": {"x": {"outputFile": "b"}}}}', "absolute path"),
        (json.dumps({"outputs": {"outputFile": "/a", "artifacts": dict.fromkeys(map(str, range(101)))}}), "101 art"),
        ("[" * 100_000, "expected a JSON document"),
        (" " * (2**17 + 1), "expected at most 131072 characters, found 131073"),
    ],
)
def test_what_is_no_message_of_kfp_is_refused_with_one_line(text, found):
    with pytest.raises(ArtifactError, match=found) as told:
        read_executor_input(text)
    assert "\n" not in str(told.value)


def test_numbers_that_json_does_not_have_are_never_written(tmp_path):
    given = ExecutorInput(tmp_path / "output.json", {"metrics": read_executor_input(
        text(message(tmp_path))).artifacts["metrics"]}, {})  # fmt: skip
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_executor_output(given, {"metrics": {"a": float("nan")}})
    assert not given.output_file.exists()


def test_the_page_of_a_drift_report_is_evidently_s_and_of_a_decision_its_table(tmp_path):
    drift = DriftReport(reference="held-out", stage_one=(), drifted=Count(k=1, n=4), reason="", verdict=Verdict.PASS)
    made = save(tmp_path / "drift", drift, {"evidently.html": b"<p>drift</p>"})
    show_in_kubeflow(made, text(message(tmp_path)), tmp_path / "new" / "page")
    assert (tmp_path / "new" / "page").read_bytes() == b"<p>drift</p>"
    assert read_by_kfp(message(tmp_path))["metrics"].metadata == {"drift/columns": 1, "drift/share": 0.25}
    checks = (Check(name="clean accuracy", measured=0.9, lower=0.8, required="", verdict=Verdict.PASS),)
    decision = GateDecision(
        name="toy", policy="0" * 64, policy_name="p", alpha=0.05, checks=checks, verdict=Verdict.PASS
    )
    made = save(tmp_path / "gate", decision, {"decision.md": b"| check |"})
    show_in_kubeflow(made, text(message(tmp_path)), tmp_path / "page")
    assert (tmp_path / "page").read_bytes() == b"| check |"
    assert read_by_kfp(message(tmp_path))["metrics"].metadata == {
        "gate/checks": 1, "gate/checks_pass": 1, "gate/checks_inconclusive": 0, "gate/checks_fail": 0,
        "gate/clean accuracy": 0.9, "gate/clean accuracy/lower": 0.8,
    }  # fmt: skip


def test_a_page_that_was_altered_is_not_shown(tmp_path):
    drift = DriftReport(reference="held-out", stage_one=(), drifted=Count(k=1, n=4), reason="", verdict=Verdict.PASS)
    made = save(tmp_path / "drift", drift, {"evidently.html": b"<p>drift</p>"})
    (made.folder / "evidently.html").write_bytes(b"<p>d0ift</p>")
    with pytest.raises(ArtifactError, match="the file was altered"):
        show_in_kubeflow(made, text(message(tmp_path)), tmp_path / "page")
    assert not (tmp_path / "page").exists()
