"""What Envoy is told, as plain values: bootstrap, clusters and routes of one rollout.

Three clusters: `stable`, `candidate`, and `candidate_then_stable`, a composite whose second attempt always goes to
stable. The composite is what makes a fault of the candidate invisible to clients; the analysis must therefore look at
the candidate's own counters (`holdfast.serving.rollout.drivers.envoy`). Weights live in the route file and nowhere
else: runtime overrides would beat the file and vanish with the process.

Reference: https://www.envoyproxy.io/docs/envoy/v1.40.0/ (composite cluster, outlier detection, filesystem xDS).
"""

from dataclasses import dataclass
from pathlib import Path

from holdfast.serving.rollout.judge.counters import EDGES_MS, EQUAL_WEIGHT

Json = dict[str, object]

LOOPBACK = "127.0.0.1"
ARM_HEADER = "x-rollout"
"""A request with this header set to `candidate` or `stable` goes to that arm whatever the weights: probes, A/B."""
CANDIDATE, STABLE, COMPOSITE = "candidate", "stable", "candidate_then_stable"
STABLE_PROBE = "stable_probe"
"""The stable server as probes and copies reach it, so that `stable` counts live requests and nothing else."""
ROUTES = "routes"

_TYPE = "type.googleapis.com/"
STICKY = "x-rollout-key"
"""Requests with the same value of this header stay at the same arm while the weights stand."""


@dataclass(frozen=True)
class Layout:
    """Where Envoy's files lie in its private folder."""

    folder: Path

    @property
    def admin(self) -> Path:
        """The admin interface's unix socket; it has no authentication, so the folder's mode protects it."""
        return self.folder / "admin.sock"

    @property
    def bootstrap(self) -> Path:
        """The static configuration."""
        return self.folder / "bootstrap.json"

    @property
    def clusters(self) -> Path:
        """The watched file with the clusters."""
        return self.folder / "cds" / "clusters.json"

    @property
    def routes(self) -> Path:
        """The watched file with the routes."""
        return self.folder / "rds" / "routes.json"


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect: float = 0.5
    per_try: float = 2.0
    request: float = 5.0


def bootstrap(layout: Layout, port: int, slow_ms: float) -> Json:
    """The static part: admin on a unix socket, one listener on loopback, clusters and routes from watched files.

    Response times get a bucket edge at `slow_ms`, so that slow answers are counted and not estimated.
    """
    edges = list(edges_ms(slow_ms))
    return {
        "node": {"id": "holdfast-rollout", "cluster": "holdfast"},
        "admin": {"address": {"pipe": {"path": str(layout.admin), "mode": 0o600}}},
        "stats_flush_interval": "0.100s",
        "stats_config": {"histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": edges}]},
        "dynamic_resources": {"cds_config": _watched(layout.clusters)},
        "static_resources": {"listeners": [_listener(layout, port)]},
    }


def edges_ms(slow_ms: float) -> tuple[float, ...]:
    """Upper edges of the latency buckets: with one at the limit, slow answers are counted and not estimated."""
    return tuple(sorted({*EDGES_MS, slow_ms}))


def clusters(ports: dict[str, int], version: int) -> Json:
    """The cluster file: `ports` maps arm to loopback port; without a candidate only `stable` remains."""
    resources = [_stable(STABLE, ports[STABLE]), _stable(STABLE_PROBE, ports[STABLE])]
    if CANDIDATE in ports:
        resources += [_candidate(ports[CANDIDATE]), _composite()]
    return {"version_info": str(version), "resources": resources}


def routes(version: int, *, weight: int, shadow: bool, candidate: bool, timeouts: Timeouts = Timeouts()) -> Json:
    """The route file: `weight` percent of the traffic on the candidate, its copy mirrored to it when `shadow`."""
    arms = (STABLE, CANDIDATE) if candidate else (STABLE,)
    host: Json = {
        # Envoy takes no notice of a file that differs in version_info alone; the driver waits for that version.
        "name": f"version-{version}",
        "domains": ["*"],
        "include_attempt_count_in_response": True,
        "routes": [*(_arm_route(arm, timeouts) for arm in arms), *_traffic_routes(weight, shadow, timeouts)],
    }
    resource: Json = {
        "@type": f"{_TYPE}envoy.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "validate_clusters": True,
        "virtual_hosts": [host],
    }
    return {"version_info": str(version), "resources": [resource]}


def _arm_route(arm: str, timeouts: Timeouts) -> Json:
    header: Json = {"name": ARM_HEADER, "string_match": {"exact": arm}}
    return {
        "match": {"prefix": "/", "headers": [header]},
        "route": {"cluster": STABLE_PROBE if arm == STABLE else arm, "timeout": _seconds(timeouts.request)},
    }


def _traffic_routes(weight: int, shadow: bool, timeouts: Timeouts) -> list[Json]:
    """Sticky requests first (each key hashes to an arm; who was on the candidate stays there as its weight grows)."""
    any_request = _traffic_route(weight, shadow, timeouts)
    if weight in (0, 100):
        return [any_request]
    sticky = _traffic_route(weight, shadow, timeouts)
    route = sticky["route"]
    assert isinstance(route, dict)
    route["weighted_clusters"] = {**route["weighted_clusters"], "use_hash_policy": True}
    route["hash_policy"] = [{"header": {"header_name": STICKY}}]
    sticky["match"] = {"prefix": "/", "headers": [{"name": STICKY, "present_match": True}]}
    return [sticky, any_request]


def _traffic_route(weight: int, shadow: bool, timeouts: Timeouts) -> Json:
    route: Json = {
        "timeout": _seconds(timeouts.request),
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,5xx",
            "num_retries": 1,
            "per_try_timeout": _seconds(timeouts.per_try),
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.020s"},
        },
    }
    if weight == 0:
        route["cluster"] = STABLE
    else:
        shares = [(STABLE, 100 - weight), (COMPOSITE, weight)]
        route["weighted_clusters"] = {"clusters": [{"name": name, "weight": share} for name, share in shares]}
    if shadow:
        route["request_mirror_policies"] = [{"cluster": CANDIDATE}]
    elif weight > EQUAL_WEIGHT:
        route["request_mirror_policies"] = [_copies_to_stable(weight)]
    return {"match": {"prefix": "/"}, "route": route}


def _copies_to_stable(weight: int) -> Json:
    """Copies of so many live requests that stable is as busy as the candidate: else latencies cannot be compared."""
    share: Json = {"numerator": 2 * weight - 100, "denominator": "HUNDRED"}
    return {"cluster": STABLE_PROBE, "runtime_fraction": {"default_value": share}}


def _stable(name: str, port: int) -> Json:
    return _cluster(name, port, {"thresholds": [{"max_requests": 1024, "max_retries": 1024}]})


def _candidate(port: int) -> Json:
    """Ejected after five bad answers in a row; threshold 0 so that an ejected one gets no first attempts.

    Silence ejects nobody: a busy machine causes it too, and whose fault it is the analysis decides, with a control.
    """
    cluster = _cluster(CANDIDATE, port, {"thresholds": [{"max_requests": 1024, "max_retries": 1024}]})
    cluster["outlier_detection"] = {
        "split_external_local_origin_errors": True,
        "enforcing_consecutive_local_origin_failure": 0,
        "enforcing_local_origin_success_rate": 0,
        "consecutive_5xx": 5,
        "consecutive_gateway_failure": 5,
        "enforcing_consecutive_5xx": 100,
        "enforcing_consecutive_gateway_failure": 100,
        "enforcing_success_rate": 0,
        "max_ejection_percent": 100,
        "interval": "1s",
        "base_ejection_time": "30s",
    }
    return cluster


def _cluster(name: str, port: int, breakers: Json) -> Json:
    address = {"socket_address": {"address": LOOPBACK, "port_value": port}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "@type": f"{_TYPE}envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": _seconds(Timeouts().connect),
        "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "track_cluster_stats": {"per_endpoint_stats": True},
        "circuit_breakers": breakers,
    }


def _composite() -> Json:
    config = {
        "@type": f"{_TYPE}envoy.extensions.clusters.composite.v3.ClusterConfig",
        "clusters": [{"name": CANDIDATE}, {"name": STABLE}],
    }
    return {
        "@type": f"{_TYPE}envoy.config.cluster.v3.Cluster",
        "name": COMPOSITE,
        "connect_timeout": _seconds(Timeouts().connect),
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.composite", "typed_config": config},
        # The retry budget is taken from the outer cluster, whose default is 3: too few once the candidate fails.
        "circuit_breakers": {"thresholds": [{"max_requests": 1024, "max_retries": 1024}]},
    }


def _listener(layout: Layout, port: int) -> Json:
    router = {"@type": f"{_TYPE}envoy.extensions.filters.http.router.v3.Router"}
    manager: Json = {
        "@type": f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "rds": {"route_config_name": ROUTES, "config_source": _watched(layout.routes)},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": "ingress",
        "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
        # A second Envoy on the same port must fail, not share it.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": filters}],
    }


def _watched(path: Path) -> Json:
    source: Json = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def _seconds(value: float) -> str:
    return f"{value:.3f}s"
