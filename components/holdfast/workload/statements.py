"""The query of a workload, looked at before a database sees it: one statement that reads, with an order."""

import re
from collections.abc import Iterator

_TOKENS = re.compile(
    r"""--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\1\$|[()]|;|\w+|\s+|.""", re.DOTALL
)
_READS = ("select", "with")
MAX_QUERY = 20_000


def check_statement(query: str, *, ordered: bool) -> str:
    """The query without a last semicolon.

    Args:
        query: in SQL.
        ordered: whether it must have an ORDER BY of its own.

    Raises:
        ValueError: more than one statement, one that does not read, or no order.
    """
    text = query.strip().rstrip(";").strip()
    words = list(_outer_words(text))
    if len(query) > MAX_QUERY or not words or words[0] not in _READS:
        raise ValueError("expected one statement that begins with SELECT or WITH")
    if ";" in words:
        raise ValueError("expected one statement, found another after a semicolon")
    if ordered and "order by" not in [" ".join(pair) for pair in zip(words, words[1:], strict=False)]:
        raise ValueError("expected an ORDER BY, or data.key with the columns that number the rows")
    return text


def _outer_words(text: str) -> Iterator[str]:
    """Words and semicolons in lower case that are in no text, name, comment or pair of brackets."""
    depth = 0
    for found in _TOKENS.finditer(text):
        token = found[0]
        depth += (token == "(") - (token == ")")
        if depth == 0 and re.fullmatch(r"\w+|;", token):
            yield token.lower()
        elif token == ";":
            yield token
