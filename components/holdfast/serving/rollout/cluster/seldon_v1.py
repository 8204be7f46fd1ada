"""The driver for a SeldonDeployment (`machinelearning.seldon.io/v1`) behind Istio.

The operator changes routes only while every Deployment of the object is ready, so traffic 0 does not take a candidate
out whose pods are not. Therefore a rollback removes the candidate's predictor and gives stable 100 in one patch, and
nothing counts as done before the VirtualService says so.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from holdfast.errors import FencedError, RolloutError
from holdfast.serving.rollout.cluster.kube import (
    Change,
    Json,
    Kube,
    Operation,
    Resource,
    annotate,
    annotations,
    edit,
    holds,
    pointer,
    wait_until,
)
from holdfast.serving.rollout.cluster.prometheus import Prometheus
from holdfast.serving.rollout.cluster.protocol import Traffic
from holdfast.serving.rollout.cluster.split import MIRRORED, Split
from holdfast.serving.rollout.cluster.store import (
    ARMS,
    CHAMPION,
    EXPIRES,
    FENCE,
    Wall,
    champion_of,
    compact,
    lapsed,
    renewed,
    require_fence,
    taken_back,
)
from holdfast.serving.rollout.cluster.target import SeldonV1 as Names
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.contract.driver import Health, Provider

AVAILABLE = "Available"
_GRAPH_KEYS = ("graph", "componentSpecs", "svcOrchSpec")
"""What decides which model a predictor serves, and how."""


@dataclass
class SeldonV1:
    """Implements `holdfast.serving.rollout.cluster.protocol.ClusterDriver` on one SeldonDeployment."""

    kind: ClassVar[str] = "SeldonDeployment"
    mirrors: ClassVar[bool] = True

    kube: Kube
    namespace: str
    names: Names
    provider: Provider
    fence: int
    time_to_live: float = 120.0
    settle: float = 10.0
    wall: Wall = field(default=time.time, repr=False)
    _removed: bool = False
    _effective: tuple[int, bool] | None = None
    """What the routes have said already; if they stop saying so, `observe` tells."""

    def __post_init__(self) -> None:
        self.split = Split(self.provider)

    @classmethod
    def home(cls, target: Target) -> tuple[Resource, str]:
        """The SeldonDeployment."""
        return deployments_in(target.namespace), target.section_of(Names).deployment

    @classmethod
    def of(cls, target: Target, kube: Kube, fence: int, provider: Provider | None, wall: Wall) -> Self:
        """As in the protocol; the store has put the fence on the same object already."""
        counters, times = provider or Prometheus(target.metrics), (target.time_to_live_seconds, target.settle_seconds)
        return cls(kube, target.namespace, target.section_of(Names), counters, fence, *times, wall)

    @classmethod
    def traffic(cls, target: Target, kube: Kube, home: Json) -> Traffic:
        """By the predictors of the object."""
        here = predictors(home)
        return Traffic(tuple(_share(one, len(here) == 1) for one in here), annotations(home).get(EXPIRES))

    @classmethod
    def leased(cls, kube: Kube, namespace: str) -> list[Json]:
        """SeldonDeployments."""
        return [item for item in kube.list(deployments_in(namespace)) if EXPIRES in annotations(item)]

    @classmethod
    def take_back(cls, kube: Kube, found: Json, wall: Wall) -> bool:
        """One patch, as `remove_candidate`."""
        done: list[bool] = []

        def change(here: Json) -> Sequence[Operation]:
            if not lapsed(here, wall()):
                return ()
            done.append(True)
            stable, _, candidate = annotations(here).get(ARMS, "").partition("/")
            notes = taken_back(here, annotations(here)[EXPIRES], wall()) | dict.fromkeys((MIRRORED, ARMS, CHAMPION))
            return [*removal(here, stable, candidate, champion_of(here)), *annotate(here, notes)]

        meta = found["metadata"]
        edit(kube, deployments_in(meta["namespace"]), meta["name"], change)
        return bool(done)

    @property
    def resource(self) -> Resource:
        """Of SeldonDeployments in the namespace."""
        return deployments_in(self.namespace)

    def prepare(self, seconds: float = 600.0) -> None:
        """Adds the candidate without traffic, if it is not there, and returns when its pods are ready.

        It begins a rollout: what an earlier one kept for its way back is forgotten.

        Raises:
            RolloutError: they were not within `seconds`.
            FencedError: a newer driver has taken over.
        """
        self._edit(self._added)
        wait_until(lambda: self._not_ready(self._found()), seconds, self.names.deployment)

    def apply(self, weight: int, shadow: bool) -> None:
        """As in the protocol. A predictor is mirrored to or gets live traffic, not both.

        Raises:
            RolloutError: also: the candidate is not ready (only a weight that does not rise is then taken), or the
                object would break a rule of Seldon's webhook.
        """
        if self._removed and (weight or shadow):
            raise RolloutError("the candidate was removed; a new rollout is needed to bring it back")
        if weight and shadow:
            raise RolloutError("seldon-v1: a candidate gets live traffic or a mirror of it, found both asked for")
        self.split.note(self._found() if weight and self.split.mark is None else None, weight)
        after = self._edit(lambda found: self._change(found, weight, shadow))
        if self._effective != (weight, shadow):
            present = _index(predictors(after), self.names.candidate.name) is not None
            self._settle(weight if present else 0, shadow)
            self._effective = (weight, shadow)

    def observe(self) -> Reading:
        """The provider's counters, with what the object and the routes say; without that when the API is away."""
        try:
            found = self._found()
            self.split.learn(found)
            weight = self._routes(found)[0] if self.names.routes == "virtualservice" else None
        except FencedError:
            raise
        except RolloutError:
            return self.split.read()
        counted, ready = self.split.read(), readiness(found)
        return replace(
            counted,
            weight=weight,
            candidate_alive=counted.candidate_alive and ready.get(self.names.candidate.name, False),
            champion_alive=counted.champion_alive and ready.get(self.names.stable, False),
        )

    def remove_candidate(self) -> None:
        """One patch: the candidate's predictor goes, stable gets 100 and, if a promotion had begun, its own model back.

        Then the routes must say so too.
        """
        self._removed = True
        self._edit(self._taken_out)
        self._settle(0, False)

    def promote(self) -> None:
        """Stable becomes what the candidate is, is waited for, and only then is the candidate's predictor removed.

        Every step looks whether it is done already, so that it can be called again after any crash. What stable was
        is kept until the next rollout begins, so that `remove_candidate` can still bring it back.
        """
        self._edit(self._stable_as_candidate)
        wait_until(lambda: self._behind(self._found(), self.names.stable), self.settle, self.names.deployment)
        self._edit(self._without_candidate)
        self._settle(0, False)

    def count_probes(self, answered: Callable[[], int]) -> None:
        """As in the protocol."""
        self.split.probed = answered

    def health(self) -> Health:
        """Whether the API answers, and whose pods are ready by the object's status."""
        try:
            ready = readiness(self.kube.get(self.resource, self.names.deployment))
        except RolloutError:
            return Health(False, False, False)
        return Health(True, ready.get(self.names.stable, False), ready.get(self.names.candidate.name, False))

    def _edit(self, change: Change) -> Json:
        return edit(self.kube, self.resource, self.names.deployment, change)

    def _settle(self, weight: int, shadow: bool) -> None:
        wait_until(lambda: self._differs(self._found(), weight, shadow), self.settle, self.names.deployment)

    def _found(self) -> Json:
        found = self.kube.get(self.resource, self.names.deployment)
        require_fence(found, self.fence)
        return found

    def _added(self, found: Json) -> list[Operation]:
        require_fence(found, self.fence)
        here = predictors(found)
        candidate = _index(here, self.names.candidate.name)
        template = self.names.candidate.model_dump(mode="json")
        if candidate is not None and holds(here[candidate]["graph"], template["graph"]):
            return []
        return [*self._change(found, 0, False), *annotate(found, {CHAMPION: None})]

    def _change(self, found: Json, weight: int, shadow: bool) -> list[Operation]:
        """What makes the object carry `weight` and `shadow`, and renews the lease."""
        require_fence(found, self.fence)
        here = predictors(found)
        stable, candidate = _index(here, self.names.stable), _index(here, self.names.candidate.name)
        if stable is None:
            raise RolloutError(f"{self.names.deployment}: expected a predictor {self.names.stable!r}, found none")
        wanted = deepcopy(here)
        template = self.names.candidate.model_dump(mode="json")
        if candidate is None and weight == 100 and holds(here[stable]["graph"], template["graph"]):
            return []  # promoted already: stable is the candidate
        if candidate is None:
            candidate = len(wanted)
            wanted.append(template)
        elif not holds(here[candidate]["graph"], template["graph"]):
            self._replace(wanted, candidate, template)
        wanted[stable]["traffic"] = 100 - weight
        wanted[candidate] |= {"traffic": 100 if shadow else weight, "shadow": shadow}
        self._gate(found, here, wanted, weight, shadow)
        operations = [*_tests(here), *_moves(here, wanted)] if wanted != here else []
        return [*operations, *annotate(found, self._notes(found, weight, shadow))]

    def _replace(self, wanted: list[Json], candidate: int, template: Json) -> None:
        """Another model stands where the candidate should: left over when unused, an intrusion when not."""
        old = wanted[candidate]
        if _used(old):
            uris = _uris(old["graph"])
            raise RolloutError(
                f"{self.names.deployment}: expected the target's model in {old['name']!r}, found {uris or 'another'}"
            )
        wanted[candidate] = template

    def _gate(self, found: Json, here: Sequence[Json], wanted: Sequence[Json], weight: int, shadow: bool) -> None:
        broken = broken_rule(wanted)
        if broken is not None:
            raise RolloutError(f"{self.names.deployment}: {broken}")
        current = _index(here, self.names.candidate.name)
        before = here[current] if current is not None else {}
        if weight <= _live(before) and (not shadow or before.get("shadow")):
            return
        missing: str | None = "a candidate that is not there yet: prepare it first"
        if current is not None:
            missing = self._not_ready(found) if not _used(before) else self._missing(found)
        if missing is not None:
            raise RolloutError(f"{self.names.deployment}: expected to be ready for more traffic, found {missing}")

    def _notes(self, found: Json, weight: int, shadow: bool) -> dict[str, str | None]:
        used = bool(weight or shadow)
        notes: dict[str, str | None] = {
            FENCE: str(self.fence),
            EXPIRES: renewed(found, self.wall(), self.time_to_live) if used else None,
            ARMS: f"{self.names.stable}/{self.names.candidate.name}",
        }
        notes[MIRRORED] = self.split.text(weight)
        return notes

    def _not_ready(self, found: Json) -> str | None:
        """What keeps the candidate from its first request: pods, or pods of another model."""
        return self._missing(found) or self._behind(found, self.names.candidate.name)

    def _missing(self, found: Json) -> str | None:
        """What keeps both arms from being ready."""
        ready = readiness(found)
        for name in (self.names.stable, self.names.candidate.name):
            if not ready.get(name, False):
                return f"predictor {name!r} not ready"
        state = (found.get("status") or {}).get("state")
        return None if state == AVAILABLE else f"state {state!r}"

    def _without_candidate(self, found: Json) -> list[Operation]:
        require_fence(found, self.fence)
        notes: dict[str, str | None] = {FENCE: str(self.fence), EXPIRES: None, MIRRORED: None, ARMS: None}
        return [*removal(found, self.names.stable, self.names.candidate.name, {}), *annotate(found, notes)]

    def _taken_out(self, found: Json) -> list[Operation]:
        require_fence(found, self.fence)
        notes = {FENCE: str(self.fence), **dict.fromkeys((EXPIRES, MIRRORED, ARMS, CHAMPION))}
        return [
            *removal(found, self.names.stable, self.names.candidate.name, champion_of(found)),
            *annotate(found, notes),
        ]

    def _stable_as_candidate(self, found: Json) -> list[Operation]:
        require_fence(found, self.fence)
        here = predictors(found)
        stable, candidate = _index(here, self.names.stable), _index(here, self.names.candidate.name)
        if stable is None:
            raise RolloutError(f"{self.names.deployment}: expected a predictor {self.names.stable!r}, found none")
        template = self.names.candidate.model_dump(mode="json")
        judged = stable if candidate is None else candidate
        if not holds(here[judged]["graph"], template["graph"]):
            raise RolloutError(f"{self.names.deployment}: expected the target's candidate to promote, found none")
        if candidate is None:
            return []
        wanted = [dict(predictor) for predictor in here]
        wanted[stable] |= {key: here[candidate][key] for key in _GRAPH_KEYS if key in here[candidate]}
        expires = renewed(found, self.wall(), self.time_to_live) if _used(here[candidate]) else None
        notes = {FENCE: str(self.fence), EXPIRES: expires}
        if CHAMPION not in annotations(found):
            notes[CHAMPION] = compact({key: here[stable][key] for key in _GRAPH_KEYS if key in here[stable]})
        moves = [*_tests(here), *_moves(here, wanted)] if wanted != here else []
        return [*moves, *annotate(found, notes)]

    def _behind(self, found: Json, arm: str) -> str | None:
        """What keeps an arm from serving the model that it names now, by its Deployments themselves."""
        predictor = next((item for item in predictors(found) if item["name"] == arm), None)
        names = [name for name, owner in deployments_of(found).items() if owner == arm]
        if predictor is None or not names:
            return f"no Deployment of predictor {arm!r} in its status"
        kind = Resource("apps", "v1", "deployments", self.namespace)
        bodies = [self.kube.get(kind, name) for name in names]
        late = next((reason for body in bodies if (reason := _rolling(body)) is not None), None)
        text = str([body["spec"]["template"] for body in bodies])
        behind = [uri for uri in _uris(predictor["graph"]) if uri not in text]
        return late or (f"Deployments that do not name {behind[0]} yet" if behind else None)

    def _differs(self, found: Json, weight: int, shadow: bool) -> str | None:
        """What keeps the weights from being in effect."""
        if self.names.routes == "status":
            state = (found.get("status") or {}).get("state")
            return None if state == AVAILABLE else f"state {state!r}"
        live, mirror = self._routes(found)
        if (live, mirror) == (weight, shadow):
            return None
        slow = [name for name, ready in readiness(found).items() if not ready]
        why = f"; not ready, which holds routes back: {', '.join(slow)}" if slow else ""
        return f"routes with candidate {live} %, mirror {mirror}{why}"

    def _routes(self, found: Json) -> tuple[int, bool]:
        """The candidate's weight, and whether it is mirrored to, in the VirtualServices that the operator made."""
        kind = Resource("networking.istio.io", "v1beta1", "virtualservices", self.namespace)
        owned = [item for item in self.kube.list(kind) if _owned(item, found)]
        routes = [route for item in owned for route in item.get("spec", {}).get("http") or [] if _ours(route)]
        if not routes:
            raise RolloutError(f"{self.names.deployment}: expected a VirtualService of the operator's, found none")
        name = self.names.candidate.name
        weights = {sum(part.get("weight", 100) for part in _parts(route, name)) for route in routes}
        mirrors = {(route.get("mirror") or {}).get("subset") == name for route in routes}
        # REST and gRPC have a route each: what counts is the one that is further from 0.
        return max(weights), any(mirrors)


def deployments_in(namespace: str) -> Resource:
    """SeldonDeployments of a namespace."""
    return Resource("machinelearning.seldon.io", "v1", "seldondeployments", namespace)


def predictors(found: Json) -> list[Json]:
    """Those of a SeldonDeployment."""
    return list(found["spec"]["predictors"])


def broken_rule(here: Sequence[Mapping[str, object]]) -> str | None:
    """The first rule of Seldon's webhook that these predictors break; the CRD's schema does not know them."""
    names = [str(predictor["name"]) for predictor in here]
    if len(set(names)) != len(names):
        return f"expected unique names of predictors, found {names}"
    shadows = [predictor for predictor in here if predictor.get("shadow")]
    live = [_traffic(predictor) for predictor in here if not predictor.get("shadow")]
    if len(shadows) > 1:
        return f"expected at most one shadow, found {len(shadows)}"
    if not live:
        return "expected a predictor that is not a shadow, found none"
    if any(not 0 <= _traffic(predictor) <= 100 for predictor in here):
        return "expected traffic between 0 and 100"
    if len(live) == 1 and live[0] not in (0, 100):
        return f"expected traffic 0 or 100 of the only predictor, found {live[0]}"
    if len(live) > 1 and sum(live) != 100:
        return f"expected traffic that adds up to 100, found {live}"
    return None


def removal(found: Json, stable: str, candidate: str, champion: Json) -> list[Operation]:
    """One patch's worth: stable gets 100 and is `champion` again, where that is given; the candidate's predictor goes.

    Nothing when it is so already.
    """
    here = predictors(found)
    kept, gone = _index(here, stable), _index(here, candidate)
    if kept is None:
        raise RolloutError(f"{found['metadata']['name']}: expected a predictor {stable!r}, found none")
    wanted = {"traffic": 100, **champion}
    if gone is None and all(here[kept].get(key, 100) == value for key, value in wanted.items()):
        return []
    operations: list[Operation] = [*_tests(here), *(_set(kept, key, value) for key, value in wanted.items())]
    if gone is not None:
        operations.append({"op": "remove", "path": pointer("spec", "predictors", gone)})
    return operations


def deployments_of(found: Json) -> dict[str, str]:
    """Deployment -> predictor, by the names in the status: OBJECT-PREDICTOR-INDEX-CONTAINERS."""
    names = sorted((str(p["name"]) for p in predictors(found)), key=len, reverse=True)
    listed = (found.get("status") or {}).get("deploymentStatus") or {}
    owner = found["metadata"]["name"]
    arms = {name: next((arm for arm in names if name.startswith(f"{owner}-{arm}-")), "") for name in listed}
    return {name: arm for name, arm in arms.items() if arm}


def readiness(found: Json) -> dict[str, bool]:
    """Predictor -> whether all its replicas are there, by the status; names too long to tell count by its state."""
    listed = (found.get("status") or {}).get("deploymentStatus") or {}
    arms = deployments_of(found)
    state = (found.get("status") or {}).get("state") == AVAILABLE
    ready = {}
    for predictor in predictors(found):
        mine = [listed[name] for name, arm in arms.items() if arm == predictor["name"]]
        ready[str(predictor["name"])] = all(_whole(status) for status in mine) if mine else state and not arms
    return ready


def _whole(status: Json) -> bool:
    replicas = int(status.get("replicas") or 0)
    return replicas >= 1 and int(status.get("availableReplicas") or 0) >= replicas


def _rolling(deployment: Json) -> str | None:
    """What keeps a Deployment from being wholly what its specification says."""
    status, wanted = (deployment.get("status") or {}), int(deployment["spec"].get("replicas", 1))
    name = deployment["metadata"]["name"]
    if int(status.get("observedGeneration", 0)) < int(deployment["metadata"].get("generation", 0)):
        return f"Deployment {name} not yet looked at"
    counts = [int(status.get(key) or 0) for key in ("updatedReplicas", "availableReplicas", "replicas")]
    return None if counts == [wanted] * 3 and wanted else f"Deployment {name} with {counts[0]} of {wanted} new replicas"


def _index(here: Sequence[Json], name: str) -> int | None:
    return next((number for number, predictor in enumerate(here) if predictor["name"] == name), None)


def _traffic(predictor: Mapping[str, object]) -> int:
    value = predictor.get("traffic", 0)
    return value if isinstance(value, int) else -1


def _share(predictor: Json, only: bool) -> tuple[str, str]:
    share = 100 if only else predictor.get("traffic", 0)
    return str(predictor["name"]), "shadow" if predictor.get("shadow") else f"{share} %"


def _used(predictor: Json) -> bool:
    return bool(_live(predictor) or predictor.get("shadow"))


def _live(predictor: Json) -> int:
    return 0 if predictor.get("shadow") else _traffic(predictor)


def _tests(here: Sequence[Json]) -> list[Operation]:
    """Holds only while every predictor stands where it was seen."""
    return [
        {"op": "test", "path": pointer("spec", "predictors", number, "name"), "value": predictor["name"]}
        for number, predictor in enumerate(here)
    ]


def _moves(here: Sequence[Json], wanted: Sequence[Json]) -> list[Operation]:
    """Operations that set what differs; predictors are added at the end, never removed."""
    operations = [
        _set(number, key, predictor[key])
        for number, (old, predictor) in enumerate(zip(here, wanted, strict=False))
        for key in predictor
        if old.get(key) != predictor[key]
    ]
    more: list[Operation] = [
        {"op": "add", "path": pointer("spec", "predictors", "-"), "value": predictor}
        for predictor in wanted[len(here) :]
    ]
    return [*operations, *more]


def _set(number: int, key: str, value: object) -> Operation:
    return {"op": "add", "path": pointer("spec", "predictors", number, key), "value": value}


def _uris(graph: Json) -> list[str]:
    own = [str(graph["modelUri"])] if graph.get("modelUri") else []
    return own + [uri for child in graph.get("children") or [] for uri in _uris(child)]


def _owned(item: Json, owner: Json) -> bool:
    references = item["metadata"].get("ownerReferences") or []
    return any(reference.get("uid") == owner["metadata"]["uid"] for reference in references)


def _ours(route: Json) -> bool:
    """Whether it leads to predictors, not to an explainer."""
    hosts = [str(part.get("destination", {}).get("host", "")) for part in route.get("route") or []]
    return bool(hosts) and not any(host.partition(".")[0].endswith("-explainer") for host in hosts)


def _parts(route: Json, name: str) -> list[Json]:
    return [part for part in route.get("route") or [] if part.get("destination", {}).get("subset") == name]
