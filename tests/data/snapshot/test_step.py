import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot, SourceFile
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.data.snapshot.step import snapshot
from holdfast.errors import InputError, IntegrityError, LimitError
from holdfast.tables import read_table
from holdfast.workload.schema import DataConfig, SnapshotConfig

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]
TABLE = "age,city,member,label\n" + "".join(
    f"{20 + i},{'Bonn' if i % 2 else 'Ulm'},{'true' if i % 3 else 'false'},{'yes' if i % 4 else 'no'}\n"
    for i in range(20)
)
X = np.arange(12 * 5 * 5).astype(np.uint8).reshape(12, 5, 5)
Y = np.arange(12) % 3
MANY_CLASSES = "age,label\n" + "".join(f"{n // 2},k{n // 2}\n" for n in range(20_002))


def frame(artifact: Artifact[Snapshot], split: Any = "train") -> pd.DataFrame:
    return pd.read_parquet(artifact.open(f"{split}.parquet"))


def arrays(artifact: Artifact[Snapshot], split: str = "train") -> tuple[NDArray[Any], NDArray[Any]]:
    with np.load(artifact.open(f"{split}.npz"), allow_pickle=False) as found:
        return found["x"], found["y"]


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_a_table_is_split_typed_and_pinned(take: Take, write: Write) -> None:
    path = write(TABLE)
    taken = take(path)
    document = taken.document
    assert [(c.name, c.kind, c.integer, c.categories) for c in document.columns] == [
        ("age", "number", True, ()),
        ("city", "category", False, ("Bonn", "Ulm")),
        ("member", "number", True, ()),
    ]
    assert (document.classes, document.train_per_class, document.test_per_class) == (("no", "yes"), (4, 12), (1, 3))
    assert document.sources[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    rows = pd.concat([frame(taken), frame(taken, "test")]).sort_values("age")
    assert rows["age"].tolist() == [20.0 + i for i in range(20)]
    assert rows["label"].tolist() == ["yes" if i % 4 else "no" for i in range(20)]
    assert load(Ref(taken.folder, taken.digest), Snapshot).document == document


def test_the_same_delivery_gives_the_same_bytes(take: Take, write: Write) -> None:
    path = write(TABLE)
    assert take(path).digest == take(path).digest


def test_csv_tsv_and_parquet_say_the_same(take: Take, write: Write, tmp_path: Path) -> None:
    one = take(write(TABLE, "data.csv"))
    two = take(write(TABLE.replace(",", "\t"), "data.tsv"))
    pd.read_csv(tmp_path / "data.csv").to_parquet(tmp_path / "data.parquet")
    three = take(tmp_path / "data.parquet")
    pd.testing.assert_frame_equal(frame(one), frame(two))
    pd.testing.assert_frame_equal(frame(one), frame(three))


def test_a_second_file_is_the_held_out_rows(take: Take, write: Write) -> None:
    head, rows = TABLE.split("\n", 1)
    turned = "\n".join(",".join(reversed(line.split(","))) for line in f"{head}\n{rows}".splitlines()[:6])
    taken = take(write(TABLE), test=str(write(turned, "held.csv")))
    assert (taken.document.train_rows, taken.document.test_rows) == (20, 5)
    assert frame(taken, "test")["age"].tolist() == [20, 21, 22, 23, 24]
    assert [source.path for source in taken.document.sources] == ["data.csv", "held.csv"]


def test_two_files_of_one_name_are_told_apart_by_their_folder(take: Take, tmp_path: Path) -> None:
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.csv").write_text(TABLE)
    taken = take(tmp_path / "new" / "data.csv", test=str(tmp_path / "old" / "data.csv"))
    assert [source.path for source in taken.document.sources] == ["new/data.csv", "old/data.csv"]


def test_columns_that_the_model_must_not_see_are_dropped(take: Take, write: Write) -> None:
    taken = take(write(TABLE), drop=("city",), immutable=("age",))
    assert list(frame(taken).columns) == ["age", "member", "label"]
    assert [column.immutable for column in taken.document.columns] == [True, False]


def test_messages_keep_their_text(take: Take, write: Write) -> None:
    rows = [(label, f'say "{i}, yes') for i, label in enumerate(["ham", "spam"] * 4)]
    path = write("".join(f"{label}\t{text}\n" for label, text in rows), "sms.tsv")
    taken = take(path, "text", columns=("label", "text"), text="text", length=32)
    assert taken.document.shape == (32,)
    assert {*frame(taken)["text"], *frame(taken, "test")["text"]} == {text for _, text in rows}


@pytest.mark.parametrize(
    ("x", "shape"),
    [(X, (1, 5, 5)), (X[:, None], (1, 5, 5)), (np.stack([X] * 3, -1), (3, 5, 5)), (X.astype(float), (1, 5, 5))],
)
def test_images_become_channels_first(take: Take, save_npz: Write, x: NDArray[Any], shape: tuple[int, ...]) -> None:
    taken = take(save_npz(x=x, y=Y), "image", range=(0, 255), holdout=0.25)
    train, labels = arrays(taken)
    assert taken.document.shape == train.shape[1:] == shape
    assert (train.dtype, labels.dtype) == (np.float32 if x.dtype == float else np.uint8, np.int64)
    assert set(train[:, 0].reshape(len(train), -1)[:, 0]) < set(X[:, 0, 0])


def test_train_and_test_keys_need_no_split(take: Take, save_npz: Write) -> None:
    taken = take(save_npz(x_train=X, y_train=Y, x_test=X[:4], y_test=Y[:4]), "image", classes=("a", "b", "c"))
    np.testing.assert_array_equal(arrays(taken)[0][:, 0], X)
    np.testing.assert_array_equal(arrays(taken, "test")[1], Y[:4])
    assert taken.document.classes == ("a", "b", "c")


def test_image_artifacts_hold_no_clock(take: Take, save_npz: Write) -> None:
    taken = take(save_npz(x=X, y=Y), "image")
    with zipfile.ZipFile(taken.path("train.npz")) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_values_beyond_the_range_are_left_to_the_schema(take: Take, save_npz: Write) -> None:
    assert take(save_npz(x=X, y=Y), "image", range=(0, 10)).document.upper == 10


def test_digits_are_those_of_scikit_learn(take: Take, digits: tuple[NDArray[Any], NDArray[Any]]) -> None:
    taken = take("sklearn:digits", "image")
    assert (taken.document.lower, taken.document.upper, taken.document.shape) == (0, 16, (1, 8, 8))
    found = {(x.tobytes(), int(y)) for split in ("train", "test") for x, y in zip(*arrays(taken, split), strict=True)}
    assert found == {(x.astype(np.uint8).tobytes(), int(y)) for x, y in zip(*digits, strict=True)}


def test_breast_cancer_is_that_of_scikit_learn(take: Take) -> None:
    from sklearn.datasets import load_breast_cancer

    known = load_breast_cancer(as_frame=True)
    taken = take("sklearn:breast-cancer")
    rows = pd.concat([frame(taken), frame(taken, "test")])
    assert list(rows.columns) == [*known.feature_names, "label"]
    order = [*known.feature_names]
    expected = known.frame.assign(label=[known.target_names[i] for i in known.target])[[*order, "label"]]
    pd.testing.assert_frame_equal(
        rows.sort_values(order).reset_index(drop=True), expected.sort_values(order).reset_index(drop=True)
    )


def test_the_file_given_at_the_command_line_replaces_the_source(write: Write, tmp_path: Path) -> None:
    config = SnapshotConfig(name="t", modality="tabular", data=DataConfig(source="absent.csv", sha256="0" * 64))
    assert snapshot(config, tmp_path / "out", data=write(TABLE)).document.train_rows == 16


def test_a_link_to_the_data_is_followed(take: Take, write: Write, tmp_path: Path) -> None:
    # A mounted ConfigMap or a dataset volume is links all the way.
    (tmp_path / "link.csv").symlink_to(write(TABLE))
    assert take(tmp_path / "link.csv").document.train_rows == 16


def test_the_shared_sets_are_read(take: Take, shared_data: Path) -> None:
    fashion = take(shared_data / "fashion_mnist.npz", "image", range=(0, 255)).document
    assert (fashion.shape, fashion.train_per_class, fashion.test_rows) == ((1, 28, 28), (6000,) * 10, 10_000)
    sms = take(shared_data / "sms_spam.tsv", "text", columns=("label", "text"), text="text").document
    assert sum(sms.train_per_class) + sum(sms.test_per_class) == 5574
    assert (sms.train_per_class[0] + sms.test_per_class[0], sms.classes) == (4827, ("ham", "spam"))
    credit = take(shared_data / "credit_default.csv", label="Y", drop=("ID",)).document
    assert credit.train_per_class[1] + credit.test_per_class[1] == 6636


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(take: Take, tmp_path: Path, source: Path | str, message: str, *more: Any, **data: Any) -> None:
    with pytest.raises(InputError, match=message) as told:
        take(source, *more, **data)
    assert "\n" not in str(told.value)
    assert not [path for path in tmp_path.iterdir() if "snapshot" in path.name], "something half-written was left"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data.csv: expected data, found an empty file"),
        ("age,label\n", "found the header only"),
        (TABLE.encode("utf-16-le"), "expected text, found a NUL byte at offset 1; another encoding"),
        (TABLE.replace("Bonn", "K\xf6ln").encode("latin-1"), "expected UTF-8, found byte 0xf6 at offset"),
        (TABLE.replace("label", "lable"), "expected a label column 'label'; did you mean 'lable'?"),
        (TABLE.replace("yes", "no"), "expected at least two classes, found 'no' only"),
        (MANY_CLASSES, "expected at most 10000 classes, found 10001"),
        (TABLE.replace(",no\n", ",yes\n", 4), "at least 2 rows of each class, found fewer of 'no' .1."),
        (TABLE.replace("25,", "abc,"), "column 'age': expected numbers, found 'abc' in 1 of 20 rows .first: 6"),
        (TABLE.replace("25,", "nan,"), "column 'age': .* found NaN or nothing in 1 of 20 rows"),
        (TABLE.replace("25,", "1e999,"), "column 'age': expected finite numbers, found infinity or overflow"),
        (TABLE.replace("age,city", "age,age"), "expected each column once, found 'age' more than once"),
        (TABLE.replace("25,", "25,1,"), "data.csv: line 7: expected 4 cells, found 5"),
        ("label\na\na\nb\nb\n", "expected columns other than the label 'label', found none"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    take: Take, write: Write, tmp_path: Path, content: Any, message: str
) -> None:
    refused(take, tmp_path, write(content), message)


def test_missing_folders_and_pipes_are_refused(take: Take, tmp_path: Path) -> None:
    refused(take, tmp_path, tmp_path / "absent.csv", "absent.csv: expected a data file, found none that can be read")
    os.mkfifo(tmp_path / "pipe.csv")
    refused(take, tmp_path, tmp_path / "pipe.csv", "expected a regular file, found something else")
    (tmp_path / "folder.csv").mkdir()
    refused(take, tmp_path, tmp_path / "folder.csv", "expected a regular file, found something else")


def test_names_that_do_not_exist_are_refused(take: Take, write: Write, tmp_path: Path) -> None:
    refused(take, tmp_path, write(TABLE), "expected a data column 'cite'; did you mean 'city'?", drop=("cite",))
    refused(take, tmp_path, "sklearn:iris", "expected one of 'sklearn:digits', 'sklearn:breast-cancer'")
    refused(take, tmp_path, write(TABLE, "data.txt"), "expected a name that ends in .csv, .tsv")


def test_labels_outside_the_classes_are_refused(take: Take, write: Write, save_npz: Write, tmp_path: Path) -> None:
    refused(take, tmp_path, write(TABLE), "found 'no' in 5 of 20 rows", classes=("yes", "maybe"))
    held = write(TABLE.replace(",no\n", ",never\n"), "held.csv")
    message = "held.csv: label 'label': expected one of 'no', 'yes' .the classes of the training rows., found 'never'"
    refused(take, tmp_path, write(TABLE), message, test=str(held))
    npz = save_npz(x=X, y=Y)
    refused(take, tmp_path, npz, "expected labels below 2 .data.classes., found 2 in", "image", classes=("a", "b"))
    npz = save_npz(x_train=X, y_train=Y, x_test=X, y_test=Y + 1)
    refused(take, tmp_path, npz, "held-out rows.: expected one of '0', '1', '2' .*, found 3 in 4 of 12", "image")


def test_a_held_out_file_with_other_columns_is_refused(take: Take, write: Write, tmp_path: Path) -> None:
    held = write(TABLE.replace("city", "town"), "held.csv")
    message = "held.csv: expected the columns of data.csv, found 'city' missing and 'town' added"
    refused(take, tmp_path, write(TABLE), message, test=str(held))
    refused(take, tmp_path, write(TABLE), "expected another file in data.test", test=str(tmp_path / "data.csv"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X[:, 0, 0], "y": Y}, r"data.npz\[x\]: expected images \[N, H, W\].* found shape \(12,\)"),
        ({"x": np.zeros((12, 9, 8, 7)), "y": Y}, "expected at most 4 channels, found shape"),
        ({"x": X[:0], "y": Y[:0]}, "expected images .* found shape"),
        ({"x": X, "y": Y[:5]}, r"data.npz\[y\]: expected 12 labels, one per image, found shape \(5,\)"),
        ({"x": X, "y": Y / 2}, "expected whole numbers .class indices., found dtype float64"),
        ({"x": X, "y": Y * 0}, "expected at least two classes, found '0' only"),
        ({"x": X, "y": np.arange(12)}, "found fewer of '0' .1., '1' .1."),
        ({"x": X - 7.0, "y": Y}, "expected data.range with images of values from -7 to"),
        ({"x": np.where(X == 50, np.nan, X), "y": Y}, "expected finite numbers, found NaN or infinity in 1 of 12 rows"),
        ({"x": np.where(X == 50, 1e300, X), "y": Y}, "expected numbers up to 3.4.*e.38, found 1e.300"),
        ({"x": np.where(X == 50, np.inf, X), "y": Y}, "expected finite numbers"),
        ({"x": X.astype(complex), "y": Y}, "expected numbers, found dtype complex128"),
        ({"images": X, "labels": Y}, "expected arrays 'x_test', 'x_train', 'y_test', 'y_train', found 'images'"),
        ({"x": np.array([{}] * 12), "y": Y}, "found pickled Python objects; they are never unpickled"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, r"expected held-out images \(1, 5, 5\)"),
    ],
)
def test_images_that_cannot_be_used_are_refused(
    take: Take, save_npz: Write, tmp_path: Path, given: Any, message: str
) -> None:
    refused(take, tmp_path, save_npz(**given), message, "image")


def test_what_does_not_fit_the_modality_is_refused(take: Take, write: Write, save_npz: Write, tmp_path: Path) -> None:
    refused(take, tmp_path, write(TABLE), "expected an NPZ file for an image workload, found csv", "image")
    refused(take, tmp_path, save_npz(x=X, y=Y), "expected CSV, TSV or Parquet for a table or messages, found NPZ")
    refused(take, tmp_path, "sklearn:digits", "expected a table for this workload, found images")
    refused(take, tmp_path, "sklearn:breast-cancer", "expected images for an image workload", "image")
    npz = save_npz(x=X, y=Y)
    refused(take, tmp_path, npz, r"expected data.range with the lower value first", "image", range=(1, 0))


def test_more_than_the_limit_is_refused_before_it_is_read(take: Take, write: Write, save_npz: Write) -> None:
    with pytest.raises(LimitError, match="expected at most 100 bytes .data.max_bytes., found"):
        take(write(TABLE), max_bytes=100)
    bomb = save_npz(x=np.zeros((100, 1000, 1000), dtype=np.uint8), y=np.arange(100) % 2)
    with pytest.raises(LimitError, match="expected at most 1000000 bytes when decoded"):
        take(bomb, "image", max_bytes=10**6)


def test_a_file_with_another_digest_is_refused(take: Take, write: Write) -> None:
    with pytest.raises(IntegrityError, match="expected sha256 000000000000… .data.sha256., found"):
        take(write(TABLE), sha256="0" * 64)


def test_a_url_without_digest_is_refused(take: Take, tmp_path: Path) -> None:
    refused(take, tmp_path, "https://example.org/data.csv", "expected data.sha256 with a URL, found none")


def test_a_url_is_read_from_what_was_downloaded_before(
    take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digest = hashlib.sha256(TABLE.encode()).hexdigest()
    (tmp_path / "holdfast" / "downloads").mkdir(parents=True)
    (tmp_path / "holdfast" / "downloads" / digest).write_text(TABLE)
    taken = take("https://example.org/files/people.csv?version=2", sha256=digest)
    assert taken.document.sources[0] == SourceFile(path="people.csv", sha256=digest, bytes=len(TABLE))


def test_a_full_disk_leaves_nothing_behind(write: Write, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from holdfast.workload.schema import DataConfig, SnapshotConfig\n"
        "from holdfast.data.snapshot.step import snapshot\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "config = SnapshotConfig(name='t', modality='tabular', data=DataConfig(source=sys.argv[1]))\n"
        "snapshot(config, Path(sys.argv[2]))\n"
    )
    write(TABLE)
    command = [sys.executable, "-c", code, str(tmp_path / "data.csv"), str(tmp_path / "out" / "snapshot")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


# --- the table view ---------------------------------------------------------------------------------------------------


def test_the_table_view_of_images_is_their_cells(take: Take, save_npz: Write) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (5000, 3, 11, 9), dtype=np.uint8)
    taken = take(save_npz(x_train=x, y_train=np.arange(5000) % 2, x_test=x, y_test=np.arange(5000) % 2), "image")
    table = read_table(taken, "train")
    cell = x[:, 1, 2:4, 2:3].astype(float)  # the parts of array_split(11, 8) and array_split(9, 8)
    np.testing.assert_allclose(table["cell_1_1_1"], cell.mean(axis=(1, 2)))
    np.testing.assert_allclose(table["brightness"], x.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(table["contrast"], x.std(axis=(1, 2, 3)))
    np.testing.assert_array_equal(table["highest"], x.max(axis=(1, 2, 3)))
    assert list(table.columns[-1:]) == ["label"]
    assert len(table.columns) == 4 + 3 * 64 + 1
