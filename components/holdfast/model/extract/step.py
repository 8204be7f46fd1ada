"""The extract step: copies of a model made from its answers, and how often they agree with it."""

from pathlib import Path

import numpy as np

from holdfast.artifacts.documents import ExtractionReport, Model, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.compute import Compute
from holdfast.errors import InputError, RefusedError, WorkloadError
from holdfast.model.answers import softmax
from holdfast.model.examples import check_answers, open_network
from holdfast.model.extract.budget import budget
from holdfast.model.inputs import Arrays, read_split
from holdfast.steps import by_role
from holdfast.workload.schema import ExtractConfig

FEWEST = 40
"""Held-out rows that the step needs: half of them are compared, half are the attacker's."""


def extract(
    model: Ref, snapshot: Ref, out: Path, *, config: ExtractConfig, settings: Compute
) -> Artifact[ExtractionReport]:
    """Copies the model by its answers in each of the ways asked for, and writes how well that went to `out`.

    Raises:
        ModelError: the model does not fit the data, or does not return finite logits.
        InputError: too few held-out rows.
        WorkloadError: no strategy that is asked for can be tried on this kind of input.
    """
    from holdfast.model.extract.attackers import Attackers
    from holdfast.model.extract.ways import way_of
    from holdfast.model.networks import logits

    judged, data = load(model, Model), load(snapshot, Snapshot)
    device, spec = settings.prepare(), judged.document.input
    network = open_network(judged, data, device)
    compared, owned = _halves(read_split(data, "test", spec), config.examples, settings.seed, data)
    check_answers(network, judged, compared, device)
    attackers = Attackers(
        way=way_of(spec, len(judged.document.classes), epochs=config.epochs, device=device),
        answer=lambda x: softmax(logits(network, x, device=device)),
        compared=compared.x,
        owned=owned.x,
        config=config,
        seed=settings.seed,
    )
    curves = tuple(attackers.curves())
    if not curves:
        raise WorkloadError(f"extract.strategies: none of {', '.join(config.strategies)} fits {spec.modality} data")
    found = budget(curves, at_most=config.agreement_at_most, alpha=config.alpha)
    document = ExtractionReport(
        name=judged.document.name,
        configuration=config.configuration,
        curves=curves,
        left_out=tuple(attackers.left_out(curves)),
        agreement_at_most=config.agreement_at_most,
        alpha=config.alpha,
        budget=found.queries,
        budget_reason=found.reason,
        seed=settings.seed,
        inputs=by_role(judged, data),
    )
    return save(out, document, {})


def read_budget(extraction: Ref, model: Artifact[Model]) -> int:
    """Most rows that one client may ask by the report on this very model, computed from its counts.

    Raises:
        RefusedError: it is about another model, allows nothing, or names another budget than its counts give.
        ArtifactError: it is no such report.
    """
    found = load(extraction, ExtractionReport)
    report, about = found.document, found.document.inputs.get("model", "")
    if about != model.digest:
        raise RefusedError(
            f"{found.folder}: expected a report on model {model.digest[:12]}…, found one on "
            f"{about[:12] or 'no model'}…; run `holdfast extract` for this model"
        )
    allowed = budget(report.curves, at_most=report.agreement_at_most, alpha=report.alpha)
    if allowed.queries is None:
        raise RefusedError(
            f"{found.folder}: expected a budget that keeps copies below {report.agreement_at_most:g}, found none: "
            f"{allowed.reason}; measure fewer queries (`extract.queries`), or set `guard.budget` yourself"
        )
    if allowed.queries != report.budget:
        raise RefusedError(
            f"{found.folder}: expected the budget {allowed.queries} of its counts, found {report.budget}"
        )
    return allowed.queries


def _halves(rows: Arrays, most: int, seed: int, data: Artifact[Snapshot]) -> tuple[Arrays, Arrays]:
    """Rows on which model and copy are compared, and those that an attacker has."""
    if len(rows) < FEWEST:
        raise InputError(f"{data.folder}: expected at least {FEWEST} held-out rows, found {len(rows)}")
    order, count = np.random.default_rng(seed).permutation(len(rows)), min(len(rows) // 2, most)
    return rows.take(order[:count]), rows.take(order[count:])
