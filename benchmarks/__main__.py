"""Runs benchmarks by name: `python -m benchmarks attacks smoothing --images FILE.npz --epsilon 1/10`."""

import importlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import security
from benchmarks.reliability import ALSO, write_others
from benchmarks.scenes import Bench, default_folder
from benchmarks.table import ROOT, keep
from holdfast.errors import HoldfastError

PARTS = {"__init__", "__main__", "table", "scenes", "operating", "rendered", "resnet", "judged"} | {
    "fault_rows", "guard_clients", "guard_scenes", "linters", "load", "load_workers", "one_rollout", "process_tree",
    "records", "reliability", "security",
}  # fmt: skip
"""Modules that benchmarks are made of, none of them one by itself."""
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in PARTS)
APART = {"cluster", "faults", "first_contact", "guard", "hostile", "hostile_files", "imbalanced", "latency"} | {
    "local", "monitoring", "poisoned", "pr_gate", "rollouts_under_load", "tables", "tamperings"
}  # fmt: skip
"""Run when named and not with the others: each takes 20 minutes or more, or wants the machine for itself."""


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Of: {', '.join(NAMES)}; all but {', '.join(sorted(APART))} when left out."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="NPZ with x_train, y_train, x_test, y_test (uint8).")] = None,
    epsilon: Annotated[str, typer.Option(help="Linf budget on images, input units [0, 1].")] = "1/10",
    data: Annotated[Path | None, typer.Option(help="Folder of the tables and messages.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of a rate over seeds.")] = 10,
) -> None:
    """Prints a table for each benchmark and writes benchmarks/results/NAME.json and docs/benchmarks.md.

    A benchmark whose data is not there is left out, with a line on stderr; exit code 1 when none ran.
    """
    unknown = sorted(set(names or ()) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"expected one of {', '.join(NAMES)}, found {unknown[0]}")
    torch.set_num_threads(1)
    folder = data or default_folder()
    bench = Bench(images or folder / "fashion_mnist.npz", Fraction(epsilon), folder, seeds)
    ran = [name for name in names or sorted(set(NAMES) - APART) if _run(name, bench)]
    raise typer.Exit(0 if ran else 1)


def _run(name: str, bench: Bench) -> bool:
    try:
        keep(name, importlib.import_module(f"benchmarks.{name}").run(bench))
        if name in ALSO:
            write_others()
        if name in security.FROM:
            security.write_page()
    except HoldfastError as error:
        sys.stderr.write(f"{name}: left out: {error}\n")
        return False
    return True


if __name__ == "__main__":
    typer.run(main)
