"""All that are tried against one model, each with a copy of its own that starts from nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.artifacts.documents import (
    Count,
    ExtractionCurve,
    ExtractionLeftOut,
    ExtractionPoint,
    ExtractionStrategy,
)
from holdfast.model.extract.queries import X, noise
from holdfast.model.extract.stealing import Augmented, Prepared, Questions, given_out, steal
from holdfast.model.extract.surrogate import Answers, NetworkSurrogate, Surrogate
from holdfast.model.extract.ways import Way
from holdfast.progress import say
from holdfast.workload.schema import ExtractConfig

STARTS = 100
"""Real rows that the Jacobian strategy begins with, at most."""


@dataclass(frozen=True)
class Attackers:
    """Those that a section asks for."""

    way: Way
    answer: Callable[[X], Answers]
    """Probabilities float64[N, classes] that the model gives rows."""
    compared: X
    """Rows on which model and copies are compared."""
    owned: X
    """Rows of the model's kind that the attackers have; none of the former."""
    config: ExtractConfig
    seed: int

    def curves(self) -> Iterator[ExtractionCurve]:
        """What each reached."""
        labels = self.answer(self.compared).argmax(1)
        for strategy in self.config.strategies:
            for form in self.config.outputs if self._why_not(strategy) is None else ():
                copy = self.way.copy(self.seed)
                found = steal(
                    self._questions(strategy, copy),
                    copy,
                    lambda x, form=form: given_out(self.answer(x), form, self.config.digits),  # type: ignore[misc]
                    judged=(self.compared, labels),
                    counts=self.config.queries,
                )
                points = [
                    ExtractionPoint(queries=one.queries, agreed=Count(k=one.agreed, n=len(labels))) for one in found
                ]
                say(f"extract: {strategy}, {form}: {points[-1].agreed.share:.3f} at {points[-1].queries} queries")
                yield ExtractionCurve(strategy=strategy, outputs=form, points=tuple(points))

    def left_out(self, curves: Sequence[ExtractionCurve]) -> Iterator[ExtractionLeftOut]:
        """What was not tried, and why."""
        for strategy in self.config.strategies:
            reason = self._why_not(strategy)
            if reason is not None:
                yield ExtractionLeftOut(strategy=strategy, reason=reason)
        for strategy in {curve.strategy: 0 for curve in curves if curve.points[-1].queries < self.config.queries[-1]}:
            rows = f"the attacker has {len(self.owned)} held-out rows"
            missing = next(count for count in self.config.queries if count > len(self.owned))
            yield ExtractionLeftOut(strategy=strategy, queries=missing, reason=rows)

    def _why_not(self, strategy: ExtractionStrategy) -> str | None:
        return self.way.no_slope or None if strategy == "jacobian" else None

    def _questions(self, strategy: ExtractionStrategy, copy: Surrogate) -> Questions:
        chance, most = np.random.default_rng(self.seed), self.config.queries[-1]
        if isinstance(copy, NetworkSurrogate) and strategy == "jacobian":
            start = self.owned[: min(STARTS, self.config.queries[0])]
            return Augmented(start, copy, self.way.reach, chance)
        if strategy == "in-distribution":
            return Prepared(self.owned)
        draw = noise if strategy == "random" else self.way.foreign
        return Prepared(draw(self.owned, most, chance))
