"""A benchmark's results: rows of target, required, measured; printed, kept as JSON and shown in docs/benchmarks.md.

`python -m benchmarks.table` writes the page again from the results that are kept.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md"
_VERSIONS = (
    "holdfast",
    "torch",
    "numpy",
    "scikit-learn",
    "adversarial-robustness-toolbox",
    "torchattacks",
    "pyautoattack",
)


@dataclass(frozen=True)
class Row:
    """One target and what was measured; without `required` a figure for the reader."""

    target: str
    """What is measured, in words, with the data set and the unit."""
    measured: float | str
    how: str
    """The command or the procedure: rows, seeds, thread count."""
    required: float | str | None = None
    met: bool | None = None
    note: str = ""
    """Where a target is missed: why, as far as known."""


def at_least(target: str, measured: float, required: float, how: str, *, note: str = "") -> Row:
    """A row that is met when the figure reaches what is required."""
    return Row(target, round(measured, 4), how, required, bool(measured >= required), note)


def at_most(target: str, measured: float, required: float, how: str, *, note: str = "") -> Row:
    """A row that is met when the figure stays at or below what is required."""
    return Row(target, round(measured, 4), how, required, bool(measured <= required), note)


def shown(target: str, measured: float | str, how: str, *, note: str = "") -> Row:
    """A row without a target: a peer's figure, or one that the reader needs to judge the others."""
    return Row(target, round(measured, 4) if isinstance(measured, float) else measured, how, note=note)


def cpu_seconds(work: Callable[[], object], *, repeats: int = 1) -> float:
    """CPU-seconds of this process for `work`: the least of `repeats`, because noise only adds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def keep(benchmark: str, rows: Sequence[Row]) -> None:
    """Prints the table, writes `results/BENCHMARK.json` and writes docs/benchmarks.md again."""
    show(benchmark, rows)
    record(benchmark, rows, RESULTS / f"{benchmark}.json")
    PAGE.write_text(page(), encoding="utf-8")


def record(benchmark: str, rows: Sequence[Row], path: Path) -> None:
    """Writes the rows as JSON, with the machine that they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"benchmark": benchmark, "machine": machine(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def machine() -> str:
    """GPU where there is one, processor, cores and versions, without names of hosts."""
    versions = ", ".join(f"{name} {found}" for name in _VERSIONS if (found := _version(name)))
    return f"{_gpu()}{os.cpu_count()} x {_processor()}; Python {platform.python_version()}, {versions}"


def page() -> str:
    """docs/benchmarks.md from every result that is kept."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` from `benchmarks/results/*.json`; do not edit. Peers run in the same process, on the",
        "same model, data and one thread; speeds are ratios of CPU-seconds. A row without a requirement informs.",
        "Other images: `python -m benchmarks attacks --images FILE.npz --epsilon 3/10`, arrays as in Fashion-MNIST.",
        "Run apart, because each wants the machine for itself: `make faults`; `python -m benchmarks.local` (with",
        "`--baseline CHECKOUT`: wall and CPU-seconds of the demo and of a run, and those of another checkout; with",
        "`--load a --load b`: the demo on a busy machine); `python -m benchmarks.rollouts_under_load`;",
        "`python -m benchmarks tables`; after `make images`, `python -m benchmarks cluster`.",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        lines += ["", f"## {facts['benchmark']}", "", facts["machine"], ""]
        lines += ["| what | required | measured | met | how |", "|---|---|---|---|---|"]
        lines += [cells(Row(**row)) for row in facts["rows"]]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> str:
    """One line of a Markdown table."""
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    how = f"{row.how}. {row.note}" if row.note else row.how
    required = "" if row.required is None else row.required
    return (
        "| " + " | ".join(str(cell).replace("|", "/") for cell in (row.target, required, row.measured, met, how)) + " |"
    )


def show(benchmark: str, rows: Sequence[Row]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=benchmark, show_lines=False)
    for heading in ("what", "required", "measured", "met", "note"):
        table.add_column(heading)
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row.met]
        required = "" if row.required is None else str(row.required)
        table.add_row(row.target, required, str(row.measured), met, row.note)
    Console().print(table)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu() -> str:
    """Only what runs on torch can have used the GPU."""
    torch = sys.modules.get("torch")
    return f"{torch.cuda.get_device_name()}; " if torch and torch.cuda.is_available() else ""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
