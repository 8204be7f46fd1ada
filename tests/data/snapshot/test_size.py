"""Large files are read in other ways than small ones: what comes of them is the same."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.artifacts.verified import BLOCK, VerifiedFile
from holdfast.data.snapshot import blocks, columnar, delimited, fetch, rows
from holdfast.data.snapshot.columns import describe
from holdfast.data.snapshot.dialect import UNKNOWN
from holdfast.data.snapshot.rows import Part
from holdfast.errors import HoldfastError, InputError, IntegrityError
from holdfast.workload.schema import DataConfig

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]
CELL = st.sampled_from(
    ["1", "-0.5", "2.50", "1e-05", "1E3", "12e4", "007", "+7", " 3 ", "9007199254740993", "", "NA", "x", "inf", "true"]
    + [
        '"1"',
        '"a,b"',
        '"a""b"',
        '"a\nb"',
        '"a\r\nb"',
        '""',
        'a"b',
        '"a"b',
        '"a',
        '""""',
        "\u00e9",
        "1,5",
        "1 000",
        "\u0661",
    ]
)
END = st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n", "\r\n\r\n", "\r"])


def part(text: str, *, strict: bool) -> Part:
    source = delimited._Source(text.encode(), "csv", "data.csv", None, UNKNOWN, "utf-8", strict)
    return delimited._part(source, (), ("c",))


def outcome(found: Part, column: str) -> Any:
    try:
        described = describe([found], column, DataConfig(source="data.csv"))
    except HoldfastError as error:
        return str(error)
    return described.column, described.values[0].tolist(), described.missing[0].tolist()


@given(cells=st.lists(st.tuples(CELL, CELL, CELL, END), max_size=6))
@example([("1", '"a""b"', '"a\nb"', "\r\n\r\n"), ("2", '""""', "", "\n")])
@example([("1", "2", '"a"b', "\n"), ("1", "2", '"c"', "\n")])
def test_what_arrow_reads_is_what_the_csv_module_reads(cells: list[tuple[str, str, str, str]]) -> None:
    text = "a,b,c\n" + "".join(",".join(row) + end for *row, end in cells)
    try:
        quick = part(text, strict=False)
    except (blocks.UnusualFileError, HoldfastError):
        return
    oracle = part(text, strict=True)
    assert {name: quick.cells[name].tolist() for name in quick.cells} == {
        name: oracle.cells[name].tolist() for name in oracle.cells
    }
    assert quick.lines is not None
    assert oracle.lines is not None
    assert quick.lines.tolist() == oracle.lines.tolist()
    plain = Part("data.csv", dict(oracle.cells), oracle.lines, decimal=oracle.decimal)
    for column in ("a", "b"):
        np.testing.assert_equal(outcome(quick, column), outcome(plain, column))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a large one: blocks of some bytes, a few texts per column, row groups of some rows."""
    monkeypatch.setattr(fetch, "IN_MEMORY", 0)
    monkeypatch.setattr(fetch._read_content, "__defaults__", (0,))
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    monkeypatch.setattr(columnar, "MOST_TEXTS", 20)
    monkeypatch.setattr(rows, "BLOCK_CELLS", 1000)


def table(count: int = 2500) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    number = rng.normal(size=count).round(4)
    return pd.DataFrame(
        {
            "n": number,
            "whole": rng.integers(0, 9, count),
            "gaps": [str(value) if value > 0 else "NA" for value in number.round(2)],
            "colour": rng.choice(["red", "green, blue", 'say "hi"'], count),
            "code": [f"k{value}" for value in rng.integers(0, 50, count)],
            "label": rng.choice(["yes", "no"], count),
        }
    )


def taken_rows(taken: Artifact[Snapshot]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(taken.open(f"{split}.parquet")) for split in ("train", "test")])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_large_file_becomes_the_rows_that_a_small_one_becomes(
    take: Take, tmp_path: Path, request: pytest.FixtureRequest, suffix: str
) -> None:
    path = tmp_path / f"data.{suffix}"
    table().to_csv(path, index=False) if suffix == "csv" else table().to_parquet(path, row_group_size=700)
    small = take(path, missing={"gaps": "0"})
    request.getfixturevalue("tiny")
    large = take(path, missing={"gaps": "0"})
    pd.testing.assert_frame_equal(taken_rows(large), taken_rows(small))
    assert pq.ParquetFile(large.path("train.parquet")).num_row_groups > 5
    fields = ("columns", "root", "classes", "train_per_class", "leaked_rows", "sources")
    assert [getattr(large.document, name) for name in fields] == [getattr(small.document, name) for name in fields]


@pytest.mark.usefixtures("tiny")
def test_junk_at_the_end_of_a_large_file_is_refused_with_its_row_and_line(take: Take, write: Write) -> None:
    lines = ["n,label", *(f"{i}.5,{'ab'[i % 2]}" for i in range(2000)), "?,a", ""]
    with pytest.raises(InputError, match=r"column 'n': expected numbers, found '\?' in 1 of 2001 .*2001; line 2002"):
        take(write("\n".join(lines)))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("1\n", "line 2002: expected 2 cells, found 1"),
        ("1,\u00e9\n", r"found byte 0xe9 at offset \d+ .line 2002"),
        ("1,\0\n", r"found a NUL byte at offset \d+"),
        ('1,"a\n', "line 2002: expected CSV, found unexpected end of data"),
    ],
)
def test_what_is_broken_in_a_large_file_is_named(take: Take, write: Write, tail: str, message: str) -> None:
    text = "n,label\n" + "1,a\n2,b\n" * 1000 + tail
    with pytest.raises(InputError, match=message):
        take(write(text.encode("latin-1")))


def test_a_file_that_changes_after_it_was_hashed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"a" * (BLOCK + 10))
    with path.open("r+b") as stream:
        file = VerifiedFile.hashed(stream.fileno(), "data", most=2 * BLOCK)
        assert file.open().read() == b"a" * (BLOCK + 10)
        os.pwrite(stream.fileno(), b"b", BLOCK)
        reader = file.open()
        assert reader.read(BLOCK) == b"a" * BLOCK
        with pytest.raises(IntegrityError, match="data: expected a file at rest, found one that changed"):
            reader.read(10)


def test_a_parquet_file_with_one_row_group_is_read_in_pieces(take: Take, tmp_path: Path) -> None:
    whole = pa.table({"n": pa.array([1, None, 2**60] * 4), "label": ["a", "b"] * 6})
    pq.write_table(whole, tmp_path / "data.parquet")
    taken = take(tmp_path / "data.parquet", columns_as={"n": "category"}, missing={"n": "none"})
    assert taken.document.columns[0].categories == ("1", "1152921504606846976", "none")
