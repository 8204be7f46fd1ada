"""A review in the data environment: rows are known by what they say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from holdfast.artifacts.documents import Decision, Review, Snapshot
from holdfast.artifacts.folder import Artifact, save
from holdfast.data.snapshot.reviewed import keep
from holdfast.errors import InputError
from holdfast.quarantine.rows import image_digests, table_digests


def decided(row: str, decision: str) -> Decision:
    return Decision(row=row, decision=decision, by="ann", why="looked at it")


def test_dropped_rows_leave_both_parts_and_released_ones_are_found_again() -> None:
    rows = [str(number) * 64 for number in range(6)]
    kept = keep(
        rows[:4], [rows[1], rows[4]], [decided(rows[1], "drop"), decided(rows[3], "release"), decided("f" * 64, "drop")]
    )
    assert (kept.train.tolist(), kept.test.tolist()) == ([True, False, True, True], [False, True])
    assert kept.record.model_dump() == {"decisions": 3, "dropped": 1, "dropped_held_out": 1, "released": (2,)}


def test_equal_rows_share_a_decision() -> None:
    row = "a" * 64
    assert keep([row, row, "b" * 64], [], [decided(row, "drop")]).record.dropped == 2


def test_messages_are_known_in_the_next_delivery(
    take: Callable[..., Artifact[Snapshot]], write: Callable[..., Path], tmp_path: Path
) -> None:
    lines = [f"{'spam' if i % 2 else 'ham'}\tmessage {i}" for i in range(20)]
    held_out = write("label\ttext\nham\tx\nspam\ty\n", "test.tsv")
    digest = table_digests({"text": ["message 4"]}, ["ham"])[0]
    save(tmp_path / "reviews" / "0001", Review(name="test", entries=(decided(digest, "drop"),)))
    source = write("\n".join(["label\ttext", *reversed(lines)]) + "\n", "next.tsv")
    found = take(source, "text", text="text", test=str(held_out), review=str(tmp_path / "reviews"))
    assert (found.document.train_rows, found.document.review.dropped) == (19, 1)
    assert found.document.train_per_class == (9, 10)


def test_images_are_known_by_values_and_class_name(
    take: Callable[..., Artifact[Snapshot]], save_npz: Callable[..., Path], tmp_path: Path
) -> None:
    x, y = np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8), np.arange(30) % 3
    digest = image_digests(x[7:8, None], ["1"])[0]
    save(tmp_path / "review", Review(name="test", entries=(decided(digest, "drop"),)))
    found = take(save_npz(x=x.astype(np.float32), y=y), "image", review=str(tmp_path / "review"))
    assert found.document.review.dropped + found.document.review.dropped_held_out == 1
    assert set(found.document.inputs) == {"review"}


def test_a_review_that_leaves_no_held_out_row_is_refused(
    take: Callable[..., Artifact[Snapshot]], write: Callable[..., Path], tmp_path: Path
) -> None:
    rows = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(8))
    digests = table_digests({"v": [0.0]}, ["a"])
    save(tmp_path / "review", Review(name="test", entries=tuple(decided(row, "drop") for row in digests)))
    source, test = write(f"v,label\n{rows}"), write("v,label\n0,a\n", "test.csv")
    with pytest.raises(InputError, match="expected held-out rows after the review, found none"):
        take(source, test=str(test), review=str(tmp_path / "review"))
