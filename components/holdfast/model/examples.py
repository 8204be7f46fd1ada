"""A model to be judged and the held-out examples that it is judged on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Model, Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.compute import Compute
from holdfast.errors import ModelError
from holdfast.model.inputs import Arrays, read_split

if TYPE_CHECKING:
    from torch import nn


ENOUGH = 50
"""So many examples of a class are looked for, where the sample has fewer."""

_SHARE, _CHECKED = 5, 2_000
"""One held-out row of so many, and at most so many, check a guard."""


@dataclass(frozen=True)
class Examples:
    """A network and the held-out rows drawn for it: a sample, and after it more rows of classes that are rare in it."""

    net: "nn.Module"
    rows: Arrays
    index: NDArray[np.int64]
    """int64[N]: positions of the rows among all held-out rows; the sample first."""
    sampled: int
    """The size of the sample. Rates over all classes are counted on it alone, those of single classes on all rows."""
    device: str


def draw(judged: Artifact[Model], data: Artifact[Snapshot], count: int, settings: Compute) -> Examples:
    """The first `count` of a permutation of the held-out rows, and the network, which answers them as it should.

    After these come the next rows of every class that has fewer than `ENOUGH`, or than its equal share of `count`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
    """
    device = settings.prepare()
    net = open_network(judged, data, device)
    rows = read_split(data, "test", judged.document.input)
    order = np.random.default_rng(settings.seed).permutation(len(rows))
    index = np.concatenate([order[:count], rare_rows(rows.y, order, count, len(judged.document.classes))])
    chosen = rows.take(index)
    check_answers(net, judged, chosen, device)
    return Examples(net, chosen, index, min(count, len(rows)), device)


def rare_rows(y: NDArray[np.int64], order: NDArray[np.int64], count: int, classes: int) -> NDArray[np.int64]:
    """The rows after the first `count` of `order` that fill up each class of y, as far as there are any."""
    sample, rest = order[:count], order[count:]
    missing = min(ENOUGH, count // classes) - np.bincount(y[sample], minlength=classes)
    return np.concatenate([rest[y[rest] == label][: max(number, 0)] for label, number in enumerate(missing)])


def kept_apart(rows: int, seed: int) -> NDArray[np.int64]:
    """int64[...]: positions of the held-out rows, of so many, that a guard is checked with and not calibrated on."""
    return np.random.default_rng(seed).permutation(rows)[: min(rows // _SHARE, _CHECKED)]


def open_network(judged: Artifact[Model], data: Artifact[Snapshot], device: str) -> "nn.Module":
    """The network of a model that was found to have the classes of the data.

    Raises:
        ModelError: it has others.
    """
    from holdfast.model.networks import load_network

    ours, theirs = judged.document.classes, data.document.classes
    if ours != theirs:
        raise ModelError(f"{judged.folder}: expected the classes {theirs}, found {ours}")
    return load_network(judged, device)


def check_answers(net: "nn.Module", judged: Artifact[Model], rows: Arrays, device: str) -> None:
    """Refuses a network that does not give finite logits for `rows`, one per class.

    Raises:
        ModelError: it does not.
    """
    from holdfast.model.networks import check_logits, logits

    check_logits(logits(net, rows.x, device=device), len(judged.document.classes), name=str(judged.folder))
