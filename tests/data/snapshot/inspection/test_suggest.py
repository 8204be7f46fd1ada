"""What init writes is what a run takes: each file is read again with the keys that were written for it."""

import gzip
import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from holdfast.data.snapshot.inspection.starter import LEAKED_SHARE, quote_yaml, starter, workload_name
from holdfast.data.snapshot.step import snapshot
from holdfast.errors import InputError
from holdfast.workload.schema import Workload, read_workload
from holdfast_gates.policy import find

Write = Callable[..., Path]
DRAW = random.Random(8)
N = 240


def table(delimiter: str = ",", **columns: list[object]) -> str:
    columns = {**columns, "x": [f"{DRAW.random():.4f}" for _ in range(N)], "label": ["ab"[i % 2] for i in range(N)]}
    rows = zip(*columns.values(), strict=True)
    return "\n".join([delimiter.join(columns), *(delimiter.join(map(str, row)) for row in rows)]) + "\n"


def zipped(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.csv", text)
    return buffer.getvalue()


def started(data: Path, folder: Path, **named: str) -> Workload:
    """The workload that init writes, after the snapshot step took the file with it."""
    begun = starter(data, **{"label": None, "text": None, **named})
    assert begun.seen.refused == ()
    (folder / "w.yaml").write_text(begun.text)
    workload = read_workload(folder / "w.yaml")
    snapshot(workload.snapshot_config, folder / f"taken-{data.name}")
    return workload


@pytest.mark.parametrize(
    ("columns", "keys"),
    [
        ({"id": list(range(N))}, {"drop": ("id",)}),
        ({"uuid": [f"u{i}" for i in range(N)]}, {"drop": ("uuid",)}),
        ({"one": [1] * N}, {"drop": ("one",)}),
        ({"zip": [f"0{i % 9}12" for i in range(N)]}, {"columns_as": {"zip": "category"}}),
        ({"icd": [("250", "V27", "E90")[i % 3] for i in range(N)]}, {"columns_as": {}}),
        ({"icd": [("250", "401", "V27")[i % 3] for i in range(N)]}, {"columns_as": {"icd": "category"}}),
        ({"day": [f"2024-01-{i % 28 + 1:02d}" for i in range(N)]}, {"columns_as": {"day": "datetime"}}),
        ({"when": [1_700_000_000 + i % 61 for i in range(N)]}, {"drop": ("when",)}),
        ({"income": ["NA" if i % 9 == 0 else i % 77 for i in range(N)]}, {"missing": "indicator"}),
        ({"no": ["on"] * 9 + ["off"] * (N - 9)}, {"drop": ()}),
        ({"yes": list(range(N)), "a: b": list(range(N)), "it's": list(range(N))}, {"drop": ("yes", "a: b", "it's")}),
    ],
)
def test_a_run_takes_what_init_wrote(
    tmp_path: Path, write: Write, columns: dict[str, list[object]], keys: dict[str, object]
) -> None:
    data = started(write(table(**columns)), tmp_path).data
    assert {key: getattr(data, key) for key in keys} == keys


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("rows.csv.gz", gzip.compress(table().encode()), {"delimiter": None}),
        ("rows.zip", zipped(table()), {"delimiter": None}),
        ("rows.csv", table(";", amount=[f"{i},5" for i in range(N)]).encode(), {"delimiter": ";", "decimal": ","}),
        ("rows.csv", table("\t").encode(), {"delimiter": "\t"}),
        ("rows.csv", table(city=["Köln", "Bonn"] * (N // 2)).encode("latin-1"), {"encoding": "cp1252"}),
        ("rows.csv", table(city=["Köln", "Bonn"] * (N // 2)).encode("utf-16"), {"encoding": "utf-16"}),
    ],
)
def test_how_the_file_is_written_is_written_down(
    tmp_path: Path, write: Write, name: str, content: bytes, keys: dict[str, object]
) -> None:
    data = started(write(content, name), tmp_path).data
    assert {key: getattr(data, key) for key in keys} == keys


def test_what_only_the_owner_knows_stays_refused(write: Write) -> None:
    begun = starter(write(table(amount=["?" if i % 9 == 0 else i % 77 for i in range(N)])), label=None, text=None)
    assert "data.columns_as" in begun.seen.refused[0]
    assert "\n  drop: [" not in begun.text


def test_a_choice_that_is_not_needed_is_a_comment(write: Write) -> None:
    begun = starter(write(table(branch=[i % 6 for i in range(N)])), label=None, text=None)
    assert "  # columns_as: {branch: category}" in begun.text


@pytest.mark.parametrize(
    ("x", "limits"),
    [
        (np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8), (0.0, 255.0)),
        (np.linspace(0, 1, 40 * 64).reshape(40, 8, 8), (0.0, 1.0)),
        ((np.arange(40 * 64) % 17).astype(np.uint8).reshape(40, 8, 8), (0.0, 16.0)),
        (np.linspace(-2.5, 3.2, 40 * 64).reshape(40, 8, 8), (-3.0, 4.0)),
    ],
)
def test_the_range_of_images_is_written_down(
    tmp_path: Path, save_npz: Callable[..., Path], x: np.ndarray, limits: tuple[float, float]
) -> None:
    data = started(save_npz(x=x, y=np.arange(40) % 2 + 1), tmp_path).data
    assert data.value_range == limits


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("payments.csv.gz", "payments"),
        ("2024 Zahlungen (März).csv", "w-2024-zahlungen-m-rz"),
        ("ß.csv", "workload"),
        ("a" * 80 + ".parquet", "a" * 63),
    ],
)
def test_the_workload_has_a_valid_name(file: str, name: str) -> None:
    assert workload_name(Path(file)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("no", "on", "y", "null", "1", "1e3", "0x10", "12:30", "2024-01-01", "", " a", "a, b", "a: b"),
        *("#x", "'", '"', "{", "-", "a\nb", "é", "~", "<<", "="),
    ],
)
def test_every_name_comes_back_from_yaml(text: str) -> None:
    import yaml

    assert yaml.safe_load(f"[{quote_yaml(text)}, {{{quote_yaml(text)}: 1}}]") == [text, {text: 1}]


def test_rows_that_come_more_than_once_stay_in_one_part(tmp_path: Path, write: Write) -> None:
    rows = "".join(f"{i % 40},{i % 40 // 20},{'ab'[i % 40 % 2]}\n" for i in range(N))
    begun = starter(write("x,z,label\n" + rows), label=None, text=None)
    assert "\n  duplicates: together  #" in begun.text
    assert begun.seen.leaked == 0
    alone = starter(
        write("x,label\n" + "".join(f"{i / 7:.5f},{'ab'[i % 2]}\n" for i in range(N))), label=None, text=None
    )
    assert "duplicates" not in alone.text


def test_where_every_column_would_be_dropped_none_is_and_the_refusals_stay(write: Write) -> None:
    rows = "".join(f"{1_700_000_000 + i % 61},{i},{'ab'[i % 2]}\n" for i in range(N))
    begun = starter(write("when,id,label\n" + rows), label=None, text=None)
    assert "\n  drop:" not in begun.text
    assert len(begun.seen.refused) == 2


def test_a_file_without_a_header_row_is_recognized_and_its_columns_are_named(tmp_path: Path, write: Write) -> None:
    body = "".join(f"{DRAW.random():.3f},{i % 7},{'ab'[i % 2]}\n" for i in range(N))
    path = write(body)
    with pytest.raises(
        InputError, match="which column holds the class.*; the first row looks like data.*--columns auto"
    ):
        starter(path, label=None, text=None)
    numbered = started(path, tmp_path, label="column_3", columns="auto").data
    assert (numbered.columns, numbered.label) == (("column_1", "column_2", "column_3"), "column_3")
    assert started(path, tmp_path, columns="size, on,label").data.columns == ("size", "on", "label")


def test_a_header_row_of_names_is_not_taken_for_data(write: Write) -> None:
    with pytest.raises(InputError, match=r"name it with --label; columns: size, on, kind$"):
        starter(write("size,on,kind\n" + "1,2,a\n3,4,b\n" * 9), label=None, text=None)


@pytest.mark.parametrize(("rows", "epochs"), [(60, 30), (2001, 10)])
def test_many_messages_are_read_less_often(tmp_path: Path, write: Write, rows: int, epochs: int) -> None:
    lines = "".join(f"see you at {i} {'home' if i % 2 else 'work'},{'ab'[i % 2]}\n" for i in range(rows))
    assert started(write("text,label\n" + lines), tmp_path, text="text").train.epochs == epochs


def test_equal_rows_stay_together_where_the_default_policy_would_refuse_them() -> None:
    asked = find("default").checks.leakage
    assert asked is not None
    assert asked.at_most == LEAKED_SHARE
