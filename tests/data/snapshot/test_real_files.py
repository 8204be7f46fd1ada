"""Files as people have them: the right reading, or a refusal that names the place and the key that decides."""

import gzip
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.errors import InputError, LimitError

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]


def rows(taken: Artifact[Snapshot]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(taken.open(f"{split}.parquet")) for split in ("train", "test")])


def csv(cells: list[str], labels: list[str], sep: str = ",") -> str:
    lines = [f"{i}{sep}{cell}{sep}{label}" for i, (cell, label) in enumerate(zip(cells, labels, strict=True))]
    return "\n".join([sep.join(("n", "c", "label")), *lines]) + "\n"


def parquet(tmp_path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "typed.parquet")
    return tmp_path / "typed.parquet"


AB = ["a", "b"] * 6
COLOURS = ["red", "blue", "green"] * 4


@pytest.mark.parametrize("token", ["nan", "NULL", "None", "<NA>", "N/A", "na", ""])
def test_one_list_of_missing_tokens_holds_for_labels_and_columns(take: Take, write: Write, token: str) -> None:
    for cells, labels, where in (
        (COLOURS, [token, *AB[1:]], "label 'label': expected a label"),
        ([token, *COLOURS[1:]], AB, "column 'c': expected a value"),
        ([token, *map(str, range(11))], AB, "column 'c': expected a value"),
    ):
        with pytest.raises(InputError, match=f"{where} in every row.* in 1 of 12 rows .first: 1; line 2"):
            take(write(csv(cells, labels)))


def test_a_class_that_the_workload_names_none_is_a_class(take: Take, write: Write) -> None:
    taken = take(write(csv(COLOURS, ["none", "some"] * 6)), classes=("none", "some"))
    assert taken.document.classes == ("none", "some")


def test_missing_cells_are_filled_as_the_workload_says(take: Take, write: Write) -> None:
    taken = take(write(csv(["NULL", *COLOURS[1:]], AB)), missing={"c": "unknown"})
    assert rows(taken).sort_values("n")["c"].tolist() == ["unknown", *COLOURS[1:]]
    assert taken.document.columns[1].fill == "unknown"


def test_an_indicator_remembers_what_the_training_mean_fills(take: Take, write: Write) -> None:
    held = write(csv(["NA", *["100"] * 11], AB), "held.csv")
    taken = take(write(csv(["1", "", *["4"] * 10], AB)), missing="indicator", test=str(held))
    train, test = (pd.read_parquet(taken.open(f"{split}.parquet")) for split in ("train", "test"))
    assert train["c missing"].tolist() == [0, 1, *[0] * 10]
    assert train["c"][1] == test["c"][0] == pytest.approx(41 / 11)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["0", "0.0", "1", "1.0"], ("0", "1")),
        (["true", "False", "TRUE", "false"], ("false", "true")),
        (["caf\u00e9", "cafe\u0301", "tea", " tea "], ("caf\u00e9", "tea")),
        (["18446744073709551615", "18446744073709551614"] * 2, ("18446744073709551614", "18446744073709551615")),
    ],
)
def test_a_class_has_one_spelling(take: Take, write: Write, labels: list[str], classes: tuple[str, ...]) -> None:
    assert tuple(sorted(take(write(csv(COLOURS, labels * 3))).document.classes)) == tuple(sorted(classes))


def test_one_number_with_and_without_leading_zero_is_refused_as_a_class(take: Take, write: Write) -> None:
    with pytest.raises(InputError, match="expected one spelling per class, found '01', '1' in 8 of 12 rows"):
        take(write(csv(COLOURS, ["01", "1", "2"] * 4)))


@pytest.mark.parametrize("kind", [pa.int64(), pa.decimal128(20, 0)])
def test_whole_numbers_of_64_bits_stay_exact_as_classes_and_categories(take: Take, tmp_path: Path, kind: Any) -> None:
    ids = pa.array([2**53, 2**53 + 1] * 6).cast(kind)
    path = parquet(tmp_path, n=pa.array(range(12)), id=ids, label=ids)
    with pytest.raises(InputError, match="column 'id': .* found '9007199254740993' in 6 of 12 rows.*columns_as"):
        take(path)
    document = take(path, columns_as={"id": "category"}).document
    assert document.columns[1].categories == document.classes == ("9007199254740992", "9007199254740993")


def test_strings_and_dates_of_a_typed_file_are_believed(take: Take, tmp_path: Path) -> None:
    moment = datetime(2026, 1, 31, 8, 30, tzinfo=UTC)
    when = pa.array([moment] * 12, pa.timestamp("us", tz="Europe/Rome"))
    taken = take(parquet(tmp_path, zip=["01234", "1234", "9"] * 4, when=when, label=AB))
    assert taken.document.columns[0].categories == ("01234", "1234", "9")
    assert rows(taken)["when"].tolist() == [moment.timestamp()] * 12


@pytest.mark.parametrize(
    "codes", [["250.01", "428", "786", "E909"], ["01234", "1234", "7", "8"], ["12", "1e5", "3", "4"]]
)
def test_codes_are_refused_until_the_workload_says_what_they_are(take: Take, write: Write, codes: list[str]) -> None:
    path = write(csv(codes * 3, AB))
    with pytest.raises(InputError, match=r"column 'c': .*data.columns_as: \{c: category\}"):
        take(path)
    assert take(path, columns_as={"c": "category"}).document.columns[1].categories == tuple(sorted(codes))


def test_dates_become_seconds_since_1970_in_utc(take: Take, write: Write) -> None:
    path = write(csv(["1970-01-02", "1970-01-01T01:00:10+01:00"] * 6, AB))
    taken = take(path, columns_as={"c": "datetime"})
    assert set(rows(taken)["c"]) == {86400.0, 10.0}
    with pytest.raises(InputError, match="column 'c': expected ISO 8601 dates .* found '31/12/2025' in 1 of 12 rows"):
        take(write(csv(["31/12/2025", *["2026-01-01"] * 11], AB)), columns_as={"c": "datetime"})


def test_a_dropped_column_is_never_read(take: Take, write: Write, tmp_path: Path) -> None:
    lists, nothing = pa.array([[1]] * 12), pa.nulls(12)
    path = parquet(tmp_path, n=pa.array(range(12)), lists=lists, nothing=nothing, label=AB)
    with pytest.raises(InputError, match="column 'lists': expected numbers, bools or strings, found list.*data.drop"):
        take(path)
    assert [c.name for c in take(path, drop=("lists", "nothing")).document.columns] == ["n"]
    assert [c.name for c in take(write(csv(["1", "?"] * 6, AB)), drop=("c",)).document.columns] == ["n"]


def test_semicolons_and_decimal_commas_are_read_and_recorded(take: Take, write: Write) -> None:
    taken = take(write(csv(["1.234,5", "0,25"] * 6, AB, ";")))
    assert set(rows(taken)["c"]) == {1234.5, 0.25}
    assert taken.document.sources[0].read_as == "delimiter ';', decimal mark ','"


@pytest.mark.parametrize(("cells", "sep"), [(['"12,06"', '"9,5"'], ","), (["1,234", "5,678"], ";")])
def test_decimal_commas_that_could_be_something_else_are_refused(
    take: Take, write: Write, cells: list[str], sep: str
) -> None:
    path = write(csv(cells * 6, AB, sep))
    with pytest.raises(
        InputError, match="column 'c': expected a decimal point, found decimal commas.*data.decimal: \",\""
    ):
        take(path)
    assert take(path, decimal=",").document.columns[1].kind == "number"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_shows_the_encoding(take: Take, write: Write, encoding: str) -> None:
    assert take(write(csv(["Köln", "Ulm"] * 6, AB).encode(encoding))).document.columns[1].categories == ("Köln", "Ulm")


def test_another_encoding_is_named_by_the_workload(take: Take, write: Write) -> None:
    path = write(csv(["Köln", "Ulm"] * 6, AB).encode("latin-1"))
    with pytest.raises(InputError, match="found byte 0xf6 at offset 13 .line 2.; .*data.encoding"):
        take(path)
    assert take(path, encoding="latin-1").document.columns[1].categories == ("Köln", "Ulm")


def test_lines_are_counted_across_quoted_newlines(take: Take, write: Write) -> None:
    with pytest.raises(InputError, match="found nothing in 1 of 12 rows .first: 2; line 4"):
        take(write(csv(['"red\nor blue"', "", *COLOURS[2:]], AB)))


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_", "."), data)
    return stream.getvalue()


def test_one_file_in_a_gzip_or_a_zip_is_read(take: Take, write: Write) -> None:
    data = csv(COLOURS, AB).encode()
    plain = take(write(data, "data.csv"))
    for path in (write(gzip.compress(data), "data.csv.gz"), write(zipped(data_csv=data), "data.zip")):
        pd.testing.assert_frame_equal(rows(take(path)), rows(plain))


def test_archives_are_bounded_and_hold_one_file(take: Take, write: Write) -> None:
    with pytest.raises(InputError, match="expected one file in the zip, found 2"):
        take(write(zipped(a_csv=b"x", b_csv=b"y"), "two.zip"))
    with pytest.raises(InputError, match="expected one file in the gzip, found more bytes"):
        take(write(gzip.compress(b"x") * 2, "two.csv.gz"))
    for bomb in (write(gzip.compress(b"0" * 10**6), "b.csv.gz"), write(zipped(b_csv=b"0" * 10**6), "b.zip")):
        with pytest.raises(LimitError, match="expected at most 10000 bytes when unpacked"):
            take(bomb, max_bytes=10_000)


@pytest.mark.parametrize(("top", "kind"), [(1, np.float32), (255, np.uint8), (65535, np.uint16)])
def test_the_range_of_images_follows_their_values(take: Take, save_npz: Write, top: int, kind: Any) -> None:
    x = (np.random.default_rng(0).random((12, 5, 5)) * top).astype(kind)
    document = take(save_npz(x=x, y=np.arange(12) % 2), "image").document
    assert (document.lower, document.upper) == (0, top)


def test_a_range_that_the_values_do_not_fill_is_refused(take: Take, save_npz: Write) -> None:
    path = save_npz(x=np.random.default_rng(0).random((12, 5, 5)), y=np.arange(12) % 2)
    with pytest.raises(InputError, match="expected values that fill the range 0 to 255, found none above 0.9"):
        take(path, "image", range=(0, 255))


@pytest.mark.parametrize("first", [1, -1, 5])
def test_classes_of_images_are_the_labels_found(take: Take, save_npz: Write, first: int) -> None:
    y = np.arange(12) % 2 + first
    taken = take(save_npz(x=np.random.default_rng(0).random((12, 5, 5)), y=y), "image")
    assert taken.document.classes == (str(first), str(first + 1))
    assert sum(taken.document.train_per_class) == taken.document.train_rows


def test_rows_in_both_parts_are_counted(take: Take, write: Write, save_npz: Write) -> None:
    held = write(csv(COLOURS, AB[::-1]).replace("\n0,", "\n99,"), "held.csv")
    assert take(write(csv(COLOURS, AB)), test=str(held)).document.leaked_rows == 11
    x = np.random.default_rng(0).random((12, 5, 5))
    y = np.arange(12) % 2
    assert take(save_npz(x_train=x, y_train=y, x_test=x[:5], y_test=y[:5]), "image").document.leaked_rows == 5


def test_equal_rows_are_not_parted_when_the_workload_asks(take: Take, write: Write) -> None:
    table = write("n,c,label\n" + "".join(f"{i % 40},x,{'ab'[i % 2]}\n" for i in range(200)))
    assert take(table).document.leaked_rows == 40
    assert take(table, duplicates="together").document.leaked_rows == 0
    same = write("n,c,label\n" + "".join(f"{i if i % 2 else 0},x,{'ab'[i % 2]}\n" for i in range(40)), "same.csv")
    with pytest.raises(InputError, match="expected rows of class 'a' that differ, .* found all 20 in one part"):
        take(same, duplicates="together")
