import hashlib
import json

import numpy as np
import pytest

from holdfast.errors import InputError
from holdfast.quarantine.decide import row_ids
from holdfast.quarantine.draw import cells, picture
from holdfast.quarantine.rows import image_digests, table_digests


def test_an_image_is_itself_whatever_its_type_and_place() -> None:
    x = np.random.default_rng(0).integers(0, 16, (5, 1, 3, 3)).astype(np.uint8)
    labels = list("abcde")
    first, again = image_digests(x, labels), image_digests(x[::-1].astype(np.float32), labels[::-1])
    assert first == again[::-1]
    assert len(set(first)) == 5


def test_label_shape_and_every_value_are_part_of_a_row() -> None:
    x = np.zeros((1, 1, 2, 3))
    other = x.copy()
    other[0, 0, 1, 2] = 1e-300
    different = [image_digests(x, ["a"]), image_digests(x, ["b"]), image_digests(x.reshape(1, 1, 3, 2), ["a"])]
    assert len({digests[0] for digests in (*different, image_digests(other, ["a"]))}) == 4
    assert image_digests(-x, ["a"]) == image_digests(x, ["a"])


def test_the_digest_is_the_one_that_the_module_describes() -> None:
    # By hand: length of the head, the head, the pixels as float64.
    head = json.dumps(["holdfast row 1", "image 1x1x2", "cat"]).encode()
    by_hand = hashlib.sha256(len(head).to_bytes(8, "big") + head + np.array([3.0, 7.0]).tobytes()).hexdigest()
    assert image_digests(np.array([[[[3, 7]]]], dtype=np.int16), ["cat"]) == [by_hand]


def test_the_order_of_columns_does_not_matter_and_their_names_do() -> None:
    one = table_digests({"a": [1.0], "b": ["x"]}, ["l"])
    assert one == table_digests({"b": ["x"], "a": [1]}, ["l"])
    assert one != table_digests({"a": [1.0], "c": ["x"]}, ["l"])
    assert table_digests({"a": ["1.0"]}, ["l"]) != table_digests({"a": [1.0]}, ["l"])


def test_rows_are_named_one_by_one_and_in_ranges() -> None:
    assert row_ids("1,5-9, 40", [1, 2, 5, 7, 40]) == [1, 5, 7, 40]


@pytest.mark.parametrize(
    ("text", "found"), [("3", "none at 3"), ("1,x", "'x'"), ("", "''"), ("9-5", "none"), ("-1", "'-1'")]
)
def test_rows_that_are_not_in_quarantine_are_refused(text: str, found: str) -> None:
    with pytest.raises(InputError, match=found):
        row_ids(text, [1, 5])


def test_a_picture_is_dark_at_the_lower_limit_and_bright_at_the_upper() -> None:
    drawn = picture(np.array([[[0, 16], [16, 8]]]), 0, 16).split("\n")
    assert drawn == ["  @@", "@@++"]


def test_a_large_picture_is_thinned_out() -> None:
    lines = picture(np.ones((3, 100, 64)), 0, 1).split("\n")
    assert (len(lines), len(lines[0])) == (25, 32)


def test_a_value_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in cells({"a": "\x1b[2J", "b": 1.0})
