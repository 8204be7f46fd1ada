"""How numbers are written on a page, and the intervals of rates."""

import math

from holdfast.artifacts.documents import Count
from holdfast.statistics import clopper_pearson

CONFIDENCE = 0.95
"""The level of the two-sided intervals on the page; the gate's own bounds are one-sided, at the policy's alpha."""


def interval(count: Count, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper-Pearson, two-sided: the rates that `count` does not rule out. Nothing counted rules nothing out."""
    bounds = clopper_pearson(count.k, count.n, (1 - confidence) / 2)
    return bounds.lower, bounds.upper


def percent(share: float) -> str:
    """0.8243 -> "82.4 %"; a share that is not 0 or 1 never reads as 0 or 100 %."""
    shown = f"{100 * share:.1f}"
    if shown == "0.0" and share > 0:
        return "< 0.1 %"
    if shown == "100.0" and share < 1:
        return "> 99.9 %"
    return f"{shown.removesuffix('.0') if share in (0, 1) else shown} %"


def span(low: float, high: float) -> str:
    """An interval of shares: "[78.8, 85.6]", in percent."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def number(value: float) -> str:
    """Four significant digits; whole numbers in full."""
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """0.31 -> "0.3 s", 75 -> "1 min 15 s"."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def short(digest: str) -> str:
    """The first twelve digits of a digest."""
    return digest[:12]


def clip(label: str, length: int) -> str:
    """`label`, cut to `length` characters with an ellipsis."""
    return label if len(label) <= length else label[: max(length - 1, 1)] + "…"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) that cover [low, high] with about `about` steps."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
