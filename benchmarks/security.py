"""The tables in docs/security.md: the rows of the benchmarks that try to break Holdfast."""

from pathlib import Path

from benchmarks.reliability import kept, lay, table
from benchmarks.table import ROOT

PAGE = ROOT / "docs" / "security.md"
FROM = ("tamperings", "hostile_files", "chain", "pr_gate")
"""Benchmarks whose rows are on the page, each between markers of its name."""


def write_page(page: Path = PAGE) -> None:
    """Writes the tables again, as far as their benchmarks were run."""
    for name in FROM:
        if rows := kept(name):
            lay(page, (f"<!-- {name}: begin -->", f"<!-- {name}: end -->"), table(rows))
