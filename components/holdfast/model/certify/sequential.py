"""Randomized smoothing for a gate: "certified at radius r or not" with as few samples as alpha allows.

An example is certified at r when p, the chance that the network answers the chosen class under noise, is proven to
lie above p0(r) (Gaussian noise: Phi(r / sigma)). Its samples are looked at after n_1 < n_2 < ... < n_J of them, and
S_j of the n_j agree. It is certified at r at the first look with S_j >= c_j, and given up at the first with S_j <= g_j.

**Why a wrong certificate has probability at most alpha.**

One radius. Suppose p <= p0. Let sample i agree when U_i <= p, with U_i uniform: the event "S_j >= c_j for some j" can
only grow with p, so its probability is highest at p = p0. There it is the sum over j of P(S_j >= c_j, and S_i < c_i for
all i < j), which `boundary` computes from the binomial steps between the looks and keeps below alpha: by look j, no
more than alpha n_j / N is spent (Lan and DeMets 1983, https://doi.org/10.1093/biomet/70.3.659). Giving up only takes
certificates away, so that g_j does not enter, and neither does any other reason to stop.

A table of radii. The same samples test every radius at the full alpha, but a radius counts only when all smaller ones
of the table were certified too. Let r* be the smallest radius of the table with p <= p0(r*). As p0 grows with r, every
wrong certificate is for r* or more, and needs the test of r* to err: probability at most alpha, without a split.

The samples that choose the class are others, so that p is fixed before the test begins.

Against a fixed number N = n_J of samples: most of alpha is left for the last looks, so that c_J is close to the count
that Clopper and Pearson's bound asks for; and an example is given up when p = c_J / N would hardly ever show as few.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.model.certify.smoothing import ABSTAIN, Certified, Draw, Sampling, answers, top_classes

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
SampleCounts = NDArray[np.int64]

FIRST_LOOK, GROWTH = 16, 1.1
GIVE_UP = 0.002
"""Chance, at one look, of giving up an example whose p is just at the last look's limit."""
_NEGLIGIBLE = 1e-30
_ROUNDING = 1e-6
"""Share of alpha that is set aside for rounding and for probabilities below `_NEGLIGIBLE`."""


@dataclass(frozen=True)
class Boundary:
    """One radius: the fewest agreeing samples that certify and the most that give up, at each look, int64[J]."""

    certify: SampleCounts
    give_up: SampleCounts
    error: float
    """The chance of certifying when p = p0, which is the highest under p <= p0."""


@dataclass(frozen=True)
class RadiusTests:
    """The tests of a table of ascending radii: `looks` int64[J], `certify` and `give_up` int64[R, J]."""

    radii: tuple[float, ...]
    looks: SampleCounts
    certify: SampleCounts
    give_up: SampleCounts


RadiusTestsOf = Callable[[Tensor], RadiusTests]
"""The tests of one example; all examples have the same looks and as many radii."""


def looks(n: int) -> SampleCounts:
    """After how many samples to look: from 16 on, each time a tenth more, up to n."""
    found = [min(n, FIRST_LOOK)]
    while found[-1] < n:
        found.append(min(n, int(found[-1] * GROWTH) + 1))
    return np.array(found)


def table(threshold: Callable[[float], float], radii: Sequence[float], sampling: Sampling) -> RadiusTests:
    """The tests for radius 0 and these radii; `threshold`: r -> p0(r), which grows with r."""
    ascending = tuple(sorted({0.0, *radii}))
    tests = [boundary(threshold(r), sampling.alpha, sampling.n) for r in ascending]
    certify, give_up = np.stack([t.certify for t in tests]), np.stack([t.give_up for t in tests])
    return RadiusTests(ascending, looks(sampling.n), certify, give_up)


def gaussian_threshold(sigma: float) -> Callable[[float], float]:
    """r -> Phi(r / sigma): what p must exceed for the L2 radius r (Cohen et al. 2019, theorem 1)."""
    from scipy.special import ndtr

    return lambda r: float(ndtr(r / sigma))


@lru_cache(maxsize=4096)
def boundary(p0: float, alpha: float, n: int) -> Boundary:
    """The test of p > p0 against p <= p0 with at most n samples; it errs with probability at most alpha.

    A p0 of 1 or more cannot be exceeded: the test gives up at the first look.
    """
    at = looks(n)
    if p0 >= 1:
        return Boundary(at + 1, at.copy(), 0.0)
    certify, error = _certifying(at, p0, alpha * (1 - _ROUNDING))
    return Boundary(certify, _giving_up(at, certify), error)


def certify_table(
    net: nn.Module, x: Tensor, *, draw: Draw, table_of: RadiusTestsOf, sampling: Sampling
) -> list[Certified]:
    """The class of each of the examples x `[M, ...]`, and the largest radius of its table that is certified.

    An example's radius is wrong with probability at most alpha; without a clear winner it is `ABSTAIN`.
    """
    tables = [table_of(example) for example in x]
    labels = top_classes(answers(net, x, sampling.n0, draw=draw, batch=sampling.batch))
    streams = _Streams.start(tables)
    for j, count in enumerate(tables[0].looks):
        rows = streams.active
        more = int(count - (tables[0].looks[j - 1] if j else 0))
        found = answers(net, x[torch.from_numpy(rows).to(x.device)], more, draw=draw, batch=sampling.batch)
        streams.look(j, (found == labels[rows, None]).sum(axis=1))
        if not len(streams.active):
            break
    used = sampling.n0 + streams.used
    radii = [t.radii[level - 1] if level else ABSTAIN for t, level in zip(tables, streams.levels, strict=True)]
    return [Certified(int(y), r, int(n)) for y, r, n in zip(labels, radii, used, strict=True)]


@dataclass
class _Streams:
    """The state of the tests of M examples."""

    looks: SampleCounts
    certify: SampleCounts
    give_up: SampleCounts
    agreeing: SampleCounts
    used: SampleCounts
    passed: Flags
    """bool[M, R]: by radius, independent of the smaller ones."""
    active: SampleCounts

    @classmethod
    def start(cls, tables: Sequence[RadiusTests]) -> "_Streams":
        certify, give_up = np.stack([t.certify for t in tables]), np.stack([t.give_up for t in tables])
        zeros = np.zeros(len(tables), dtype=np.int64)
        passed = np.zeros(certify.shape[:2], dtype=np.bool_)
        return cls(tables[0].looks, certify, give_up, zeros, zeros.copy(), passed, np.arange(len(tables)))

    @property
    def levels(self) -> SampleCounts:
        """How many radii, from the smallest on, are certified."""
        return np.asarray(self.passed.cumprod(axis=1).sum(axis=1))

    def look(self, j: int, agreeing: SampleCounts) -> None:
        """Takes in what agreed of the samples since the last look, int64[active]."""
        rows = self.active
        self.agreeing[rows] += agreeing
        self.used[rows] = self.looks[j]
        seen = self.agreeing[rows, None]
        self.passed[rows] |= seen >= self.certify[rows, :, j]
        levels = self.levels[rows]
        undecided = levels < self.passed.shape[1]
        next_radius = np.minimum(levels, self.passed.shape[1] - 1)
        self.active = rows[undecided & (seen[:, 0] > self.give_up[rows, next_radius, j])]


def _certifying(at: SampleCounts, p0: float, alpha: float) -> tuple[SampleCounts, float]:
    """The fewest agreeing samples per look that spend no more than is due, and what all looks spend."""
    certify, spent, before = np.empty_like(at), 0.0, 0
    alive, first = np.ones(1), 0
    for j, count in enumerate(at):
        step, offset = _trimmed(_binomial(count - before, p0))
        alive, cut = _trimmed(np.convolve(alive, step))
        first += offset + cut
        tails = alive[::-1].cumsum()[::-1]
        kept = int((spent + tails > alpha * count / at[-1]).sum())
        certify[j], spent, before = first + kept, spent + float(alive[kept:].sum()), count
        alive = alive[:kept] if kept else np.zeros(1)
    return certify, spent


def _giving_up(at: SampleCounts, certify: SampleCounts) -> SampleCounts:
    """Per look, the most agreeing samples that give up; -1 where none do.

    They are as few as a rate at the last look's limit hardly ever shows, or too few for every later look.
    """
    limit = min(1.0, certify[-1] / at[-1])
    rare = np.array([int((_binomial(count, limit).cumsum() <= GIVE_UP).sum()) - 1 for count in at])
    missing = np.minimum.accumulate((certify - at)[::-1])[::-1]
    return np.asarray(np.maximum(rare, at + np.append(missing[1:], 1) - 1))


def _binomial(n: int, p: float) -> Floats:
    """float64[n + 1]: the probabilities of 0 to n."""
    from scipy.special import gammaln, xlog1py, xlogy

    k = np.arange(n + 1.0)
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.asarray(np.exp(ways + xlogy(k, p) + xlog1py(n - k, -p)))


def _trimmed(mass: Floats) -> tuple[Floats, int]:
    """The mass without negligible ends, and how many entries were cut before it."""
    there = np.flatnonzero(mass > _NEGLIGIBLE)
    return (mass[there[0] : there[-1] + 1], int(there[0])) if len(there) else (np.zeros(1), 0)
