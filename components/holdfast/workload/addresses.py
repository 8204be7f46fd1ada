"""What a data source of a workload is: read off its beginning."""

import re
from typing import Literal
from urllib.parse import urlsplit

SourceKind = Literal["bundled", "url", "bucket", "database", "path"]
BUCKETS = ("s3", "gs", "az", "abfs")
"""Schemes of object stores; abfs is the other name of az."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


def kind_of(source: str) -> SourceKind:
    """What a data source is.

    Raises:
        ValueError: a scheme that is none of ours, credentials in it, or no name of a variable.
    """
    if source.startswith("sklearn:"):
        return "bundled"
    if source.startswith("env:"):
        if not _VARIABLE.fullmatch(source):
            raise ValueError("expected env: and the name of an environment variable")
        return "database"
    found = _SCHEME.match(source)
    return "path" if found is None else _of_scheme(found[1].lower(), source)


def is_remote(source: str) -> bool:
    """Whether a data source is no path."""
    return source.startswith(("sklearn:", "env:")) or _SCHEME.match(source) is not None


def split_bucket(source: str) -> tuple[str, str]:
    """Scheme and path (`BUCKET/KEY`, without the last slash) of an object store's address."""
    scheme, _, path = source.partition("://")
    return scheme.lower(), path.rstrip("/")


def _of_scheme(scheme: str, source: str) -> SourceKind:
    if scheme not in ("http", "https", *BUCKETS):
        raise ValueError(
            "expected a path, sklearn:NAME, or an https, s3, gs, az or abfs address; a database's URL holds "
            "credentials and belongs in an environment variable: env:NAME with data.query"
        )
    if "@" in urlsplit(source).netloc:
        raise ValueError("expected no credentials in it; they belong in the environment")
    if scheme in BUCKETS and any(part in ("", ".", "..") for part in split_bucket(source)[1].split("/")):
        raise ValueError("expected a bucket and a path in it, without . and ..")
    return "bucket" if scheme in BUCKETS else "url"
