"""On real models of real rows: attacks that are planted are noticed, users are not, and who knows it goes unnoticed."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import DetectionReport, InputDetector, Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.image import ImageInput
from holdfast.model.detect.step import _others, detect
from holdfast.model.examples import Examples
from holdfast.model.inputs import read_split
from holdfast.model.train.step import train
from holdfast.workload.schema import DetectConfig, NetworkConfig, RecipeConfig, TrainConfig


def of(snapshot: Artifact[Snapshot], out: Path, network: str, epsilon: str) -> Artifact[DetectionReport]:
    found = modality_of(snapshot.document.modality)
    threat = ThreatModel(norm=found.norms[0], epsilon=epsilon, unit=found.unit)
    recipe = RecipeConfig(recipe="standard", epochs=5, selection_rows=100)
    config = TrainConfig(name="small", network=NetworkConfig(architecture=network), threat=threat, train=recipe)
    train(Ref(snapshot.folder), out / "model", scan=None, config=config, settings=Compute(0, "cpu"), checkpoint=None)
    return again(snapshot, out, "report")


def again(snapshot: Artifact[Snapshot], out: Path, name: str, **settings: float) -> Artifact[DetectionReport]:
    config = DetectConfig.model_validate({"false_alarms": 0.1, "examples": 40, **settings})
    return detect(Ref(out / "model"), Ref(snapshot.folder), out / name, config=config, settings=Compute(0, "cpu"))


def named(document: DetectionReport, name: str) -> InputDetector:
    return next(one for one in document.detectors if one.name == name)


def test_images_under_a_strong_attack(digits: Artifact[Snapshot], tmp_path: Path) -> None:
    document = load(of(digits, tmp_path, "cnn", "1/5").folder, DetectionReport).document
    assert [one.name for one in document.detectors] == ["bit-depth", "median", "autoencoder", "joint"]
    assert document.attacked.share < 0.2 < 0.8 < document.clean.share
    best = named(document, "autoencoder")
    for one in best.caught:
        assert one.caught.share > best.false_alarms.share + 0.2, one.attack
    assert all(one.false_alarms.share < 0.25 for one in document.detectors)
    assert best.evaded.share > 0.5
    for purifier in document.purifiers:
        assert purifier.adaptive.k <= purifier.attacked.k <= purifier.clean.k


def test_a_table_twice_gives_equal_bytes(breast_cancer: Artifact[Snapshot], tmp_path: Path) -> None:
    first = of(breast_cancer, tmp_path, "mlp", "1/2")
    assert again(breast_cancer, tmp_path, "second").digest == first.digest
    assert [one.name for one in first.document.purifiers] == ["bins", "autoencoder"]
    purifier = first.document.purifiers[1]
    assert purifier.attacked.k > first.document.attacked.k
    with pytest.raises(InputError, match=r"expected at least 198 held-out rows besides the \d+ that are attacked"):
        again(breast_cancer, tmp_path, "third", false_alarms=0.01)


def test_spelling_undoes_what_a_typist_changed(messages: Artifact[Snapshot], tmp_path: Path) -> None:
    document = of(messages, tmp_path, "text", "12").document
    (spelled,) = document.purifiers
    assert document.attacked.k < document.clean.k
    assert spelled.attacked.k > document.attacked.k
    assert named(document, "spelling").false_alarms.k == 0


def test_limits_come_from_all_classes_also_where_the_file_is_in_their_order(
    digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    with np.load(digits.path("test.npz"), allow_pickle=False) as arrays:
        order = np.argsort(arrays["y"], kind="stable")
        test = npz(**{name: arrays[name][order] for name in arrays.files})
    files = {"train.npz": digits.path("train.npz").read_bytes(), "test.npz": test}
    ordered = save(tmp_path / "ordered", digits.document.model_copy(update={"files": {}}), files)
    model = Model.model_construct(input=ImageInput().spec(ordered), classes=ordered.document.classes)
    index = np.arange(0, 360, 12)
    drawn = Examples(nn.Identity(), read_split(ordered, "test", model.input).take(index), index, 30, "cpu")
    found = _others(ordered, drawn, model, DetectConfig(calibration_rows=60), Compute(0, "cpu"))
    assert len(found) == 60
    assert len(set(found.y.tolist())) == 10
