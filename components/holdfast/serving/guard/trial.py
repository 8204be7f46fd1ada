"""Made-up clients: users, who must not be alarmed, and others, who must be."""

import math

from holdfast.serving.guard.calibration import Calibration, Samples
from holdfast.serving.guard.client import Client, queries


def alarm_at(calibration: Calibration, samples: Samples, alpha: float) -> int | None:
    """After how many of these queries, each another row, a new client is alarmed; None: after none."""
    client, limit = Client(), -math.log(alpha)
    for count, query in enumerate(queries(calibration, samples, range(len(samples))), start=1):
        client.observe(query, calibration)
        if client.log_wealth >= limit:
            return count
    return None
