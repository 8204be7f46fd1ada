"""A snapshot keeps where each row is in the delivered file."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from holdfast.artifacts.documents import Decision, Review, Snapshot
from holdfast.artifacts.folder import Artifact, save
from holdfast.quarantine.places import read_places
from holdfast.quarantine.rows import table_digests

Take, Write = Callable[..., Artifact[Snapshot]], Callable[..., Path]


def training_rows(data: Artifact[Snapshot]) -> pd.DataFrame:
    return pd.read_parquet(data.open("train.parquet"))


def test_a_row_is_on_the_line_where_it_begins(take: Take, write: Write) -> None:
    text = "text,label\n" + "".join(f'"message {i}\nsecond line {i}",{"ab"[i % 2]}\n' for i in range(10))
    lines = write(text).read_text().split("\n")
    found = take(write(text), "text", text="text")
    place = read_places(found, "train")
    for row, message in enumerate(training_rows(found)["text"]):
        name, number = place(row).split(" line ")
        assert name == "data.csv"
        assert lines[int(number) - 1] == '"' + message.split("\n")[0]


def test_lines_stay_right_where_a_review_drops_rows(take: Take, write: Write, tmp_path: Path) -> None:
    source = write("v,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(20)))
    digest = table_digests({"v": [4.0]}, ["a"])[0]
    review = Review(name="x", entries=(Decision(row=digest, decision="drop", by="a", why="w"),))
    save(tmp_path / "review", review)
    found = take(source, review=str(tmp_path / "review"))
    place = read_places(found, "train")
    rows = training_rows(found)["v"].astype(int).tolist()
    assert [place(row) for row in range(len(rows))] == [f"data.csv line {value + 2}" for value in rows]


def test_rows_of_parquet_and_held_out_files_are_counted_from_0(take: Take, write: Write, tmp_path: Path) -> None:
    frame = pd.DataFrame({"v": np.arange(8.0), "label": list("abababab")})
    frame.to_parquet(tmp_path / "train.parquet")
    held_out = write("v,label\n90,a\n91,b\n", "test.csv")
    found = take(tmp_path / "train.parquet", test=str(held_out))
    assert found.document.places == ("row", "line")
    assert read_places(found, "train")(5).endswith("train.parquet row 5")
    assert read_places(found, "test")(1).endswith("test.csv line 3")


def test_images_are_counted_in_their_array(take: Take, save_npz: Callable[..., Path]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    found = take(save_npz(x=x, y=np.arange(30) % 3), "image")
    with np.load(io.BytesIO(found.open("train.npz").getvalue())) as arrays:
        rows = [int(np.flatnonzero((x == image[0]).all(axis=(1, 2)))[0]) for image in arrays["x"]]
    place = read_places(found, "train")
    assert [int(place(row).rpartition(" row ")[2]) for row in range(len(rows))] == rows


def test_a_snapshot_of_before_has_no_places(take: Take, write: Write, tmp_path: Path) -> None:
    found = take(write("v,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(8))))
    old = save(tmp_path / "old", found.document.model_copy(update={"files": {}, "places": None}))
    assert read_places(old, "train")(0) == ""


def test_a_row_with_a_filled_cell_is_known_when_the_fill_changes(take: Take, write: Write, tmp_path: Path) -> None:
    rows = [f"{'' if i == 7 else i},{'ab'[i % 2]}" for i in range(20)]
    digest = table_digests({"v": [""], "v missing": [1.0]}, ["b"])[0]
    save(tmp_path / "review", Review(name="x", undecided=(digest,)))
    for more in ([], [f"{1000 + i},{'ab'[i % 2]}" for i in range(6)]):
        source = write("\n".join(["v,label", *rows, *more]) + "\n")
        found = take(source, missing="indicator", review=str(tmp_path / "review"))
        assert len(found.document.undecided.train) + found.document.undecided.held_out == 1
