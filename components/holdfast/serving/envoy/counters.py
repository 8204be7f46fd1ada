"""What Envoy counts, as its admin interface gives it, by cluster and by endpoint."""

from collections.abc import Mapping
from typing import Any

from holdfast.serving.envoy.config import CANDIDATE, COMPOSITE, COMPOSITE_CHOSEN, STABLE, STABLE_CHOSEN, STABLE_PROBE

OF_STABLE = (STABLE, STABLE_PROBE, STABLE_CHOSEN)
OF_CANDIDATE = (CANDIDATE, COMPOSITE, COMPOSITE_CHOSEN)
_NAMES = f"({'|'.join((*OF_STABLE, *OF_CANDIDATE))})"
_STATS = r"(canary\.)?upstream_rq_time|upstream_rq_(retry|completed|4xx|404)$|ejections_enforced_total$"
_ENDPOINT = r"endpoint\..*\.(rq_success|rq_error|rq_timeout|cx_connect_fail)$"
KINDS = ("rq_success", "rq_error", "rq_timeout", "cx_connect_fail")
# One request for all counters: two would be of two moments, and what was answered in between would be in half of them.
QUERY = (
    "/stats?format=json&histogram_buckets=cumulative"
    f"&filter=^cluster\\.{_NAMES}\\.((outlier_detection\\.)?({_STATS})|{_ENDPOINT})"
)


def answered(stats: Mapping[str, int], *clusters: str) -> int:
    """Requests that got their answer through these clusters, without those that a client got wrong."""
    return sum(stats.get(f"{name}.upstream_rq_completed", 0) - refused(stats, name) for name in clusters)


def timed(stats: Mapping[str, int], clusters: tuple[str, ...], what: str) -> int:
    """Answers timed, without those that the server marked as a client's fault."""
    return sum(stats.get(f"{name}.{what}", 0) - stats.get(f"{name}.canary.{what}", 0) for name in clusters)


def refused(stats: Mapping[str, int], cluster: str) -> int:
    """Requests that a client got wrong: 4xx, but for 404, which only a server that lost its model gives."""
    return stats.get(f"{cluster}.upstream_rq_4xx", 0) - stats.get(f"{cluster}.upstream_rq_404", 0)


def by_cluster(answer: dict[str, Any]) -> dict[str, int]:
    """`CLUSTER.COUNTER` -> value, `CLUSTER.time` -> answers timed, `CLUSTER.time<=EDGE` -> answers up to that."""
    found: dict[str, int] = {}
    for stat in answer["stats"]:
        if "histograms" in stat:
            for histogram in stat["histograms"]:
                found |= _times(histogram)
        elif isinstance(stat.get("value"), int):
            found[stat["name"].removeprefix("cluster.")] = stat["value"]
    return found


def _times(histogram: dict[str, Any]) -> dict[str, int]:
    name = histogram["name"].removeprefix("cluster.").removesuffix(".upstream_rq_time")
    buckets = {f"{name}.time<={edge_name(b['upper_bound'])}": int(b["cumulative"]) for b in histogram["buckets"]}
    # The last edge lies beyond the request timeout: everything is below it.
    return {**buckets, f"{name}.time": max(buckets.values(), default=0)}


def edge_name(milliseconds: float) -> str:
    """How the counters above write an edge."""
    return f"{float(milliseconds):g}"


def by_endpoint(stats: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Cluster -> counters of its one endpoint."""
    found: dict[str, dict[str, int]] = {}
    for name, value in stats.items():
        cluster, _, rest = name.partition(".endpoint.")
        if rest and cluster in (*OF_STABLE, CANDIDATE):
            found.setdefault(cluster, {})[rest.rpartition(".")[2]] = value
    return found
