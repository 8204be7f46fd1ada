"""How messages list what was found: the first of them, short, and nothing that a terminal or a page would obey."""

import re
from collections.abc import Iterable

FIRST = 5
_MARKUP = re.compile(r"[\\`*<>|~&$]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LINKED = re.compile(r"(@|:(?=//)|www(?=\.)|[#!](?=\d)|\bGH-(?=\d))", re.IGNORECASE)
"""What pages make links of without any markup: mentions, addresses, numbers of issues and of merge requests."""
_PASSWORD = re.compile(r"(?<=://)[^\s'\"]*@(?=[\w.\[-]+)")
_QUERY = re.compile(r"(?<=\w)\?[^\s'\"]*=[^\s'\"]*")
_JOINER = "\u2060"
"""Has no width; after it a page sees no mention or address any more."""


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


def printable_lines(text: str) -> str:
    """Lines that a terminal only shows."""
    return "\n".join(map(printable, text.split("\n")))


def markdown_text(text: str) -> str:
    """The text in one line that Markdown only shows: no markup, image, link, mention or character reference.

    A class, a column or a file may have any name, and the pages are shown by MLflow and in pull requests.
    """
    flat = printable(" ".join(text.split()))
    return _LINKED.sub(rf"\1{_JOINER}", _MARKUP.sub(r"\\\g<0>", flat))


def without_credentials(text: str) -> str:
    """The text with `…` for what may be secret in its addresses: user and password, and all behind a question mark."""
    if "://" not in text:
        return text
    return _QUERY.sub("?…", _PASSWORD.sub("…@", text))


def _short(text: str) -> str:
    cut = text if len(text) <= 40 else text[:39] + "…"
    return cut.encode("unicode_escape").decode() if not cut.isprintable() else cut
