"""The table of a quarantine, `quarantine.csv`: a line for each row set aside, the most suspect first.

`held_out.csv` has the same form for held-out rows whose label looks wrong. Both hold labels and places, no other value.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

TABLE = "quarantine.csv"
HELD_OUT_TABLE = "held_out.csv"
SEPARATOR = "; "
"""Between the names of several detectors."""


@dataclass(frozen=True)
class TableRow:
    """One row of the table."""

    row: int
    """Its id: its position in the snapshot's file."""
    place: str
    """Where it is in the delivered file; empty when the snapshot does not know."""
    label: str
    score: float
    """Larger is more suspicious."""
    detectors: str
    """The detectors that suspect it, or why else it is here."""


def write_table(rows: Sequence[TableRow]) -> bytes:
    """The rows as CSV with a header, in their order."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(TableRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) | {"score": f"{row.score:.6g}"} for row in rows)
    return text.getvalue().encode()


def read_table(data: bytes) -> list[TableRow]:
    """What `write_table` wrote."""
    lines = csv.DictReader(io.StringIO(data.decode(), newline=""))
    return [TableRow(int(d["row"]), d["place"], d["label"], float(d["score"]), d["detectors"]) for d in lines]
