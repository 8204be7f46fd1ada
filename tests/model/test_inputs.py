import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits

from holdfast.artifacts.documents import Column, InputSpec, Snapshot
from holdfast.artifacts.folder import Artifact, save
from holdfast.errors import InputError, IntegrityError
from holdfast.modality.tabular import tabular_features
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.inputs import Arrays, encode, read_spec, read_split, rows_digest, without

COLOUR = (Column(name="size", kind="number"), Column(name="colour", kind="category", categories=("blue", "red")))


def test_images_become_shares_of_the_delivered_range(digits: Artifact[Snapshot]) -> None:
    rows = read_split(digits, "train", read_spec(digits))
    assert rows.x.shape == (1437, 1, 8, 8)
    assert rows.x.dtype == np.float32
    # scikit-learn documents the pixels as integers 0..16.
    whole = np.concatenate([rows.x, read_split(digits, "test", read_spec(digits)).x])
    assert np.isclose(whole.sum() * 16, load_digits().images.sum())


def test_table_limits_and_scales_come_from_the_training_rows(breast_cancer: Artifact[Snapshot]) -> None:
    spec = read_spec(breast_cancer)
    rows = read_split(breast_cancer, "train", spec)
    assert spec.shape == (30,)
    assert [f.name for f in spec.features] == list(load_breast_cancer().feature_names)
    assert np.allclose([f.scale for f in spec.features], np.std(rows.x.astype(np.float64), axis=0), rtol=1e-4)
    assert np.allclose([f.mean for f in spec.features], np.mean(rows.x.astype(np.float64), axis=0), rtol=1e-4)
    assert all(f.lower <= v <= f.upper for f, v in zip(spec.features, rows.x[0], strict=True))


def test_a_category_becomes_columns_that_nobody_changes() -> None:
    frame = pd.DataFrame({"size": [1.0, 3.0], "colour": ["red", "blue"]})
    features = tabular_features(frame, COLOUR)
    assert [(f.name, f.mutable) for f in features] == [("size", True), ("colour=blue", False), ("colour=red", False)]
    spec = InputSpec(modality="tabular", shape=(3,), dtype="float32", features=features, columns=COLOUR)
    new = pd.DataFrame({"colour": ["green", "red"], "size": [2.0, 5.0]})
    assert encode(new, spec).tolist() == [[2.0, 0.0, 0.0], [5.0, 0.0, 1.0]]


def test_a_table_read_by_columns_is_the_one_that_is_encoded_at_once(
    make_table: Callable[..., Artifact[Snapshot]], tmp_path: Path
) -> None:
    # A dot in a name is part of it: Parquet's own paths have dots, too.
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "a.b": rng.integers(9, size=60).astype(float)})
    frame = frame.assign(colour=rng.choice(["red", "blue"], 60), label=rng.choice(["no", "yes"], 60))
    columns = (Column(name="a", kind="number"), Column(name="a.b", kind="number"), COLOUR[1])
    snapshot = make_table(tmp_path / "s", frame, columns, ("no", "yes"), train=40)
    spec = read_spec(snapshot)
    assert spec.features == tabular_features(frame[:40], columns)
    rows = read_split(snapshot, "test", spec)
    assert np.array_equal(rows.x, encode(frame[40:], spec))
    assert rows.y.tolist() == (frame["label"][40:] == "yes").astype(int).tolist()


def test_a_missing_column_is_named() -> None:
    features = tabular_features(pd.DataFrame({"size": [1.0, 3.0], "colour": ["red", "blue"]}), COLOUR)
    spec = InputSpec(modality="tabular", shape=(3,), dtype="float32", features=features, columns=COLOUR)
    with pytest.raises(InputError, match="expected a column 'colour', found"):
        encode(pd.DataFrame({"size": [2.0]}), spec)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    image = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
    with pytest.raises(InputError, match="expected finite numbers, found NaN or infinity"):
        encode(np.full((1, 1, 8, 8), bad), image)


def test_images_of_another_shape_are_refused() -> None:
    spec = InputSpec(modality="image", shape=(1, 8, 8), dtype="float32")
    with pytest.raises(InputError, match=r"expected shape \(N, 1, 8, 8\), found \(2, 8, 8\)"):
        encode(np.zeros((2, 8, 8)), spec)


@given(st.text(max_size=60))
def test_text_ids_are_bytes_and_lead_back_to_the_message(message: str) -> None:
    ids = encode_text([message], 400)
    data = message.lower().encode("utf-8", "replace")
    assert ids[0, : len(data)].tolist() == [byte + 2 for byte in data]
    assert not ids[0, len(data) :].any()
    assert decode_text(ids)[0] == data.decode("utf-8", "replace")


def test_messages_are_cut_at_their_length() -> None:
    assert encode_text(["abc"], 2).tolist() == [[99, 100]]


def test_the_rows_digest_is_the_one_its_docstring_promises() -> None:
    rows = Arrays(np.arange(4, dtype=np.float32).reshape(2, 2), np.array([0, 1]))
    expected = hashlib.sha256(b"<f4 (2, 2)\n" + rows.x.tobytes() + b"<i8 (2,)\n" + rows.y.tobytes()).hexdigest()
    assert rows_digest(rows) == expected
    assert rows_digest(without(rows, [])) == expected
    assert rows_digest(without(rows, [0])) != expected


def test_without_leaves_out_exactly_the_named_rows() -> None:
    rows = Arrays(np.arange(5)[:, None], np.arange(5))
    assert without(rows, [1, 3]).y.tolist() == [0, 2, 4]


def test_an_altered_file_is_refused_when_it_is_read(tmp_path: Path, digits: Artifact[Snapshot]) -> None:
    files = {name: (digits.folder / name).read_bytes() for name in digits.document.files}
    copy = save(tmp_path / "copy", digits.document.model_copy(update={"files": {}}), files)
    data = bytearray(files["train.npz"])
    data[100] ^= 1
    (copy.folder / "train.npz").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"train\.npz: expected sha256 .* altered after"):
        read_split(copy, "train", read_spec(copy))


def test_a_class_that_the_snapshot_does_not_know_is_named(tmp_path: Path, breast_cancer: Artifact[Snapshot]) -> None:
    document = breast_cancer.document.model_copy(update={"files": {}, "classes": ("malignant", "healthy")})
    files = {name: (breast_cancer.folder / name).read_bytes() for name in breast_cancer.document.files}
    copy = save(tmp_path / "copy", document, files)
    with pytest.raises(InputError, match=r"expected the classes \['malignant', 'healthy'\], found 'benign'"):
        read_split(copy, "test", read_spec(copy))
