"""How messages list what was found: the first of them, short, and nothing that a terminal would obey."""

from collections.abc import Iterable

FIRST = 5


def listed(values: Iterable[object]) -> str:
    """Lists at most five of `values`, each at most 40 characters, with commas; control characters escaped."""
    shown = [str(value) for value in values]
    more = ", …" if len(shown) > FIRST else ""
    return ", ".join(_short(value) for value in shown[:FIRST]) + more


def quoted(values: Iterable[object]) -> str:
    """Lists like `listed`, each in quotes."""
    shown = [str(value) for value in values]
    more = ", …" if len(shown) > FIRST else ""
    return ", ".join(f"'{_short(value)}'" for value in shown[:FIRST]) + more


def printable(text: str) -> str:
    """The text in one line that a terminal only shows: control characters are escaped."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


def _short(text: str) -> str:
    cut = text if len(text) <= 40 else text[:39] + "…"
    return cut.encode("unicode_escape").decode() if not cut.isprintable() else cut
