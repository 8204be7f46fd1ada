"""`python -m benchmarks.faults`: the whole matrix; --quick: a small part; --only: one fault, or one run of it."""

import sys
from typing import Annotated

import typer

from benchmarks.faults import report, virtual
from benchmarks.table import keep, show


def main(
    quick: Annotated[
        bool, typer.Option(help="A few runs of everything, in about two minutes; nothing is kept.")
    ] = False,
    only: Annotated[str | None, typer.Option(help="One fault in virtual time, for example F7.")] = None,
    run: Annotated[int | None, typer.Option(help="With --only: one run of it.")] = None,
) -> None:
    """Injects faults and writes benchmarks/results/faults.json and the table in docs/reliability.md.

    Exit code 1 when something that is promised did not hold.
    """
    if only is not None and run is not None:
        ended = virtual.one(only, run, quick)
        sys.stdout.write(f"{ended}\n")
        raise typer.Exit(1 if ended.violations else 0)
    if only is not None:
        raise typer.Exit(1 if any(tally.bad for tally in virtual.run_all(quick, only).values()) else 0)
    rows = report.everything(quick)
    if quick:
        show("faults", rows)
    else:
        keep("faults", rows)
        report.write_page(rows)
    raise typer.Exit(0 if all(row.met is not False for row in rows) else 1)


if __name__ == "__main__":
    typer.run(main)
