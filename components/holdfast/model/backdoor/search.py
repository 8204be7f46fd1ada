"""The whole search where classes are few, and in messages: candidates of every class, and their carriers' test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import InputSpec
from holdfast.modality.text import decode_text
from holdfast.model.backdoor.candidates import Content, NgramCandidates, PlaceCandidates
from holdfast.model.backdoor.carriers import Asked
from holdfast.model.backdoor.cleanse import mask_shape
from holdfast.model.backdoor.few_classes import ClassFinding, Search, examine
from holdfast.model.backdoor.insertion import mine
from holdfast.model.backdoor.places import MAX_COLUMNS, OTHERS, CellPlace, Network
from holdfast.model.backdoor.references import reference_model
from holdfast.model.backdoor.unlearn import place_of
from holdfast.model.inputs import Arrays
from holdfast.model.networks import logits
from holdfast.progress import track
from holdfast.workload.schema import BackdoorConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

MESSAGES = 128
"""Training messages of other classes that n-grams are put in front of."""

SMALL_SHARE = 0.1
"""Of the cells: an inverted trigger that covers more is not looked for in the training rows."""


@dataclass(frozen=True)
class Examined:
    """A network that is examined, and the rows that it was trained on and judged by, in random order."""

    net: "nn.Module"
    spec: InputSpec
    classes: tuple[str, ...]
    rows: Arrays
    held_out: Arrays
    seed: int
    device: str

    def answers(self, x: NDArray[np.generic]) -> NDArray[np.int64]:
        """Classes int64[N]."""
        return np.asarray(logits(self.net, x, device=self.device).argmax(axis=1))

    @property
    def asked(self) -> Asked:
        """What carriers are tested with."""
        reference = reference_model(self.spec, len(self.classes), self.device)
        return Asked(self.rows, self.held_out, reference, self.seed)


def search_cells(
    subject: Examined, mutable: "Tensor", masks: Sequence["Tensor"], config: BackdoorConfig
) -> list[ClassFinding[Content]]:
    """A finding for each class of tables and images.

    Args:
        subject: What is examined.
        mutable: Which cells can change.
        masks: Those of an inversion, one for each class: the places where images are searched.
        config: Its `attack_success` is how well a shorter place must work to be preferred.
    """
    shape = subject.spec.shape

    def network(target: int) -> Network:
        return Network(subject.net, shape, subject.device, target)

    columns = np.flatnonzero(mutable.expand(mask_shape(shape)).cpu().numpy()).tolist()
    places = PlaceCandidates(
        rows=subject.rows,
        network=network,
        columns=() if shape[1:] else tuple(columns),
        inverted=[_place(mask, shape) for mask in masks],
        names=tuple(feature.name for feature in subject.spec.features),
        enough=config.attack_success,
        seed=subject.seed,
    )
    search = Search(subject.classes, subject.asked, subject.answers, places, OTHERS, config.examples)
    return [examine(search, target) for target in track(range(len(subject.classes)), "backdoor")]


def search_messages(subject: Examined, config: BackdoorConfig) -> list[ClassFinding[str]]:
    """A finding for each class of messages; none where no n-gram is shared by several of them."""
    mined = mine(decode_text(subject.rows.x.astype(np.int64, copy=False)))
    if not mined:
        return []
    ngrams = NgramCandidates(subject.net, subject.rows, mined, subject.device)
    search = Search(subject.classes, subject.asked, subject.answers, ngrams, MESSAGES, config.examples)
    return [examine(search, target) for target in track(range(len(subject.classes)), "backdoor")]


def _place(mask: "Tensor", shape: Sequence[int]) -> CellPlace:
    """The cells that an inverted mask covers, in a flattened row; none where these are too many for a trigger."""
    covered = place_of(mask).expand(tuple(shape)).flatten()
    small = int(covered.sum()) <= max(MAX_COLUMNS, SMALL_SHARE * len(covered))
    return tuple(covered.nonzero()[:, 0].tolist()) if small else ()
