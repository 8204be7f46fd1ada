"""On real models of real rows, each trained in a second or two."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import GuardCalibration, Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.compute import Compute
from holdfast.errors import InputError, IntegrityError, RefusedError
from holdfast.modality import MODALITIES
from holdfast.model.networks import load_network
from holdfast.model.train.step import train
from holdfast.serving.guard.features import see
from holdfast.serving.guard.step import FILE, calibrate, read_calibration
from holdfast.workload.schema import GuardConfig, NetworkConfig, RecipeConfig, TrainConfig
from tests.model.conftest import breast_cancer, digits, image_snapshot, messages

__all__ = ["breast_cancer", "digits", "messages"]
KINDS = {"digits": ("image", "cnn"), "breast_cancer": ("tabular", "mlp"), "messages": ("text", "text")}


@dataclass(frozen=True)
class Judged:
    model: Artifact[Model]
    snapshot: Artifact[Snapshot]

    def calibrated(self, out: Path, alpha: float = 1e-4) -> Artifact[GuardCalibration]:
        refs = Ref(self.model.folder, self.model.digest), Ref(self.snapshot.folder)
        return calibrate(*refs, out, config=GuardConfig(alpha=alpha), settings=Compute(0, "cpu"))


def trained(snapshot: Artifact[Snapshot], out: Path, kind: str, seed: int = 0) -> Judged:
    modality, network = KINDS[kind]
    threat = ThreatModel(norm=MODALITIES[modality].norms[0], epsilon="1/50", unit=MODALITIES[modality].unit)
    recipe = RecipeConfig(recipe="standard", epochs=5, selection_rows=100)
    config = TrainConfig(name="small", network=NetworkConfig(architecture=network), threat=threat, train=recipe)
    settings = Compute(seed, "cpu")
    return Judged(
        train(Ref(snapshot.folder), out, scan=None, config=config, settings=settings, checkpoint=None), snapshot
    )


@pytest.fixture(scope="module")
def of_digits(digits: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return trained(digits, tmp_path_factory.mktemp("guard") / "model", "digits")


@pytest.fixture(scope="module")
def calibrated(of_digits: Judged, tmp_path_factory: pytest.TempPathFactory) -> Artifact[GuardCalibration]:
    return of_digits.calibrated(tmp_path_factory.mktemp("guard") / "calibration")


def test_users_of_digits_are_quiet_and_strangers_are_not(calibrated: Artifact[GuardCalibration]) -> None:
    document = load(calibrated.folder, GuardCalibration).document
    assert (document.features, document.benign.k, document.benign.n) == ("penultimate", 0, 20)
    assert (document.reference_rows, document.held_out_rows) == (1437, 360 - 72)
    assert all((stream.alarm_at or 999) <= 100 for stream in document.streams)


def test_equal_inputs_give_equal_bytes(
    of_digits: Judged, calibrated: Artifact[GuardCalibration], tmp_path: Path
) -> None:
    assert of_digits.calibrated(tmp_path / "again").digest == calibrated.digest


def test_a_calibration_is_read_for_its_own_model_alone(
    of_digits: Judged, calibrated: Artifact[GuardCalibration], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    _, found = read_calibration(Ref(calibrated.folder, calibrated.digest), of_digits.model)
    assert len(found.groups) == 10
    other = trained(digits, tmp_path / "other", "digits", seed=1).model
    with pytest.raises(
        RefusedError, match="expected a calibration for model .*; run `holdfast calibrate` for this model"
    ):
        read_calibration(Ref(calibrated.folder), other)


def test_thresholds_that_were_altered_are_refused(of_digits: Judged, tmp_path: Path) -> None:
    made = of_digits.calibrated(tmp_path / "c")
    path = made.folder / FILE
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match="the file was altered"):
        read_calibration(Ref(made.folder), of_digits.model)


@pytest.mark.parametrize(("kind", "features"), [("breast_cancer", "columns"), ("messages", "penultimate")])
def test_tables_and_messages_have_a_guard_too(
    kind: str, features: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    judged = trained(request.getfixturevalue(kind), tmp_path / "model", kind)
    document = judged.calibrated(tmp_path / "guard").document
    assert (document.features, document.benign.k) == (features, 0)


def test_looking_through_a_network_leaves_it_as_it_was(of_digits: Judged) -> None:
    network = load_network(of_digits.model, "cpu")
    x = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    seen = see(network, of_digits.model.document.input, x, "cpu")
    assert seen.features.shape == (5, 100)
    assert not any(module._forward_hooks for module in network.modules())


def test_too_few_held_out_rows_are_refused(of_digits: Judged, tmp_path: Path) -> None:
    x, y = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 10
    few = image_snapshot(tmp_path / "few", x, y, train=30)
    with pytest.raises(InputError, match="expected at least 40 held-out rows for a guard, found 30"):
        Judged(of_digits.model, few).calibrated(tmp_path / "out")
