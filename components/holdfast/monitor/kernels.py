"""Stage two: is what the model makes of its inputs another distribution? Windows of vectors as mean kernel features.

A window keeps the mean of fixed features of its rows and not the rows: means of several servers add up, weighted by
their rows. Two ways to compare a window's mean with that of all windows, both distances of the two distributions:

* MMD   random Fourier features of a Gaussian kernel; the square of the difference is the maximum mean discrepancy
        (Rahimi and Recht 2007; Gretton and others 2012).
* LSDD  Gaussian bumps at points of the training rows; a quadratic form estimates the squared difference of the two
        densities (Sugiyama and others, Neural Computation 25, 2013).

A third score learns from the stable windows which differences mean nothing: the difference of the MMD features in
units of how much they wobble from window to window (Hotelling's T squared with a ridge), so that a change in a quiet
direction weighs more. All windows are treated alike, as `holdfast.monitor.ranks` asks, which turns the scores into
evidence; none of them needs a threshold.

The vectors are a layer of the network, or its probabilities; the scale of the kernel is the median distance of
training rows.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

FEATURES = 64
"""Random Fourier features, or bumps at training rows."""
_FOR_SCALE = 500
_RIDGE = 0.1
"""Of the mean variance between windows (T squared), or of the largest overlap of bumps (LSDD)."""
_SMALLEST = 1e-12

Vectors = NDArray[np.float64]
Distance = Literal["mmd", "lsdd"]


@dataclass(frozen=True)
class Features:
    """Fixed features of a row's vector, float64[D] -> float64[64], made from training rows and a seed."""

    kind: Distance
    scale: float
    """The standard deviation of the Gaussian kernel."""
    points: Vectors
    """Frequencies (mmd) or centres (lsdd), float64[64, D]."""
    phases: Vectors
    """float64[64]; of no meaning for lsdd."""

    @classmethod
    def of(cls, kind: Distance, training: Vectors, seed: int) -> Self:
        """From vectors of training rows, float64[n, D] with n >= 2."""
        rng = np.random.default_rng(seed)
        scale = _median_distance(training[rng.permutation(len(training))[:_FOR_SCALE]])
        phases = rng.uniform(0, 2 * np.pi, FEATURES)
        if kind == "mmd":
            return cls(kind, scale, rng.normal(0, 1 / scale, (FEATURES, training.shape[1])), phases)
        return cls(kind, scale, training[rng.choice(len(training), FEATURES)], phases)

    def mean(self, vectors: Vectors) -> Vectors:
        """The mean features of the rows of a window, float64[n, D] -> float64[64]."""
        if self.kind == "mmd":
            return np.asarray(np.sqrt(2 / FEATURES) * np.cos(vectors @ self.points.T + self.phases).mean(axis=0))
        return np.asarray(np.exp(-_squares(vectors, self.points) / (2 * self.scale**2)).mean(axis=0))

    @property
    def form(self) -> Vectors:
        """The matrix A, float64[64, 64]: the distance is d' A d of a difference d of mean features."""
        if self.kind == "mmd":
            return np.eye(FEATURES)
        overlap = np.exp(-_squares(self.points, self.points) / (4 * self.scale**2))
        inverse = np.linalg.inv(overlap + _RIDGE * np.eye(FEATURES))
        return np.asarray(2 * inverse - inverse @ overlap @ inverse)


def scores(means: Vectors, rows: NDArray[np.int64], features: Features) -> Vectors:
    """The scores of each window, float64[T, 2]: its distance, and the same in units of the windows' wobble.

    Args:
        means: mean features of each window, float64[T, 64].
        rows: rows of each window, int64[T], at least 1.
        features: those that made the means.
    """
    weights = rows / rows.sum()
    apart = means - weights @ means
    scale = 1 / (1 / rows + 1 / rows.sum())
    plain = np.einsum("ti,ij,tj->t", apart, features.form, apart, optimize=True) * scale
    wobble = (apart * scale[:, None]).T @ apart / len(means)
    ridge = max(_RIDGE * float(np.trace(wobble)) / len(wobble), _SMALLEST)
    whitened = np.linalg.solve(wobble + ridge * np.eye(len(wobble)), apart.T)
    return np.stack([plain, np.einsum("ti,it->t", apart, whitened) * scale], axis=1)


def _median_distance(vectors: Vectors) -> float:
    squares = _squares(vectors, vectors)[np.triu_indices(len(vectors), 1)]
    return max(float(np.sqrt(np.median(squares))), _SMALLEST)


def _squares(one: Vectors, two: Vectors) -> Vectors:
    """Squared distances, float64[n, m]."""
    lengths = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1)[None, :]
    return np.asarray(np.maximum(lengths - 2 * one @ two.T, 0))
