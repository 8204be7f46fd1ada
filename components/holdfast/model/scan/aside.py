"""Which rows a scan sets aside: those that it suspects, within the budget, and those that are still undecided."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.documents import Snapshot, Verdict
from holdfast.model.scan.crossfit import Mask


@dataclass(frozen=True)
class SetAside:
    """Row ids, all sorted."""

    suspects: int
    """How many rows are suspected or undecided, set aside or not."""
    quarantined: tuple[int, ...]
    released: tuple[int, ...]
    """Suspects that a reviewer has released; they stay."""
    undecided: tuple[int, ...]
    """Of `quarantined` those that an earlier scan set aside."""
    over_budget: bool
    """Whether there are more new suspects than the budget."""

    def left_out(self, *, applied: bool) -> tuple[int, ...]:
        """Row ids that are not trained on: an undecided row never is."""
        return self.quarantined if applied else self.undecided

    def verdict(self, *, applied: bool) -> Verdict:
        """Pass when every suspect was set aside."""
        left_in = self.suspects > len(self.undecided) and not applied
        return Verdict.FAIL if left_in or self.over_budget else Verdict.PASS


def set_aside(suspected: Mask, score: NDArray[np.float64], delivery: Snapshot, budget: int) -> SetAside:
    """Sets aside at most `budget` new suspects, the worst first, and every row that no reviewer has decided yet.

    Args:
        suspected: bool[N], what the detectors suspect.
        score: float64[N], larger is more suspicious.
        delivery: its review names the rows that were released, and those that are undecided.
        budget: the most new rows that a reviewer takes.
    """
    known = _mask(delivery.review.released if delivery.review else (), len(score))
    waiting = _mask(delivery.undecided.train, len(score)) & ~known
    new = np.flatnonzero(suspected & ~known & ~waiting)
    worst = new[np.argsort(-score[new], kind="stable")[:budget]]
    return SetAside(
        suspects=len(new) + int(waiting.sum()),
        quarantined=_ids(waiting | _mask(worst, len(score))),
        released=_ids(suspected & known),
        undecided=_ids(waiting),
        over_budget=len(new) > budget,
    )


def _mask(rows: "tuple[int, ...] | NDArray[np.int64]", count: int) -> Mask:
    mask = np.zeros(count, dtype=bool)
    mask[list(rows)] = True
    return mask


def _ids(mask: Mask) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())
