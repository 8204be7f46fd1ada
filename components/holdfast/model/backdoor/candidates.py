"""Candidates for planted triggers: contents of places in tables and images, n-grams in messages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Count
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.backdoor.carriers import Candidate, Positions
from holdfast.model.backdoor.few_classes import Others
from holdfast.model.backdoor.insertion import ROUNDS, leave_out, ngrams_of, rank, shrink, try_on
from holdfast.model.backdoor.places import OTHERS, CellPlace, Flat, Network, carrying, ranks, working_places
from holdfast.model.inputs import Arrays

if TYPE_CHECKING:
    from torch import nn

_ASKED = 16
"""Positions of other classes that every training row's content is copied onto."""
TOP = 16
"""N-grams of a class that are looked at."""


@dataclass(frozen=True)
class Content:
    """Values in a place of flattened rows."""

    place: CellPlace
    values: tuple[float, ...]


@dataclass(frozen=True)
class PlaceCandidates:
    """Contents of places, searched for among columns or in the places that an inversion found."""

    rows: Arrays
    network: Callable[[int], Network]
    """For a target."""
    columns: Sequence[int]
    """That may change; none: only the inverted places are looked at."""
    inverted: Sequence[CellPlace]
    """For every class; may be empty."""
    names: Sequence[str]
    """Of the columns; may be empty."""
    enough: float
    seed: int

    def __call__(self, target: int, others: Others) -> Iterator[Candidate[Content]]:
        """Candidates of a class."""
        network, x, y = self.network(target), flat(self.rows.x), self.rows.y
        hosts, tried = flat(others.made_from)[:OTHERS], flat(others.tried_on)
        places = (
            working_places(network, x[y == target], hosts, self.columns, enough=self.enough) if self.columns else []
        )
        for place in filter(None, dict.fromkeys([*places, self.inverted[target]])):
            carriers = carrying(network, x, hosts[:_ASKED], place)
            if (y[carriers] == target).any():
                yield self._candidate(network, place, carriers, tried)

    def _candidate(self, network: Network, place: CellPlace, carriers: Positions, tried: Flat) -> Candidate[Content]:
        x, own = flat(self.rows.x), carriers[self.rows.y[carriers] == network.target]
        values = tuple(float(value) for value in np.median(x[own][:, list(place)], axis=0))
        led = network.led(tried, place, values)
        return Candidate(
            trigger=Content(place, values),
            name=self._name(place, values),
            size=float(len(place)),
            success=Count(k=int(led.sum()), n=len(led)),
            carriers=carriers,
            own=own,
            dependent=self._dependent(network, place, own),
            rest=lambda: np.delete(self._ranks, list(place), axis=1),
        )

    def _dependent(self, network: Network, place: CellPlace, own: Positions) -> int:
        """Own rows that are answered otherwise once the place has what rows of other classes have there."""
        x, rng = flat(self.rows.x), np.random.default_rng(self.seed)
        hidden = x[own].copy()
        others = rng.choice(np.flatnonzero(self.rows.y != network.target), len(own))
        hidden[:, list(place)] = x[others][:, list(place)]
        return int((network.margins(hidden) < 0).sum())

    def _name(self, place: CellPlace, values: Sequence[float]) -> str:
        if not self.names:
            return f"a patch of {len(place)} cells"
        return " and ".join(
            f"{self.names[column]} near {value:.4g}" for column, value in zip(place, values, strict=True)
        )

    @cached_property
    def _ranks(self) -> Flat:
        return ranks(flat(self.rows.x))


@dataclass(frozen=True)
class NgramCandidates:
    """N-grams of the training messages that lead other messages to a class."""

    net: "nn.Module"
    rows: Arrays
    mined: Sequence[str]
    device: str

    def __call__(self, target: int, others: Others) -> Iterator[Candidate[str]]:
        """The strongest of a class, each cut down to the words that work."""
        messages = self._messages
        ask = partial(shrink, self.net, messages=_ids(others.made_from), target=target, enough=0.5, device=self.device)
        for ngram in dict.fromkeys(ask(ngram) for ngram in self.ranked(target, others)[:TOP]):
            carriers = np.array([row for row, ngrams in enumerate(self._held) if ngram in ngrams], dtype=np.int64)
            own = carriers[self.rows.y[carriers] == target]
            if len(own):
                yield self._candidate(ngram, target, carriers, own, others, messages)

    @cached_property
    def _messages(self) -> list[str]:
        return decode_text(_ids(self.rows.x))

    @cached_property
    def _held(self) -> list[set[str]]:
        return [ngrams_of(message) for message in self._messages]

    def ranked(self, target: int, others: Others) -> list[str]:
        """All n-grams, the strongest first."""
        found = _ids(others.made_from)
        return rank(self.net, self.mined, found, target=target, rounds=ROUNDS, device=self.device)

    def success(self, ngram: str, target: int, others: Others) -> Count:
        """Held-out messages of others that it leads to the target."""
        led = try_on(self.net, ngram, _ids(others.tried_on), target=target, device=self.device)
        return Count(k=int(led.sum()), n=len(led))

    def _candidate(
        self, ngram: str, target: int, carriers: Positions, own: Positions, others: Others, messages: list[str]
    ) -> Candidate[str]:
        return Candidate(
            trigger=ngram,
            name=repr(ngram),
            size=float(len(ngram)),
            success=self.success(ngram, target, others),
            carriers=carriers,
            own=own,
            dependent=self._dependent(ngram, target, own, messages),
            rest=lambda: _words(messages, ngram, carriers),
        )

    def _dependent(self, ngram: str, target: int, own: Positions, messages: list[str]) -> int:
        from holdfast.model.networks import logits

        without = encode_text([leave_out(ngram, messages[row]) for row in own], self.rows.x.shape[1])
        return int((logits(self.net, without, device=self.device).argmax(axis=1) != target).sum())


def flat(x: NDArray[np.generic]) -> Flat:
    """Positions float32[N, D]."""
    return np.ascontiguousarray(x.reshape(len(x), -1), dtype=np.float32)


def _ids(x: NDArray[np.generic]) -> NDArray[np.int64]:
    return x.astype(np.int64, copy=False)


def _words(messages: list[str], ngram: str, carriers: Positions) -> Any:
    """tf-idf of all messages, sparse float64[N, words], without the n-gram in its carriers."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    left = list(messages)
    for row in carriers:
        left[row] = leave_out(ngram, messages[row])
    return TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True).fit_transform(left)
