"""`python -m benchmarks.faults`: all of tests/faults; --quick: a small part; --only: one fault, or one run of it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.fault_rows import renewed, rows, withdrawn_rows
from benchmarks.reliability import kept, write_page
from benchmarks.table import Row, keep, show
from tests.faults.everything import inject, withdraw_all
from tests.faults.simulator import virtual

if TYPE_CHECKING:
    from benchmarks.scenes import Bench


def run(bench: "Bench") -> list[Row]:
    """Everything, as `make faults` runs it."""
    return rows(inject(quick=False), quick=False)


def main(
    quick: Annotated[
        bool, typer.Option(help="A few runs of everything, in about two minutes; nothing is kept.")
    ] = False,
    only: Annotated[str | None, typer.Option(help="One fault in virtual time, for example F7.")] = None,
    run: Annotated[int | None, typer.Option(help="With --only: one run of it.")] = None,
    withdrawn: Annotated[
        bool, typer.Option("--withdrawn", help="F11 in real processes, alone; its rows are kept.")
    ] = False,
) -> None:
    """Injects faults and writes benchmarks/results/faults.json and the table in docs/reliability.md.

    Exit code 1 when something that is promised did not hold.
    """
    if only is None and run is not None:
        raise typer.BadParameter("expected --only with --run, for example --only F7 --run 31")
    if only is not None:
        raise typer.Exit(0 if _repeat(only, run, quick) else 1)
    found = renewed(kept("faults"), withdrawn_rows(withdraw_all())) if withdrawn else rows(inject(quick), quick)
    if quick:
        show("faults", found)
    else:
        keep("faults", found)
        write_page(found)
    raise typer.Exit(0 if all(row.met is not False for row in found) else 1)


def _repeat(only: str, run: int | None, quick: bool) -> bool:
    """Runs one fault, or one run of it, again; whether every promise held."""
    if only not in virtual.NAMES:
        raise typer.BadParameter(f"expected one of {', '.join(virtual.NAMES)}, found {only}")
    if run is None:
        return not any(tally.bad for tally in virtual.run_all(quick, only).values())
    if not 0 <= run < (count := len(virtual.runs(only, quick))):
        raise typer.BadParameter(f"{only} has the runs 0 to {count - 1}, found {run}")
    ended = virtual.one(only, run, quick)
    sys.stdout.write(f"{ended}\n")
    return not ended.violations


if __name__ == "__main__":
    typer.run(main)
