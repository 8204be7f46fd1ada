"""What counts as slow: over an edge that the control itself stays under."""

MIN_TIMED = 100
"""So many answers of the control are needed to know its 95th percentile roughly."""


def p95_edge(within: tuple[int, ...], timed: int, edges_ms: tuple[float, ...], floor_ms: float) -> int | None:
    """The index of the smallest edge, `floor_ms` or above, that at least 95 % of the control's answers came within.

    None with fewer than 100 timed answers, or when no edge reaches that share: nobody knows yet what is slow.

    Args:
        within: of `timed` answers, how many came within each edge.
        timed: answers of the control whose time was taken.
        edges_ms: ascending.
        floor_ms: nothing faster than this is slow.
    """
    if timed < MIN_TIMED:
        return None
    counts = enumerate(zip(within, edges_ms, strict=False))
    return next((i for i, (count, edge) in counts if edge >= floor_ms and 20 * count >= 19 * timed), None)
