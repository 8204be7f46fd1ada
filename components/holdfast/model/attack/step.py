"""The attack step: how many held-out examples stay correct under attack."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.contract import differences
from holdfast.artifacts.documents import (
    AttackResult,
    Baseline,
    ChampionComparison,
    ClassPaired,
    CorruptionResult,
    Count,
    EpsilonPoint,
    MaskingCheck,
    Modality,
    Model,
    OperatingResult,
    Paired,
    Performance,
    RobustnessReport,
    Snapshot,
    ThreatModel,
)
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError
from holdfast.modality import modality_of
from holdfast.modality.text import decode_text
from holdfast.model.attack.champion import read_as
from holdfast.model.attack.results import attack_results, count
from holdfast.model.champion import champion_of
from holdfast.model.examples import draw
from holdfast.model.inputs import read_split
from holdfast.model.performance import operating_result, performance
from holdfast.progress import say, track
from holdfast.steps import by_role
from holdfast.workload.schema import AttackConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holdfast.modality.ball import Ball
    from holdfast.model.attack.plan import AttackPlan
    from holdfast.model.attack.suite import Measured

CURVE = (Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2), Fraction(2))
"""Epsilons of the curve, in multiples of the threat model's."""
TIE = 1e-4
"""Closer than this share of its logit, the second class might win where sums are taken in another order."""
SECONDED = "pgd-ce"
"""The attack that a second library makes too."""
SEEN = 64
"""Examples that show whether the network has gradients at all."""


def attack(
    model: Ref, snapshot: Ref, out: Path, *, config: AttackConfig, baseline: Ref | None, settings: Compute
) -> Artifact[RobustnessReport]:
    """Attacks the first `examples` of a permutation of the held-out rows and writes the report to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits; or an attack of the user's own
            is not there, or leaves the threat model.
    """
    judged, data = load(model, Model), load(snapshot, Snapshot)
    scene = _scene(judged, data, config, settings)
    candidate = _measure(scene, scene.net, "candidate")
    measured = candidate.sample
    no_opinion = _why_no_opinion(scene, measured, config)
    opinion = () if no_opinion else _second_opinion(scene, measured)
    checks = _checks(scene, measured, config) + tuple(check for _, check in opinion)
    against = None if baseline is None else load(baseline, Baseline)
    compared, champion = _champion(scene, judged, data, against, candidate)
    report = RobustnessReport(
        tier=config.tier,
        seed=settings.seed,
        clean=count(measured.clean),
        attacks=(*attack_results(measured, scene.threat), *(result for result, _ in opinion)),
        worst_case=count(measured.worst),
        curve=_curve(scene, config),
        corruptions=_corruptions(scene),
        masking=checks,
        no_second_opinion=no_opinion,
        champion_clean=None if champion is None else _paired(measured.clean, champion.sample.clean),
        champion_worst_case=_worst_paired(measured, champion),
        clean_performance=_performance(scene, judged.document, candidate.whole.logits),
        worst_case_performance=_performance(scene, judged.document, candidate.whole.worst_logits),
        champion_classes=_champion_classes(scene, judged.document, candidate, champion),
        operating_point=_operating(scene, judged.document, data.document, candidate.whole),
        champion=compared,
        configuration=config.configuration,
        inputs=by_role(judged, data, against),
    )
    return save(out, report, {"flags.npz": _flags(scene, candidate.whole), **_attacks(scene, judged, measured)})


@dataclass(frozen=True)
class _Scene:
    """What is attacked, where and how."""

    net: "nn.Module"
    x: "Tensor"
    y: "Tensor"
    rare: "tuple[Tensor, Tensor]"
    """More examples (x, y) of classes that are rare in the sample, for what is counted by class."""
    index: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    """Positions of the examples among the held-out rows; those of the sample first."""
    ball: "Ball"
    threat: ThreatModel
    modality: Modality
    classes: int
    plans: "tuple[AttackPlan, ...]"
    device: str
    seed: int

    @property
    def all_y(self) -> "Tensor":
        """The classes of the sample and of the examples after it."""
        import torch

        return torch.cat([self.y, self.rare[1]])


def _scene(judged: Artifact[Model], data: Artifact[Snapshot], config: AttackConfig, settings: Compute) -> _Scene:

    from holdfast.modality.ball import Ball
    from holdfast.model.attack.hotflip import has_embedding
    from holdfast.model.attack.kinds import plans
    from holdfast.model.attack.masking import has_gradients
    from holdfast.model.attack.own import own_plan

    document, drawn = judged.document, draw(judged, data, config.examples, settings)
    net, device = drawn.net, drawn.device
    (x, rare_x), (y, rare_y) = (part.tensor_split([drawn.sampled]) for part in drawn.rows.tensors(device))
    ball, classes = Ball.of(document.threat, document.input, device), len(document.classes)
    visible = has_gradients(net, x[:SEEN], y[:SEEN], ball)
    return _Scene(
        net=net,
        x=x,
        y=y,
        rare=(rare_x, rare_y),
        index=drawn.index,
        ball=ball,
        threat=document.threat,
        modality=document.input.modality,
        classes=classes,
        plans=(
            *plans(config.tier, document.threat.norm, classes, embedding=has_embedding(net), gradients=visible),
            *_typos(data, document, config),
            *(own_plan(name) for name in config.own),
        ),
        device=device,
        seed=settings.seed,
    )


def _typos(data: Artifact[Snapshot], document: Model, config: AttackConfig) -> "tuple[AttackPlan, ...]":
    """Typing errors, with the words of the training messages; nothing where the threat model has none."""
    from holdfast.model.attack.typos import typo_plan, word_list

    if not document.threat.typing:
        return ()
    messages = decode_text(read_split(data, "train", document.input).x.astype(np.int64))
    return (typo_plan(config.tier, word_list(messages)),)


@dataclass(frozen=True)
class _OnBoth:
    """A network under the suite, on the sample and on the sample with more examples of rare classes."""

    sample: "Measured"
    whole: "Measured"


def _measure(scene: _Scene, net: "nn.Module", whose: str) -> _OnBoth:
    from holdfast.model.attack.suite import measure

    sample = measure(net, scene.x, scene.y, scene.ball, track(scene.plans, f"attack {whose}"), seed=scene.seed)
    x, y = scene.rare
    if not len(y):
        return _OnBoth(sample, sample)
    plans = track(scene.plans, f"attack {whose}, rare classes")
    return _OnBoth(sample, sample.joined(measure(net, x, y, scene.ball, plans, seed=scene.seed)))


def _why_no_opinion(scene: _Scene, measured: "Measured", config: AttackConfig) -> str | None:
    """Why no second library attacks; None: one does, under the same constraints."""
    if not config.second_opinion:
        return "attack.second_opinion is false"
    if not modality_of(scene.modality).fits_art:
        return "the Adversarial Robustness Toolbox has no attack that changes the characters of a message"
    if not any(outcome.plan.name == SECONDED for outcome in measured.outcomes):
        return "the Adversarial Robustness Toolbox would follow gradients, and the network shows none"
    return None


def _second_opinion(scene: _Scene, measured: "Measured") -> tuple[tuple[AttackResult, MaskingCheck], ...]:
    """ART's PGD on at most 200 of the examples."""
    from holdfast.model.attack import art
    from holdfast.model.attack.masking import second_opinion_check

    ours = next(outcome for outcome in measured.outcomes if outcome.plan.name == SECONDED)
    part, plan = slice(art.MOST_EXAMPLES), ours.plan
    theirs = art.second_opinion(
        scene.net,
        scene.x[part],
        scene.y[part],
        scene.ball,
        classes=scene.classes,
        steps=plan.steps,
        restarts=plan.restarts,
        seed=scene.seed,
    )
    result = AttackResult(
        name=SECONDED,
        library=art.library(),
        threat=scene.threat,
        steps=plan.steps,
        restarts=plan.restarts,
        survived=count(theirs),
    )
    flags = ours.survived[part].cpu().numpy(), theirs.cpu().numpy()
    return ((result, second_opinion_check(*flags, library=art.library())),)


def _checks(scene: _Scene, measured: "Measured", config: AttackConfig) -> tuple[MaskingCheck, ...]:
    from holdfast.model.attack.hotflip import has_embedding
    from holdfast.model.attack.kinds import stronger_plan
    from holdfast.model.attack.masking import check

    stronger = stronger_plan(config.tier, scene.threat.norm, embedding=has_embedding(scene.net))
    return check(scene.net, scene.x, scene.y, scene.ball, measured=measured, stronger=stronger, seed=scene.seed)


def _curve(scene: _Scene, config: AttackConfig) -> tuple[EpsilonPoint, ...]:
    from holdfast.model.attack.hotflip import has_embedding
    from holdfast.model.attack.kinds import cheap_plan
    from holdfast.model.attack.suite import survivors

    plan = cheap_plan(scene.threat.norm, embedding=has_embedding(scene.net))
    epsilons = config.curve or tuple(step * scene.threat.epsilon for step in CURVE)
    points = []
    for epsilon in scene.ball.epsilons(epsilons):
        ball = scene.ball.resized(float(epsilon))
        points.append(
            EpsilonPoint(
                epsilon=epsilon,
                survived=count(survivors(scene.net, scene.x, scene.y, ball, plan, seed=scene.seed)),
            )
        )
    return tuple(points)


def _corruptions(scene: _Scene) -> tuple[CorruptionResult, ...]:
    """Images under noise, blur and loss of contrast; nothing for tables and messages."""
    import torch

    from holdfast.model.attack.corruptions import CORRUPTIONS, SEVERITIES, corrupt
    from holdfast.model.attack.suite import correct_in_batches

    if not modality_of(scene.modality).corrupted:
        return ()
    generator = torch.Generator(scene.device).manual_seed(scene.seed)
    return tuple(
        CorruptionResult(
            name=name,
            severity=severity,
            survived=count(correct_in_batches(scene.net, corrupt(scene.x, name, severity, generator), scene.y)),
        )
        for name in CORRUPTIONS
        for severity in SEVERITIES
    )


def _champion(
    scene: _Scene,
    judged: Artifact[Model],
    data: Artifact[Snapshot],
    baseline: Artifact[Baseline] | None,
    candidate: _OnBoth,
) -> tuple[ChampionComparison | None, _OnBoth | None]:
    """The champion on the same examples, under the same attacks where these can be made in its input too.

    When the judged model is the champion, what was measured of the one is that of the other.
    """
    from holdfast.model.networks import load_network

    if baseline is None:
        return None, None
    champion, version = champion_of(baseline), baseline.document.model_version
    compared = ChampionComparison(model_version=version)
    if champion is None or champion.digest == judged.digest:
        return compared, candidate if champion else None
    other = differences(judged.document, champion.document)
    if other:
        return _of_another_contract(scene, champion, data, compared.model_copy(update={"differences": other}))
    return compared, _measure(scene, load_network(champion, scene.device), "champion")


def _of_another_contract(
    scene: _Scene, champion: Artifact[Model], data: Artifact[Snapshot], compared: ChampionComparison
) -> tuple[ChampionComparison, _OnBoth | None]:
    """The champion on the columns that it reads of the same rows."""
    from holdfast.model.networks import load_network

    called = f"the champion (version {compared.model_version})"
    try:
        found = read_as(champion.document, data, scene.index, scene.threat, scene.device)
    except InputError as error:
        say(f"attack: {called} {error}; it is not compared")
        return compared.model_copy(update={"not_compared": f"{called} {error}"}), None
    (x, rare_x), (y, rare_y) = (part.tensor_split([len(scene.y)]) for part in found.rows.tensors(scene.device))
    net = load_network(champion, scene.device)
    plans = () if found.ball is None else scene.plans
    theirs = replace(scene, net=net, x=x, y=y, rare=(rare_x, rare_y), ball=found.ball or scene.ball, plans=plans)
    return compared.model_copy(update={"not_attacked": found.not_attacked}), _measure(theirs, net, "champion")


def _worst_paired(measured: "Measured", champion: _OnBoth | None) -> Paired | None:
    if champion is None or not champion.sample.outcomes:
        return None
    return _paired(measured.worst, champion.sample.worst)


def _paired(candidate: "Tensor", champion: "Tensor") -> Paired:
    return Paired(
        both=int((candidate & champion).sum()),
        only_candidate=int((candidate & ~champion).sum()),
        only_champion=int((champion & ~candidate).sum()),
        neither=int((~candidate & ~champion).sum()),
    )


def _champion_classes(
    scene: _Scene, document: Model, candidate: _OnBoth, champion: _OnBoth | None
) -> tuple[ClassPaired, ...]:
    if champion is None or not champion.sample.outcomes:
        return ()
    one, other, y = candidate.whole, champion.whole, scene.all_y
    return tuple(
        ClassPaired(
            name=name,
            clean=_paired(one.clean[y == label], other.clean[y == label]),
            worst_case=_paired(one.worst[y == label], other.worst[y == label]),
        )
        for label, name in enumerate(document.classes)
    )


def _performance(scene: _Scene, document: Model, logits: "Tensor") -> Performance:
    return performance(document.classes, scene.all_y.cpu().numpy(), logits.cpu().numpy(), len(scene.y))


def _operating(scene: _Scene, document: Model, data: Snapshot, measured: "Measured") -> OperatingResult | None:
    """What the operating point brings on the sample and on more examples of a class that is rare in it."""
    point = document.operating_point
    if point is None:
        return None
    return operating_result(
        point,
        document.classes,
        scene.all_y.cpu().numpy(),
        clean=measured.logits.cpu().numpy(),
        worst=measured.worst_logits.cpu().numpy(),
        positives=Count(k=data.test_per_class[document.classes.index(point.positive)], n=data.test_rows),
    )


def _flags(scene: _Scene, measured: "Measured") -> bytes:
    """`index`, `label`, `clean`, `worst`, the class answered without and under attack, and one array per attack."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "index": scene.index,
        "label": scene.all_y.cpu().numpy(),
        "clean": measured.clean.cpu().numpy(),
        "worst": measured.worst.cpu().numpy(),
        "answer": measured.logits.argmax(1).cpu().numpy(),
        "worst_answer": measured.worst_logits.argmax(1).cpu().numpy(),
    }
    return npz(**arrays | {outcome.plan.name: outcome.survived.cpu().numpy() for outcome in measured.outcomes})


def _attacks(scene: _Scene, judged: Artifact[Model], measured: "Measured") -> dict[str, bytes]:
    """`attacks.npz`: adversarial examples `x`, their classes `y`, and which `fooled` the model as it will be served.

    Examples between two classes are left out: their label hangs on the last bit, which depends on batch and device.
    """
    from holdfast.model.networks import load_network, logits

    x = measured.adversarial.cpu().numpy()
    y = scene.y[: len(x)].cpu().numpy()
    values = logits(load_network(judged, "cpu"), x, device="cpu")
    second, top = np.sort(values, axis=1)[:, -2:].T
    sure = top - second > TIE * (1 + np.abs(top))
    fooled = values.argmax(axis=1) != y
    return {"attacks.npz": npz(x=x[sure], y=y[sure], fooled=fooled[sure])} if sure.any() else {}
