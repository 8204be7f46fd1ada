"""The driver for a KServe InferenceService (`serving.kserve.io/v1beta1`) whose revisions Knative keeps.

The object has one predictor: the candidate is its newest revision, the champion the one that had all traffic before. A
weight is `canaryTrafficPercent` and nothing else; the way back is 0 %, by revision, and needs nothing of the candidate.
KServe copies no requests, so answers to probes are the shadow. `status.observedGeneration` is that of the Knative
Service and dates nothing here: a weight is in effect when `status.components.predictor.traffic` has it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from holdfast.errors import FencedError, RolloutError
from holdfast.serving.rollout.cluster.kube import (
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
    PREFIX,
    Wall,
    champion_of,
    compact,
    lapsed,
    renewed,
    require_fence,
    taken_back,
)
from holdfast.serving.rollout.cluster.target import KServe as Names
from holdfast.serving.rollout.cluster.target import Metrics, Target
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.contract.driver import Health, Provider

NEWER_THAN = f"{PREFIX}newer-than"
"""The newest revision when the candidate was put there: the candidate's is the next one."""
PERCENT = "canaryTrafficPercent"
_PREDICTOR = ("spec", "predictor")


@dataclass
class ByRevision:
    """Implements `Provider`: the target's Prometheus, once `{champion}` and `{candidate}` are names of revisions."""

    metrics: Metrics
    find: Callable[[], Json]
    _made: Prometheus | None = field(default=None, init=False)

    def read(self) -> Reading:
        """As `Prometheus.read`."""
        if self._made is None:
            self._made = Prometheus(with_revisions(self.metrics, *arms_of(self.find())))
        return self._made.read()


@dataclass
class KServe:
    """Implements `holdfast.serving.rollout.cluster.protocol.ClusterDriver` on one InferenceService."""

    kind: ClassVar[str] = "InferenceService"
    mirrors: ClassVar[bool] = False

    kube: Kube
    namespace: str
    names: Names
    provider: Provider
    fence: int
    time_to_live: float = 120.0
    settle: float = 10.0
    wall: Wall = field(default=time.time, repr=False)
    _removed: bool = False
    _effective: int | None = None
    """The weight that the status has confirmed already; if it no longer does, `observe` shows it."""

    def __post_init__(self) -> None:
        self.split = Split(self.provider)
        self.resource = services_in(self.namespace)

    @classmethod
    def home(cls, target: Target) -> tuple[Resource, str]:
        """The InferenceService."""
        return services_in(target.namespace), target.section_of(Names).service

    @classmethod
    def of(cls, target: Target, kube: Kube, fence: int, provider: Provider | None, wall: Wall) -> Self:
        """As in the protocol; the store has put the fence on the same object already."""
        home, times = cls.home(target), (target.time_to_live_seconds, target.settle_seconds)
        counters = provider or ByRevision(target.metrics, lambda: kube.get(*home))
        return cls(kube, target.namespace, target.section_of(Names), counters, fence, *times, wall)

    @classmethod
    def traffic(cls, target: Target, kube: Kube, home: Json) -> Traffic:
        """By the status: what Knative routes, not what was asked for."""
        shares = tuple((name, f"{share} %") for name, share in shares_of(home).items())
        return Traffic(shares, annotations(home).get(EXPIRES))

    @classmethod
    def leased(cls, kube: Kube, namespace: str) -> list[Json]:
        """InferenceServices."""
        return [item for item in kube.list(services_in(namespace)) if EXPIRES in annotations(item)]

    @classmethod
    def take_back(cls, kube: Kube, found: Json, wall: Wall) -> bool:
        """One patch: 0 %. The next driver gives the object the champion's predictor back."""
        done: list[bool] = []

        def change(here: Json) -> Sequence[Operation]:
            if not lapsed(here, wall()):
                return ()
            done.append(True)
            notes = taken_back(here, annotations(here)[EXPIRES], wall()) | {MIRRORED: None}
            return [*percent(here, 0), *annotate(here, notes)]

        meta = found["metadata"]
        edit(kube, services_in(meta["namespace"]), meta["name"], change)
        return bool(done)

    def prepare(self, seconds: float = 600.0) -> None:
        """Makes the candidate the newest revision, at 0 %, and returns when its pods are ready.

        Raises:
            RolloutError: they were not within `seconds`; no revision has all traffic; or it is the candidate's.
            FencedError: a newer driver has taken over.
        """
        self._edit(self._begun)
        wait_until(self._missing, seconds, self.names.service)

    def apply(self, weight: int, shadow: bool) -> None:
        """As in the protocol; a shadow is a lease at 0 %.

        Raises:
            RolloutError: also: the candidate is not ready (only a weight that does not rise is then taken), or the
                object's predictor is not the target's candidate.
        """
        if self._removed and (weight or shadow):
            raise RolloutError("the candidate was removed; a new rollout is needed to bring it back")
        if weight and shadow:
            raise RolloutError("kserve: a candidate gets live traffic or a mirror of it, found both asked for")
        self.split.note(self._found() if weight and self.split.mark is None else None, weight)
        self._edit(lambda found: self._change(found, weight, shadow))
        if self._effective != weight:
            self._settle(lambda found: self._differs(found, weight))
            self._effective = weight

    def observe(self) -> Reading:
        """The provider's counters, with what the object's status has; without that when the API is away."""
        try:
            found = self._found()
            self.split.learn(found)
        except FencedError:
            raise
        except RolloutError:
            return self.split.read()
        counted, (_, candidate), shares = self.split.read(), arms_of(found), shares_of(found)
        return replace(
            counted,
            weight=shares.get(candidate, 0) if shares else None,
            candidate_alive=counted.candidate_alive and self._not_ready(found) is None,
        )

    def remove_candidate(self) -> None:
        """One patch: 0 %; the status must have it. Then the object gets the champion's predictor back.

        That makes one more revision, of the champion, which gets no traffic: until then, whoever takes
        `canaryTrafficPercent` away would give the candidate everything.
        """
        self._removed = True
        self._edit(self._taken_out)
        self._settle(self._leads_elsewhere)
        self._edit(self._as_before)

    def promote(self) -> None:
        """Lets the candidate have everything for good, once KServe has it as the revision that was rolled out last.

        What the champion was is kept until the next rollout begins, so that `remove_candidate` can bring it back.
        """
        self._edit(lambda found: self._change(found, 100, False))
        self._settle(lambda found: self._differs(found, 100) or _not_last(found, arms_of(found)[1]))
        self._edit(self._promoted)

    def count_probes(self, answered: Callable[[], int]) -> None:
        """As in the protocol."""
        self.split.probed = answered

    def health(self) -> Health:
        """Whether the API answers, whether the champion's revision is routed to, and whether the candidate is ready."""
        try:
            found = self.kube.get(self.resource, self.names.service)
            routed = arms_of(found)[0] in shares_of(found)
            return Health(True, routed and condition(found, "PredictorRouteReady"), self._not_ready(found) is None)
        except RolloutError:
            return Health(False, False, False)

    def _edit(self, change: Callable[[Json], list[Operation]]) -> Json:
        def fenced(found: Json) -> list[Operation]:
            require_fence(found, self.fence)
            return change(found)

        return edit(self.kube, self.resource, self.names.service, fenced)

    def _settle(self, missing: Callable[[Json], str | None]) -> None:
        wait_until(lambda: missing(self._found()), self.settle, self.names.service)

    def _found(self) -> Json:
        found = self.kube.get(self.resource, self.names.service)
        require_fence(found, self.fence)
        return found

    def _begun(self, found: Json) -> list[Operation]:
        """The candidate at 0 %, in one patch; one that is there already stays."""
        champion, (before, _) = component(found).get("latestRolledoutRevision", ""), arms_of(found)
        if self._has_candidate(found) and PERCENT in predictor_of(found) and champion == before != "":
            return []
        if not champion or shares_of(found).get(champion) != 100:
            shares = shares_of(found) or "none, as without Knative"
            raise RolloutError(f"{self.names.service}: expected all traffic on one revision, found {shares}")
        if self._has_candidate(found):
            raise RolloutError(f"{self.names.service}: expected another model than the target's, found it serving")
        notes: dict[str, str | None] = {
            CHAMPION: compact(_champion(found, here=champion == before)),
            ARMS: f"{champion}/",
            NEWER_THAN: component(found).get("latestCreatedRevision", ""),
        }
        return [_put({**self.names.candidate.model_dump(mode="json"), PERCENT: 0}), *annotate(found, notes)]

    def _missing(self) -> str | None:
        """What keeps the candidate from its first request."""
        found = self._found()
        champion, candidate = arms_of(found)
        newest = component(found).get("latestCreatedRevision", "")
        if candidate:
            return self._not_ready(found)
        if newest in ("", annotations(found).get(NEWER_THAN)):
            return "no revision of the candidate"
        self._edit(lambda here: annotate(here, {ARMS: f"{champion}/{newest}", NEWER_THAN: None}))
        return "a revision that was made just now"

    def _not_ready(self, found: Json) -> str | None:
        _, candidate = arms_of(found)
        ready = component(found).get("latestReadyRevision", "none")
        if not candidate or ready != candidate:
            return f"{ready} as the newest revision that is ready"
        return None if condition(found, "PredictorConfigurationReady") else f"revision {candidate} not ready"

    def _change(self, found: Json, weight: int, shadow: bool) -> list[Operation]:
        """What makes the object carry `weight`, and renews the lease."""
        self._require_candidate(found)
        here, leased = predictor_of(found), EXPIRES in annotations(found)
        if weight == 100 and PERCENT not in here and not leased:
            return []  # promoted already
        if weight > here.get(PERCENT, 100) or (shadow and not leased):
            missing = self._not_ready(found)
            if missing is not None:
                raise RolloutError(f"{self.names.service}: expected to be ready for more traffic, found {missing}")
        expires = renewed(found, self.wall(), self.time_to_live) if weight or shadow else None
        return [*percent(found, weight), *annotate(found, {EXPIRES: expires, MIRRORED: self.split.text(weight)})]

    def _taken_out(self, found: Json) -> list[Operation]:
        notes: dict[str, str | None] = dict.fromkeys((EXPIRES, MIRRORED))
        ours = PERCENT in predictor_of(found) or self._has_candidate(found)
        if not arms_of(found)[0] or not ours:
            return annotate(found, notes | dict.fromkeys((ARMS, CHAMPION, NEWER_THAN)))
        return [*percent(found, 0), *annotate(found, notes)]

    def _as_before(self, found: Json) -> list[Operation]:
        champion = champion_of(found)
        back = [_put({**champion, PERCENT: 0})] if champion and self._has_candidate(found) else []
        return [*back, *annotate(found, dict.fromkeys((ARMS, CHAMPION, NEWER_THAN)))]

    def _promoted(self, found: Json) -> list[Operation]:
        self._require_candidate(found)
        free = [{"op": "remove", "path": pointer(*_PREDICTOR, PERCENT)}] if PERCENT in predictor_of(found) else []
        return [*free, *annotate(found, dict.fromkeys((EXPIRES, MIRRORED)))]

    def _has_candidate(self, found: Json) -> bool:
        return holds(predictor_of(found), self.names.candidate.model_dump(mode="json"))

    def _require_candidate(self, found: Json) -> None:
        if not self._has_candidate(found):
            address = (predictor_of(found).get("model") or {}).get("storageUri", "another")
            raise RolloutError(f"{self.names.service}: expected the target's candidate as predictor, found {address}")

    def _differs(self, found: Json, weight: int) -> str | None:
        """What keeps a weight from being in effect."""
        champion, candidate = arms_of(found)
        wanted, shares = {champion: 100 - weight, candidate: weight}, shares_of(found)
        if any(shares.get(name, 0) != wanted.get(name, 0) for name in {*wanted, *shares}):
            return f"traffic {shares}"
        return _unrouted(found)

    def _leads_elsewhere(self, found: Json) -> str | None:
        """What keeps the champion from having all traffic, now and at the next change of the object."""
        champion, shares = arms_of(found)[0], shares_of(found)
        if not champion:
            return None
        if shares.get(champion) != 100:
            return f"traffic {shares}"
        return _not_last(found, champion) or _unrouted(found)


def services_in(namespace: str) -> Resource:
    """InferenceServices of a namespace."""
    return Resource("serving.kserve.io", "v1beta1", "inferenceservices", namespace)


def predictor_of(found: Json) -> Json:
    """What an InferenceService is asked to serve."""
    return dict(found["spec"]["predictor"])


def component(found: Json) -> Json:
    """What the status has about the predictor: names of revisions, and their traffic."""
    components = (found.get("status") or {}).get("components") or {}
    return dict(components.get("predictor") or {})


def shares_of(found: Json) -> dict[str, int]:
    """Revision -> percent of live requests, as Knative routes them; empty without a status."""
    shares: dict[str, int] = {}
    for part in component(found).get("traffic") or []:
        name = str(part.get("revisionName"))
        shares[name] = shares.get(name, 0) + int(part.get("percent") or 0)
    return shares


def arms_of(found: Json) -> tuple[str, str]:
    """Revisions of champion and candidate; empty where none is known (yet)."""
    champion, _, candidate = annotations(found).get(ARMS, "").partition("/")
    return champion, candidate


def condition(found: Json, name: str) -> bool:
    """Whether a condition of the status is true; of one that is not there, whether the predictor is ready."""
    known = {item["type"]: item["status"] for item in (found.get("status") or {}).get("conditions") or []}
    return known.get(name, known.get("PredictorReady")) == "True"


def percent(found: Json, weight: int) -> list[Operation]:
    """The operation that gives the newest revision `weight` percent; none when it is so already."""
    if predictor_of(found).get(PERCENT) == weight:
        return []
    return [{"op": "add", "path": pointer(*_PREDICTOR, PERCENT), "value": weight}]


def with_revisions(metrics: Metrics, champion: str, candidate: str) -> Metrics:
    """Replaces `{champion}` and `{candidate}` in the labels of both arms.

    Raises:
        RolloutError: a revision has no name yet.
    """
    if not champion or not candidate:
        raise RolloutError("metrics: expected names of both revisions, found none before the rollout is prepared")

    def named(labels: Mapping[str, str]) -> dict[str, str]:
        texts = {label: text.replace("{champion}", champion) for label, text in labels.items()}
        return {label: text.replace("{candidate}", candidate) for label, text in texts.items()}

    return metrics.model_copy(update={"champion": named(metrics.champion), "candidate": named(metrics.candidate)})


def _champion(found: Json, *, here: bool) -> Json:
    """The predictor of the revision that has all traffic; `here`: an earlier candidate may still be in its place."""
    kept = champion_of(found) if here else {}
    return kept or {key: value for key, value in predictor_of(found).items() if key != PERCENT}


def _put(predictor: Json) -> Operation:
    return {"op": "add", "path": pointer(*_PREDICTOR), "value": predictor}


def _not_last(found: Json, revision: str) -> str | None:
    """What keeps a revision from being the one that KServe goes on from, and back to."""
    last = component(found).get("latestRolledoutRevision")
    return None if last == revision else f"{last} as the revision that was rolled out last"


def _unrouted(found: Json) -> str | None:
    return None if condition(found, "PredictorRouteReady") else "routes that are not ready"
