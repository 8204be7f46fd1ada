"""The report: one run, or several told as a story, as one HTML file that needs no network and no script.

`write_report` shows one run folder; `write_story` shows chapters, each with its words and its run. Everything comes
from the artifacts, read with their digests checked: an altered one raises instead of being shown.
"""

from holdfast_pipelines.report.page import Chapter, Comparison, DecisionTable, Pictures, write_report, write_story

__all__ = ["Chapter", "Comparison", "DecisionTable", "Pictures", "write_report", "write_story"]
