"""Large tables: what snapshot, schema and drift cost in time and memory, over rows and over columns.

Made data: numbers with six decimals and small whole ones, five categories of five values, 3 % positives. Each step is a
command by itself, and its memory the largest resident set of its process.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.process_tree import Spent, spent
from benchmarks.scenes import Bench
from benchmarks.table import ROOT, Row, at_most, shown
from holdfast.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa

PYTHON = ROOT / ".venv-data" / "bin" / "python"
CSV_SECONDS = 66.0
"""What a snapshot of a million CSV rows took at commit 2a295bd on the machine of the target."""
_BLOCK = 100_000
_GB = 1e9
_WORKLOAD = """\
name: tables
modality: tabular
data:
  source: {source}
  label: label
  max_bytes: 17179869184
network: {{architecture: mlp}}
threat: {{norm: linf, epsilon: 1/4}}
"""


@dataclass(frozen=True)
class Shape:
    """A table, and the format of its file."""

    rows: int
    columns: int
    format: str

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.columns:,} columns, {self.format}"


MILLION, TEN_MILLION = Shape(1_000_000, 30, "csv"), Shape(10_000_000, 30, "parquet")
SHAPES = (
    MILLION,
    Shape(1_000_000, 30, "parquet"),
    TEN_MILLION,
    Shape(10_000_000, 30, "csv"),
    Shape(200_000, 1000, "csv"),
)


def run(bench: Bench) -> list[Row]:
    """Seconds and memory of the three steps on each table, one after the other."""
    found = {shape: _steps(shape) for shape in SHAPES}
    rows = [row for shape, steps in found.items() for row in _rows(shape, steps)]
    first = found[MILLION]["snapshot"]
    ratios = [
        at_most(f"seconds of all three, 10 million rows over 1 million, {kind}", _ratio(found, kind), 12, "30 columns")
        for kind in ("parquet", "csv")
    ]
    return [
        at_most(f"snapshot, {MILLION}: seconds over 66 s (commit 2a295bd)", first.wall / CSV_SECONDS, 0.15, "as below"),
        at_most(f"snapshot, {MILLION}: GB", first.peak / _GB, 1.0, "as below"),
        *ratios,
        *rows,
    ]


def _ratio(found: dict[Shape, dict[str, Spent]], kind: str) -> float:
    few, many = (sum(one.wall for one in found[Shape(rows, 30, kind)].values()) for rows in (1_000_000, 10_000_000))
    return many / few


def _rows(shape: Shape, steps: dict[str, Spent]) -> Iterator[Row]:
    how = f"holdfast STEP, one process; {sum(one.cpu for one in steps.values()):.0f} CPU-seconds in all"
    for step, one in steps.items():
        yield shown(f"{step}, {shape}: seconds", round(one.wall, 1), how)
    yield at_most(f"most memory of the three, {shape}: GB", max(one.peak for one in steps.values()) / _GB, 6.0, how)


def _steps(shape: Shape) -> dict[str, Spent]:
    with tempfile.TemporaryDirectory(prefix="tables-") as name:
        folder = Path(name)
        source = folder / f"table.{shape.format}"
        making = (sys.executable, "-m", "benchmarks.tables", str(shape.rows), str(shape.columns), str(source))
        _command(ROOT, folder, *making)
        (folder / "workload.yaml").write_text(_WORKLOAD.format(source=source.name), encoding="utf-8")
        steps = {"snapshot": _step(folder, "snapshot")}
        source.unlink()
        return steps | {step: _step(folder, step, "--snapshot", "out/snapshot") for step in ("schema", "drift")}


def _step(folder: Path, step: str, *options: str) -> Spent:
    words = ("-W", "ignore", "-m", "holdfast", step, "--config", "workload.yaml", "--out", f"out/{step}", *options)
    return _command(folder, folder, str(PYTHON), *words)


def _command(cwd: Path, folder: Path, *words: str) -> Spent:
    log = folder / "log.txt"
    found = spent(words, cwd=cwd, log=log, seconds=3600)
    if found.code:
        raise RunError(f"{' '.join(words)}: expected exit code 0, found {found.code}: {log.read_text()[-500:]}")
    return found


def write_table(rows: int, columns: int, path: Path) -> None:
    """Writes the made table to a CSV or Parquet file, 100,000 rows at a time."""
    import pyarrow.csv
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, _BLOCK):
        block = _block(min(_BLOCK, rows - start), columns, rng)
        if writer is None:
            kind = pyarrow.parquet.ParquetWriter if path.suffix == ".parquet" else pyarrow.csv.CSVWriter
            writer = kind(path, block.schema)
        writer.write(block)
    assert writer is not None, "a table has rows"
    writer.close()


def _block(rows: int, columns: int, rng: np.random.Generator) -> "pa.Table":
    """Numbers, of which every third leans towards the label, whole numbers, five categories, the label."""
    import pyarrow as pa

    positive = rng.random(rows) < 0.03
    whole = 4
    cells: dict[str, object] = {
        f"n{i}": np.round(rng.normal(size=rows) + positive * (i % 3), 6) for i in range(columns - whole - 6)
    }
    cells |= {f"i{i}": rng.integers(0, 1000, rows) for i in range(whole)}
    colours = pa.array(["red", "green", "blue", "black", "white"])
    cells |= {f"c{i}": colours.take(pa.array(rng.integers(0, 5, rows))) for i in range(5)}
    cells["label"] = pa.array(["no", "yes"]).take(pa.array(positive.astype(np.int64)))
    return pa.table(cells)


if __name__ == "__main__":
    write_table(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
