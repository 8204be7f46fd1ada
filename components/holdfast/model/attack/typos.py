"""Typing errors in the words that matter: Gao et al. 2018 (DeepWordBug), https://arxiv.org/abs/1801.04354.

Words are ranked by how far the margin moves when they are left out; in the first of them every slip of a finger (two
letters swapped, one left out, one doubled, one replaced by its neighbour on the keyboard) is tried, the best is kept.
A slip that makes another word of the training messages is not tried: it would change the meaning of the message.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.modality.ball import Ball
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.attack.losses import correct, margin
from holdfast.model.attack.plan import AttackPlan, Tier

SHORTEST = 4
"""Letters of a word that is mistyped; shorter ones are other words after one slip."""
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BATCH = 256
_FOCUS = {"pr": 3, "nightly": 6, "release": 12}
"""Words of a message in which slips are tried."""


def word_list(messages: Iterable[str]) -> frozenset[str]:
    """Every word of the messages, lower-cased."""
    return frozenset(word for message in messages for word in re.findall(r"[^\W\d_]+", message.lower()))


def slips(word: str, words: frozenset[str]) -> list[str]:
    """Every way to mistype a word by one slip inside it that is no word itself, in a fixed order."""
    found = dict.fromkeys(_slips(word))
    return [slip for slip in found if slip != word and slip not in words]


def type_badly(net: nn.Module, ids: Tensor, y: Tensor, *, edits: int, words: frozenset[str], focus: int) -> Tensor:
    """Messages int64[N, L] with at most `edits` slips, in the `focus` words that matter most; broken ones stay so.

    A swap counts as one edit. What no longer fits the L characters is cut off, as it is for any message.
    """
    found = ids.clone()
    for row in correct(net, ids, y).nonzero()[:, 0].tolist():
        found[row] = _mistype(net, ids[row], int(y[row]), edits, words, focus)
    return found


def typo_plan(tier: Tier, words: frozenset[str]) -> AttackPlan:
    """Typing errors, which no gradient knows: for threat models with `typing`."""
    focus = _FOCUS[tier]

    def run(net: nn.Module, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return type_badly(net, x, y, edits=int(ball.epsilon), words=words, focus=focus)

    return AttackPlan("typing-errors", "black-box", focus, 1, run)


def _mistype(net: nn.Module, ids: Tensor, y: int, edits: int, words: frozenset[str], focus: int) -> Tensor:
    length, text = len(ids), decode_text(ids[None].cpu().numpy())[0]
    best, height = text, _heights(net, [text], y, ids)[0]
    for _ in range(edits):
        tried = list(_candidates(net, best, y, ids, words, focus))
        if not tried:
            break
        heights = _heights(net, tried, y, ids)
        top = int(np.argmax(heights))
        if heights[top] <= height:
            break
        best, height = tried[top], heights[top]
        if height > 0:
            break
    return torch.from_numpy(encode_text([best], length)[0]).to(ids.device)


def _candidates(net: nn.Module, text: str, y: int, like: Tensor, words: frozenset[str], focus: int) -> Iterator[str]:
    """The text with one more slip in one of the words whose absence moves the margin most."""
    spans = [m.span() for m in re.finditer(r"[^\W\d_]+", text) if m.end() - m.start() >= SHORTEST]
    # A mistyped word is no word any more: each word is mistyped once.
    spans = [span for span in spans if text[slice(*span)] in words]
    if not spans:
        return
    without = _heights(net, [text[:a] + text[b:] for a, b in spans], y, like)
    for index in np.argsort(-without, kind="stable")[:focus]:
        start, end = spans[index]
        yield from (text[:start] + slip + text[end:] for slip in slips(text[start:end], words))


def _slips(word: str) -> Iterator[str]:
    for i in range(1, len(word) - 1):
        if i < len(word) - 2:
            yield word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        yield word[:i] + word[i + 1 :]
        yield word[:i] + word[i] + word[i:]
        yield from (word[:i] + key + word[i + 1 :] for key in _neighbours(word[i]))


def _neighbours(key: str) -> str:
    row = next((row for row in _ROWS if key in row), "")
    at = row.find(key)
    return row[max(0, at - 1) : at] + row[at + 1 : at + 2] if row else ""


def _heights(net: nn.Module, texts: list[str], y: int, like: Tensor) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Margins float32[N] of messages whose class is y; above 0 the network is wrong."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            ids = torch.from_numpy(encode_text(texts[start : start + _BATCH], len(like))).to(like.device)
            parts.append(margin(net(ids).float(), torch.full((len(ids),), y, device=like.device)).cpu().numpy())
    return np.concatenate(parts)
