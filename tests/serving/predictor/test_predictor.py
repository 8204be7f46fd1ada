"""The predictor's core: what it admits, what it lets in, what it answers."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from holdfast.artifacts.documents import GateDecision, Verdict
from holdfast.artifacts.folder import Ref, load, save
from holdfast.errors import InputError, ModelError, RefusedError, WorkloadError
from holdfast.serving.predictor.core import Answer, admit, check_rows, from_doubles, load_admitted, load_predictor
from holdfast.serving.predictor.game_day import GameDay
from holdfast.serving.predictor.options import Options
from holdfast.serving.predictor.settings import ModelParameters, Served, model_settings, server_settings, write_settings


@pytest.fixture
def own_bundle(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def refs(folder):
    return Ref(folder / "model"), Ref(folder / "decision")


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_a_judged_model_answers_as_its_network_does(bundle):
    import torch

    from holdfast.artifacts.documents import Model
    from holdfast.artifacts.folder import load
    from holdfast.model.networks import load_network

    x = np.load(bundle / "replay.npz")["x"]
    answer = load_predictor(*refs(bundle)).answer(x)
    with torch.no_grad():
        logits = load_network(load(bundle / "model", Model), "cpu")(torch.from_numpy(x))
    np.testing.assert_array_equal(answer.label, logits.argmax(1).numpy())
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_altered_weights_are_refused(own_bundle):
    flip_a_bit(own_bundle / "model" / "weights.safetensors")
    with pytest.raises(RefusedError, match=r"weights\.safetensors: expected sha256"):
        admit(*refs(own_bundle))


def test_weights_of_another_kind_are_not_served_even_by_a_decision_about_them(own_bundle):
    import pickle

    from holdfast.artifacts.documents import Model

    model, decision = load(own_bundle / "model", Model), load(own_bundle / "decision", GateDecision)
    files = {name: model.open(name).getvalue() for name in model.document.files}
    files["weights.safetensors"] = pickle.dumps({"w": 1})
    other = save(own_bundle / "model", model.document.model_copy(update={"files": {}}), files)
    judged = {"inputs": {**decision.document.inputs, "model": other.digest}, "files": {}}
    save(own_bundle / "decision", decision.document.model_copy(update=judged))
    with pytest.raises(ModelError, match=r"weights\.safetensors: expected a header of .*; it is not loaded"):
        load_predictor(*refs(own_bundle))


def test_a_missing_decision_is_refused(own_bundle):
    shutil.rmtree(own_bundle / "decision")
    with pytest.raises(RefusedError, match=r"expected a file of an artifact, found none.*not served"):
        admit(*refs(own_bundle))


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_a_model_that_did_not_pass_is_refused(make_bundle, verdict):
    with pytest.raises(RefusedError, match=f"expected verdict pass, found {verdict}"):
        admit(*refs(make_bundle(seed=1, verdict=verdict)))


def test_another_models_decision_is_refused(make_bundle):
    with pytest.raises(RefusedError, match="expected a decision on model .* found one on aaaaaaaaaaaa"):
        admit(*refs(make_bundle(seed=1, judged="a" * 64)))


def by_own_policy(bundle):
    """The bundle's decision, by a policy that is only named default."""
    decision = load(bundle / "decision", GateDecision).document
    save(bundle / "decision", decision.model_copy(update={"policy": "9" * 64, "files": {}}))


def test_a_verdict_by_a_policy_that_is_only_named_default_is_refused(own_bundle, tmp_path):
    by_own_policy(own_bundle)
    with pytest.raises(RefusedError, match=rf"a policy that counts, found one by default \({'9' * 64}\).*not served"):
        admit(*refs(own_bundle))
    trust = tmp_path / "trust.yaml"
    trust.write_text("version: 1\npolicies: [shipped]\n")
    with pytest.raises(RefusedError, match="a policy that counts"):
        admit(*refs(own_bundle), trust)
    trust.write_text(f"version: 1\npolicies: [shipped, {'9' * 64}]\n")
    assert admit(*refs(own_bundle), trust)


def test_a_list_of_policies_may_leave_out_those_that_ship(own_bundle, tmp_path):
    trust = tmp_path / "trust.yaml"
    trust.write_text(f"version: 1\npolicies: [{'9' * 64}]\n")
    with pytest.raises(RefusedError, match="a policy that counts"):
        admit(*refs(own_bundle), trust)


def test_what_serves_already_is_held_to_a_list_of_ones_own_and_not_to_that_of_a_newer_version(own_bundle, tmp_path):
    by_own_policy(own_bundle)
    assert admit(*refs(own_bundle), incumbent=True)
    trust = tmp_path / "trust.yaml"
    trust.write_text(f"version: 1\npolicies: [{'8' * 64}]\n")
    with pytest.raises(RefusedError, match="a policy that counts"):
        admit(*refs(own_bundle), trust, incumbent=True)


def test_weights_altered_between_admission_and_loading_are_refused(own_bundle):
    admitted = admit(*refs(own_bundle))
    flip_a_bit(own_bundle / "model" / "weights.safetensors")
    with pytest.raises(RefusedError, match=r"weights\.safetensors: expected sha256 .* the model is not served"):
        load_admitted(admitted, Options())


def test_a_server_refuses_an_altered_model_with_exit_code_3(own_bundle, tmp_path, spec):
    flip_a_bit(own_bundle / "model" / "weights.safetensors")
    model, decision = refs(own_bundle)
    write_settings(tmp_path / "server", Served("tiny", 1, model, decision), spec, 10, rest=1, grpc=2)
    command = [sys.executable, "-m", "holdfast.serving.predictor", str(tmp_path / "server")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "the model is not served" in done.stderr


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 8, 8), np.float32), r"expected shape \[1..1024, 1, 8, 8\], found \[1, 8, 8\]"),
        (np.zeros((0, 1, 8, 8), np.float32), r"found \[0, 1, 8, 8\]"),
        (np.zeros((1025, 1, 8, 8), np.float32), r"found \[1025, 1, 8, 8\]"),
        (np.full((1, 1, 8, 8), np.nan, np.float32), "expected finite numbers"),
        (np.full((1, 1, 8, 8), -np.inf, np.float32), "expected finite numbers"),
        (np.full((1, 1, 8, 8), 1e300), "expected finite numbers"),
        (np.full((1, 1, 8, 8), 16, np.float32), r"expected values in \[0, 1\], found \[16, 16\]"),
        (np.zeros((1, 1, 8, 8), np.int64), "expected float32, found int64"),
    ],
)
def test_rows_that_the_model_was_not_made_for_are_refused(x, message, spec):
    with pytest.raises(InputError, match=message):
        check_rows(x, spec)


def test_one_nan_among_a_thousand_rows_is_found(spec):
    x = np.full((1000, 1, 8, 8), 0.5, np.float32)
    x[777, 0, 3, 5] = np.nan
    with pytest.raises(InputError, match="found NaN or infinity"):
        check_rows(x, spec)


def test_a_request_may_hold_as_many_rows_as_the_option_says(bundle):
    predictor = load_predictor(*refs(bundle), Options(max_rows=2))
    assert len(predictor.answer(predictor.check(np.zeros((2, 1, 8, 8), np.float32))).label) == 2
    with pytest.raises(InputError, match=r"expected shape \[1..2, 1, 8, 8\], found \[3, 1, 8, 8\]"):
        predictor.check(np.zeros((3, 1, 8, 8), np.float32))


def test_temperature_divides_the_logits_and_leaves_labels_alone(bundle):
    x = np.load(bundle / "replay.npz")["x"]
    plain = load_predictor(*refs(bundle)).answer(x)
    cooled = load_predictor(*refs(bundle), Options(temperature=2.0)).answer(x)
    # softmax(z / T) is softmax(z) to the power 1 / T, scaled to sum to 1.
    power = plain.probabilities.astype(np.float64) ** 0.5
    np.testing.assert_allclose(cooled.probabilities, power / power.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(cooled.label, plain.label)


def test_rounded_probabilities_have_the_digits_asked_for_and_labels_stay(bundle):
    x = np.load(bundle / "replay.npz")["x"]
    plain = load_predictor(*refs(bundle)).answer(x)
    rounded = load_predictor(*refs(bundle), Options(decimals=2)).answer(x)
    assert all(len(repr(p)) <= len("0.12") for p in rounded.probabilities.ravel().tolist())
    np.testing.assert_allclose(rounded.probabilities, plain.probabilities, atol=0.005001)
    np.testing.assert_array_equal(rounded.label, plain.label)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temprature": 2.0}, "option 'temprature': expected one of decimals, label_only, max_body_bytes, max_rows, "),
        ({"temperature": 0}, r"option 'temperature': expected a number in \[0.001, 1000\], found 0"),
        ({"temperature": -1.0}, "found -1.0"),
        ({"temperature": float("nan")}, "found nan"),
        ({"temperature": "2"}, "found '2'"),
        ({"temperature": True}, "found True"),
        ({"temperature": None}, "found None"),
        ({"decimals": 10}, r"option 'decimals': expected a whole number in \[0, 9\], found 10"),
        ({"decimals": 2.0}, "found 2.0"),
        ({"decimals": None}, "found None"),
        ({"max_rows": 0}, r"option 'max_rows': expected a whole number in \[1, 65536\], found 0"),
        ({"max_rows": 65537}, "found 65537"),
        ({"max_body_bytes": 10}, r"option 'max_body_bytes': expected a whole number in \[1024, 1073741824\], found 10"),
        ({"label_only": "yes"}, "option 'label_only': expected true or false, found 'yes'"),
    ],
)
def test_an_option_without_meaning_is_refused(given, message):
    with pytest.raises(WorkloadError, match=message):
        Options.parse(given)


def test_options_come_back_from_the_settings_that_were_written(spec, bundle):
    options = Options(temperature=1.5, decimals=3, max_rows=8, label_only=True)
    settings = model_settings(Served("tiny", 1, *refs(bundle), "wrong=1", options), spec, 10)
    found = ModelParameters.parse(settings["parameters"]["extra"])
    assert (found.options, found.game_day) == (options, GameDay(wrong=1))
    assert [output["name"] for output in settings["outputs"]] == ["label"]


@pytest.mark.parametrize("extra", [{"model": "m"}, {"model": "m", "decision": ""}, {"model": 3, "decision": "d"}])
def test_settings_without_model_or_decision_are_refused(extra):
    with pytest.raises(WorkloadError, match="(model|decision): expected a text, found"):
        ModelParameters.parse(extra)


def test_whole_numbers_that_travelled_as_doubles_arrive_as_character_ids(spec):
    text = spec.model_copy(update={"modality": "text", "dtype": "int64", "shape": (3,)})
    rows = from_doubles(np.array([[0.0, 5.0, 257.0]]), text)
    assert (rows.dtype, rows.tolist()) == (np.int64, [[0, 5, 257]])
    for wrong in (0.5, np.nan, np.inf, 1e300):
        with pytest.raises(InputError, match="expected whole numbers"):
            from_doubles(np.array([[0.0, 5.0, wrong]]), text)


@pytest.mark.parametrize("x", [np.array([["a"]]), np.array([[None]]), np.array([[True]]), "text", b"", {"a": 1}])
def test_what_is_no_array_of_numbers_is_refused(x, spec):
    with pytest.raises(InputError, match="expected an array of numbers, found"):
        from_doubles(x, spec)


def test_the_core_needs_neither_server():
    code = (
        "import sys, holdfast.model.networks; from holdfast.serving.predictor import core, settings\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'mlserver', 'seldon_core', 'grpc', 'aiohttp'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_listens_beyond_loopback():
    settings = server_settings(rest=1, grpc=2)
    assert (settings["host"], settings["metrics_endpoint"], settings["parallel_workers"]) == ("127.0.0.1", None, 0)


def test_a_game_day_shifts_the_share_of_labels_that_was_asked_for():
    answer = Answer(np.zeros(1000, np.int64), np.tile(np.eye(10, dtype=np.float32)[0], (1000, 1)))
    spoiled = GameDay.parse("wrong=0.3").spoil(answer, np.random.default_rng(0))
    assert set(spoiled.label) == {0, 1}
    # 1,000 Bernoulli draws: 300 +- 4 standard deviations of 14.5.
    assert abs(int(spoiled.label.sum()) - 300) < 58


@pytest.mark.parametrize("text", ["delay=4", "wrong", "wrong=2", "after=-1", "delay_ms=soon", "delay_ms=inf"])
def test_a_game_day_without_meaning_is_refused(text):
    with pytest.raises(WorkloadError, match="game day"):
        GameDay.parse(text)
