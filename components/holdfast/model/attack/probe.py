"""The probe: how robust a served model is against an attacker who sees its answers alone."""

from pathlib import Path

import numpy as np

from holdfast.artifacts.documents import RobustnessReport, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import WorkloadError
from holdfast.model.attack.results import attack_results, count
from holdfast.model.inputs import read_spec, read_split
from holdfast.progress import say, track
from holdfast.steps import by_role
from holdfast.workload.schema import Workload


def probe(url: str, snapshot: Ref, out: Path, *, workload: Workload, settings: Compute) -> Artifact[RobustnessReport]:
    """Attacks the endpoint with answers alone (HopSkipJump; text: random edits) and writes the report to `out`.

    The report names no model, because an endpoint does not show which bytes it serves: no gate takes it as evidence.

    Raises:
        ModelError: the endpoint does not answer as the protocol requires.
    """
    from holdfast.modality.ball import Ball
    from holdfast.model.attack.endpoint import Endpoint
    from holdfast.model.attack.kinds import plans
    from holdfast.model.attack.suite import measure

    data, config, threat = load(snapshot, Snapshot), workload.attack, workload.threat_model
    if data.document.modality != workload.modality:
        raise WorkloadError(f"{snapshot.folder}: expected {workload.modality} data, found {data.document.modality}")
    spec, classes = read_spec(data), data.document.classes
    rows = read_split(data, "test", spec)
    chosen = rows.take(np.random.default_rng(settings.seed).permutation(len(rows))[: config.examples])
    x, y = chosen.tensors("cpu")
    endpoint, ball = Endpoint(url, classes), Ball.of(threat, spec, "cpu")
    attacks = plans(config.tier, threat.norm, len(classes), embedding=False, gradients=False)[-1:]
    found = measure(endpoint, x, y, ball, track(attacks, "probe"), seed=settings.seed)
    say(f"probe: {endpoint.asked} rows asked")
    report = RobustnessReport(
        tier=config.tier,
        seed=settings.seed,
        clean=count(found.clean),
        attacks=attack_results(found, threat),
        worst_case=count(found.worst),
        masking=(),
        configuration=config.configuration,
        inputs=by_role(data),
    )
    return save(out, report)
