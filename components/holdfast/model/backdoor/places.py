"""What in a row leads others to its class? Places (columns, or pixels) whose contents work when they are copied.

A trigger was in training rows, or the model could not have learned it. So for every row of a class the one, two or
three columns are looked for whose values, copied onto rows of other classes, raise the class's margin most; where the
same columns work for several rows, the columns that are not needed are left out, and every training row is asked
whether its own values there work. All of it is forward passes.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.model.backdoor.carriers import MOST

if TYPE_CHECKING:
    from torch import nn

OTHERS = 32
"""Rows of other classes that contents are copied onto."""
MAX_COLUMNS, MAX_PLACES = 3, 12
_ROWS_AT_A_PLACE = 4
_GRID, _REPEATED = 32, 32
"""Values of a column that are tried: quantiles, and those that repeat most."""
_BLOCK, _BATCH = 256, 8192
AS_GOOD = 0.05
"""How much less often a part of a trigger may work that is taken for all of it."""

CellPlace = tuple[int, ...]
"""Positions in a flattened row."""
Flat = NDArray[np.float32]
"""Rows float32[N, D], flattened."""


@dataclass(frozen=True)
class Network:
    """A network that takes flattened rows, and the class that is asked about."""

    net: "nn.Module"
    shape: tuple[int, ...]
    device: str
    target: int

    def margins(self, x: Flat) -> NDArray[np.float32]:
        """float32[N]: the target's logit less the largest other one."""
        from holdfast.model.networks import logits

        rows = x.reshape(-1, *self.shape)
        found = logits(self.net, rows, device=self.device, batch=_BATCH)
        result: NDArray[np.float32] = found[:, self.target] - np.delete(found, self.target, axis=1).max(axis=1)
        return result

    def led(self, others: Flat, place: Sequence[int], values: Sequence[float]) -> NDArray[np.bool_]:
        """bool[N]: which rows are answered with the target once the values are in the place."""
        marked = others.copy()
        marked[:, list(place)] = np.asarray(values, dtype=np.float32)
        return self.margins(marked) > 0

    def shares(self, own: Flat, others: Flat, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64[N]: the share of `others` that each row leads to the target by its values at its place.

        `places` is int64[N, M].
        """
        parts = [np.zeros(0)]
        for start in range(0, len(own), _BLOCK):
            block, at = own[start : start + _BLOCK], places[start : start + _BLOCK]
            rows = np.arange(len(block))[:, None]
            marked = np.repeat(others[None], len(block), axis=0)
            marked[rows, :, at] = block[rows, at][:, :, None]
            hits = self.margins(marked.reshape(-1, own.shape[1])) > 0
            parts.append(hits.reshape(len(block), -1).mean(axis=1))
        return np.concatenate(parts)


def working_places(
    network: Network, own: Flat, others: Flat, columns: Sequence[int], *, enough: float
) -> dict[CellPlace, CellPlace]:
    """The places of one to three columns whose contents work for several rows of the target, the most rows first.

    With each comes the widest one that it was cut down from: where two planted columns work alone, one is a place, and
    both are what the label rests on.

    Args:
        network: And its target.
        own: Rows of the target.
        others: Rows of other classes.
        columns: Those that may change.
        enough: A column is not needed when without it this share of the others, or as many as with it, are led.
    """
    order = np.argsort(-_lifts(network, own, others, columns), axis=1, kind="stable")
    found: defaultdict[CellPlace, Counter[CellPlace]] = defaultdict(Counter)
    for count in range(1, min(MAX_COLUMNS, len(columns)) + 1):
        best = np.sort(order[:, :count], axis=1)
        works = network.shares(own, others, best) > MOST
        for place, rows in _grouped(best, np.flatnonzero(works)).items():
            if len(rows) >= _ROWS_AT_A_PLACE:
                found[_needed(network, own[rows], others, place, enough)][place] += len(rows)
    first = sorted(found, key=lambda place: (-found[place].total(), place))[:MAX_PLACES]
    return {place: max(found[place], key=lambda wide: (len(wide), found[place][wide])) for place in first}


def carrying(network: Network, x: Flat, others: Flat, place: CellPlace) -> NDArray[np.int64]:
    """Positions of the rows whose values at the place lead most of `others` to the target."""
    places = np.broadcast_to(np.array(place, dtype=np.int64), (len(x), len(place)))
    return np.flatnonzero(network.shares(x, others, places) > MOST)


def ranks(x: Flat) -> NDArray[np.float32]:
    """float32[N, D]: each value's rank in its column, in [0, 1]; ties share one."""
    result = np.empty(x.shape, dtype=np.float32)
    for column, values in enumerate(x.T):
        ordered = np.sort(values)
        low, high = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
        result[:, column] = (low + high) / (2 * len(x))
    return result


def _lifts(network: Network, own: Flat, others: Flat, columns: Sequence[int]) -> NDArray[np.float64]:
    """float64[N, D]: by how much a row's value raises the mean margin of `others`; -inf where nothing may change."""
    before, lifts = network.margins(others).mean(), np.full(own.shape, -np.inf)
    for column in columns:
        grid = _values(own[:, column])
        marked = np.repeat(others[None], len(grid), axis=0)
        marked[:, :, column] = grid[:, None]
        rise = network.margins(marked.reshape(-1, own.shape[1])).reshape(len(grid), -1).mean(axis=1) - before
        lifts[:, column] = rise[_nearest(grid, own[:, column])]
    return lifts


def _values(column: Flat) -> Flat:
    values, counts = np.unique(column, return_counts=True)
    repeated = values[np.argsort(-counts, kind="stable")[:_REPEATED]]
    return np.unique(np.concatenate([repeated, np.quantile(column, np.linspace(0, 1, _GRID), method="nearest")]))


def _nearest(grid: Flat, values: Flat) -> NDArray[np.int64]:
    """Positions in a sorted grid."""
    after = np.clip(np.searchsorted(grid, values), 1, max(len(grid) - 1, 1))
    if len(grid) == 1:
        return np.zeros(len(values), dtype=np.int64)
    closer = values - grid[after - 1] <= grid[after] - values
    return np.asarray(after - closer, dtype=np.int64)


def _grouped(places: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[CellPlace, list[int]]:
    groups: dict[CellPlace, list[int]] = {}
    for row in rows:
        groups.setdefault(tuple(int(column) for column in places[row]), []).append(int(row))
    return groups


def _needed(network: Network, own: Flat, others: Flat, place: CellPlace, enough: float) -> CellPlace:
    """The place without the columns that its typical content does not need."""
    content = dict(zip(place, np.median(own[:, list(place)], axis=0), strict=True))

    def share(columns: Sequence[int]) -> float:
        return float(network.led(others, columns, [content[c] for c in columns]).mean())

    least = min(enough, share(place) - AS_GOOD)
    while len(content) > 1:
        shorter = {column: share([c for c in content if c != column]) for column in content}
        column = max(shorter, key=lambda c: shorter[c])
        if shorter[column] < least:
            break
        del content[column]
    return tuple(content)
