"""The demo: four deliveries of real handwritten digits, each run as a user would, and a client who copies the model.

`deliveries.py` makes them (clean, poisoned, broken), `runs.py` runs them by the same `run` that a user
calls, and writes `summary.json` and `report.html`.
"""

from holdfast_pipelines.demo.runs import demo

__all__ = ["demo"]
