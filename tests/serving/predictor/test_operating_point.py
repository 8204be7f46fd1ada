"""A model with an operating point: both servers answer by it, and publish it."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mlserver.grpc.converters import ModelMetadataResponseConverter
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest

from holdfast.artifacts.documents import Costs, Count, OperatingPoint
from holdfast.artifacts.folder import Ref
from holdfast.serving.predictor.core import load_predictor
from holdfast.serving.predictor.options import Options
from holdfast.serving.predictor.runtime import HoldfastModel
from holdfast.serving.predictor.settings import Served, model_settings
from tests.serving.conftest import SPEC, write_bundle

CLASSES = ("ok", "fraud")
SELDON = Path(__file__).parents[3] / ".venv-seldon"
ASK = """
import json, sys
import numpy as np
from seldon_core.metadata import validate_model_metadata
from holdfast.serving.predictor.seldon_face import HoldfastModel
model = HoldfastModel(model=sys.argv[1], decision=sys.argv[2])
found = model.predict(np.load(sys.argv[3])["x"], [])
print(json.dumps([found.tags["labels"], validate_model_metadata(model.init_metadata())]))
"""


def margins(bundle: Path) -> np.ndarray:
    """Of the 100 rows of a bundle, from its probabilities."""
    found = load_predictor(Ref(bundle / "model"), Ref(bundle / "decision")).answer(np.load(bundle / "replay.npz")["x"])
    odds: np.ndarray = np.log(found.probabilities[:, 1] / found.probabilities[:, 0])
    return odds


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("plain"), seed=0, classes=CLASSES)


@pytest.fixture(scope="module")
def point(plain: Path) -> OperatingPoint:
    """Half of the rows lie above the threshold."""
    none = Count(k=0, n=1)
    threshold = float(np.median(margins(plain)))
    return OperatingPoint(
        positive="fraud", threshold=threshold, costs=Costs(miss=5, false_alarm=1), misses=none, false_alarms=none
    )


@pytest.fixture(scope="module")
def decided(point: OperatingPoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("decided"), seed=0, classes=CLASSES, point=point)


@pytest.fixture(scope="module")
def expected(plain: Path, point: OperatingPoint) -> list[int]:
    """What the 100 rows are answered with, by the rule of the operating point on the network as it was trained."""
    labels: list[int] = (margins(plain) > point.threshold).astype(int).tolist()
    return labels


def mlserver(bundle: Path) -> HoldfastModel:
    served = Served("tiny", 1, Ref(bundle / "model"), Ref(bundle / "decision"))
    return HoldfastModel(ModelSettings.model_validate(model_settings(served, SPEC, 2)))


def test_labels_are_those_of_the_rule_whatever_the_temperature(decided: Path, plain: Path, expected: list[int]) -> None:
    refs, x = (Ref(decided / "model"), Ref(decided / "decision")), np.load(decided / "replay.npz")["x"]
    assert sum(expected) == 50
    for options in (Options(), Options(temperature=3.0, decimals=1, label_only=True)):
        assert load_predictor(*refs, options).answer(x).label.tolist() == expected
    before = load_predictor(Ref(plain / "model"), Ref(plain / "decision")).answer(x)
    assert before.label.tolist() != expected


def test_a_probability_above_a_half_is_that_of_the_class_that_is_answered(decided: Path, expected: list[int]) -> None:
    refs, x = (Ref(decided / "model"), Ref(decided / "decision")), np.load(decided / "replay.npz")["x"]
    assert (load_predictor(*refs).answer(x).probabilities[:, 1] > 0.5).astype(int).tolist() == expected


def test_mlserver_answers_by_the_operating_point_and_publishes_it(
    decided: Path, expected: list[int], point: OperatingPoint
) -> None:
    model = mlserver(decided)
    asyncio.run(model.load())
    x = np.load(decided / "replay.npz")["x"]
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    request = InferenceRequest.model_validate({"inputs": [tensor]})
    outputs = {one.name: one.data.root for one in asyncio.run(model.predict(request)).outputs}
    assert outputs["label"] == expected
    metadata = asyncio.run(model.metadata())
    published = {"positive": "fraud", "threshold": point.threshold, "costs": {"miss": 5.0, "false_alarm": 1.0}}
    assert json.loads(json.loads(metadata.model_dump_json())["parameters"]["operating_point"]) == published
    over_grpc = ModelMetadataResponseConverter.from_types(metadata)
    assert json.loads(over_grpc.parameters["operating_point"].string_param) == published


def test_a_model_without_one_publishes_none(plain: Path) -> None:
    assert "operating_point" not in asyncio.run(mlserver(plain).metadata()).model_dump_json()


@pytest.mark.skipif(not (SELDON / ".done").exists(), reason=f"{SELDON}: expected Seldon's environment")
def test_seldons_wrapper_answers_by_the_operating_point_and_publishes_it(
    decided: Path, expected: list[int], point: OperatingPoint
) -> None:
    command = [str(SELDON / "bin" / "python"), "-c", ASK, *(f"{decided}/{n}" for n in ("model", "decision"))]
    done = subprocess.run(
        [*command, f"{decided}/replay.npz"], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    labels, metadata = json.loads(done.stdout.splitlines()[-1])
    assert labels == expected
    assert json.loads(metadata["custom"]["operating_point"])["threshold"] == point.threshold
