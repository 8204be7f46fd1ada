import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from holdfast.artifacts.documents import InputSpec, ThreatModel
from holdfast.modality.ball import Ball
from holdfast.modality.edits import edit_distance
from holdfast.modality.text import FIRST_BYTE, decode_text, encode_text
from holdfast.model.attack.typos import slips, type_badly, word_list

TEXT = InputSpec(modality="text", shape=(40,), dtype="int64")
WORDS = word_list(["Claim your prize money now", "their there friend", "see you at home for dinner"])


def ids(*messages: str) -> Tensor:
    return torch.from_numpy(encode_text(messages, 40))


class Prize(nn.Module):
    """Class 1 exactly when the message holds "prize"."""

    def forward(self, x: Tensor) -> Tensor:
        there = torch.tensor(["prize" in text for text in decode_text(x.numpy())])
        return torch.stack([~there, there], dim=1).float() * 2 - 1


def slow_distance(a: str, b: str) -> int:
    """The definition of optimal string alignment, by recursion."""
    if not a or not b:
        return len(a) + len(b)
    best = min(slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1, slow_distance(a[1:], b[1:]) + (a[0] != b[0]))
    if len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0]:
        best = min(best, slow_distance(a[2:], b[2:]) + 1)
    return best


@settings(deadline=None, max_examples=60)
@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.integers(0, 4))
def test_the_distance_is_that_of_the_definition(a: str, b: str, most: int) -> None:
    found = edit_distance(ids(a)[0].tolist(), ids(b)[0].tolist(), most=most)
    assert found == min(slow_distance(a, b), most + 1)


def test_what_an_insertion_pushes_over_the_end_is_not_counted() -> None:
    full = "abcdefghij" * 4
    assert edit_distance(ids("x" + full)[0].tolist(), ids(full)[0].tolist(), most=2) == 1


def test_slips_stay_inside_the_word_and_never_make_another_one() -> None:
    found = slips("their", WORDS)
    assert "there" not in found
    assert {"thier", "teir", "theeir", "thwir"} <= set(found)
    assert all(slip[0] == "t" and slip[-1] == "r" for slip in found)
    assert all(slow_distance(slip, "their") == 1 for slip in found)


def test_the_word_that_decides_is_mistyped_and_the_budget_is_kept() -> None:
    x, y = ids("claim your prize money now", "see you at home"), torch.tensor([1, 0])
    moved = type_badly(Prize(), x, y, edits=1, words=WORDS, focus=3)
    here = Ball.of(ThreatModel(norm="edits", epsilon="1", unit="characters", typing=True), TEXT, "cpu")
    assert here.contains(moved, x).all()
    assert Prize()(moved).argmax(1).tolist() == [0, 0]
    assert torch.equal(moved[1], x[1])


def test_without_typing_an_inserted_character_is_outside() -> None:
    x = ids("see you at home")
    moved = torch.cat([torch.tensor([[ord("x") + FIRST_BYTE]]), x[:, :-1]], dim=1)
    for typing, inside in ((True, True), (False, False)):
        threat = ThreatModel(norm="edits", epsilon="1", unit="characters", typing=typing)
        assert bool(Ball.of(threat, TEXT, "cpu").contains(moved, x)) == inside
