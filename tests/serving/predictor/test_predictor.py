"""The predictor's core: what it admits, what it lets in, what it answers."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from holdfast.artifacts.documents import Verdict
from holdfast.artifacts.folder import Ref
from holdfast.errors import InputError, ModelError, RefusedError, WorkloadError
from holdfast.serving.predictor.core import Answer, admit, check_rows, load_predictor
from holdfast.serving.predictor.game_day import GameDay
from holdfast.serving.predictor.settings import Served, server_settings, write_settings


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

    from holdfast.artifacts.documents import GateDecision, Model
    from holdfast.artifacts.folder import load, save

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
        (np.full((1, 1, 8, 8), 16, np.float32), r"expected values in \[0, 1\], found \[16, 16\]"),
        (np.zeros((1, 1, 8, 8), np.int64), "expected float32, found int64"),
    ],
)
def test_rows_that_the_model_was_not_made_for_are_refused(x, message, spec):
    with pytest.raises(InputError, match=message):
        check_rows(x, spec)


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
