"""One row of `timeline.json` in the record of a rollout."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was known after one observation; counts are since the start, `disagreement` is a share."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore", allow_inf_nan=False)

    t: float
    """Seconds since the rollout began."""
    state: str
    weight: int
    """Percent of live traffic on the candidate."""
    sent: int = 0
    failed: int = 0
    candidate_requests: int
    candidate_errors: int
    champion_requests: int
    champion_errors: int
    slow_candidate: int
    slow_champion: int
    disagreement: float = 0.0
    e_errors: float
    e_service: float = 1.0
    """1, no evidence, for rollouts of the time before a test was kept here."""
    e_broken: float = 1.0
    e_slow: float
    e_disagreement: float
    e_drift: float = 1.0
    e_attack: float = 1.0
