from typing import Any

import numpy as np
import pytest

from holdfast.data.snapshot.columns import describe, pick
from holdfast.data.snapshot.labels import class_labels, find_classes
from holdfast.data.snapshot.rows import Part
from holdfast.errors import InputError, LimitError
from holdfast.workload.schema import DataConfig


def column(*cells: str | float | None) -> tuple[Any, list[Any]]:
    numbers = all(isinstance(cell, float) for cell in cells)
    values = np.array(cells, dtype=np.float64 if numbers else object)
    described = describe([Part("data.csv", {"c": values})], "c", DataConfig(source="data.csv"))
    return described.column, described.values[0].tolist()


def test_numbers_bools_and_categories_are_told_apart() -> None:
    assert column("1", " 2.5 ", "-3e2")[1] == [1.0, 2.5, -300.0]
    assert column("True", "false", "TRUE")[1] == [1.0, 0.0, 1.0]
    described, values = column("red", "green", "red")
    assert (described.kind, described.categories, values) == ("category", ("green", "red"), ["red", "green", "red"])


def test_codes_with_an_underscore_are_no_numbers() -> None:
    assert column("1_000", "2_000")[0].kind == "category"


def test_numbers_that_float32_does_not_tell_apart_are_refused_before_anything_is_trained() -> None:
    """Near 1.7e9 the neighbours of float32 are 128 apart: the seconds of a minute become one value."""
    with pytest.raises(InputError, match=r"data.csv: column 'c': expected numbers that float32 can distinguish"):
        column(*(str(1_720_000_000 + second % 60) for second in range(120)))
    assert column(*(str(second % 60) for second in range(120)))[0].kind == "number"


def test_whole_numbers_are_remembered_as_whole() -> None:
    assert column("1", "2.0")[0].integer
    assert not column("1", "2.5")[0].integer


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("1", "2", "abc", "4"), "column 'c': expected numbers, found 'abc' in 1 of 4 rows .first: 3"),
        (("1", "", "NaN", "4"), "found NaN or nothing in 2 of 4 rows .first: 2, 3"),
        (("1", "inf", "3"), "found infinity or overflow in 1 of 3 rows .first: 2"),
        (("1", "1e400", "-1e999"), "found infinity or overflow in 2 of 3 rows"),
        (("1", "9" * 400, "2"), "found infinity or overflow in 1 of 3 rows"),
        (("", "", ""), "found NaN or nothing in 3 of 3 rows"),
        (("red", "", "blue"), "expected a value in every row, found nothing in 1 of 3 rows"),
        ((1.0, float("nan")), "found NaN or nothing in 1 of 2 rows"),
    ],
)
def test_what_cannot_be_used_is_refused_with_rows(cells: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        column(*cells)


def test_names_are_no_categories() -> None:
    with pytest.raises(LimitError, match="expected at most 1000 different values, found 1001"):
        column(*(f"name-{i % 1001}" for i in range(2002)))


def test_a_missing_column_suggests_the_one_meant() -> None:
    part = Part("data.csv", {"class": np.zeros(1), "age": np.zeros(1)})
    with pytest.raises(InputError, match="data.csv: expected a label column 'klass'; did you mean 'class'?"):
        pick(part, "klass", "label")
    with pytest.raises(InputError, match="expected a label column 'y'; found 'class', 'age'"):
        pick(part, "y", "label")


def test_labels_become_names() -> None:
    assert class_labels(np.array([1.0, 0.0]), "label").tolist() == ["1", "0"]
    assert class_labels(np.array([" spam", "ham"], dtype=object), "label").tolist() == ["spam", "ham"]


def test_fractions_and_gaps_are_no_labels() -> None:
    with pytest.raises(InputError, match="label: expected class names or whole numbers, found fractions in 1 of 2"):
        class_labels(np.array([0.5, 1.0]), "label")
    with pytest.raises(InputError, match="label: expected a label in every row, found none in 1 of 2"):
        class_labels(np.array(["", "a"], dtype=object), "label")


def test_classes_that_are_numbers_stand_by_size() -> None:
    labels = np.array(["10", "9", "-1", "b", "a"], dtype=object)
    assert find_classes(labels, None, "label") == ("-1", "9", "10", "a", "b")


def test_one_class_and_unknown_classes_are_refused() -> None:
    labels = np.array(["a", "a"], dtype=object)
    with pytest.raises(InputError, match="label: expected at least two classes, found 'a' only"):
        find_classes(labels, None, "label")
    with pytest.raises(InputError, match=r"expected one of 'b', 'c' \(data.classes\), found 'a' in 2 of 2 rows"):
        find_classes(labels, ["b", "c"], "label")
