"""Identifiers and constants, each with its negative twin: columns that look like one and are none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot.uninformative import is_numbering
from holdfast.errors import InputError

Take = Callable[..., Artifact[Snapshot]]
Write = Callable[..., Path]
RNG = np.random.default_rng(5)
N = 1200


def table(**columns: Any) -> str:
    rows = len(next(iter(columns.values())))
    names = [*columns, "other", "label"]
    cells = zip(*columns.values(), strict=True)
    lines = (f"{','.join(map(str, row))},{i * 7 % 13},{'ab'[i % 2]}" for i, row in enumerate(cells))
    assert rows > 1
    return "\n".join([",".join(names), *lines]) + "\n"


@pytest.mark.parametrize(
    "values",
    [
        np.arange(1, 101),  # a hundred rows, numbered
        RNG.permutation(np.arange(1, 101)),
        RNG.permutation(np.arange(1, 5001)) * 3,  # every third number
        RNG.choice(10**9, 1200, replace=False),  # account numbers
        np.r_[np.arange(2000), 7, 8, 9],  # some rows were delivered twice
    ],
)
def test_numbers_of_rows_are_identifiers(values: Any) -> None:
    assert is_numbering(values.astype(np.float64))


@pytest.mark.parametrize(
    "values",
    [
        np.arange(30),  # too few rows to know
        RNG.choice(10**9, 300, replace=False),  # populations of countries: far apart, and too few to know
        RNG.integers(0, 1000, 5000),
        RNG.normal(40_000, 20_000, 5000).round(),  # incomes
        RNG.integers(0, 2, 5000),
        np.repeat(np.arange(500), 10),  # a customer with ten rows each
    ],
)
def test_measures_are_not(values: Any) -> None:
    assert not is_numbering(np.asarray(values, dtype=np.float64))


def test_a_uniform_measure_is_hardly_ever_taken_for_one() -> None:
    """The closest case: 100 to 900 numbers drawn at random out of as many as give 20 expected pairs."""
    found = 0
    for rows in RNG.integers(100, 900, 2000):
        found += is_numbering(RNG.integers(0, rows * (rows - 1) // 40, rows).astype(np.float64))
    assert found == 0


def test_identifiers_are_refused_all_at_once_dropped_or_kept(take: Take, write: Write) -> None:
    path = write(table(id=range(N), uuid=[f"u{i:04x}" for i in range(N)], amount=RNG.normal(size=N)))
    with pytest.raises(InputError, match=r"found identifiers.*: 'id', 'uuid' \('0', '1', '2', …\).*data.identifiers"):
        take(path)
    dropped = take(path, identifiers="drop").document
    assert ([one.name for one in dropped.columns], dropped.left_out) == (["amount", "other"], ("id", "uuid"))
    measured = take(path, drop=["uuid"], columns_as={"id": "number"}).document
    assert [one.name for one in measured.columns] == ["id", "amount", "other"]
    assert len(take(path, drop=["uuid"], identifiers="keep").document.columns) == 3


def test_fractions_dates_and_repeated_words_are_no_identifiers(take: Take, write: Write) -> None:
    days = [f"{2000 + i // 360:04d}-{i // 30 % 12 + 1:02d}-{i % 28 + 1:02d}" for i in range(N)]
    path = write(table(weight=RNG.normal(size=N), day=days, name=[f"n{i % 1000}" for i in range(N)]))
    found = take(path, columns_as={"day": "datetime"}).document
    assert found.left_out == ()


def test_a_constant_column_is_named_dropped_or_refused(
    take: Take, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(table(one=[7] * N, flag=["on"] * N, mixed=[0] * (N - 1) + [1]))
    kept = take(path).document
    assert (kept.constant, kept.left_out) == (("one", "flag"), ())
    assert "one value in every row: 'one', 'flag' (data.constants: drop" in capsys.readouterr().err
    assert take(path, constants="drop").document.left_out == ("one", "flag")
    with pytest.raises(InputError, match="found the same in every row: 'one', 'flag'"):
        take(path, constants="refuse")


def test_a_value_that_is_there_or_missing_is_not_constant(take: Take, write: Write) -> None:
    path = write(table(vip=["yes" if i % 3 else "" for i in range(N)]))
    found = take(path, missing="indicator", constants="drop").document
    assert [one.name for one in found.columns] == ["vip", "other", "vip missing"]


def test_when_nothing_is_left_the_columns_are_named(take: Take, write: Write) -> None:
    path = write("id,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(200)))
    with pytest.raises(InputError, match="expected columns other than the label 'label' and 'id', found none"):
        take(path, identifiers="drop")
