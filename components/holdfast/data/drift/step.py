"""Reads a snapshot and the champion's reference, compares, writes the report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Baseline, ColumnDrift, ConfidenceDrift, Count, DriftReport, Snapshot
from holdfast.artifacts.folder import Artifact, Ref, load, save
from holdfast.data.drift import confidence
from holdfast.data.drift.columns import TESTS, ColumnKind, count
from holdfast.data.drift.distributions import bars, histogram
from holdfast.data.drift.evidently_report import compare, same
from holdfast.data.drift.stage_one import cells, column_drifts, column_threshold, shared_kinds
from holdfast.data.drift.verdict import judge
from holdfast.errors import ArtifactError
from holdfast.modality.frames import chosen_rows, harden_pyarrow
from holdfast.steps import by_role
from holdfast.tables import sample_table, sampled_rows
from holdfast.workload.schema import DriftConfig

if TYPE_CHECKING:
    import pandas as pd

_PLOTTED = 12


def drift(snapshot: Ref, out: Path, *, config: DriftConfig, baseline: Ref | None, seed: int) -> Artifact[DriftReport]:
    """Compares the training rows with the champion's, or (first delivery) with the delivery's own held-out rows.

    `seed` chooses the rows when a side has more than `config.max_rows`.

    Raises:
        ArtifactError: snapshot or baseline are incomplete, altered or cannot be compared.
    """
    data = load(snapshot, Snapshot)
    champion = load(baseline, Baseline) if baseline is not None else None
    present = champion if champion is not None and champion.document.present else None
    rng = np.random.default_rng(seed)
    most = config.max_rows
    reference = _reference(present, most, rng) if present else sample_table(data, "test", most, rng)
    current = sample_table(data, "train", most, rng)
    columns, html = _stage_one(reference, current, config)
    stage_two = _stage_two(present, config.alpha) if present else None
    verdict, reason = judge(columns, stage_two, label=data.document.label, break_share=config.break_share)
    report = DriftReport(
        configuration=config.configuration,
        inputs=by_role(data, champion),
        reference="champion" if present else "held-out",
        stage_one=columns,
        drifted=Count(k=sum(column.drifted for column in columns), n=len(columns)),
        stage_two=stage_two,
        reason=reason,
        verdict=verdict,
    )
    plots = _distributions(reference, current, columns, data.document.label)
    return save(out, report, {"evidently.html": html, "distributions.json": plots})


def _reference(champion: Artifact[Baseline], most: int, rng: np.random.Generator) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow.parquet as pq

    harden_pyarrow()
    count = pq.ParquetFile(champion.stream("reference.parquet")).metadata.num_rows
    if not count:
        raise ArtifactError(f"{champion.folder / 'reference.parquet'}: expected rows of the champion, found none")
    rows = sampled_rows(count, most, rng)
    if rows is None:
        return pd.read_parquet(champion.open("reference.parquet"))
    return chosen_rows(champion.stream("reference.parquet"), rows)


def _stage_one(
    reference: "pd.DataFrame", current: "pd.DataFrame", config: DriftConfig
) -> tuple[tuple[ColumnDrift, ...], bytes]:
    kinds, threshold = shared_kinds(reference, current), column_threshold(reference, current, config)
    equal = reference.equals(current)
    compared = same(kinds) if equal else compare(reference, current, kinds, threshold=threshold)
    return column_drifts(reference, current, compared.p_values, config), compared.html


def _distributions(
    reference: "pd.DataFrame", current: "pd.DataFrame", columns: tuple[ColumnDrift, ...], label: str
) -> bytes:
    """The most drifted columns and the label, as JSON."""
    both = [column for column in columns if column.test in TESTS.values()]
    ranked = sorted(both, key=lambda column: (-column.drifted, -column.effect, column.column))
    shown = ranked[:_PLOTTED] + [column for column in ranked[_PLOTTED:] if column.column == label]
    told: dict[str, dict[str, list[Any]]] = {}
    for column in shown:
        kind: ColumnKind = "number" if column.test == TESTS["number"] else "category"
        one, two = cells(reference, column.column, kind), cells(current, column.column, kind)
        told[column.column] = histogram(one, two) if kind == "number" else bars(count(one, two))
    return json.dumps({"columns": told}, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


# --- stage two ------------------------------------------------------------------------------------------------------


def _stage_two(champion: Artifact[Baseline], alpha: float) -> ConfidenceDrift:
    with np.load(champion.open("scores.npz"), allow_pickle=False) as scores:
        names = ("reference_confidence", "current_confidence")
        missing = [name for name in names if name not in scores]
        if missing:
            raise ArtifactError(f"{champion.folder / 'scores.npz'}: expected {', '.join(names)}, found no {missing[0]}")
        reference, current = (_confidence(scores[name], f"{champion.folder / 'scores.npz'}[{name}]") for name in names)
    return confidence.compare(reference, current, alpha=alpha)


def _confidence(values: NDArray[Any], where: str) -> NDArray[np.float64]:
    sound = values.ndim == 1 and len(values) > 0 and values.dtype.kind == "f"
    if not sound or not ((values >= 0) & (values <= 1 + 1e-6)).all():
        raise ArtifactError(f"{where}: expected confidences in [0, 1], found {values.dtype}{list(values.shape)}")
    return values.astype(np.float64)
