"""The driver for a SeldonDeployment (`machinelearning.seldon.io/v1`) behind Istio.

The operator changes routes only while every Deployment of the object is ready, so traffic 0 does not take a candidate
out whose pods are not. Therefore a rollback removes the candidate's predictor and gives stable 100 in one patch, and
nothing counts as done before the VirtualService has it.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from holdfast.errors import RolloutError
from holdfast.kubernetes.api import Kube, Resource
from holdfast.kubernetes.objects import Json, Operation, annotations, holds, pointer
from holdfast.serving.rollout.cluster.fenced import Edit, FencedDriver, Seen
from holdfast.serving.rollout.cluster.live_answers import MIRRORED
from holdfast.serving.rollout.cluster.protocol import TrafficShares
from holdfast.serving.rollout.cluster.store import ARMS, CHAMPION, EXPIRES, champion_of, compact
from holdfast.serving.rollout.cluster.target import SeldonV1Target, Target

AVAILABLE = "Available"
_GRAPH_KEYS = ("graph", "componentSpecs", "svcOrchSpec")
"""What decides which model a predictor serves, and how."""


@dataclass
class SeldonV1(FencedDriver):
    """Implements `holdfast.serving.rollout.cluster.protocol.ClusterDriver` on one SeldonDeployment."""

    kind = "SeldonDeployment"
    section = SeldonV1Target

    names: SeldonV1Target

    @classmethod
    def lease_holders(cls, namespace: str) -> Resource:
        """SeldonDeployments."""
        return deployments_in(namespace)

    @property
    def name(self) -> str:
        """The SeldonDeployment."""
        return self.names.deployment

    @classmethod
    def home(cls, target: Target) -> tuple[Resource, str]:
        """The SeldonDeployment."""
        return deployments_in(target.namespace), target.section_of(SeldonV1Target).deployment

    @classmethod
    def traffic(cls, target: Target, kube: Kube, home: Json) -> TrafficShares:
        """The shares of the object's predictors."""
        here = predictors(home)
        return TrafficShares(tuple(_share(one, len(here) == 1) for one in here), annotations(home).get(EXPIRES))

    @classmethod
    def way_back(cls, found: Json) -> Edit:
        """The change of `remove_candidate`, with the arms that the object names."""
        stable, _, candidate = annotations(found).get(ARMS, "").partition("/")
        return _way_back(found, stable, candidate)

    def prepare(self, seconds: float = 600.0) -> None:
        """Adds the candidate without traffic, if it is not there, and returns when its pods are ready."""
        self._edit(self._begun)
        self._settle(self._unprepared, seconds)

    def remove_candidate(self) -> None:
        """One patch: the candidate's predictor goes, stable gets 100 and, if a promotion had begun, its own model back.

        Then the routes must have it too.
        """
        self._removed = True
        self._edit(lambda found: _way_back(found, self.names.stable, self.names.candidate.name))
        self._settle(lambda found: self._differs(found, 0, False))

    def promote(self) -> None:
        """Stable becomes what the candidate is, is waited for, and only then is the candidate's predictor removed.

        Every step looks whether it is done already, so that it can be called again after any crash. What stable was
        is kept until the next rollout begins, so that `remove_candidate` can still bring it back.
        """
        self._edit(self._stable_as_candidate)
        self._settle(lambda found: self._behind(found, self.names.stable))
        self._edit(self._without_candidate)
        self._settle(lambda found: self._differs(found, 0, False))

    def _seen(self) -> Seen:
        found = self._found()
        self.live.learn(found)
        weight, ready = self._routes(found)[0] if self.names.routes == "virtualservice" else None, readiness(found)
        return Seen(weight, ready.get(self.names.stable, False), ready.get(self.names.candidate.name, False))

    def _ready(self) -> tuple[bool, bool]:
        ready = readiness(self.kube.get(self.resource, self.name))
        return ready.get(self.names.stable, False), ready.get(self.names.candidate.name, False)

    def _template(self) -> Json:
        return self.names.candidate.model_dump(mode="json")

    def _arms(self, here: Sequence[Json]) -> tuple[int, int | None]:
        """Positions of stable and the candidate among the predictors."""
        stable = _index(here, self.names.stable)
        if stable is None:
            raise RolloutError(f"{self.name}: expected a predictor {self.names.stable!r}, found none")
        return stable, _index(here, self.names.candidate.name)

    def _begun(self, found: Json) -> Edit:
        here, template = predictors(found), self._template()
        candidate = _index(here, self.names.candidate.name)
        if candidate is not None and holds(here[candidate]["graph"], template["graph"]):
            return (), {}
        operations, notes = self._change(found, 0, False)
        return operations, {**notes, CHAMPION: None}

    def _change(self, found: Json, weight: int, shadow: bool) -> Edit:
        here, template = predictors(found), self._template()
        stable, candidate = self._arms(here)
        if candidate is None and weight == 100 and holds(here[stable]["graph"], template["graph"]):
            return (), {}  # promoted already: stable is the candidate
        wanted = deepcopy(here)
        if candidate is None:
            candidate = len(wanted)
            wanted.append(template)
        elif not holds(here[candidate]["graph"], template["graph"]):
            self._require_unused(here[candidate])
            wanted[candidate] = template
        wanted[stable]["traffic"] = 100 - weight
        wanted[candidate] |= {"traffic": 100 if shadow else weight, "shadow": shadow}
        broken = broken_rule(wanted)
        if broken is not None:
            raise RolloutError(f"{self.name}: {broken}")
        self._require_ready(self._keeps_from(found, weight, shadow))
        return _moves(here, wanted), {
            EXPIRES: self._lease(found) if weight or shadow else None,
            ARMS: f"{self.names.stable}/{self.names.candidate.name}",
            MIRRORED: self.live.text(weight),
        }

    def _require_unused(self, other: Json) -> None:
        """Refuses another model in the candidate's place: left over when unused, an intrusion when not."""
        if _used(other):
            uris = _uris(other["graph"])
            raise RolloutError(
                f"{self.name}: expected the target's model in {other['name']!r}, found {uris or 'another'}"
            )

    def _keeps_from(self, found: Json, weight: int, shadow: bool) -> str | None:
        """The reason that keeps the candidate from more traffic than it has; nothing where it gets no more."""
        here = predictors(found)
        current = _index(here, self.names.candidate.name)
        before = here[current] if current is not None else {}
        if weight <= _live(before) and (not shadow or before.get("shadow")):
            return None
        if current is None:
            return "the candidate is not there yet: prepare it first"
        return self._missing(found) if _used(before) else self._unprepared(found)

    def _unprepared(self, found: Json) -> str | None:
        """Pods that are missing, or are of another model."""
        return self._missing(found) or self._behind(found, self.names.candidate.name)

    def _missing(self, found: Json) -> str | None:
        """The reason that keeps both arms from being ready."""
        ready = readiness(found)
        for name in (self.names.stable, self.names.candidate.name):
            if not ready.get(name, False):
                return f"predictor {name!r} not ready"
        return _unavailable(found)

    def _without_candidate(self, found: Json) -> Edit:
        operations = removal(found, self.names.stable, self.names.candidate.name, {})
        return operations, dict.fromkeys((EXPIRES, MIRRORED, ARMS))

    def _stable_as_candidate(self, found: Json) -> Edit:
        here = predictors(found)
        stable, candidate = self._arms(here)
        judged = here[stable if candidate is None else candidate]
        if not holds(judged["graph"], self._template()["graph"]):
            raise RolloutError(f"{self.name}: cannot promote: the target's candidate is not there")
        if candidate is None:
            return (), {}
        wanted = [dict(predictor) for predictor in here]
        wanted[stable] |= _model_of(judged)
        notes: dict[str, str | None] = {EXPIRES: self._lease(found) if _used(judged) else None}
        if CHAMPION not in annotations(found):
            notes[CHAMPION] = compact(_model_of(here[stable]))
        return _moves(here, wanted), notes

    def _behind(self, found: Json, arm: str) -> str | None:
        """The reason that keeps an arm from serving the model that it names now, by its Deployments themselves."""
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
        if self.names.routes == "status":
            return _unavailable(found)
        there = _index(predictors(found), self.names.candidate.name) is not None
        live, mirror = self._routes(found)
        if (live, mirror) == (weight if there else 0, shadow):
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
            raise RolloutError(f"{self.name}: expected a VirtualService of the operator's, found none")
        name = self.names.candidate.name
        weights = {sum(part.get("weight", 100) for part in _parts(route, name)) for route in routes}
        mirrors = {(route.get("mirror") or {}).get("subset") == name for route in routes}
        # REST and gRPC have a route each: what counts is the one that is further from 0.
        return max(weights), any(mirrors)


def deployments_in(namespace: str) -> Resource:
    """SeldonDeployments of a namespace."""
    return Resource("machinelearning.seldon.io", "v1", "seldondeployments", namespace)


def predictors(found: Json) -> list[Json]:
    """Predictors of a SeldonDeployment."""
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


def _way_back(found: Json, stable: str, candidate: str) -> Edit:
    """The removal of the candidate, with which stable is what it was before a promotion began."""
    operations = removal(found, stable, candidate, champion_of(found))
    return operations, dict.fromkeys((EXPIRES, MIRRORED, ARMS, CHAMPION))


def deployments_of(found: Json) -> dict[str, str]:
    """Deployment -> predictor, by the names in the status: OBJECT-PREDICTOR-INDEX-CONTAINERS."""
    names = sorted((str(p["name"]) for p in predictors(found)), key=len, reverse=True)
    listed = (found.get("status") or {}).get("deploymentStatus") or {}
    owner = found["metadata"]["name"]
    arms = {name: next((arm for arm in names if name.startswith(f"{owner}-{arm}-")), "") for name in listed}
    return {name: arm for name, arm in arms.items() if arm}


def readiness(found: Json) -> dict[str, bool]:
    """Predictor -> whether all its replicas are there, by the status; where names are too long, by its state."""
    listed = (found.get("status") or {}).get("deploymentStatus") or {}
    arms = deployments_of(found)
    state = (found.get("status") or {}).get("state") == AVAILABLE
    ready = {}
    for predictor in predictors(found):
        mine = [listed[name] for name, arm in arms.items() if arm == predictor["name"]]
        ready[str(predictor["name"])] = all(_whole(status) for status in mine) if mine else state and not arms
    return ready


def _unavailable(found: Json) -> str | None:
    state = (found.get("status") or {}).get("state")
    return None if state == AVAILABLE else f"state {state!r}"


def _whole(status: Json) -> bool:
    replicas = int(status.get("replicas") or 0)
    return replicas >= 1 and int(status.get("availableReplicas") or 0) >= replicas


def _rolling(deployment: Json) -> str | None:
    """The reason that keeps a Deployment from being wholly what its specification asks for."""
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


def _model_of(predictor: Json) -> Json:
    return {key: predictor[key] for key in _GRAPH_KEYS if key in predictor}


def _tests(here: Sequence[Json]) -> list[Operation]:
    """Operations that fail unless every predictor is where it was seen."""
    return [
        {"op": "test", "path": pointer("spec", "predictors", number, "name"), "value": predictor["name"]}
        for number, predictor in enumerate(here)
    ]


def _moves(here: Sequence[Json], wanted: Sequence[Json]) -> list[Operation]:
    """Operations that set what differs; predictors are added at the end, never removed."""
    if wanted == here:
        return []
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
    return [*_tests(here), *operations, *more]


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
