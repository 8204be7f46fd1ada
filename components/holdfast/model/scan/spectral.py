"""Rows that lie apart from their class: robust-whitened spectral scores, a small SPECTRE.

Per class: the principal directions, a covariance that a minority cannot move (minimum covariance determinant),
whitening, and the quantum-entropy score, which weighs the directions in which the whitened rows still spread most.
Hayase, Kong, Somani, Oh, "SPECTRE: defending against backdoor attacks using robust statistics", ICML 2021
(https://arxiv.org/abs/2104.11315); QUE from Dong, Hopkins, Li, NeurIPS 2019.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from holdfast.model.scan.ranking import class_ranks

DIRECTIONS, FEWEST_DIRECTIONS = 20, 6
ROWS_PER_DIRECTION = 30
"""The fewest rows to a direction: with fewer, a dense minority of 20 % moves the covariance (seen in simulation)."""
SUPPORT = 0.6
ALPHA = 4.0
FIT_ROWS = 1500
"""The covariance of a class is fitted on at most so many of its rows; all rows are scored."""


def spectral_ranks(x: NDArray[np.generic], y: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """float64[N] in [0, 1]: how far each row of x[N, ...] lies apart, as its rank within its class y.

    Below 10 rows a class has no shape to lie apart from; its rows get rank 0.
    """
    flat = np.asarray(x).reshape(len(x), -1)
    scores = np.zeros(len(y))
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        if len(rows) >= 10:
            scores[rows] = spectral_scores(flat[rows].astype(np.float64), seed)
    return class_ranks(scores, y)


def spectral_scores(x: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """QUE scores float64[N] of the rows of one class, x float64[N, D]; larger lies further apart."""
    if not np.ptp(x, axis=0).any():
        return np.zeros(len(x))
    projected = _project(x, seed)
    return que_scores(_whiten(projected, seed), ALPHA)


def que_scores(z: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Quantum-entropy scores float64[N] of whitened rows z float64[N, D]."""
    excess = z.T @ z / len(z) - np.eye(z.shape[1])
    values, vectors = np.linalg.eigh(excess)
    scale = max(float(np.abs(values).max()), 1e-12)
    weights = np.exp(alpha * (values - values.max()) / scale)
    amount: NDArray[np.float64] = ((z @ vectors) ** 2) @ (weights / weights.sum())
    return amount


def _project(x: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The rows in their principal directions, each scaled to standard deviation 1; constant directions left out."""
    from sklearn.decomposition import PCA

    wanted = min(DIRECTIONS, max(FEWEST_DIRECTIONS, len(x) // ROWS_PER_DIRECTION))
    directions = min(wanted, x.shape[1], len(x) // 5)
    reduced: NDArray[np.float64] = PCA(directions, random_state=seed).fit_transform(x)
    spread = reduced.std(axis=0)
    kept = spread > 1e-3 * max(float(spread.max()), 1e-9)
    return np.asarray(reduced[:, kept] / spread[kept])


def _whiten(z: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    from sklearn.covariance import MinCovDet

    rows = np.random.default_rng(seed).permutation(len(z))[:FIT_ROWS]
    with warnings.catch_warnings():
        # A class in which many rows are equal has a singular core; the scores below stay finite.
        warnings.simplefilter("ignore")
        robust = MinCovDet(support_fraction=SUPPORT, random_state=seed).fit(z[rows])
    values, vectors = np.linalg.eigh(robust.covariance_)
    whitened: NDArray[np.float64] = (z - robust.location_) @ (vectors / np.sqrt(np.maximum(values, 1e-6)))
    return whitened
