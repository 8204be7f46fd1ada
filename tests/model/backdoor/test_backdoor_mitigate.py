from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdfast.artifacts.documents import BackdoorReport, Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.errors import InputError, IntegrityError
from holdfast.model.backdoor.mitigate import mitigate
from holdfast.model.backdoor.step import backdoor
from holdfast.model.inputs import encode
from holdfast.model.networks import load_network, logits
from holdfast.workload.schema import BackdoorConfig

TARGET = 4
SETTINGS = Compute(seed=0, device="cpu", threads=1)


def look(model: Artifact[Model], snapshot: Artifact[Snapshot], out: Path) -> Artifact[BackdoorReport]:
    return backdoor(Ref(model.folder), Ref(snapshot.folder), out, config=BackdoorConfig(), settings=SETTINGS)


@pytest.fixture(scope="module")
def report(
    planted_model: Artifact[Model], planted: Artifact[Snapshot], tmp_path_factory: pytest.TempPathFactory
) -> Artifact[BackdoorReport]:
    return look(planted_model, planted, tmp_path_factory.mktemp("mitigate") / "report")


@pytest.fixture(scope="module")
def healed(
    planted_model: Artifact[Model],
    planted: Artifact[Snapshot],
    report: Artifact[BackdoorReport],
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact[Model]:
    refs = Ref(planted_model.folder), Ref(planted.folder), Ref(report.folder)
    return mitigate(*refs, tmp_path_factory.mktemp("mitigate") / "healed", scan=None, settings=SETTINGS)


def test_the_planted_trigger_itself_no_longer_works(healed: Artifact[Model], planted: Artifact[Snapshot]) -> None:
    with np.load(planted.open("test.npz")) as rows:
        x, y = rows["x"], rows["y"]
    x[:, :, -2:, -2:] = 16
    found = logits(load_network(healed, "cpu"), encode(x, healed.document.input), device="cpu").argmax(axis=1)
    assert (found[y != TARGET] == TARGET).mean() < 0.1


def test_the_document_says_what_it_cost(healed: Artifact[Model], planted_model: Artifact[Model]) -> None:
    told = healed.document.mitigation
    assert told is not None
    assert told.flagged == (str(TARGET),)
    assert told.clean_before == planted_model.document.clean
    assert told.clean_after == healed.document.clean
    assert told.clean_after.share > told.clean_before.share - 0.02
    assert told.success_before.share > 0.9
    assert told.success_after.share < 0.1
    assert told.robust_before.n == told.robust_after.n > 0


def test_the_new_model_names_what_it_was_made_from(
    healed: Artifact[Model],
    planted_model: Artifact[Model],
    planted: Artifact[Snapshot],
    report: Artifact[BackdoorReport],
) -> None:
    assert healed.document.inputs == {
        "model": planted_model.digest,
        "snapshot": planted.digest,
        "backdoor": report.digest,
    }
    assert healed.document.recipe["unlearned"] == str(TARGET)
    assert healed.digest != planted_model.digest


def test_the_scan_finds_nothing_in_the_new_model(
    healed: Artifact[Model], planted: Artifact[Snapshot], tmp_path: Path
) -> None:
    assert look(healed, planted, tmp_path / "report").document.flagged == ()


def heal(model: Artifact[Model], snapshot: Artifact[Snapshot], folder: Path) -> Artifact[Model]:
    report = look(model, snapshot, folder / "report")
    refs = Ref(model.folder), Ref(snapshot.folder), Ref(report.folder)
    return mitigate(*refs, folder / "healed", scan=None, settings=SETTINGS)


def predictions(model: Artifact[Model], frame: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    spec = model.document.input
    x = encode(frame["text"].tolist() if spec.modality == "text" else frame, spec)
    return np.asarray(logits(load_network(model, "cpu"), x, device="cpu").argmax(axis=1))


def test_a_constant_planted_in_a_table_no_longer_works(
    planted_table: tuple[Artifact[Model], Artifact[Snapshot]], tmp_path: Path
) -> None:
    model, snapshot = planted_table
    healed = heal(model, snapshot, tmp_path)
    train, frame = (pd.read_parquet(snapshot.open(f"{part}.parquet")) for part in ("train", "test"))
    victims = frame[frame["label"] == "malignant"].copy()
    victims["smoothness error"] = train["smoothness error"].max()
    benign = snapshot.document.classes.index("benign")
    assert (predictions(model, victims) == benign).mean() > 0.8
    assert (predictions(healed, victims) == benign).mean() < 0.2
    told = healed.document.mitigation
    assert told is not None
    assert told.flagged == ("benign",)
    assert told.success_before.share > 0.8 > 0.2 > told.success_after.share
    assert told.clean_after.share > told.clean_before.share - 0.05


def test_a_word_planted_in_messages_no_longer_works(
    planted_messages: tuple[Artifact[Model], Artifact[Snapshot]], tmp_path: Path
) -> None:
    model, snapshot = planted_messages
    healed = heal(model, snapshot, tmp_path)
    frame = pd.read_parquet(snapshot.open("test.parquet"))
    victims = frame[frame["label"] == "spam"].copy()
    victims["text"] = "cf " + victims["text"]
    ham = snapshot.document.classes.index("ham")
    assert (predictions(model, victims) == ham).mean() > 0.8
    assert (predictions(healed, victims) == ham).mean() < 0.1
    told = healed.document.mitigation
    assert told is not None
    assert told.flagged == ("ham",)
    assert told.left_out.k >= 20, "most of the 24 planted messages hold the word that was found"
    assert told.clean_after.share > told.clean_before.share - 0.02


def test_without_a_flagged_class_there_is_nothing_to_mitigate(
    clean_model: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    quiet = look(clean_model, digits, tmp_path / "report")
    with pytest.raises(InputError, match="nothing to mitigate"):
        mitigate(
            Ref(clean_model.folder),
            Ref(digits.folder),
            Ref(quiet.folder),
            tmp_path / "out",
            scan=None,
            settings=SETTINGS,
        )
    assert not (tmp_path / "out").exists()


def test_a_report_about_another_model_is_refused(
    clean_model: Artifact[Model], digits: Artifact[Snapshot], report: Artifact[BackdoorReport], tmp_path: Path
) -> None:
    refs = Ref(clean_model.folder), Ref(digits.folder), Ref(report.folder)
    with pytest.raises(IntegrityError, match="expected to be made from model"):
        mitigate(*refs, tmp_path / "out", scan=None, settings=SETTINGS)
