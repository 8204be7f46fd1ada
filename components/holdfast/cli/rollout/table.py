"""The live table of a rollout (rich), or, without a terminal, one line per change."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from holdfast.cli.rollout import view as looks
from holdfast.cli.rollout.view import DriverStatus, View
from holdfast.progress import say
from holdfast.rendering.text import Row

EVERY_SECONDS = 0.5


def watch(out: Path, state: Path) -> View:
    """Shows the rollout until it has ended or lost its driver.

    Raises:
        RolloutError: there is none.
    """
    if not sys.stderr.isatty():
        return _follow(out, state, _Lines().show)
    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        return _follow(out, state, lambda view: live.update(page(view), refresh=True))


def _follow(out: Path, state: Path, show: Callable[[View], None]) -> View:
    while True:
        view = looks.see(out, state)
        show(view)
        if view.driver_status is not DriverStatus.RUNS:
            return view
        time.sleep(EVERY_SECONDS)


class _Lines:
    """Writes a line when it is another than the last one."""

    last = ""

    def show(self, view: View) -> None:
        now = looks.line(view)
        if now != self.last:
            self.last = now
            reason = f": {view.status.reason}" if view.status is not None else ""
            say(f"rollout: {now}{reason}")


def page(view: View) -> RenderableType:
    """The table at one moment."""
    status = view.status
    if status is None:
        return Text(looks.text(view))
    parts: list[RenderableType] = [_bar(status.weight), _grid(looks.facts(view, time.time())), Text("")]
    head, *rows = looks.counts(status)
    parts.append(_table(head, rows))
    if status.tests:
        parts += [_tests(view), Text(looks.bound(status), style="dim")]
    parts += [Text(""), _grid(looks.moves(status))]
    style = "red" if status.page or view.driver_status is DriverStatus.GONE else "cyan"
    return Panel(Group(*parts), title=looks.title(status), title_align="left", border_style=style)


def _bar(weight: int) -> Text:
    """The split of live traffic."""
    width = 50
    share = round(width * weight / 100)
    return Text.assemble(
        ("candidate ", "bold"), ("█" * share, "cyan"), ("░" * (width - share), "dim"), f" {weight} %"
    )  # fmt: skip


def _tests(view: View) -> Table:
    assert view.status is not None
    found = _table(("test", "e-value", "ends at"), ())
    for one in view.status.tests:
        style = "bold red" if one.value >= one.needed else "yellow" if one.value >= one.needed**0.5 else ""
        found.add_row(one.name, f"{one.value:.4g}", f"{one.needed:.4g}", style=style)
    return found


def _table(head: Row, rows: "list[Row] | tuple[()]") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _grid(rows: tuple[Row, ...]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(cell, style="bold" if i == 0 else "") for i, cell in enumerate(row)))
    return table
