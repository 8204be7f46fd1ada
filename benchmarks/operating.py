"""What the rollout's tests do over thousands of simulated rollouts: vectorized, with the formulas of the judge.

Ratio: nine control answers per candidate answer, unless said otherwise. A rollout is looked at every `look` candidate
answers. The table is the project's own study of the rule that the judge follows (two arms 90:10, evidence of 20, then
Newcombe's bound below one percentage point), made beforehand with code of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from holdfast.serving.rollout.engine import latency
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES
from holdfast.statistics import drift, newcombe_upper
from holdfast.statistics.eprocess import MULTIPLIERS, RESERVE, RESERVE_LASTS, SHARES, WEIGHTS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATIO = 9
ALPHA = 0.05
MARGIN = 0.01
STATES = 4
"""Watched states of one rollout (shadow and three steps), for the tests that begin again in each."""
_CHUNK, _SMALL_CHUNK = 1000, 200


@dataclass(frozen=True)
class Traffic:
    """Failure rates of both arms, and how long and how often one looks."""

    candidate: float
    control: float
    requests: int
    """Of the candidate."""
    look: int = 10
    after: int = 0
    """Candidate requests after which the rates become `later`, of candidate and control; 0: never."""
    later: tuple[float, float] = (0.0, 0.0)

    def rates(self) -> tuple[Floats, Floats]:
        """Of candidate and control, float64[looks]."""
        start = np.arange(0, self.requests, self.look)
        changed = (start >= self.after) & (self.after > 0)
        return np.where(changed, self.later[0], self.candidate), np.where(changed, self.later[1], self.control)


@dataclass(frozen=True)
class Found:
    """How each simulated rollout ended."""

    at: Floats
    """Candidate requests until the rollback, inf where there was none, float64[runs]."""
    served: Ints
    """Failures that the candidate served until then, int64[runs]."""
    bounds: Floats
    """Newcombe's bound at the end, float64[runs]."""

    @cached_property
    def rolled_back(self) -> float:
        """Share of the runs."""
        return float(np.isfinite(self.at).mean())

    @cached_property
    def promoted(self) -> float:
        """Share of the runs that were not rolled back and whose bound is below the margin."""
        return float((~np.isfinite(self.at) & (self.bounds < MARGIN)).mean())

    def requests(self, percent: float) -> float:
        """Candidate requests until the rollback at a percentile of all runs."""
        return float(np.percentile(self.at, percent, method="higher"))


@dataclass(frozen=True)
class Published:
    """One row of the study, shares in percent."""

    traffic: Traffic
    rolled_back: float
    promoted: float
    requests: tuple[float, float] | None = None
    """Until the rollback, median and 95th percentile of the rollouts that were rolled back."""
    served: tuple[float, float] = (0.0, 0.0)
    """Failures of the candidate, mean and 99th percentile."""


TABLE: tuple[Published, ...] = (
    Published(Traffic(0.01, 0.01, 500, 5), 1.8, 48.0, served=(5, 10)),
    Published(Traffic(0.02, 0.01, 500, 5), 30.0, 4.6, (245, 475), (8.5, 14)),
    Published(Traffic(0.05, 0.01, 500, 5), 99.6, 0.0, (100, 295), (6, 13)),
    Published(Traffic(0.005, 0.01, 2000, 10), 0.06, 99.9, served=(10, 18)),
    Published(Traffic(0.01, 0.01, 2000, 10), 2.4, 95.8, served=(20, 30)),
    Published(Traffic(0.015, 0.01, 2000, 10), 32.4, 44.9, (930, 1900), (25, 36)),
    Published(Traffic(0.02, 0.01, 2000, 10), 84.2, 4.4, (750, 1800), (20, 37)),
    Published(Traffic(0.05, 0.01, 2000, 10), 100.0, 0.0, (100, 300), (6, 14)),
    Published(Traffic(0.01, 0.01, 5000, 20), 3.1, 97.0, served=(49, 66)),
    Published(Traffic(0.02, 0.01, 5000, 20), 99.8, 0.2, (920, 2870), (23, 65)),
    Published(Traffic(0.01, 0.01, 10_000, 20), 3.1, 96.9, served=(98, 123)),
    Published(Traffic(0.015, 0.01, 10_000, 20), 92.7, 7.3, (3100, 8380), (60, 137)),
    Published(Traffic(0.02, 0.01, 10_000, 20), 100.0, 0.0, (920, 2840), (23, 63)),
)


def simulate(traffic: Traffic, *, runs: int, seed: int, needed: float = 1 / ALPHA) -> Found:
    """What the errors' test alone does in so many rollouts."""
    parts = [_ended(traffic, k_c, k_s, needed) for k_c, k_s in counts(traffic, runs=runs, seed=seed)]
    at, served, bounds = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Found(at, served, bounds)


def family(*, runs: int, seed: int) -> dict[str, float]:
    """Shares of the runs that each test, and any of them, ends wrongly when all watch one candidate.

    It fails, breaks probes and is slow like the control; its failures are as many as the plan allows, and pairs
    disagree, drift and are fooled exactly as often as allowed.
    """
    rng = np.random.default_rng(seed)
    ended: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in ALPHA_SHARES}
    for start in range(0, runs, _SMALL_CHUNK):
        evidence = _evidence(rng, (min(_SMALL_CHUNK, runs - start), 200))
        for name, share in ALPHA_SHARES.items():
            ended[name].append(np.asarray((evidence[name] >= 1 / (ALPHA * share)).any(axis=1), dtype=bool))
    found = {name: np.concatenate(parts) for name, parts in ended.items()}
    return {
        **{name: float(part.mean()) for name, part in found.items()},
        "any": float(np.any([*found.values()], axis=0).mean()),
    }


def _evidence(rng: np.random.Generator, shape: tuple[int, int], look: int = 10) -> dict[str, Floats]:
    """Of every test of the judge, float64[runs, looks]; `look` answers, and as many probes, at each look."""
    failed, control = rng.binomial(look, 0.01, shape), rng.binomial(RATIO * look, 0.01, shape)
    disagreed, fooled = rng.binomial(look, 0.25, shape), rng.binomial(look, 0.3, shape)
    gained, lost = _moved(rng, look, shape, 0.02)
    slow, control_slow = rng.binomial(look, 0.05, shape), rng.binomial(RATIO * look, 0.05, shape)
    return {
        "errors": values(failed, control, look, RATIO * look),
        "broken": values(rng.binomial(look, 0.01, shape), control, look, RATIO * look),
        "slow": latency_values(slow / look - control_slow / (RATIO * look)),
        "service": held_values(lambda part: one_arm_values(failed[:, part], look, 0.01), shape),
        "disagreement": held_values(lambda part: one_arm_values(disagreed[:, part], look, 0.25), shape),
        "attack": held_values(lambda part: one_arm_values(fooled[:, part], look, 0.3), shape),
        "drift": held_values(lambda part: drift_values(gained[:, part], lost[:, part], look, 0.02), shape),
    }


def held_values(evidence: Callable[[slice], Floats], shape: tuple[int, int], states: int = STATES) -> Floats:
    """The evidence of a test that is held over the whole rollout and over each of its equally long states."""
    found, banked = 0.5 * evidence(slice(None)), np.zeros((shape[0], 1))
    for state, part in enumerate(np.array_split(np.arange(shape[1]), states)):
        here = slice(int(part[0]), int(part[-1]) + 1)
        current = evidence(here)
        found[:, here] += 0.5 * (banked + current + states - 1 - state) / states
        banked = banked + current[:, -1:]
    return found


def _moved(rng: np.random.Generator, pairs: int, shape: tuple[int, int], drift: float) -> tuple[Ints, Ints]:
    """Ten classes: the last loses to the first, two others swap as often as not."""
    moved, there, back, _ = np.moveaxis(rng.multinomial(pairs, [drift, 0.025, 0.025, 0.95 - drift], shape), -1, 0)
    gained, lost = np.zeros((*shape, 10), np.int64), np.zeros((*shape, 10), np.int64)
    gained[..., 0], lost[..., 9] = moved, moved
    gained[..., 3], lost[..., 4] = there, there
    gained[..., 4], lost[..., 3] = back, back
    return gained, lost


def counts(traffic: Traffic, *, runs: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Failures of candidate and control at each look, int64[chunk, looks] each, until there were `runs`."""
    rng = np.random.default_rng(seed)
    theta_c, theta_s = traffic.rates()
    for start in range(0, runs, _CHUNK):
        shape = (min(_CHUNK, runs - start), len(theta_c))
        yield rng.binomial(traffic.look, theta_c, shape), rng.binomial(RATIO * traffic.look, theta_s, shape)


def values(k_c: Ints, k_s: Ints, c: int, b: int) -> Floats:
    """The evidence of TwoArm after each look at k_c of c and k_s of b failures, float64[runs, looks]."""
    factors, found = log_factors(k_c, k_s, c, b), np.empty(k_c.shape)
    logs: Floats = np.full((len(k_c), len(WEIGHTS)), np.log(1 - RESERVE))
    kept = RESERVE * RESERVE_LASTS / (RESERVE_LASTS + c * np.arange(k_c.shape[1] + 1.0))
    for i in range(k_c.shape[1]):
        logs = np.logaddexp(logs + factors[:, i], np.log(kept[i] - kept[i + 1]))
        found[:, i] = np.exp(np.minimum(logs, 600)) @ np.array(WEIGHTS) + kept[i + 1]
    return found


def latency_values(slower: Floats) -> Floats:
    """The evidence of PairedLatency after each block with U of float64[runs, blocks], float64[runs, blocks]."""
    found = np.empty(slower.shape)
    logs: Floats = np.full((len(slower), len(latency.STAKES)), np.log(1 - latency.RESERVE))
    kept = latency.RESERVE * latency.RESERVE_LASTS / (latency.RESERVE_LASTS + np.arange(slower.shape[1] + 1.0))
    for i in range(slower.shape[1]):
        factors = np.log1p(slower[:, i, None] * np.array(latency.STAKES))
        logs = np.logaddexp(logs + factors, np.log(kept[i] - kept[i + 1]))
        found[:, i] = np.exp(np.minimum(logs, 600)) @ np.array(latency.WEIGHTS) + kept[i + 1]
    return found


def one_arm_values(hits: Ints, trials: int, limit: float) -> Floats:
    """The evidence of OneArm after each look at so many hits of `trials`, float64[runs, looks]."""
    rates = limit + (1 - limit) * np.array(SHARES)
    per_hit, per_miss = np.log(rates / limit), np.log((1 - rates) / (1 - limit))
    logs = np.cumsum(hits[..., None] * per_hit + (trials - hits[..., None]) * per_miss, axis=1)
    return np.asarray(np.exp(logs).mean(axis=-1))


def drift_values(gained: Ints, lost: Ints, pairs: int, limit: float) -> Floats:
    """The evidence of PredictionDrift after each look at `pairs`, from int64[runs, looks, classes]: [runs, looks]."""
    up, down = gained.cumsum(axis=1)[..., None], lost.cumsum(axis=1)[..., None]
    total = pairs * np.arange(1, gained.shape[1] + 1)[:, None, None]
    stakes = np.array(drift.STAKES) / (1 + limit)
    toward, away = np.log1p(stakes * (1 - limit)), np.log1p(-stakes * (1 + limit))
    still = (total - up - down) * np.log1p(-stakes * limit)
    wealth = np.exp(up * toward + down * away + still) + np.exp(down * toward + up * away + still)
    return np.asarray(wealth.mean(axis=(2, 3)) / 2)


def log_factors(k_c: Ints, k_s: Ints, c: int, b: int) -> Floats:
    """Log e-values of single looks, float64[..., 7], from tables of Fisher's distributions."""
    log_m = np.log(MULTIPLIERS)
    return np.asarray(k_c[..., None] * log_m - _normalizers(c, b)[k_c + k_s])


def _normalizers(c: int, b: int) -> Floats:
    """log of the mean of m^K_c, K_c hypergeometric given k failures, float64[c + b + 1, 7]."""
    k, j = np.arange(c + b + 1)[:, None], np.arange(c + 1)
    possible = (j <= k) & (k - j <= b)
    chances = np.where(possible, _log_choose(c, j) + _log_choose(b, np.where(possible, k - j, 0)), -np.inf)
    chances = chances - _log_choose(c + b, k)
    return np.asarray(logsumexp(chances[..., None] + j[:, None] * np.log(MULTIPLIERS), axis=1))


def _log_choose(n: int, k: Ints) -> Floats:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _ended(traffic: Traffic, k_c: Ints, k_s: Ints, needed: float) -> tuple[Floats, Ints, Floats]:
    alarms = values(k_c, k_s, traffic.look, RATIO * traffic.look) >= needed
    first = np.where(alarms.any(axis=1), alarms.argmax(axis=1), -1)
    at = np.where(first >= 0, (first + 1.0) * traffic.look, np.inf)
    served = np.take_along_axis(k_c.cumsum(axis=1), first[:, None], axis=1)[:, 0]  # -1: until the end
    n = k_c.shape[1] * traffic.look
    totals = zip(k_c.sum(axis=1).tolist(), k_s.sum(axis=1).tolist(), strict=True)
    return at, served, np.array([newcombe_upper(failed, n, control, RATIO * n) for failed, control in totals])
