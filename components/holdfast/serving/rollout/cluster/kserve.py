"""The driver for a KServe InferenceService (`serving.kserve.io/v1beta1`) whose revisions Knative keeps.

The object has one predictor: the candidate is its newest revision, the champion the one that had all traffic before. A
weight is `canaryTrafficPercent` and nothing else; the way back is 0 %, by revision, and needs nothing of the candidate.
KServe copies no requests, so answers to probes are the shadow. `status.observedGeneration` is that of the Knative
Service and dates nothing here: a weight is in effect when `status.components.predictor.traffic` has it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from holdfast.errors import RolloutError
from holdfast.kubernetes.api import Kube, Resource
from holdfast.kubernetes.objects import Json, Operation, annotations, condition, holds, pointer
from holdfast.serving.rollout.cluster.fenced import Edit, FencedDriver, Seen
from holdfast.serving.rollout.cluster.live_answers import MIRRORED
from holdfast.serving.rollout.cluster.prometheus import Prometheus
from holdfast.serving.rollout.cluster.protocol import TrafficShares
from holdfast.serving.rollout.cluster.series import MetricsSource
from holdfast.serving.rollout.cluster.store import ARMS, CHAMPION, EXPIRES, PREFIX, champion_of, compact
from holdfast.serving.rollout.cluster.target import KServeTarget, Target
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.contract.driver import Provider

NEWER_THAN = f"{PREFIX}newer-than"
"""The newest revision when the candidate was put there: the candidate's is the next one."""
PERCENT = "canaryTrafficPercent"
_PREDICTOR = ("spec", "predictor")
_CONFIGURED = ("PredictorConfigurationReady", "PredictorReady")
_ROUTED = ("PredictorRouteReady", "PredictorReady")
"""Conditions of a status, the second where there is no first."""


@dataclass
class ByRevision:
    """Implements `Provider`: the target's Prometheus, once `{champion}` and `{candidate}` are names of revisions."""

    metrics: MetricsSource
    find: Callable[[], Json]
    _made: Prometheus | None = field(default=None, init=False)

    def read(self) -> Reading:
        """Reads Prometheus, as `Prometheus.read`."""
        if self._made is None:
            self._made = Prometheus(with_revisions(self.metrics, *arms_of(self.find())))
        return self._made.read()


@dataclass
class KServe(FencedDriver):
    """Implements `holdfast.serving.rollout.cluster.protocol.ClusterDriver` on one InferenceService."""

    kind = "InferenceService"
    mirrors = False
    section = KServeTarget

    names: KServeTarget

    @classmethod
    def lease_holders(cls, namespace: str) -> Resource:
        """InferenceServices."""
        return services_in(namespace)

    @property
    def name(self) -> str:
        """The InferenceService."""
        return self.names.service

    @classmethod
    def home(cls, target: Target) -> tuple[Resource, str]:
        """The InferenceService."""
        return services_in(target.namespace), target.section_of(KServeTarget).service

    @classmethod
    def counters(cls, target: Target, kube: Kube) -> Provider:
        """The target's Prometheus, by revision."""
        return ByRevision(target.metrics, lambda: kube.get(*cls.home(target)))

    @classmethod
    def traffic(cls, target: Target, kube: Kube, home: Json) -> TrafficShares:
        """The shares of the status: what Knative routes, not what was asked for."""
        shares = tuple((name, f"{share} %") for name, share in shares_of(home).items())
        return TrafficShares(shares, annotations(home).get(EXPIRES))

    @classmethod
    def way_back(cls, found: Json) -> Edit:
        """0 %. The next driver gives the object the champion's predictor back."""
        return percent(found, 0), {MIRRORED: None}

    def prepare(self, seconds: float = 600.0) -> None:
        """Makes the candidate the newest revision, at 0 %, and returns when its pods are ready.

        Raises:
            RolloutError: also: no revision has all traffic, or it is the candidate's.
        """
        self._edit(self._begun)
        self._settle(self._unprepared, seconds)

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
        self._settle(lambda found: self._differs(found, 100, False) or _not_last(found, arms_of(found)[1]))
        self._edit(self._promoted)

    def _seen(self) -> Seen:
        found = self._found()
        self.live.learn(found)
        (_, candidate), shares = arms_of(found), shares_of(found)
        return Seen(shares.get(candidate, 0) if shares else None, candidate=self._not_ready(found) is None)

    def _ready(self) -> tuple[bool, bool]:
        """Whether the champion's revision is routed to, and whether the candidate's pods are ready."""
        found = self.kube.get(self.resource, self.name)
        routed = arms_of(found)[0] in shares_of(found)
        return routed and condition(found, *_ROUTED), self._not_ready(found) is None

    def _begun(self, found: Json) -> Edit:
        """The candidate at 0 %, in one patch; one that is there already stays."""
        champion, (before, _) = component(found).get("latestRolledoutRevision", ""), arms_of(found)
        if self._has_candidate(found) and PERCENT in predictor_of(found) and champion == before != "":
            return (), {}
        if not champion or shares_of(found).get(champion) != 100:
            shares = shares_of(found) or "none, as without Knative"
            raise RolloutError(f"{self.name}: expected all traffic on one revision, found {shares}")
        if self._has_candidate(found):
            raise RolloutError(f"{self.name}: the target's candidate serves already")
        return [_put({**self.names.candidate.model_dump(mode="json"), PERCENT: 0})], {
            CHAMPION: compact(_champion(found, here=champion == before)),
            ARMS: f"{champion}/",
            NEWER_THAN: component(found).get("latestCreatedRevision", ""),
        }

    def _unprepared(self, found: Json) -> str | None:
        champion, candidate = arms_of(found)
        newest = component(found).get("latestCreatedRevision", "")
        if candidate:
            return self._not_ready(found)
        if newest in ("", annotations(found).get(NEWER_THAN)):
            return "no revision of the candidate"
        self._edit(lambda here: ((), {ARMS: f"{champion}/{newest}", NEWER_THAN: None}))
        return "a revision that was made just now"

    def _not_ready(self, found: Json) -> str | None:
        _, candidate = arms_of(found)
        ready = component(found).get("latestReadyRevision", "none")
        if not candidate or ready != candidate:
            return f"{ready} is the newest revision that is ready"
        return None if condition(found, *_CONFIGURED) else f"revision {candidate} not ready"

    def _change(self, found: Json, weight: int, shadow: bool) -> Edit:
        """A shadow is a lease at 0 %."""
        self._require_candidate(found)
        here, leased = predictor_of(found), EXPIRES in annotations(found)
        if weight == 100 and PERCENT not in here and not leased:
            return (), {}  # promoted already
        if weight > here.get(PERCENT, 100) or (shadow and not leased):
            self._require_ready(self._not_ready(found))
        expires = self._lease(found) if weight or shadow else None
        return percent(found, weight), {EXPIRES: expires, MIRRORED: self.live.text(weight)}

    def _taken_out(self, found: Json) -> Edit:
        notes: dict[str, str | None] = dict.fromkeys((EXPIRES, MIRRORED))
        ours = PERCENT in predictor_of(found) or self._has_candidate(found)
        if not arms_of(found)[0] or not ours:
            return (), notes | dict.fromkeys((ARMS, CHAMPION, NEWER_THAN))
        return percent(found, 0), notes

    def _as_before(self, found: Json) -> Edit:
        champion = champion_of(found)
        back = [_put({**champion, PERCENT: 0})] if champion and self._has_candidate(found) else []
        return back, dict.fromkeys((ARMS, CHAMPION, NEWER_THAN))

    def _promoted(self, found: Json) -> Edit:
        self._require_candidate(found)
        free = [{"op": "remove", "path": pointer(*_PREDICTOR, PERCENT)}] if PERCENT in predictor_of(found) else []
        return free, dict.fromkeys((EXPIRES, MIRRORED))

    def _has_candidate(self, found: Json) -> bool:
        return holds(predictor_of(found), self.names.candidate.model_dump(mode="json"))

    def _require_candidate(self, found: Json) -> None:
        if not self._has_candidate(found):
            address = (predictor_of(found).get("model") or {}).get("storageUri", "another")
            raise RolloutError(f"{self.name}: expected the target's candidate as predictor, found {address}")

    def _differs(self, found: Json, weight: int, shadow: bool) -> str | None:
        champion, candidate = arms_of(found)
        wanted, shares = {champion: 100 - weight, candidate: weight}, shares_of(found)
        if any(shares.get(name, 0) != wanted.get(name, 0) for name in {*wanted, *shares}):
            return f"traffic {shares}"
        return _unrouted(found)

    def _leads_elsewhere(self, found: Json) -> str | None:
        """The reason that keeps the champion from having all traffic, now and at the next change of the object."""
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
    """The predictor that an InferenceService is asked to serve."""
    return dict(found["spec"]["predictor"])


def component(found: Json) -> Json:
    """The predictor's part of the status: names of revisions, and their traffic."""
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


def percent(found: Json, weight: int) -> list[Operation]:
    """The operation that gives the newest revision `weight` percent; none when it is so already."""
    if predictor_of(found).get(PERCENT) == weight:
        return []
    return [{"op": "add", "path": pointer(*_PREDICTOR, PERCENT), "value": weight}]


def with_revisions(metrics: MetricsSource, champion: str, candidate: str) -> MetricsSource:
    """Replaces `{champion}` and `{candidate}` in the labels of both arms.

    Raises:
        RolloutError: a revision has no name yet.
    """
    if not champion or not candidate:
        raise RolloutError("metrics: the revisions have no names before the rollout is prepared")

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
    """The reason that keeps a revision from being the one that KServe goes on from, and back to."""
    last = component(found).get("latestRolledoutRevision")
    return None if last == revision else f"{last} as the revision that was rolled out last"


def _unrouted(found: Json) -> str | None:
    return None if condition(found, *_ROUTED) else "routes that are not ready"
