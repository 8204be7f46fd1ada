"""All rows of the faults' benchmark, and the table in docs/reliability.md."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import virtual
from benchmarks.table import ROOT, Row, cells

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def everything(quick: bool) -> list[Row]:
    """Virtual time first, on all cores; then real processes, one scene after the other."""
    return virtual.rows(virtual.run_all(quick))


def write_page(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Lays the table between the markers of the page anew."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ["| what | required | measured | met | how |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(cells(row) for row in rows)])
