"""A table that was read again: the same rows in other types are the same rows, and what is not one is refused."""

import numpy as np
import pandas as pd
import pytest

from holdfast.artifacts.documents import Column
from holdfast.errors import InputError
from holdfast.modality.delivered import as_delivered

COLUMNS = (
    Column(name="age", kind="number", integer=True),
    Column(name="fee", kind="number"),
    Column(name="paid", kind="number", integer=True),
    Column(name="plan", kind="category", categories=("basic", "plus")),
    Column(name="zone", kind="category", categories=("1", "7")),
)
ROWS = pd.DataFrame({"age": [31, 47], "fee": [2.5, 9.0], "paid": [1, 0], "plan": ["plus", "basic"], "zone": ["7", "1"]})
SAME = {
    "bools": ROWS.assign(paid=[True, False]),
    "bools as text": ROWS.assign(paid=["True", " false"]),
    "whole numbers as decimals": ROWS.assign(age=[31.0, 47.0], paid=[1.0, 0.0]),
    "numbers as text": ROWS.astype({"age": str, "fee": str, "paid": str}),
    "nullable integers": ROWS.astype({"age": "Int64", "paid": "Int8", "fee": "Float64"}),
    "small types": ROWS.astype({"age": "int16", "fee": "float32", "paid": "uint8"}),
    "spaces around text": ROWS.assign(plan=[" plus", "basic "]),
    "spaces around names": ROWS.rename(columns={"fee": " fee", "plan": "plan "}),
    "categories of pandas": ROWS.astype({"plan": "category", "zone": "category"}),
    "strings of pandas": ROWS.astype({"plan": "string", "zone": "string"}),
    "codes as numbers": ROWS.assign(zone=[7, 1]),
    "codes as decimals": ROWS.assign(zone=[7.0, 1.0]),
    "columns in another order": ROWS[ROWS.columns[::-1]],
    "another column": ROWS.assign(note="x", empty=None),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_rows_in_other_types_are_the_same_rows(name):
    pd.testing.assert_frame_equal(as_delivered(SAME[name], COLUMNS), as_delivered(ROWS, COLUMNS))


def test_numbers_become_doubles_and_categories_text_in_the_order_of_the_model():
    made = as_delivered(ROWS, COLUMNS)
    assert list(made.columns) == [column.name for column in COLUMNS]
    assert made["fee"].tolist() == [2.5, 9.0]
    assert (made["paid"].dtype, made["zone"].tolist()) == (np.float64, ["7", "1"])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (ROWS.assign(age=[31, None]), "a value in every row of column 'age', found none in row 1"),
        (ROWS.assign(plan=["plus", None]), "a value in every row of column 'plan', found none in row 1"),
        (ROWS.assign(plan=[np.nan, "plus"]), "a value in every row of column 'plan', found none in row 0"),
        (ROWS.assign(plan=["plus", pd.NA]), "a value in every row of column 'plan', found none in row 1"),
        (ROWS.assign(plan=["plus", "  "]), "a value in every row of column 'plan', found none in row 1"),
        (ROWS.assign(fee=["2.5", "dear"]), "expected numbers in column 'fee', found 'dear'"),
        (ROWS.assign(fee=[2.5, np.inf]), "expected finite numbers in column 'fee', found inf"),
        (ROWS.assign(fee=[[1], [2]]), "expected numbers in column 'fee', found"),
        (ROWS.drop(columns="zone"), "expected one column 'zone', found 0 in"),
        (ROWS.assign(**{" age": 3}), "expected one column 'age', found 2 in"),
    ],
)  # fmt: skip
def test_what_is_no_row_of_the_model_is_refused_by_column(frame, message):
    with pytest.raises(InputError, match=message):
        as_delivered(frame, COLUMNS)


def test_no_rows_stay_no_rows():
    assert as_delivered(ROWS.head(0), COLUMNS).shape == (0, 5)
