"""What MLflow publishes of a model with an operating point."""

import json

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from holdfast.artifacts.documents import Costs, Count, Model, OperatingPoint
from holdfast.artifacts.folder import load
from holdfast.model.inputs import encode
from holdfast.model.networks import load_network, logits
from holdfast.model.register.step import register

NONE = Count(k=0, n=1)


def registered(chain, folder, tracking):
    return register(
        chain.model,
        folder,
        decision=chain.decision,
        snapshot=chain.snapshot,
        evidence=chain.evidence,
        tracking=tracking,
    ).document


def spam(threshold, **rule):
    return OperatingPoint(positive="spam", threshold=threshold, misses=NONE, false_alarms=NONE, **rule)


@pytest.fixture
def images():
    return np.random.default_rng(3).integers(0, 17, (40, 1, 8, 8)).astype(np.float64)


def test_tags_parameters_metrics_and_metadata_have_it_and_predict_answers_by_it(chain, images, tracking, tmp_path):
    plain = load(chain(seed=5).model, Model)  # the same first weights
    found = logits(load_network(plain, "cpu"), encode(images, plain.document.input), device="cpu")
    margins = found[:, 1] - found[:, 0]
    point = spam(float(np.median(margins)), costs=Costs(miss=50, false_alarm=1))
    done = registered(chain(seed=5, point=point), tmp_path / "r", tracking)
    client = MlflowClient(tracking, tracking)
    version, run = client.get_model_version(done.name, "1"), client.get_run(done.run_id)
    published = {"positive": "spam", "threshold": point.threshold, "costs": {"miss": 50.0, "false_alarm": 1.0}}
    assert json.loads(version.tags["holdfast.operating_point"]) == published
    assert run.data.params["decision.positive"] == "spam"
    assert run.data.params["decision.rule"] == "least cost: 50 for a miss, 1 for a false alarm"
    # In 1,000 rows are 100 positive ones, of which a quarter is missed at 50, and 90 alarms among 900 others.
    assert run.data.metrics["cost_per_1000"] == pytest.approx(25 * 50 + 90)
    assert run.data.metrics["robust_misses_per_1000"] == pytest.approx(75)
    assert run.data.metrics["constant_cost_per_1000"] == pytest.approx(900)
    mlflow.set_tracking_uri(tracking)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{done.name}/1")
    finally:
        mlflow.set_tracking_uri(None)
    assert json.loads(model.metadata.metadata["holdfast.operating_point"]) == published
    answers = model.predict(images)
    assert answers["class"].tolist() == np.where(margins > point.threshold, "spam", "ham").tolist()
    assert ((answers["probability_spam"] > 0.5) == (answers["class"] == "spam")).all()


def test_with_a_rate_there_is_no_cost(chain, tracking, tmp_path):
    done = registered(chain(point=spam(0.0, false_positive_rate=0.05)), tmp_path / "r", tracking)
    run = MlflowClient(tracking, tracking).get_run(done.run_id)
    assert run.data.metrics["false_alarms_per_1000"] == pytest.approx(90)
    assert run.data.params["decision.rule"] == "false-positive rate at most 0.05, by its upper 95 % bound"
    assert not [name for name in run.data.metrics if "cost" in name]
