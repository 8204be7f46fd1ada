"""How the false alarms that are allowed in a period are shared among the three stages."""

from typing import Literal

MonitorStage = Literal["inputs", "model", "labels"]

SHARES: dict[MonitorStage, float] = {"inputs": 0.5, "model": 0.1, "labels": 0.4}
"""Of the false alarms that are allowed in a period. The model's outputs mostly confirm, so they get the least."""


def limit(stage: MonitorStage, alarms: float) -> float:
    """The evidence from which a stage raises an alarm, so that all together raise `alarms` false ones in a period.

    Args:
        stage: the stage.
        alarms: expected false alarms in a period at most, in (0, 1).
    """
    return 1 / (SHARES[stage] * alarms)
