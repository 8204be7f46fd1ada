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


@dataclass(frozen=True)
class Examples:
    """A network and the held-out rows that were drawn for it."""

    net: "nn.Module"
    rows: Arrays
    index: NDArray[np.int64]
    """int64[N]: positions of the rows among all held-out rows."""
    device: str


def draw(judged: Artifact[Model], data: Artifact[Snapshot], count: int, settings: Compute) -> Examples:
    """The first `count` of a permutation of the held-out rows, and the network, which answers them as it should.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
    """
    device = settings.prepare()
    net = open_network(judged, data, device)
    rows = read_split(data, "test", judged.document.input)
    index = np.random.default_rng(settings.seed).permutation(len(rows))[:count]
    chosen = rows.take(index)
    check_answers(net, judged, chosen, device)
    return Examples(net, chosen, index, device)


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
