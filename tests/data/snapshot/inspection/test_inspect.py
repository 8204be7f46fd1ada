import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from holdfast.data.snapshot.inspection.alone import balanced_accuracy_alone
from holdfast.data.snapshot.inspection.inspect import inspect
from holdfast.data.snapshot.inspection.opening import open_delivery, open_file
from holdfast.data.snapshot.inspection.page import page
from holdfast.data.snapshot.step import snapshot
from holdfast.errors import InputError
from holdfast.workload.schema import DataConfig, SnapshotConfig

Write = Callable[..., Path]
DRAW = random.Random(3)
HEAD = "age,city,member,ended\n"
ROWS = [f"{DRAW.randrange(18, 90)},{DRAW.choice('UBK')},{DRAW.choice(['yes', 'no'])}" for _ in range(200)]
GOOD = HEAD + "".join(f"{row},{'late' if i % 4 else 'early'}\n" for i, row in enumerate(ROWS))


def with_column(name: str, values: list[object]) -> str:
    lines = GOOD.splitlines()
    return "\n".join([f"{name},{lines[0]}", *(f"{v},{line}" for v, line in zip(values, lines[1:], strict=True))]) + "\n"


def test_a_good_table_is_refused_nothing_and_summarized(write: Write) -> None:
    found = inspect(open_file(write(GOOD), label="ended"))
    assert found.refused == ()
    assert [(one.name, one.kind) for one in found.columns] == [
        ("age", "whole number"),
        ("city", "category"),
        ("member", "category"),
    ]
    assert (found.columns[0].lowest, found.columns[1].distinct) == ("18", 3)
    assert [(one.name, one.rows, one.held_out) for one in found.classes] == [("early", 50, 10), ("late", 150, 30)]


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (with_column("id", list(range(200))), {}),
        (with_column("key", [f"k{i}" for i in range(200)]), {}),
        (with_column("zip", [f"0{i % 9}11" for i in range(200)]), {}),
        (with_column("amount", ["?" if i % 50 == 0 else i % 77 for i in range(200)]), {}),
        (with_column("income", ["NA" if i % 50 == 0 else i % 77 for i in range(200)]), {}),
        (with_column("when", [1_700_000_000 + i % 61 for i in range(200)]), {}),
        (with_column("one", [7] * 200), {"constants": "refuse"}),
        (GOOD.replace("early", "NULL"), {}),
        (GOOD.replace("early", "late"), {}),
        (GOOD.replace(",early\n", ",early\n", 1).replace("early", "rare", 1), {}),
        (GOOD, {"drop": ("agee",)}),
        (GOOD, {"immutable": ("citty",)}),
        (GOOD, {"label": "endd"}),
    ],
)
def test_what_a_snapshot_refuses_first_is_on_the_page_word_for_word(
    tmp_path: Path, write: Write, content: str, data: dict[str, Any]
) -> None:
    section = DataConfig.model_validate({"source": str(write(content)), "label": "ended", **data})
    config = SnapshotConfig(name="t", modality="tabular", data=section)
    with pytest.raises(InputError) as refused:
        snapshot(config, tmp_path / "out")
    found = inspect(open_delivery(config))
    assert str(refused.value) in found.refused
    assert str(refused.value) in page(found)


def test_all_refusals_are_listed_at_once(write: Write) -> None:
    content = with_column("id", list(range(200))).replace("early", "NULL")
    found = inspect(open_file(write(content), label="ended"))
    assert len(found.refused) == 2
    assert [one.note for one in found.columns] == ["identifier", "", "", ""]


def test_repeated_leaked_and_contradicting_rows_are_counted(write: Write) -> None:
    # 60 rows a class of 30 values: each comes four times with both labels, so every held-out row was seen in training
    # unless all its four rows were held out, which is impossible where one stays for training.
    rows = "".join(f"{i % 30},{label}\n" for i in range(60) for label in ("a", "b"))
    found = inspect(open_file(write("x,label\n" + rows)))
    assert (found.repeated, found.conflicting) == (90, 120)
    assert found.leaked is not None
    assert found.leaked >= 20
    clean = inspect(open_file(write("x,label\n" + "".join(f"{i / 8},{'ab'[i % 2]}\n" for i in range(60)))))
    assert (clean.repeated, clean.conflicting, clean.leaked) == (0, 0, 0)


def test_a_column_that_answers_alone_is_named_and_a_useful_one_is_not(write: Write) -> None:
    leak = with_column("paid_back", [f"{0.1 + (i % 4 > 0) + DRAW.random() / 2}" for i in range(200)])
    found = inspect(open_file(write(leak), label="ended"))
    assert any(note.startswith("'paid_back' alone answers 100.0%") for note in found.notes)
    rng = np.random.default_rng(1)
    y = np.arange(2000) % 2
    x = rng.normal(size=2000) + 2 * y
    order = np.random.default_rng(0).permutation(2000)
    learn, count = order[::2], order[1::2]
    # An outside oracle: scikit-learn's classifier by one neighbour; the classes are equally frequent.
    near = KNeighborsClassifier(1).fit(x[learn, None], y[learn]).score(x[count, None], y[count])
    assert balanced_accuracy_alone(x, y) == pytest.approx(near, abs=0.01)
    assert near < 0.9


def test_a_column_of_codes_is_asked_about_and_an_amount_is_not(write: Write) -> None:
    found = inspect(open_file(write(with_column("branch", [i % 7 for i in range(200)])), label="ended"))
    assert [one.note for one in found.columns] == ["codes?", "", "", ""]


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_an_encoding_is_guessed_and_the_refusal_kept(write: Write, pack: Callable[[bytes], bytes]) -> None:
    content = pack(GOOD.replace("U,", "Ü,").encode("latin-1"))
    found = inspect(open_file(write(content, "d.csv"), label="ended"))
    assert any("expected UTF-8" in one and "data.encoding" in one for one in found.refused)
    assert "Ü" in found.columns[1].examples


def test_without_a_label_the_columns_are_summarized_and_the_question_asked(write: Write) -> None:
    found = inspect(open_file(write(GOOD)))
    assert [one.name for one in found.columns] == ["age", "city", "member", "ended"]
    assert "Name it with --label" in page(found)


def test_messages_and_images_have_a_page_too(write: Write, save_npz: Callable[..., Path]) -> None:
    spam = "sms,label\n" + "".join(
        f"message number {i % 90} about you,{'ham' if i % 3 else 'spam'}\n" for i in range(99)
    )
    found = inspect(open_file(write(spam), text="sms"))
    assert (found.modality, found.columns[0].kind, found.repeated) == ("text", "text", 9)
    x = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8)
    images = inspect(open_file(save_npz(x=x, y=np.arange(40) % 2)))
    assert images.modality == "image"
    assert "1 x 8 x 8" in images.example
    assert [one.rows for one in images.classes] == [20, 20]


def test_control_characters_of_a_file_do_not_reach_the_terminal(write: Write) -> None:
    content = GOOD.replace("member", "mem\x1b[2Jber").replace("early", "ea\x1b[2Jrly")
    text = page(inspect(open_file(write(content), label="ended")))
    assert "\x1b" not in text


def test_the_page_shows_what_the_held_out_rows_of_a_class_can_prove(write: Write) -> None:
    found = inspect(open_file(write(GOOD), label="ended"))
    # Ten of ten right: the largest p with p^10 = 5 % is 0.05^(1/10).
    assert found.classes[0].provable == pytest.approx(0.05**0.1)
    assert "best provable recall" in page(found)


def test_a_file_of_labels_alone_is_refused_on_the_page(write: Write) -> None:
    found = inspect(open_file(write("label\n" + "a\nb\n" * 9)))
    assert found.refused == ("data.csv: expected columns other than the label 'label', found none",)
