"""How often rollouts end rightly and wrongly, and how soon: 20,000 simulated rollouts per row, and the study's."""

from dataclasses import replace

import numpy as np

from benchmarks.operating import ALPHA, TABLE, Found, Published, Traffic, family, simulate
from benchmarks.scenes import Bench
from benchmarks.table import Row, at_least, at_most, shown
from holdfast.serving.rollout.engine.analysis import ALPHA_SHARES

RUNS, SEED = 20_000, 1
HEALTHY = Traffic(0.01, 0.01, 2000)
ONLY_ERRORS, FEW_ERRORS = Traffic(1.0, 0.01, 20, 1), Traffic(0.05, 0.01, 1500, 1)
RUNS_OF = f"{RUNS:,} simulated rollouts, seed {SEED}, nine control answers per candidate answer"
HOW = f"{RUNS_OF}, control at 1 %, a look every 5, 10 or 20 candidate requests for 500, 2,000 or more"
EACH = f"{RUNS_OF}, control at 1 %, looked at after each candidate request"


def run(bench: Bench) -> list[Row]:
    """The issue's targets, the study's table and ours, and what else one asks of a test."""
    return [*_gross(), *_healthy(), *_table(), *_innocent(), *_late(), *_family()]


def _simulate(traffic: Traffic, needed: float = 1 / ALPHA) -> Found:
    return simulate(traffic, runs=RUNS, seed=SEED, needed=needed)


def _gross() -> list[Row]:
    dead, ill = (
        "candidate answering only errors: rollback within 3 candidate requests (p99)",
        "5 % errors within 300 (p95)",
    )
    share = 1 / (ALPHA * ALPHA_SHARES["errors"])
    note = f"evidence of {share:.1f}, the errors' share of alpha"
    return [
        at_most(dead, _simulate(ONLY_ERRORS).requests(99), 3, EACH),
        at_most(ill, _simulate(FEW_ERRORS).requests(95), 300, EACH),
        shown(f"{dead}, with the other tests", _simulate(ONLY_ERRORS, share).requests(99), EACH, note=note),
        shown(f"{ill}, with the other tests", _simulate(FEW_ERRORS, share).requests(95), EACH, note=note),
    ]


def _healthy() -> list[Row]:
    found = _simulate(HEALTHY)
    name = "healthy candidate, 2,000 requests"
    return [
        at_most(f"{name}: false rollback <= 3 %", found.rolled_back, 0.03, HOW),
        at_least(f"{name}: promoted >= 95 %", found.promoted, 0.95, HOW),
    ]


def _table() -> list[Row]:
    return [row for published in TABLE for row in _beside(published)]


def _beside(study: Published) -> list[Row]:
    """Rollback and promotion, each at most two points from the study; requests and failures for the reader."""
    found = _simulate(study.traffic)
    what = f"candidate at {100 * study.traffic.candidate:g} %, {study.traffic.requests:,} requests"
    pairs = {"rolled back": (found.rolled_back, study.rolled_back), "promoted": (found.promoted, study.promoted)}
    rows = [
        Row(f"{what}: {name}, %", round(100 * ours, 2), HOW, f"{theirs:g} +- 2", bool(abs(100 * ours - theirs) <= 2))
        for name, (ours, theirs) in pairs.items()
    ]
    served = (float(found.served.mean()), float(np.percentile(found.served, 99)))
    rows.append(_told(f"{what}: failures served, mean / p99", served, study.served))
    if study.requests:
        ended = found.at[np.isfinite(found.at)]
        requests = (float(np.percentile(ended, 50)), float(np.percentile(ended, 95)))
        rows.append(_told(f"{what}: requests until rollback, median / p95", requests, study.requests))
    return rows


def _told(what: str, ours: tuple[float, float], theirs: tuple[float, float]) -> Row:
    note = f"the study: {theirs[0]:g} / {theirs[1]:g}"
    return shown(what, f"{ours[0]:.4g} / {ours[1]:.4g}", HOW, note=note)


def _innocent() -> list[Row]:
    most = round(ALPHA + 3 * float(np.sqrt(ALPHA * (1 - ALPHA) / RUNS)), 4)
    shared = _simulate(replace(HEALTHY, after=1000, later=(0.03, 0.03)))
    rare = _simulate(Traffic(0.005, 0.0, 2000))
    return [
        *(
            at_most(f"both arms at {100 * p:g} %, 2,000 requests: false rollback", found.rolled_back, most, RUNS_OF)
            for p in (0.001, 0.005, 0.01, 0.03)
            for found in [_simulate(Traffic(p, p, 2000))]
        ),
        at_most("both arms from 1 to 3 % halfway: false rollback", shared.rolled_back, most, RUNS_OF),
        shown("control never fails, candidate at 0.5 %, 2,000 requests: rolled back", rare.rolled_back, RUNS_OF),
    ]


def _late() -> list[Row]:
    found = _simulate(Traffic(0.01, 0.01, 6000, after=2000, later=(0.05, 0.01)))
    late = found.at[found.at > 2000] - 2000
    name = "candidate good for 2,000 requests, then at 5 %: requests until rollback"
    return [shown(f"{name}, {percent} %", float(np.percentile(late, percent)), HOW) for percent in (50, 95)]


def _family() -> list[Row]:
    found = family(runs=RUNS, seed=SEED)
    split = ", ".join(f"{name} {share:.2g}" for name, share in ALPHA_SHARES.items())
    how = f"{RUNS:,} simulated rollouts of 2,000 requests and 2,000 pairs; every rate is at its limit; shares: {split}"
    name = "seven tests side by side"
    return [
        at_most(f"{name}: false rollback by any", found["any"], ALPHA, how),
        *(shown(f"{name}: false rollback by {test}", found[test], how) for test in ALPHA_SHARES),
    ]
