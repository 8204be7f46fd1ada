"""Candidate and champion on held-out rows of earlier deliveries: what a poisoned new delivery cannot change."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.arrays import arrays_of
from holdfast.artifacts.documents import Baseline, ChampionComparison, Model, OlderRows, Paired
from holdfast.artifacts.folder import Artifact
from holdfast.model.champion import champion_of

OLDER = "older.npz"


def older_rows(
    judged: Artifact[Model], compared: ChampionComparison | None, baseline: Artifact[Baseline] | None
) -> tuple[OlderRows | None, dict[str, bytes]]:
    """Both on the rows that the baseline holds, and these rows as a file, which the next champion hands on.

    None and no file: there are no such rows, and the run answers no request.
    """
    if baseline is None:
        return None, {}
    asked = OlderRows(request=baseline.document.request, older_than=baseline.document.older_than)
    if OLDER not in baseline.document.files:
        return (_without(asked, "no rows of earlier deliveries") if asked.request else None), {}
    data = baseline.open(OLDER)
    held, file = arrays_of(data), {OLDER: data.getvalue()}
    x, y, champion = held["x"], held["y"].astype(np.int64), champion_of(baseline)
    if champion is None or (compared is not None and compared.differences):
        why = "the champion has another contract" if champion is not None else "no champion"
        return _without(asked, why), file
    ours, theirs = (_right(one, x, y) for one in (judged, champion))
    pairs = Paired(
        both=int((ours & theirs).sum()),
        only_candidate=int((ours & ~theirs).sum()),
        only_champion=int((theirs & ~ours).sum()),
        neither=int((~ours & ~theirs).sum()),
    )
    return asked.model_copy(update={"pairs": pairs}), file


def _without(asked: OlderRows, why: str) -> OlderRows:
    return asked.model_copy(update={"not_compared": why})


def _right(model: Artifact[Model], x: NDArray[Any], y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """On a CPU, also where the attacks ran on another device, so that equal inputs give equal counts."""
    from holdfast.model.networks import load_network, logits

    found: NDArray[np.bool_] = logits(load_network(model, "cpu"), x, device="cpu").argmax(axis=1) == y
    return found
