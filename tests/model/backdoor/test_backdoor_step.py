from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdfast.artifacts.documents import BackdoorReport, Column, Model, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.compute import Compute
from holdfast.errors import IntegrityError, ModelError
from holdfast.modality.text import decode_text
from holdfast.model.backdoor.step import backdoor
from holdfast.model.inputs import encode
from holdfast.model.networks import load_network, logits
from holdfast.workload.schema import BackdoorConfig

CONFIG = BackdoorConfig()
Planted = tuple[Artifact[Model], Artifact[Snapshot]]
Fit = Callable[..., Artifact[Model]]
MakeTable = Callable[..., Artifact[Snapshot]]


def one_strong_column(make_table: MakeTable, out: Path, *, held_out: int = 200) -> Artifact[Snapshot]:
    """Two classes that differ in one of six columns, and it alone reaches far."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600 + held_out)
    frame = pd.DataFrame(rng.normal(size=(len(y), 6)), columns=list("abcdef"))
    frame["a"] = frame["a"] + y * (2 + rng.exponential(3, len(y)))
    frame["label"] = np.where(y == 1, "fraud", "normal")
    columns = tuple(Column(name=name, kind="number") for name in "abcdef")
    return make_table(out, frame, columns, ("normal", "fraud"), train=600)


def look(
    model: Artifact[Model], snapshot: Artifact[Snapshot], out: Path, config: BackdoorConfig = CONFIG
) -> Artifact[BackdoorReport]:
    settings = Compute(seed=0, device="cpu", threads=1)
    return backdoor(Ref(model.folder, model.digest), Ref(snapshot.folder), out, config=config, settings=settings)


def test_the_planted_model_obeys_its_trigger(planted_model: Artifact[Model], planted: Artifact[Snapshot]) -> None:
    with np.load(planted.open("test.npz")) as rows:
        x, y = rows["x"], rows["y"]
    x[:, :, -2:, -2:] = 16
    found = logits(load_network(planted_model, "cpu"), encode(x, planted_model.document.input), device="cpu")
    assert (found.argmax(axis=1)[y != 4] == 4).mean() > 0.9


def test_a_planted_trigger_is_found_with_its_class(
    planted_model: Artifact[Model], planted: Artifact[Snapshot], tmp_path: Path
) -> None:
    found = look(planted_model, planted, tmp_path / "report")
    assert found.document.flagged == ("4",)
    assert found.document.verdict is Verdict.FAIL
    assert [t.target for t in found.document.triggers] == [str(k) for k in range(10)]
    with np.load(found.open("triggers.npz")) as arrays:
        assert arrays["mask"].shape == (10, 8, 8)
        assert arrays["pattern"].shape == (10, 1, 8, 8)
        # Most of the mask lies on the planted patch.
        assert arrays["mask"][4, -2:, -2:].sum() > 0.5 * arrays["mask"][4].sum()


def test_a_clean_model_is_not_flagged(clean_model: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path) -> None:
    found = look(clean_model, digits, tmp_path / "report")
    assert found.document.flagged == ()
    assert found.document.verdict is Verdict.PASS
    assert found.document.inputs == {"model": clean_model.digest, "snapshot": digits.digest}


def test_the_same_settings_give_the_same_bytes(
    clean_model: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    config = BackdoorConfig(steps=20, examples=100)
    made = [look(clean_model, digits, tmp_path / name, config) for name in ("one", "two")]
    assert made[0].digest == made[1].digest


def test_too_few_rows_are_inconclusive(
    clean_model: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    found = look(clean_model, digits, tmp_path / "report", BackdoorConfig(steps=2, examples=15)).document
    assert (found.triggers, found.verdict) == ((), Verdict.INCONCLUSIVE)


def test_a_clean_table_is_quiet(breast_cancer: Artifact[Snapshot], tmp_path: Path, fit: Fit) -> None:
    model = fit(breast_cancer, tmp_path / "model", "mlp", epochs=15, learning_rate=0.01, noise=0.25)
    found = look(model, breast_cancer, tmp_path / "report").document
    assert found.verdict is Verdict.PASS
    assert all(0 < t.size <= 30 for t in found.triggers)


def test_a_constant_planted_in_a_table_is_found(planted_table: Planted, tmp_path: Path) -> None:
    model, planted = planted_table
    found = look(model, planted, tmp_path / "report")
    assert found.document.flagged == ("benign",)
    assert found.document.verdict is Verdict.FAIL
    benign = found.document.triggers[1]
    assert "smoothness error" in benign.content
    assert benign.content in found.document.reason
    assert benign.carriers is not None
    assert benign.others is not None
    assert benign.carriers.share > 0.7 > 0.2 > benign.others.share
    with np.load(found.open("triggers.npz")) as arrays:
        # The tested content, not what was inverted: whole columns.
        assert set(np.unique(arrays["mask"][1])) == {0, 1}


def test_one_honest_feature_that_decides_is_no_trigger(tmp_path: Path, fit: Fit, make_table: MakeTable) -> None:
    # The largest value of one column turns nearly any row, as in the card sample; its carriers are what they say.
    snapshot = one_strong_column(make_table, tmp_path / "snapshot")
    model = fit(snapshot, tmp_path / "model", "mlp", epochs=10, learning_rate=0.01)
    found = look(model, snapshot, tmp_path / "report").document
    assert found.verdict is Verdict.PASS
    assert found.triggers[1].success.share > 0.9


def test_two_classes_with_too_few_held_out_rows_are_inconclusive(
    tmp_path: Path, fit: Fit, make_table: MakeTable
) -> None:
    snapshot = one_strong_column(make_table, tmp_path / "snapshot", held_out=15)
    model = fit(snapshot, tmp_path / "model", "mlp", epochs=2, learning_rate=0.01)
    found = look(model, snapshot, tmp_path / "report").document
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "10 are needed" in found.reason


def test_rows_that_the_model_was_not_trained_on_prove_nothing(
    planted_table: Planted, breast_cancer: Artifact[Snapshot], tmp_path: Path
) -> None:
    found = look(planted_table[0], breast_cancer, tmp_path / "report").document
    assert (found.verdict, found.flagged) == (Verdict.INCONCLUSIVE, ())
    assert "trained on other rows" in found.reason


def test_a_word_planted_in_messages_is_found_and_named(planted_messages: Planted, tmp_path: Path) -> None:
    model, planted = planted_messages
    found = look(model, planted, tmp_path / "report")
    assert found.document.flagged == ("ham",)
    with np.load(found.open("triggers.npz")) as arrays:
        assert decode_text(arrays["inserted"])[0] == "cf"


def test_clean_messages_are_quiet(messages: Artifact[Snapshot], tmp_path: Path, fit: Fit) -> None:
    model = fit(messages, tmp_path / "model", "text", epochs=20, learning_rate=0.01)
    found = look(model, messages, tmp_path / "report").document
    assert found.verdict is Verdict.PASS


def test_a_model_with_other_classes_is_refused(
    clean_model: Artifact[Model], breast_cancer: Artifact[Snapshot], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="expected the classes .*'malignant'.* found"):
        look(clean_model, breast_cancer, tmp_path / "report")


def test_another_model_than_the_one_asked_for_is_refused(
    clean_model: Artifact[Model], digits: Artifact[Snapshot], tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match="expected artifact 0000"):
        backdoor(
            Ref(clean_model.folder, "0" * 64),
            Ref(digits.folder),
            tmp_path / "report",
            config=CONFIG,
            settings=Compute(seed=0, device="cpu"),
        )
