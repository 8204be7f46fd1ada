"""The attack step: how many held-out examples stay correct under attack."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.artifacts.arrays import npz
from holdfast.artifacts.documents import (
    AttackPart,
    AttackResult,
    Baseline,
    ClassPaired,
    CorruptionResult,
    Count,
    EpsilonPoint,
    MaskingCheck,
    Model,
    OperatingResult,
    Paired,
    Performance,
    RobustnessReport,
    Snapshot,
)
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.model.attack.observe import measured_of, observe, signs_of
from holdfast.model.attack.older import older_rows
from holdfast.model.attack.results import attack_results, count
from holdfast.model.attack.scene import SECONDED, Scene, set_scene
from holdfast.model.performance import operating_result, performance
from holdfast.model.shards import Shard, Table, check_same, measured, read_parts, save_part, tables_of, work
from holdfast.steps import by_role
from holdfast.workload.schema import AttackConfig

if TYPE_CHECKING:
    from torch import Tensor

    from holdfast.model.attack.suite import Measured

TIE = 1e-4
"""Closer than this share of its logit, the second class might win where sums are taken in another order."""


def attack(
    model: Ref, snapshot: Ref, out: Path, *, config: AttackConfig, baseline: Ref | None, settings: Compute
) -> Artifact[RobustnessReport]:
    """Attacks the first `examples` of a permutation of the held-out rows and writes the report to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits; or an attack of the user's own
            is not there, or leaves the threat model.
    """
    given = _given(model, snapshot, baseline)
    scene = set_scene(*given, config=config, settings=settings)
    table = measured(scene.blocks, lambda block: observe(scene, block), "attack")
    return _report(scene, table, given[2], out, settings)


def attack_part(
    model: Ref,
    snapshot: Ref,
    out: Path,
    *,
    config: AttackConfig,
    baseline: Ref | None,
    settings: Compute,
    shard: Shard,
) -> Artifact[AttackPart]:
    """Attacks the examples of one shard and writes what it saw to `out`; `merge` makes the report of all parts.

    Raises:
        ModelError: as `attack`.
    """
    given = _given(model, snapshot, baseline)
    scene = set_scene(*given, config=config, settings=settings)
    common = work(by_role(*given), config.configuration, settings)
    seen = {"device": scene.device, "gradients": scene.gradients}
    part = AttackPart.model_validate({**common, **seen, "shard": shard.number, "shards": shard.of})
    return save_part(out, part, shard.take(scene.blocks), lambda block: observe(scene, block), "attack")


def merge(
    model: Ref,
    snapshot: Ref,
    out: Path,
    *,
    config: AttackConfig,
    baseline: Ref | None,
    settings: Compute,
    parts: Sequence[Ref],
) -> Artifact[RobustnessReport]:
    """Writes the report that `attack` would have written, byte for byte, from the parts of all shards.

    Raises:
        ModelError: as `attack`.
        InputError: a part is missing, there twice, or made of other inputs, with another seed or configuration.
    """
    given, found = _given(model, snapshot, baseline), read_parts(parts, AttackPart)
    check_same(found[0], work(by_role(*given), config.configuration, settings), "this step")
    first = found[0].document
    # Nothing is attacked here: a GPU would be idle.
    here = Compute(settings.seed, "cpu", settings.threads)
    scene = set_scene(*given, config=config, settings=here, as_measured=(first.device, first.gradients))
    return _report(scene, tables_of(found, scene.blocks), given[2], out, settings)


def _given(
    model: Ref, snapshot: Ref, baseline: Ref | None
) -> tuple[Artifact[Model], Artifact[Snapshot], Artifact[Baseline] | None]:
    return load(model, Model), load(snapshot, Snapshot), None if baseline is None else load(baseline, Baseline)


def _report(
    scene: Scene, table: Table, baseline: Artifact[Baseline] | None, out: Path, settings: Compute
) -> Artifact[RobustnessReport]:
    """Counts what was seen."""
    whole = measured_of("candidate", scene.candidate, table)
    sample, champion = whole.first(scene.sampled), _champion(scene, whole, table)
    opinion = _second_opinion(scene, table)
    document = scene.judged.document
    older, rows = older_rows(scene.judged, scene.compared, baseline)
    report = RobustnessReport(
        tier=scene.config.tier,
        seed=settings.seed,
        clean=count(sample.clean),
        attacks=(*attack_results(sample, scene.threat), *(result for result, _ in opinion)),
        worst_case=count(sample.worst),
        curve=_curve(scene, table),
        corruptions=_corruptions(table),
        masking=_checks(scene, sample, table) + tuple(check for _, check in opinion),
        no_second_opinion=scene.no_opinion,
        champion_clean=None if champion is None else _paired(sample.clean, champion.first(scene.sampled).clean),
        champion_worst_case=_worst_paired(sample, champion),
        clean_performance=_performance(scene, whole.logits),
        worst_case_performance=_performance(scene, whole.worst_logits),
        champion_classes=_champion_classes(scene, document, whole, champion),
        operating_point=_operating(scene, document, scene.data.document, whole),
        champion=scene.compared,
        older=older,
        configuration=scene.config.configuration,
        inputs=by_role(scene.judged, scene.data, baseline),
    )
    return save(out, report, {"flags.npz": _flags(scene, whole), **_attacks(scene, whole), **rows})


def _champion(scene: Scene, candidate: "Measured", table: Table) -> "Measured | None":
    if scene.is_champion:
        return candidate
    return None if scene.champion is None else measured_of("champion", scene.champion, table)


def _second_opinion(scene: Scene, table: Table) -> tuple[tuple[AttackResult, MaskingCheck], ...]:
    """ART's PGD on the first of the examples."""
    from holdfast.model.attack import art
    from holdfast.model.attack.masking import second_opinion_check

    if scene.no_opinion:
        return ()
    ours, theirs = table["sample/ours"], table["sample/theirs"]
    plan = next(plan for plan in scene.candidate.plans if plan.name == SECONDED)
    result = AttackResult(
        name=SECONDED,
        library=art.library(),
        threat=scene.threat,
        steps=plan.steps,
        restarts=plan.restarts,
        survived=Count(k=int(theirs.sum()), n=len(theirs)),
    )
    return ((result, second_opinion_check(ours, theirs, library=art.library())),)


def _checks(scene: Scene, sample: "Measured", table: Table) -> tuple[MaskingCheck, ...]:
    from holdfast.model.attack.masking import judge

    one = scene.candidate
    return judge(sample, signs_of(table), stronger=scene.stronger, epsilon=one.ball.unlimited(one.x))


def _curve(scene: Scene, table: Table) -> tuple[EpsilonPoint, ...]:
    held = table["sample/curve"]
    return tuple(
        EpsilonPoint(epsilon=epsilon, survived=Count(k=int(k), n=len(held)))
        for epsilon, k in zip(scene.epsilons, held.sum(axis=0), strict=True)
    )


def _corruptions(table: Table) -> tuple[CorruptionResult, ...]:
    """Images under noise, blur and loss of contrast; nothing for tables and messages."""
    from holdfast.model.attack.corruptions import EVERY

    if "sample/corrupted" not in table:
        return ()
    held = table["sample/corrupted"]
    return tuple(
        CorruptionResult(name=name, severity=severity, survived=Count(k=int(k), n=len(held)))
        for (name, severity), k in zip(EVERY, held.sum(axis=0), strict=True)
    )


def _worst_paired(sample: "Measured", champion: "Measured | None") -> Paired | None:
    if champion is None or not champion.outcomes:
        return None
    return _paired(sample.worst, champion.worst[: len(sample.worst)])


def _paired(candidate: "Tensor", champion: "Tensor") -> Paired:
    return Paired(
        both=int((candidate & champion).sum()),
        only_candidate=int((candidate & ~champion).sum()),
        only_champion=int((champion & ~candidate).sum()),
        neither=int((~candidate & ~champion).sum()),
    )


def _champion_classes(
    scene: Scene, document: Model, one: "Measured", other: "Measured | None"
) -> tuple[ClassPaired, ...]:
    if other is None or not other.outcomes:
        return ()
    return tuple(
        ClassPaired(
            name=name,
            clean=_paired(one.clean[scene.y == label], other.clean[scene.y == label]),
            worst_case=_paired(one.worst[scene.y == label], other.worst[scene.y == label]),
        )
        for label, name in enumerate(document.classes)
    )


def _performance(scene: Scene, logits: "Tensor") -> Performance:
    return performance(scene.judged.document.classes, scene.y, logits.numpy(), scene.sampled)


def _operating(scene: Scene, document: Model, data: Snapshot, whole: "Measured") -> OperatingResult | None:
    """What the operating point brings on the sample and on more examples of a class that is rare in it."""
    point = document.operating_point
    if point is None:
        return None
    return operating_result(
        point,
        document.classes,
        scene.y,
        clean=whole.logits.numpy(),
        worst=whole.worst_logits.numpy(),
        positives=Count(k=data.test_per_class[document.classes.index(point.positive)], n=data.test_rows),
    )


def _flags(scene: Scene, whole: "Measured") -> bytes:
    """`index`, `label`, `clean`, `worst`, the class answered without and under attack, and one array per attack."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "index": scene.index,
        "label": scene.y,
        "clean": whole.clean.numpy(),
        "worst": whole.worst.numpy(),
        "answer": whole.logits.argmax(1).numpy(),
        "worst_answer": whole.worst_logits.argmax(1).numpy(),
    }
    return npz(**arrays | {outcome.plan.name: outcome.survived.numpy() for outcome in whole.outcomes})


def _attacks(scene: Scene, whole: "Measured") -> dict[str, bytes]:
    """`attacks.npz`: adversarial examples `x`, their classes `y`, and which `fooled` the model as it will be served.

    Examples between two classes are left out: their label hangs on the last bit, which depends on batch and device.
    """
    from holdfast.model.networks import load_network, logits

    x = whole.adversarial.numpy()
    y = scene.y[: len(x)]
    values = logits(load_network(scene.judged, "cpu"), x, device="cpu")
    second, top = np.sort(values, axis=1)[:, -2:].T
    sure = top - second > TIE * (1 + np.abs(top))
    fooled = values.argmax(axis=1) != y
    return {"attacks.npz": npz(x=x[sure], y=y[sure], fooled=fooled[sure])} if sure.any() else {}
