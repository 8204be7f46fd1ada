"""The probe: how a model that is served somewhere stands, when all one sees are its answers."""

from pathlib import Path

import numpy as np

from holdfast.artifacts.documents import AttackResult, Count, RobustnessReport, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import WorkloadError
from holdfast.model.inputs import read_spec, read_split
from holdfast.progress import say, track
from holdfast.steps import by_role
from holdfast.workload.schema import Workload


def probe(url: str, snapshot: Ref, out: Path, *, workload: Workload, settings: Compute) -> Artifact[RobustnessReport]:
    """Attacks the endpoint with answers alone (HopSkipJump; text: random edits) and writes the report to `out`.

    The report names no model, because an endpoint does not show which bytes it serves: no gate takes it as evidence.

    Raises:
        ModelError: the endpoint does not answer as the protocol says.
    """
    import torch

    from holdfast.modality.ball import Ball
    from holdfast.model.attack.endpoint import Endpoint
    from holdfast.model.attack.kinds import plans
    from holdfast.model.attack.suite import OURS, measure

    data, config, threat = load(snapshot, Snapshot), workload.attack, workload.threat_model
    if data.document.modality != workload.modality:
        raise WorkloadError(f"{snapshot.folder}: expected {workload.modality} data, found {data.document.modality}")
    spec, classes = read_spec(data), data.document.classes
    rows = read_split(data, "test", spec)
    chosen = rows.take(np.random.default_rng(settings.seed).permutation(len(rows))[: config.examples])
    x, y = torch.from_numpy(chosen.x), torch.from_numpy(chosen.y)
    endpoint, ball = Endpoint(url, classes), Ball.of(threat, spec, "cpu")
    attacks = plans(config.tier, threat.norm, len(classes), embedding=False, gradients=False)[-1:]
    found = measure(endpoint, x, y, ball, track(attacks, "probe"), seed=settings.seed)
    say(f"probe: {endpoint.asked} rows asked")
    report = RobustnessReport(
        tier=config.tier,
        seed=settings.seed,
        clean=Count(k=int(found.clean.sum()), n=len(y)),
        attacks=tuple(
            AttackResult(
                name=outcome.plan.name,
                library=OURS,
                threat=threat,
                steps=outcome.plan.steps,
                restarts=outcome.plan.restarts,
                survived=Count(k=int(outcome.survived.sum()), n=len(y)),
                cumulative=outcome.cumulative,
            )
            for outcome in found.outcomes
        ),
        worst_case=Count(k=int(found.worst.sum()), n=len(y)),
        masking=(),
        inputs=by_role(data),
    )
    return save(out, report)
