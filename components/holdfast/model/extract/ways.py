"""What attackers of each kind of input have: rows of no one, a copy, and whether they can climb its slope."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.artifacts.documents import InputSpec
from holdfast.modality import modality_of
from holdfast.modality.protocol import ScanMethod
from holdfast.modality.text import decode_text, encode_text
from holdfast.model.extract.queries import Chance, X, pictures, shuffled, shuffled_words
from holdfast.model.extract.stealing import Reach
from holdfast.model.extract.surrogate import NetworkSettings, NetworkSurrogate, Surrogate, TextSurrogate
from holdfast.model.networks import SMALLEST_SIDE

_STEP = 0.1
"""Of the range of a value (images), or of its standard deviation (tables): lambda of Papernot et al."""


@dataclass(frozen=True)
class Way:
    """How one kind of model is copied."""

    foreign: Callable[[X, int, Chance], X]
    """So many rows that are not of the model's kind, from rows that are and that the attacker has."""
    copy: Callable[[int], Surrogate]
    """A copy that knows nothing yet, from a seed."""
    reach: Reach
    """Of one step along its slope."""
    no_slope: str = ""
    """Why steps along a slope lead nowhere; empty: they lead to rows."""


def way_of(spec: InputSpec, classes: int, *, epochs: int, device: str) -> Way:
    """That for this kind of input; epochs and device are those of networks."""

    def network(name: str) -> Callable[[int], Surrogate]:
        return lambda seed: NetworkSurrogate(NetworkSettings(name, spec, classes, epochs, device), seed)

    image = "cnn" if min(spec.shape[1:], default=0) >= SMALLEST_SIDE else "mlp"
    reach = _reach_of(spec)
    ways: Mapping[ScanMethod, Way] = {
        "trigger-transfer": Way(lambda x, count, chance: pictures(spec.shape, count, chance), network(image), reach),
        "shared-values": Way(shuffled, network("mlp"), reach),
        "shared-ngrams": Way(
            _words, lambda seed: TextSurrogate(classes, seed), reach, "a step along a slope is not another message"
        ),
    }
    return ways[modality_of(spec.modality).scan]


def _reach_of(spec: InputSpec) -> Reach:
    """A tenth of the range, or of a column's standard deviation; categories stay as they are."""
    if not spec.features:
        low, high = np.float32(spec.lower), np.float32(spec.upper)
        return Reach(np.asarray(_STEP * (high - low), np.float32), np.asarray(low), np.asarray(high))
    step = [0.0 if one.column else _STEP * one.scale for one in spec.features]
    limits = np.array([(one.lower, one.upper) for one in spec.features], np.float32).T
    return Reach(np.array(step, np.float32), *limits)


def _words(x: X, count: int, chance: Chance) -> X:
    return encode_text(shuffled_words(decode_text(x.astype(np.int64)), count, chance), x.shape[1])
