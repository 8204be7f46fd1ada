"""The tables in docs/reliability.md: of `make faults`, and of the other benchmarks that are about a rollout."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import RESULTS, ROOT, Row, cells

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
OTHERS = "<!-- targets: begin -->", "<!-- targets: end -->"
ALSO = {
    "rollouts": ("candidate answering only errors", "5 % errors", "healthy candidate"),
    "rollouts_under_load": ("",),
    "latency": ("",),
    "hostile": ("",),
    "serving": ("",),
}
"""Benchmark -> its rows that are about a rollout's reliability, by what they begin with."""


def write_page(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Replaces the table of faults, between its markers on the page."""
    lay(page, (BEGIN, END), table(rows))


def write_others(page: Path = PAGE) -> None:
    """Replaces the table of the other benchmarks' rows about rollouts, as far as they were run."""
    lay(page, OTHERS, table([row for name in ALSO for row in kept(name) if row.target.startswith(ALSO[name])]))


def kept(name: str) -> list[Row]:
    """The rows of a benchmark as they were kept; none where it was not run."""
    path = RESULTS / f"{name}.json"
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]] if path.exists() else []


def lay(page: Path, markers: tuple[str, str], content: str) -> None:
    """Puts `content` between two markers of a page."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(markers[0])
    _, _, after = rest.partition(markers[1])
    page.write_text(f"{before}{markers[0]}\n{content}\n{markers[1]}{after}", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ["| what | required | measured | met | how |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(cells(row) for row in rows)])
