"""Faults, injected by the thousand in virtual time and by the dozen into real processes (`make faults`)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.scenes import Bench
    from benchmarks.table import Row


def run(bench: "Bench") -> list["Row"]:
    """Everything, as `make faults` runs it."""
    from benchmarks.faults.report import everything

    return everything(quick=False)
