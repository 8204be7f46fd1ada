"""Plain text for terminals: aligned columns, moments and durations."""

import time
from collections.abc import Sequence

Row = tuple[str, ...]


def columns(rows: Sequence[Row]) -> list[str]:
    """Rows as aligned text; the last cell of a row is as long as it likes."""
    widths: dict[int, int] = {}
    for row in rows:
        for i, cell in enumerate(row[:-1]):
            widths[i] = max(widths.get(i, 0), len(cell))
    return ["  ".join([*(cell.ljust(widths[i]) for i, cell in enumerate(row[:-1])), row[-1]]).rstrip() for row in rows]


def paragraphs(*parts: Sequence[Row]) -> str:
    """Several such tables, with an empty line between two of them."""
    return "\n\n".join("\n".join(columns(part)) for part in parts if part)


def clock(at: float) -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def duration(seconds: float) -> str:
    """Seconds for people."""
    seconds = max(seconds, 0.0)
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
