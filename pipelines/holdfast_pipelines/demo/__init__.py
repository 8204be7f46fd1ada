"""The demo: four deliveries of real handwritten digits, told as one story.

`deliveries.py` makes them (clean, poisoned, broken), `story.py` plays the acts through the same `run` that a user
calls, and writes `summary.json` and `report.html`.
"""

from holdfast_pipelines.demo.story import demo

__all__ = ["demo"]
