"""Candidates for planted triggers: contents of places in tables and images, n-grams in messages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Count
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.backdoor.carriers import MOST, Candidate, Positions, dependence
from holdfast.model.backdoor.few_classes import Others
from holdfast.model.backdoor.insertion import leave_out, ngrams_of, rank, shrink, try_on
from holdfast.model.backdoor.places import AS_GOOD, OTHERS, CellPlace, Flat, Network, carrying, ranks, working_places
from holdfast.model.inputs import Arrays

if TYPE_CHECKING:
    from torch import nn

_ASKED = 16
"""Positions of other classes that every training row's content is copied onto."""
TOP, STRONGEST = 16, 1024
"""N-grams that are looked at: those that the class's messages depend on most, of those that lead others to it."""
FIRST_MESSAGES = 4
"""Messages of other classes that every n-gram is tried on first."""
LEAST_DEPENDENT = 0.5
"""Of a class's messages with a planted n-gram that other classes use, too, the share that is answered otherwise
without it. Planted: 0.6 and more; clean: up to 0.38, by words that reverse a sentence ("not"). The network may know
messages by heart, so that this is not asked of n-grams that only one class has."""
_SOME = 32
"""Training messages by which it is estimated how many depend on an n-gram."""


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
        inverted = self.inverted[target]
        places = {inverted: inverted} if inverted else {}
        if self.columns:
            places |= working_places(network, x[y == target], hosts, self.columns, enough=self.enough)
        for place, around in places.items():
            carriers = carrying(network, x, hosts[:_ASKED], place)
            if (y[carriers] == target).any():
                yield self._candidate(network, place, around, carriers, tried)

    def _candidate(
        self, network: Network, place: CellPlace, around: CellPlace, carriers: Positions, tried: Flat
    ) -> Candidate[Content]:
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
            dependent=self._dependent(network, around, own),
            rest=lambda: np.delete(self._ranks, list(place), axis=1),
        )

    def _dependent(self, network: Network, around: CellPlace, own: Positions) -> int:
        """Own rows that are answered otherwise once the place and its surroundings are those of other classes' rows."""
        x, rng = flat(self.rows.x), np.random.default_rng(self.seed)
        hidden = x[own].copy()
        others = rng.choice(np.flatnonzero(self.rows.y != network.target), len(own))
        hidden[:, list(around)] = x[others][:, list(around)]
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
        """Of a class, each cut down to the words that work."""
        found = _ids(others.made_from)
        for ngram in dict.fromkeys(self._needed(ngram, target, found) for ngram in self._most_dependent(target, found)):
            carriers = self._carriers(ngram)
            own = carriers[self.rows.y[carriers] == target]
            if len(own):
                yield self._candidate(ngram, target, carriers, own, others)

    def _needed(self, ngram: str, target: int, messages: NDArray[np.int64]) -> str:
        """The shortest run of its words that works as well."""
        led = try_on(self.net, ngram, messages, target=target, device=self.device)
        enough = max(MOST, float(led.mean()) - AS_GOOD)
        return shrink(self.net, ngram, messages, target=target, enough=enough, device=self.device)

    def _most_dependent(self, target: int, messages: NDArray[np.int64]) -> list[str]:
        """The n-grams that lead messages to the target and that the target's own messages depend on most."""
        ask = partial(rank, self.net, target=target, device=self.device)
        strong = ask(self.mined, messages[:FIRST_MESSAGES], most=STRONGEST)
        needed = sorted(strong, key=lambda ngram: -self._dependence(ngram, target))[: 2 * TOP]
        works = set(ask(needed, messages, most=len(needed)))
        return [ngram for ngram in needed if ngram in works][:TOP]

    def _dependence(self, ngram: str, target: int) -> float:
        """A lower bound on the share of the target's messages with it that depend on it."""
        carriers = self._carriers(ngram)
        own = carriers[self.rows.y[carriers] == target][:_SOME]
        return dependence(self._dependent(ngram, target, own), len(own)) if len(own) else 0.0

    def _carriers(self, ngram: str) -> Positions:
        return np.array(self._held.get(ngram, []), dtype=np.int64)

    @cached_property
    def _messages(self) -> list[str]:
        return decode_text(_ids(self.rows.x))

    @cached_property
    def _held(self) -> dict[str, list[int]]:
        """The training messages with each n-gram."""
        held: dict[str, list[int]] = {ngram: [] for ngram in self.mined}
        for row, message in enumerate(self._messages):
            for ngram in ngrams_of(message):
                held.setdefault(ngram, []).append(row)
        return held

    def success(self, ngram: str, target: int, others: Others) -> Count:
        """Held-out messages of others that it leads to the target."""
        led = try_on(self.net, ngram, _ids(others.tried_on), target=target, device=self.device)
        return Count(k=int(led.sum()), n=len(led))

    def _candidate(
        self, ngram: str, target: int, carriers: Positions, own: Positions, others: Others
    ) -> Candidate[str]:
        messages = self._messages
        return Candidate(
            trigger=ngram,
            name=repr(ngram),
            size=float(len(ngram)),
            success=self.success(ngram, target, others),
            carriers=carriers,
            own=own,
            dependent=self._dependent(ngram, target, own),
            rest=lambda: _words(messages, ngram, carriers),
            least_dependent=LEAST_DEPENDENT,
        )

    def _dependent(self, ngram: str, target: int, own: Positions) -> int:
        from holdfast.model.networks import logits

        without = encode_text([leave_out(ngram, self._messages[row]) for row in own], self.rows.x.shape[1])
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
