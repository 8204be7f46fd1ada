import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.data.snapshot.delimited import read_delimited
from holdfast.errors import InputError, LimitError

CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=8)


def read(text: str | bytes, kind: str = "csv", **more: object) -> dict[str, list[str]]:
    data = text if isinstance(text, bytes) else text.encode()
    part = read_delimited(data, kind, name="data." + kind, **more)  # type: ignore[arg-type]
    return {name: list(values) for name, values in part.cells.items()}


@given(rows=st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=5))
def test_what_the_csv_module_wrote_is_read_back(rows: list[list[str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["a", "b", "c"], *rows])
    found = read(stream.getvalue())
    assert [list(row) for row in zip(*found.values(), strict=True)] == rows


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm() -> None:
    assert read("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n") == {"a": ["1", "3"], "b": ["2", "4"]}


def test_quotes_in_tsv_are_characters() -> None:
    text = 'ham\tHe said "hi\nspam\t"WIN" now\r\n'
    assert read(text, "tsv", columns=("label", "text")) == {
        "label": ["ham", "spam"],
        "text": ['He said "hi', '"WIN" now'],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.csv: expected a header row and data, found an empty file"),
        (b"\n\n", "found an empty file"),
        (b"a,b\n", "expected data below the header, found the header only"),
        (b"a,b\n1,\xe4\n", "expected UTF-8, found byte 0xe4 at offset 6"),
        (b"a,b\n1,\x00\n", "expected text, found a NUL byte at offset 6"),
        (b"a,b\n1,2\n3\n", "line 3: expected 2 cells, found 1"),
        (b"a,b\n1,2,3\n", "line 2: expected 2 cells, found 3"),
        (b",".join(b"c%d" % n for n in range(20_001)) + b"\n1\n", "expected at most 20000 columns, found 20001"),
        (b"a,b,a\n1,2,3\n", "expected each column once, found 'a' more than once"),
        (b"a,,b\n1,2,3\n", "expected a name for each column, found an empty one at 2"),
        (b'a,b\n1,"2\n', "expected CSV, found unexpected end of data"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(content)


def test_an_endless_cell_is_refused() -> None:
    with pytest.raises(LimitError, match="line 2: expected cells up to 131072 characters, found more"):
        read("a,b\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(LimitError, match="line 2: expected cells up to 1048576 characters, found more"):
        read("a\tb\n" + "x" * 2_000_000 + "\t1\n", "tsv")


def test_names_that_do_not_fit_a_file_without_header_are_refused() -> None:
    with pytest.raises(InputError, match="line 1: expected 3 cells, found 2"):
        read("1,2\n3,4\n", columns=("a", "b", "c"))
