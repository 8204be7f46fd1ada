"""Whether the candidate is slower than the champion: a test that a busy machine does not fool.

Both arms answer interleaved in time, on one machine and through one router, so what slows the machine slows both. The
rollout is cut into blocks of at least `BLOCK_SECONDS` in which both arms answered. Of one block:

    U = P(x clearly slower than y) - P(y clearly slower than x),   -1 <= U <= 1,

x an answer of the candidate, y one of the champion, over all pairs of them (Mann and Whitney 1947). *Clearly slower*:
at least `SLOWER` times as long, and longer than the floor of the plan. An attempt that timed out is slower than every
answer. The test's value is a mean of the products of 1 + s U over the blocks, one product per stake s.

**Why it is valid.** When the arms are alike, each pair (x, y) of a block is as likely as (y, x), so U has the mean 0,
also when the answers of a block depend on each other: U is linear in the pairs, and unequal numbers do not matter. So
1 + s U has the mean 1 given the past, the product is a martingale, and so is the mean over stakes set beforehand;
Ville's bound holds under any stopping. Needed is only that a stall of one arm alone does not last over many blocks;
`benchmarks/latency.py` simulates stalls of one arm of up to two blocks. A block in which the machine kept
the controller or the traffic from running is no data: when that happens is not decided by who answers what.

**When it is not asked.** In a shadow: a copy comes a moment after its request, and no client waits for its answer.
Where cores are scarce the candidate is always second, and copies queue up at it, as no request does at a champion whose
clients wait (measured where 13 processes wanted two cores: a mean U of 0.23 in the shadow, of -0.02 at balanced live
steps; 5 of 30 healthy candidates were blamed, all of them in the shadow). Without a champion, and where the candidate
carries more traffic than the champion: it may be slower for that alone. On this machine the champion gets copies of the
live traffic then, on a cluster it does not.
"""

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Self

from holdfast.serving.rollout.contract.counters import Arm, Counts
from holdfast.statistics.eprocess import log_sum, mixed

BLOCK_SECONDS = 0.5
"""Least length of a block: a stall of one arm alone should not be longer."""
SLOWER = 1.5
"""So many times as long as another answer is clearly slower."""
STAKES: tuple[float, ...] = (0.2, 0.5, 0.95)
"""Of the wealth, on each block: small ones find small shares of slow answers, the largest a candidate that is late."""
WEIGHTS: tuple[float, ...] = (0.25, 0.25, 0.5)
RESERVE = 0.3
"""Share of the wealth that is not staked at the start."""
LASTING = 5
"""Blocks after which what one found has faded to about a third."""
RESERVE_LASTS = 20
"""After so many blocks half of the reserve is staked, after n times as many n / (n + 1) of it."""


@dataclass(frozen=True)
class PairedLatency:
    """Does the candidate take longer than the champion?"""

    logs: tuple[float, ...] = (math.log(1 - RESERVE),) * len(STAKES)
    """Of what each stake has become, for a weight of 1."""
    blocks: int = 0
    """Compared."""
    stalled: int = 0
    """Left out because the machine was too busy."""
    recent: float = 0.0
    """Mean U of the last blocks, those longer ago weighing less."""
    waiting: Counts = Counts()
    """The block that is not complete."""

    def add(self, more: Counts, edges_ms: tuple[float, ...], *, floor_ms: float, stall_seconds: float) -> Self:
        """The test after what one observation adds.

        Args:
            more: what came since the last observation.
            edges_ms: upper edges of the latency buckets, ascending.
            floor_ms: no answer that may have been faster than this is slow.
            stall_seconds: a block with a lag above this is no data.
        """
        block = self.waiting.plus(more)
        if not all(len(arm.within) in (0, len(edges_ms)) for arm in (block.candidate, block.champion)):
            return replace(self, waiting=Counts())  # counted in other buckets: nothing to compare
        if block.seconds < BLOCK_SECONDS or not (_answers(block.candidate) and _answers(block.champion)):
            return replace(self, waiting=block)
        if block.lag > stall_seconds:
            return replace(self, stalled=self.stalled + 1, waiting=Counts())
        return self._compared(slower_share(block.candidate, block.champion, edges_ms, floor_ms))

    @property
    def value(self) -> float:
        """Evidence against "not slower than the champion"; at most 1e300."""
        return min(mixed(self.logs, WEIGHTS) + reserve(self.blocks), 1e300)

    def _compared(self, share: float) -> Self:
        more = math.log(reserve(self.blocks) - reserve(self.blocks + 1))
        logs = tuple(
            log_sum(log + math.log1p(stake * share), more) for log, stake in zip(self.logs, STAKES, strict=True)
        )
        recent = self.recent + (share - self.recent) / LASTING
        return replace(self, logs=logs, blocks=self.blocks + 1, recent=recent, waiting=Counts())


def slower_share(candidate: Arm, champion: Arm, edges_ms: tuple[float, ...], floor_ms: float) -> float:
    """U of one block, in [-1, 1]: above 0 when the candidate was slower.

    Args:
        candidate: its answers in the block, at least one.
        champion: its answers in the block, at least one.
        edges_ms: upper edges of both arms' latency buckets, ascending.
        floor_ms: no answer that may have been faster than this is slow.
    """
    ours, theirs = _buckets(candidate, len(edges_ms)), _buckets(champion, len(edges_ms))
    below = _clearly_faster(edges_ms, floor_ms)
    won, lost = _pairs(ours, theirs, below), _pairs(theirs, ours, below)
    return (won - lost) / (sum(ours) * sum(theirs))


def reserve(blocks: int) -> float:
    """The wealth that is not yet staked after so many blocks."""
    return RESERVE * RESERVE_LASTS / (RESERVE_LASTS + blocks)


def _answers(arm: Arm) -> int:
    return arm.timed + arm.timed_out


def _buckets(arm: Arm, edges: int) -> list[int]:
    """Answers per bucket, int[edges + 2]: the last but one is above all edges, the last one timed out."""
    within = [*(arm.within or (0,) * edges), arm.timed]
    counts = [after - before for before, after in zip([0, *within], within, strict=False)]
    # Counters of two moments: no bucket holds fewer than none.
    return [*(max(count, 0) for count in counts), arm.timed_out]


def _clearly_faster(edges_ms: tuple[float, ...], floor_ms: float) -> list[int]:
    """Per bucket: how many of the lowest buckets hold answers that are clearly faster than its own."""
    lower = (0.0, *edges_ms)
    least = [sum(SLOWER * edge <= upper for edge in edges_ms) for upper in edges_ms]
    found = [count if low >= floor_ms else 0 for count, low in zip([*least, len(edges_ms)], lower, strict=True)]
    return [*found, len(edges_ms) + 1]


def _pairs(slow: list[int], fast: list[int], below: list[int]) -> int:
    """Pairs in which the answer of `slow` took clearly longer."""
    faster = [0, *accumulate(fast)]
    return sum(count * faster[limit] for count, limit in zip(slow, below, strict=True))
