"""What is attacked: the judged network and the champion on the same held-out rows, the attacks, and the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.contract import differences
from holdfast.artifacts.documents import Baseline, ChampionComparison, Model, Snapshot, ThreatModel
from holdfast.artifacts.folder import Artifact
from holdfast.compute import Compute
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.text import decode_text
from holdfast.model.attack.champion import read_as
from holdfast.model.champion import champion_of
from holdfast.model.examples import draw
from holdfast.model.inputs import read_split
from holdfast.model.shards import ExampleBlock, blocks
from holdfast.progress import say
from holdfast.workload.schema import AttackConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holdfast.modality.ball import Ball
    from holdfast.model.attack.plan import AttackPlan

BLOCK = {"cpu": 256, "cuda": 4096}
"""Examples that are attacked together: what fits a CPU's cache, what fills a GPU. With fewer, those that are not yet
broken are soon too few to be worth a call of the network."""
CURVE = (Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2), Fraction(2))
"""Epsilons of the curve, in multiples of the threat model's."""
SECONDED = "pgd-ce"
"""The attack that a second library makes too."""
SEEN = 64
"""Examples that show whether the network has gradients at all."""


@dataclass(frozen=True)
class Contender:
    """A network, the rows x `[N, ...]` as it reads them, their classes y int64[N], and what is tried on it."""

    net: "nn.Module"
    x: "Tensor"
    y: "Tensor"
    ball: "Ball"
    plans: "tuple[AttackPlan, ...]"


@dataclass(frozen=True)
class Scene:
    """Everything that the measurements of a block depend on, but for the block."""

    judged: Artifact[Model]
    data: Artifact[Snapshot]
    config: AttackConfig
    candidate: Contender
    champion: Contender | None
    """None: there is none to be measured; the judged model may be the champion itself."""
    compared: ChampionComparison | None
    """What is known of the champion; None: no baseline was given."""
    is_champion: bool
    """Whether the judged model is the champion: what was measured of the one is that of the other."""
    index: NDArray[np.int64]
    """Positions of the examples among the held-out rows; those of the sample first."""
    sampled: int
    """The size of the sample."""
    blocks: tuple[ExampleBlock, ...]
    gradients: bool
    """Whether the network has any."""
    device: str

    @property
    def threat(self) -> ThreatModel:
        """That of the judged model."""
        return self.judged.document.threat

    @property
    def y(self) -> NDArray[np.int64]:
        """The classes int64[N] of all examples."""
        found: NDArray[np.int64] = self.candidate.y.cpu().numpy()
        return found

    @property
    def epsilons(self) -> tuple[Fraction, ...]:
        """Those of the accuracy curve."""
        return self.candidate.ball.epsilons(self.config.curve or [step * self.threat.epsilon for step in CURVE])

    @property
    def stronger(self) -> "AttackPlan":
        """What is tried on the examples that no attack of the tier broke."""
        from holdfast.model.attack.hotflip import has_embedding
        from holdfast.model.attack.kinds import stronger_plan

        return stronger_plan(self.config.tier, self.threat.norm, embedding=has_embedding(self.candidate.net))

    @property
    def no_opinion(self) -> str | None:
        """Why no second library attacks; None: one does, under the same constraints."""
        if not self.config.second_opinion:
            return "attack.second_opinion is false"
        if not modality_of(self.judged.document.input.modality).fits_art:
            return "the Adversarial Robustness Toolbox has no attack that changes the characters of a message"
        if not any(plan.name == SECONDED for plan in self.candidate.plans):
            return "the Adversarial Robustness Toolbox would follow gradients, and the network shows none"
        return None


def set_scene(
    judged: Artifact[Model],
    data: Artifact[Snapshot],
    baseline: Artifact[Baseline] | None,
    *,
    config: AttackConfig,
    settings: Compute,
    as_measured: tuple[str, bool] | None = None,
) -> Scene:
    """Draws the examples, opens the networks and chooses the attacks.

    `as_measured`: the device on which the blocks were measured elsewhere, and whether the network showed gradients.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits; or an attack of the user's own
            is not there.
    """
    from holdfast.modality.ball import Ball
    from holdfast.model.attack.masking import has_gradients

    drawn, document = draw(judged, data, config.examples, settings), judged.document
    (x, y), ball = drawn.rows.tensors(drawn.device), Ball.of(document.threat, document.input, drawn.device)
    first = min(SEEN, drawn.sampled)
    visible = has_gradients(drawn.net, x[:first], y[:first], ball) if as_measured is None else as_measured[1]
    plans = _plans(drawn.net, judged, data, config, gradients=visible)
    candidate = Contender(drawn.net, x, y, ball, plans)
    champion, compared, is_champion = _champion(candidate, judged, data, baseline, drawn.index)
    size = BLOCK[drawn.device if as_measured is None else as_measured[0]]
    return Scene(
        judged=judged,
        data=data,
        config=config,
        candidate=candidate,
        champion=champion,
        compared=compared,
        is_champion=is_champion,
        index=drawn.index,
        sampled=drawn.sampled,
        blocks=blocks(drawn.sampled, len(y), size, settings.seed),
        gradients=visible,
        device=drawn.device,
    )


def _plans(
    net: "nn.Module", judged: Artifact[Model], data: Artifact[Snapshot], config: AttackConfig, *, gradients: bool
) -> "tuple[AttackPlan, ...]":
    from holdfast.model.attack.hotflip import has_embedding
    from holdfast.model.attack.kinds import plans
    from holdfast.model.attack.own import own_plan

    norm, classes = judged.document.threat.norm, len(judged.document.classes)
    return (
        *plans(config.tier, norm, classes, embedding=has_embedding(net), gradients=gradients),
        *_typos(data, judged.document, config),
        *(own_plan(name) for name in config.own),
    )


def _typos(data: Artifact[Snapshot], document: Model, config: AttackConfig) -> "Sequence[AttackPlan]":
    """Typing errors, with the words of the training messages; nothing where the threat model has none."""
    from holdfast.model.attack.typos import typo_plan, word_list

    if not document.threat.typing:
        return ()
    messages = decode_text(read_split(data, "train", document.input).x.astype(np.int64))
    return (typo_plan(config.tier, word_list(messages)),)


def _champion(
    candidate: Contender,
    judged: Artifact[Model],
    data: Artifact[Snapshot],
    baseline: Artifact[Baseline] | None,
    index: NDArray[np.int64],
) -> tuple[Contender | None, ChampionComparison | None, bool]:
    """The champion on the same examples, under the same attacks where these can be made in its input too."""
    from holdfast.model.networks import load_network

    if baseline is None:
        return None, None, False
    champion, compared = champion_of(baseline), ChampionComparison(model_version=baseline.document.model_version)
    if champion is None or champion.digest == judged.digest:
        return None, compared, champion is not None
    other = differences(judged.document, champion.document)
    if other:
        compared = compared.model_copy(update={"differences": other})
        return *_of_another_contract(candidate, champion, data, compared, index, judged.document.threat), False
    return replace(candidate, net=load_network(champion, candidate.x.device.type)), compared, False


def _of_another_contract(
    candidate: Contender,
    champion: Artifact[Model],
    data: Artifact[Snapshot],
    compared: ChampionComparison,
    index: NDArray[np.int64],
    threat: ThreatModel,
) -> tuple[Contender | None, ChampionComparison]:
    """The champion on the columns that it reads of the same rows."""
    from holdfast.model.networks import load_network

    called, device = f"the champion (version {compared.model_version})", candidate.x.device.type
    try:
        found = read_as(champion.document, data, index, threat, device)
    except InputError as error:
        say(f"attack: {called} {error}; it is not compared")
        return None, compared.model_copy(update={"not_compared": f"{called} {error}"})
    plans = () if found.ball is None else candidate.plans
    theirs = Contender(load_network(champion, device), *found.rows.tensors(device), found.ball or candidate.ball, plans)
    return theirs, compared.model_copy(update={"not_attacked": found.not_attacked})
