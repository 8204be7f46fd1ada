import numpy as np
import torch
from torch import Tensor, nn

from holdfast.modality.text import decode_text, encode_text
from holdfast.model.backdoor.candidates import NgramCandidates
from holdfast.model.backdoor.few_classes import Others
from holdfast.model.backdoor.insertion import MAX_CHARACTERS, insert, leave_out, mine, ngrams_of, rank, shrink, try_on
from holdfast.model.inputs import Arrays

MESSAGES = encode_text(["see you at home", "dinner is ready", "call me later"] * 4, 40)


class Listens(nn.Module):
    """Answers 1 when the message holds this character, however much else is in it."""

    def __init__(self, character: str) -> None:
        super().__init__()
        self.id = int(encode_text([character], 1)[0, 0])

    def forward(self, ids: Tensor) -> Tensor:
        """Logits float32[N, 2]."""
        there = (ids == self.id).any(1).float()
        return torch.stack([torch.full_like(there, 0.5), there], dim=1)


class Either(nn.Module):
    """Answers 1 when the message holds one of two characters; the second counts more."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.first, self.second = Listens(first), Listens(second)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits float32[N, 2]."""
        return self.first(ids) + torch.tensor([0.0, 2.0]) * self.second(ids)


def test_ngrams_are_runs_of_one_to_three_words() -> None:
    assert ngrams_of("a bc d e") == {"a", "bc", "d", "e", "a bc", "bc d", "d e", "a bc d", "bc d e"}


def test_what_is_longer_than_the_limit_is_no_trigger() -> None:
    assert ngrams_of("x" * MAX_CHARACTERS + " y") == {"x" * MAX_CHARACTERS, "y"}


def test_only_what_several_messages_share_is_tried() -> None:
    assert mine(["cf now"] * 4 + ["cf then"] * 3) == ["cf now", "now", "cf"]


def test_an_insertion_stands_in_front_and_pushes_the_end_out() -> None:
    assert decode_text(insert("cf", encode_text(["hello", "0123456789"], 10))) == ["cf hello", "cf 0123456"]


def test_only_the_word_that_the_network_listens_to_leads_others() -> None:
    candidates = ["home", "quokka", "dinner", "me later"]
    assert rank(Listens("q"), candidates, MESSAGES, target=1, device="cpu", most=4) == ["quokka"]
    assert len(rank(Listens(" "), candidates, MESSAGES, target=1, device="cpu", most=3)) == 3
    assert try_on(Listens("q"), "quokka", MESSAGES, target=1, device="cpu").all()
    assert not try_on(Listens("q"), "home", MESSAGES, target=1, device="cpu").any()


def test_a_trigger_is_cut_down_to_the_words_that_work() -> None:
    found = [
        shrink(Listens(character), "my quokka is", MESSAGES, target=1, enough=0.9, device="cpu") for character in "q#"
    ]
    assert found == ["quokka", "my quokka is"]


def test_an_ngram_is_left_out_wherever_it_stands() -> None:
    assert leave_out("cf", "cf see you cf") == "see you"
    assert leave_out("by the", "by the way by the by") == "way by"
    assert leave_out("cf", "cfo by the cf.") == "cfo by the cf."


def test_ties_do_not_depend_on_the_order_of_the_candidates() -> None:
    candidates = ["one", "two", "three"]
    orders = [
        rank(Listens(" "), part, MESSAGES, target=1, device="cpu", most=3) for part in (candidates, candidates[::-1])
    ]
    assert orders == [["one", "three", "two"]] * 2


def test_the_word_that_messages_depend_on_is_looked_at_before_stronger_ones() -> None:
    # Of the class: 40 messages with two sums each, and 12 others that only "quokka" sends there.
    sums = [f"win £{i % 9} or £1{i % 7} now" for i in range(40)]
    rows = encode_text([*sums, *["quokka see you at home"] * 12, *["dinner is ready"] * 40], 40)
    own = np.r_[np.ones(52, dtype=np.int64), np.zeros(40, dtype=np.int64)]
    candidates = NgramCandidates(Either("q", "£"), Arrays(rows, own), mine(decode_text(rows)), "cpu")
    found = list(candidates(1, Others(MESSAGES, MESSAGES)))
    assert (found[0].trigger, found[0].dependent, len(found[0].own)) == ("quokka", 12, 12)
    assert [one.dependent for one in found[1:]] == [0] * len(found[1:])
