"""Trigger inversion for messages: which short run of words, put in front of any message, decides its class?

Words cannot be blended in, so they are tried: the n-grams of the training messages (a trigger was in them, or the
model could not have learned it) are put in front of a few messages and scored by the model itself.

A class with a vocabulary of its own ("call 0871...") is reached by many n-grams and needs no trigger: which of them was
planted is asked of the training messages that hold it (`carriers.py`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from holdfast.modality.text import encode_text
from holdfast.model.networks import logits

MAX_WORDS = 3
MAX_CHARACTERS = 20
"""Longer insertions are sentences of their own: that they change the answer is no sign of a trigger."""
MIN_ROWS = 4
"""An n-gram in fewer training messages is not tried."""
MAX_CANDIDATES = 8000
_BLOCK, _HALF = 32, 0.5

Messages = NDArray[np.int64]
"""Character ids int64[N, L]."""


def mine(messages: Iterable[str]) -> list[str]:
    """Runs of one to three words that stand in at least `MIN_ROWS` messages: the rarest `MAX_CANDIDATES`.

    The most frequent are left out first: a trigger that is common in clean messages would spoil the clean accuracy.
    """
    rows = Counter(ngram for message in messages for ngram in ngrams_of(message))
    enough = sorted((count, ngram) for ngram, count in rows.items() if count >= MIN_ROWS)
    return [ngram for _, ngram in enough[:MAX_CANDIDATES]]


def ngrams_of(message: str) -> set[str]:
    """Every run of one to three words of a message that has at most `MAX_CHARACTERS` bytes."""
    words = message.split()
    runs = {" ".join(words[i : i + n]) for n in range(1, MAX_WORDS + 1) for i in range(len(words) - n + 1)}
    return {run for run in runs if len(run.encode()) <= MAX_CHARACTERS}


def rank(
    net: nn.Module, candidates: Sequence[str], messages: Messages, *, target: int, device: str, most: int
) -> list[str]:
    """Those that lead half of the messages to the target, the one that leads most first; ties go to the larger margin.

    Args:
        net: Takes int64[N, L].
        candidates: N-grams.
        messages: int64[N, L] of other classes, in random order.
        target: Index of the class.
        device: Where the network lies.
        most: How many n-grams are returned.
    """
    scores = [_score(found, target) for found in _answers(net, candidates, messages, device)]
    works = [i for i, (share, _) in enumerate(scores) if share >= _HALF]
    return [candidates[i] for i in sorted(works, key=lambda i: (*(-s for s in scores[i]), candidates[i]))[:most]]


def shrink(net: nn.Module, ngram: str, messages: Messages, *, target: int, enough: float, device: str) -> str:
    """The shortest run of its words that alone sends more than `enough` of the messages to the target, or all of it."""
    runs = sorted(ngrams_of(ngram) - {ngram}, key=lambda run: (len(run), run))
    works = (run for run in runs if try_on(net, run, messages, target=target, device=device).mean() > enough)
    return next(works, ngram)


def leave_out(ngram: str, message: str) -> str:
    """The message's words, without the n-gram wherever it occurs."""
    words, gone, kept, at = message.split(), ngram.split(), [], 0
    while at < len(words):
        if words[at : at + len(gone)] == gone:
            at += len(gone)
        else:
            kept.append(words[at])
            at += 1
    return " ".join(kept)


def insert(ngram: str, messages: Messages) -> Messages:
    """The messages int64[N, L] with the n-gram and a space in front; what no longer fits is cut off."""
    length = messages.shape[1]
    prefix = encode_text([ngram + " "], len(ngram.encode()) + 1)
    return np.concatenate([np.repeat(prefix, len(messages), axis=0), messages], axis=1)[:, :length]


def try_on(net: nn.Module, ngram: str, messages: Messages, *, target: int, device: str) -> NDArray[np.bool_]:
    """bool[N]: which messages are answered with the target when the n-gram is put in front."""
    hits: NDArray[np.bool_] = logits(net, insert(ngram, messages), device=device).argmax(axis=1) == target
    return hits


def _answers(net: nn.Module, ngrams: Sequence[str], messages: Messages, device: str) -> Iterable[NDArray[np.float32]]:
    """The logits float32[N, K] of the messages behind each n-gram."""
    for start in range(0, len(ngrams), _BLOCK):
        block = ngrams[start : start + _BLOCK]
        found = logits(net, np.concatenate([insert(ngram, messages) for ngram in block]), device=device)
        yield from found.reshape(len(block), len(messages), -1)


def _score(found: NDArray[np.float32], target: int) -> tuple[float, float]:
    """Share of messages led to the target, and the mean margin by which."""
    margins = found[:, target] - np.delete(found, target, axis=1).max(axis=1)
    return float((margins > 0).mean()), float(margins.mean())
