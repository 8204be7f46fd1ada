"""The route files: what clients may ask for, who answers it, and what probes reach.

Clients get the calls of the Open Inference Protocol for the one model that is served: infer, ready, live, metadata.
Everything else (a repository's load and unload, documentation, metrics, other models) is answered by Envoy itself and
reaches no server. Weights live in this file and nowhere else: runtime overrides would beat it and vanish with the
process.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.serving.envoy.config import (
    ARM_HEADER,
    CANDIDATE,
    CANDIDATE_ASIDE,
    COMPOSITE,
    COMPOSITE_CHOSEN,
    PROBE_ROUTES,
    ROUTES,
    STABLE,
    STABLE_ASIDE,
    STABLE_CHOSEN,
    STABLE_PROBE,
    STICKY,
    TYPE,
    EnvoyConfig,
    Ingress,
    Timeouts,
    seconds,
)

_TIMEOUTS = Timeouts()
_HOST = "holdfast"
"""What servers see as the host: Envoy appends `-shadow` to that of a mirrored request, and no client can."""


@dataclass(frozen=True)
class LiveTraffic:
    """Where live requests go."""

    weight: int = 0
    """Percent on the candidate."""
    shadow: bool = False
    candidate: bool = True
    """Whether any route leads to it."""


def routes(version: int, ingress: Ingress, traffic: LiveTraffic) -> EnvoyConfig:
    """The file of clients; nothing but what is listed here reaches a server."""
    found = [*_infer(ingress, traffic), *_questions(ingress, traffic), *_refusals(ingress)]
    return _file(ROUTES, version, found)


def probe_routes(version: int, traffic: LiveTraffic) -> EnvoyConfig:
    """The file of probes."""
    arms = (STABLE, CANDIDATE) if traffic.candidate else (STABLE,)
    return _file(PROBE_ROUTES, version, [_probe(arm) for arm in arms])


def _file(name: str, version: int, found: list[EnvoyConfig]) -> EnvoyConfig:
    host: EnvoyConfig = {
        # Envoy takes no notice of a file that differs in version_info alone; the driver waits for that version.
        "name": f"version-{version}",
        "domains": ["*"],
        "routes": found,
    }
    resource: EnvoyConfig = {
        "@type": f"{TYPE}envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "validate_clusters": True,
        "virtual_hosts": [host],
    }
    return {"version_info": str(version), "resources": [resource]}


def _probe(arm: str) -> EnvoyConfig:
    """No retry: a probe is to find out about this very arm."""
    return {
        "match": {"prefix": "/", "headers": [_exactly(ARM_HEADER, arm)]},
        "route": {"cluster": STABLE_PROBE if arm == STABLE else arm, "timeout": seconds(_TIMEOUTS.request)},
    }


def _infer(ingress: Ingress, traffic: LiveTraffic) -> list[EnvoyConfig]:
    """The requests that are judged, and behind them those for a version by its number."""
    path = f"/v2/models/{ingress.model}/infer"
    named = [
        _asked(_path(_versioned(ingress, version, "/infer"), "POST"), cluster)
        for version, cluster in _served(ingress, traffic)
    ]
    choices = _choices(traffic) if ingress.arm_header_from else ()
    chosen = [_live(_path(path, "POST", *headers), shares, traffic) for headers, shares in choices]
    return [*chosen, _live(_path(path, "POST"), _shares(traffic, STABLE, COMPOSITE), traffic), *named]


def _choices(traffic: LiveTraffic) -> Iterable[tuple[list[EnvoyConfig], dict[str, int]]]:
    """Who names an arm gets it while it can be reached; who has a key stays where the key leads as the weight grows."""
    if traffic.candidate:
        yield [_exactly(ARM_HEADER, CANDIDATE)], {COMPOSITE_CHOSEN: 100}
    yield [_exactly(ARM_HEADER, STABLE)], {STABLE_CHOSEN: 100}
    if 0 < traffic.weight < 100:
        yield [{"name": STICKY, "present_match": True}], _shares(traffic, STABLE_CHOSEN, COMPOSITE_CHOSEN)


def _shares(traffic: LiveTraffic, stable: str, composite: str) -> dict[str, int]:
    return {stable: 100 - traffic.weight, composite: traffic.weight} if traffic.weight else {stable: 100}


def _live(match: EnvoyConfig, shares: dict[str, int], traffic: LiveTraffic) -> EnvoyConfig:
    """A request of a client: tried once more where the first attempt fails, and copied to a candidate in shadow."""
    clusters: EnvoyConfig = {"clusters": [{"name": name, "weight": share} for name, share in shares.items()]}
    if len(shares) > 1 and STABLE_CHOSEN in shares:
        clusters["use_hash_policy"] = True
    route = _forwarded()
    route |= {"weighted_clusters": clusters, "hash_policy": [{"header": {"header_name": STICKY}}]}
    share = sum(shares.get(name, 0) for name in (COMPOSITE, COMPOSITE_CHOSEN))
    if traffic.shadow:
        route["request_mirror_policies"] = [{"cluster": CANDIDATE}]
    elif share > 50:
        route["request_mirror_policies"] = [_copies_to_stable(share)]
    return {"match": match, "route": route, "request_headers_to_remove": [ARM_HEADER, STICKY]}


def _copies_to_stable(share: int) -> EnvoyConfig:
    """Copies of so many requests that stable is as busy as the candidate: else their latencies cannot be compared."""
    part: EnvoyConfig = {"numerator": 2 * share - 100, "denominator": "HUNDRED"}
    return {"cluster": STABLE_PROBE, "runtime_fraction": {"default_value": part}}


def _asked(match: EnvoyConfig, cluster: str) -> EnvoyConfig:
    """A request that is answered and not judged."""
    return {
        "match": match,
        "route": {**_forwarded(), "cluster": cluster},
        "request_headers_to_remove": [ARM_HEADER, STICKY],
    }


def _forwarded() -> EnvoyConfig:
    """A 404 is tried again too: only paths of the served model are routed, so whoever does not know it has lost it."""
    return {
        "host_rewrite_literal": _HOST,
        "timeout": seconds(_TIMEOUTS.request),
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,5xx,retriable-status-codes",
            "retriable_status_codes": [404],
            "num_retries": 1,
            "per_try_timeout": seconds(_TIMEOUTS.per_try),
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.020s"},
        },
    }


def _questions(ingress: Ingress, traffic: LiveTraffic) -> list[EnvoyConfig]:
    """Readiness and metadata, of the arm that has the whole traffic or else of stable."""
    whole = CANDIDATE_ASIDE if traffic.weight == 100 else STABLE_ASIDE
    paths = [(path, whole) for path in _question_paths(ingress)]
    for version, cluster in _served(ingress, traffic):
        paths += [(_versioned(ingress, version, end), cluster) for end in ("", "/ready")]
    return [_asked(_path(path, "GET"), cluster) for path, cluster in paths]


def _question_paths(ingress: Ingress) -> tuple[str, ...]:
    model = f"/v2/models/{ingress.model}"
    return "/v2", "/v2/health/live", "/v2/health/ready", model, f"{model}/ready"


def _served(ingress: Ingress, traffic: LiveTraffic) -> list[tuple[int, str]]:
    """Versions that a client may ask for by number: the champion's, and the candidate's once it has all traffic."""
    found = {ingress.candidate: CANDIDATE_ASIDE} if traffic.weight == 100 else {}
    return list({**found, ingress.stable: STABLE_ASIDE}.items())


def _refusals(ingress: Ingress) -> list[EnvoyConfig]:
    model = f"/v2/models/{ingress.model}"
    known = [(path, "GET") for path in _question_paths(ingress)] + [(f"{model}/infer", "POST")]
    wrong = [_refuse({"path": path}, 405, f"expected {method} {path}, found another method") for path, method in known]
    expected = f"expected POST {model}/infer, or GET of its metadata or readiness, found another path"
    return [*wrong, _refuse({"connect_matcher": {}}, 405, expected), _refuse({"prefix": "/"}, 404, expected)]


def _refuse(match: EnvoyConfig, status: int, why: str) -> EnvoyConfig:
    """Answered from the headers alone, without waiting for a body."""
    buffer = {"@type": f"{TYPE}envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "disabled": True}
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": why}},
        "typed_per_filter_config": {"envoy.filters.http.buffer": buffer},
    }


def _versioned(ingress: Ingress, version: int, end: str) -> str:
    return f"/v2/models/{ingress.model}/versions/{version}{end}"


def _path(path: str, method: str, *headers: EnvoyConfig) -> EnvoyConfig:
    return {"path": path, "headers": [_exactly(":method", method), *headers]}


def _exactly(name: str, value: str) -> EnvoyConfig:
    return {"name": name, "string_match": {"exact": value}}
