"""Counters from Prometheus: raw cumulative samples, never rates, and never a number that is not known to be fresh.

Every series is asked for as `selector[window]` at one moment, because that answers with the samples' own times; a
plain instant query answers with up to five minutes old ones as if they were of now.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from holdfast.errors import ClusterError
from holdfast.http_client import HttpClient, Trust, bearer

MAX_BYTES = 4 * 2**20
SECONDS = 3.0
FUTURE_SECONDS = 2.0
"""So far may a sample lie ahead of our clock."""
_WINDOW = 4
"""Scrape intervals that are asked for: two are fresh, older samples show that a series is stale and not absent."""


@dataclass(frozen=True)
class CounterSample:
    """The newest value of one series."""

    labels: Mapping[str, str]
    value: float


@dataclass
class PrometheusClient:
    """Reads counters; every call takes at most `SECONDS`."""

    url: str
    scrape_seconds: float
    """Time between two scrapes; a sample older than two of them is stale."""
    ca_file: Path | None = None
    token_file: Path | None = None
    _http: HttpClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._http = HttpClient(self.url.rstrip("/"), Trust(ca_file=self.ca_file), SECONDS, MAX_BYTES)

    def newest(self, metric: str, matchers: Mapping[str, str], now: float) -> list[CounterSample]:
        """The newest sample of every series that matches, as of `now` (Unix seconds); none where there is no series.

        Raises:
            ClusterError: the server does not answer, or an answer is stale, from the future, not a number, or holds
                a series twice; which one, in one line.
        """
        query = selector(metric, matchers)
        window = max(math.ceil(_WINDOW * self.scrape_seconds * 1000), 1)
        found: dict[frozenset[tuple[str, str]], CounterSample] = {}
        for item in self._query(f"{query}[{window}ms]", now):
            sample = self._fresh(query, item, now)
            key = frozenset(sample.labels.items())
            if key in found:
                raise self._error(query, "every series once, found one twice")
            found[key] = sample
        return list(found.values())

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    def _fresh(self, query: str, item: Any, now: float) -> CounterSample:
        try:
            labels = {str(key): str(value) for key, value in item["metric"].items()}
            at, text = item["values"][-1]
            at, value = float(at), number(text)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise self._error(query, f"samples, found {str(item)[:80]}") from None
        age, limit = now - at, 2 * self.scrape_seconds
        if value is None or not math.isfinite(value) or value < 0:
            raise self._error(query, f"a count, found {str(text)[:40]}")
        if age < -FUTURE_SECONDS:
            raise self._error(query, f"a sample of the past, found one {-age:.0f} s ahead")
        if age > limit:
            raise self._error(query, f"a sample of the last {limit:g} s, found one {age:.0f} s old")
        return CounterSample(labels, value)

    def _query(self, query: str, now: float) -> list[Any]:
        body = urlencode({"query": query, "time": f"{now:.3f}", "timeout": f"{SECONDS:g}s"}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **bearer(self.token_file)}
        reply = self._http.exchange("POST", "/api/v1/query", headers, body)
        try:
            answer = json.loads(reply.data)
        except ValueError:
            answer = None
        whole = isinstance(answer, dict) and reply.status == 200 and answer.get("status") == "success"
        data = answer.get("data") if whole and isinstance(answer, dict) else None
        if not isinstance(data, dict) or data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
            text = " ".join(reply.data[:120].decode(errors="replace").split())
            raise self._error(query, f"a matrix, found {reply.status} {text}")
        return list(data["result"])

    def _error(self, query: str, expected: str) -> ClusterError:
        return ClusterError(f"{self.url}: {query}: expected {expected}")


def selector(metric: str, matchers: Mapping[str, str]) -> str:
    """PromQL: the series of a metric whose labels match these regular expressions, anchored at both ends."""
    inside = ",".join(f"{key}=~{json.dumps(pattern)}" for key, pattern in sorted(matchers.items()))
    return f"{metric}{{{inside}}}"


def number(text: object) -> float | None:
    """A value or the edge of a bucket, as Prometheus writes it; None when it is no number."""
    try:
        return float(str(text))
    except ValueError:
        return None
