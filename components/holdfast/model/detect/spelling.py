"""Messages with the spelling that training messages have: what a person who types to deceive changes is changed back.

Unicode first: compatibility forms (NFKC), signs without width, letters of other alphabets that look Latin (a few of
Unicode's confusables). Then each word that no training message has becomes the commonest training word at one slip of
a finger from it (Damerau 1964), found by the words with one character left out (as SymSpell does).
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from holdfast.modality.text import decode_text, encode_text

SHORTEST = 4
"""Letters of a word that is repaired: shorter ones are other words after one slip."""
_LOOKS_LATIN = str.maketrans("аеорсухіјѕԁһӏνοαρυικτ", "aeopcyxijsdhlvoapuikt")
_WORD = re.compile(r"\S+")
_EDGE = ".,;:!?\"'()[]*-"


class Spelling:
    """The words of the training messages."""

    def __init__(self, messages: Iterable[str]) -> None:
        """Learns the words of messages."""
        found = Counter(word for message in messages for word in _words(normalized(message)))
        self._known = frozenset(found)
        self._near: dict[str, list[str]] = defaultdict(list)
        for word, _ in found.most_common():
            if len(word) >= SHORTEST:
                for part in {word, *_without_one(word)}:
                    self._near[part].append(word)

    def repair(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Character ids int64[N, L] of the messages as they would be spelled; what does not fit is cut off."""
        return encode_text([self.repaired(message) for message in decode_text(ids)], ids.shape[1])

    def repaired(self, message: str) -> str:
        """The message with known words for unknown ones that are a slip away, and without tricks of Unicode."""
        return _WORD.sub(lambda found: self._word(found[0]), normalized(message))

    def _word(self, token: str) -> str:
        core = token.strip(_EDGE)
        if len(core) < SHORTEST or core in self._known:
            return token
        likely = (word for part in (core, *_without_one(core)) for word in self._near.get(part, ()))
        best = next((word for word in likely if _is_slip(core, word)), None)
        return token if best is None else token.replace(core, best, 1)


def normalized(message: str) -> str:
    """The message in lower case, in one form of Unicode, without signs that have no width."""
    shown = "".join(sign for sign in unicodedata.normalize("NFKC", message) if unicodedata.category(sign) != "Cf")
    return shown.lower().translate(_LOOKS_LATIN)


def _words(message: str) -> Iterator[str]:
    return (core for token in _WORD.findall(message) if (core := token.strip(_EDGE)))


def _without_one(word: str) -> Iterator[str]:
    return (word[:i] + word[i + 1 :] for i in range(len(word)))


def _is_slip(typed: str, word: str) -> bool:
    """Whether one insertion, deletion, replacement or swap of neighbours leads from one to the other."""
    if abs(len(typed) - len(word)) > 1:
        return False
    if len(typed) != len(word):
        short, long = sorted((typed, word), key=len)
        return short in _without_one(long)
    apart = [i for i, (a, b) in enumerate(zip(typed, word, strict=True)) if a != b]
    if len(apart) == 2:
        i, j = apart
        return j == i + 1 and typed[i] == word[j] and typed[j] == word[i]
    return len(apart) == 1
