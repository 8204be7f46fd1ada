"""The driver for Seldon Core 2 (`mlops.seldon.io/v1alpha1`): two Models and one Experiment.

The Experiment is the traffic: it is made for the first mirror, changed step by step, and deleted to go back. It goes
away, so what must last (state, fence) stands on the stable Model; the Experiment carries the fence too, so that a
driver that was overtaken cannot change it, and the lease.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from holdfast.errors import FencedError, RolloutError
from holdfast.serving.rollout.cluster.kube import (
    ConflictError,
    Json,
    Kube,
    MissingError,
    Operation,
    PassingError,
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
    CHAMPION,
    EXPIRES,
    FENCE,
    Wall,
    champion_of,
    compact,
    fence_of,
    renewed,
    require_fence,
    taken_back,
)
from holdfast.serving.rollout.cluster.target import SeldonV2 as Names
from holdfast.serving.rollout.cluster.target import Target
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.contract.driver import Health, Provider

STEADY_SECONDS = 5.0
"""A Model that was changed counts as served when it has said Ready for so long: its status has no generation."""
SPREAD_SECONDS = 1.0
"""So long a change of weights is given to reach the routers, for the same reason."""
SERVED = ("storageUri", "artifactVersion", "modelType", "requirements", "parameters", "schemaUri", "secretName")
"""What decides which model is served, and how; not how often."""
_API = "mlops.seldon.io/v1alpha1"


@dataclass
class SeldonV2:
    """Implements `holdfast.serving.rollout.cluster.protocol.ClusterDriver` on one Experiment."""

    kind: ClassVar[str] = "Experiment"
    mirrors: ClassVar[bool] = True

    kube: Kube
    namespace: str
    names: Names
    provider: Provider
    fence: int
    time_to_live: float = 120.0
    settle: float = 10.0
    wall: Wall = field(default=time.time, repr=False)
    steady: float = STEADY_SECONDS
    spread: float = SPREAD_SECONDS
    _ready_since: float | None = None
    _removed: bool = False
    _effective: tuple[int, bool] | None = None
    """What the conditions have said already: a Model that fails later is for `observe` to tell."""

    def __post_init__(self) -> None:
        self.split = Split(self.provider)
        self.models, self.experiments = models_in(self.namespace), experiments_in(self.namespace)

    @classmethod
    def home(cls, target: Target) -> tuple[Resource, str]:
        """The stable Model: the Experiment comes and goes."""
        return models_in(target.namespace), target.section_of(Names).stable

    @classmethod
    def of(cls, target: Target, kube: Kube, fence: int, provider: Provider | None, wall: Wall) -> Self:
        """As in the protocol; the Experiment, if there is one, gets the fence here."""
        counters, times = provider or Prometheus(target.metrics), (target.time_to_live_seconds, target.settle_seconds)
        made = cls(kube, target.namespace, target.section_of(Names), counters, fence, *times, wall)
        made.take_over()
        return made

    @classmethod
    def traffic(cls, target: Target, kube: Kube, home: Json) -> Traffic:
        """By the Experiment; without one the stable Model has it all."""
        try:
            found = kube.get(experiments_in(target.namespace), target.section_of(Names).experiment)
        except MissingError:
            return Traffic(((home["metadata"]["name"], "100 %"),), None)
        arms, mirror = found["spec"]["candidates"], found["spec"].get("mirror")
        whole = sum(arm["weight"] for arm in arms) or 1
        weights = [(arm["name"], f"{100 * arm['weight'] / whole:.0f} %") for arm in arms]
        shadow = [(mirror["name"], "shadow")] if mirror else []
        return Traffic((*weights, *shadow), annotations(found).get(EXPIRES))

    @classmethod
    def leased(cls, kube: Kube, namespace: str) -> list[Json]:
        """Experiments."""
        return [item for item in kube.list(experiments_in(namespace)) if EXPIRES in annotations(item)]

    @classmethod
    def take_back(cls, kube: Kube, found: Json, wall: Wall) -> bool:
        """The Experiment goes first, then the fence on its stable Model: traffic counts more than order."""
        meta, at, fence = found["metadata"], annotations(found)[EXPIRES], fence_of(found) + 1
        there = not meta.get("deletionTimestamp")
        try:
            if there:
                kube.delete(experiments_in(meta["namespace"]), meta["name"], only=found)
        except MissingError:
            pass
        except ConflictError:  # renewed meanwhile, or changed: the next look shows it
            return False

        def change(here: Json) -> Sequence[Operation]:
            if fence_of(here) >= fence:
                return ()
            champion = champion_of(here)
            back = served_as(here, champion) if champion else []
            return [*back, *annotate(here, taken_back(here, at, wall()) | dict.fromkeys((MIRRORED, CHAMPION)))]

        edit(kube, models_in(meta["namespace"]), str(found["spec"]["default"]), change)
        return there

    def take_over(self) -> None:
        """Puts our fence on the Experiment, if there is one: from then on no earlier driver can change it.

        Raises:
            RolloutError, FencedError: as `apply`.
        """
        with suppress(MissingError):
            self._edit(lambda found: annotate(found, {FENCE: str(self.fence)}))

    def prepare(self, seconds: float = 600.0) -> None:
        """Adds the candidate's Model, if it is not there, and returns when both Models are ready.

        It begins a rollout: what an earlier one kept for its way back is forgotten.

        Raises:
            RolloutError: they were not within `seconds`, or the Model is there with another content: one is never
                changed in place, take another name.
            FencedError: a newer driver has taken over.
        """
        self.take_over()
        edit(self.kube, self.models, self.names.stable, self._begun)
        body = {"apiVersion": _API, "kind": "Model", "metadata": {"name": self.names.candidate.name}}
        spec = self.names.candidate.model_dump(mode="json")["spec"]

        def missing() -> str | None:
            try:
                self._judged()
            except MissingError:
                self.kube.create(self.models, {**body, "spec": spec})
            except ConflictError:  # ours, whose answer was lost
                pass
            return self._not_ready()

        wait_until(missing, seconds, self.names.candidate.name)

    def apply(self, weight: int, shadow: bool) -> None:
        """As in the protocol, as far as an Experiment can tell: its conditions do not say which change they are
        about, so that traffic has moved shows in the counts only. Without weight and mirror there is no Experiment.

        Raises:
            RolloutError: also: a Model is not ready (only a weight that does not rise is then taken).
        """
        if self._removed and (weight or shadow):
            raise RolloutError("the candidate was removed; a new rollout is needed to bring it back")
        if weight and shadow:
            raise RolloutError("seldon-v2: a candidate gets live traffic or a mirror of it, found both asked for")
        if not weight and not shadow:
            self.split.note(None, 0)
            self._delete()
            return
        if weight == 100 and self._promoted():
            return
        self.split.note(self._ensure(), weight)
        self._edit(lambda found: self._change(found, weight, shadow))
        if self._effective != (weight, shadow):
            wait_until(lambda: self._differs(shadow), self.settle, self.names.experiment)
            time.sleep(self.spread)
            self._effective = (weight, shadow)

    def observe(self) -> Reading:
        """The provider's counters, with what the Models say; without that when the API is away.

        The weight stays empty: an Experiment's status does not say which change it is about.
        """
        if self.split.mark is None:
            self._learn()
        counted = self.split.read()
        health = self.health()
        if not health.router:
            return counted
        return replace(
            counted,
            candidate_alive=counted.candidate_alive and health.candidate,
            champion_alive=counted.champion_alive and health.champion,
        )

    def remove_candidate(self) -> None:
        """Gives the stable Model its own content back, if a promotion had begun, and deletes the Experiment.

        Returns when it is gone, its finalizer done.
        """
        self._removed = True
        with suppress(MissingError):
            edit(self.kube, self.models, self.names.stable, self._as_before)
        self._delete()

    def promote(self) -> None:
        """The stable Model becomes what the candidate's is, is waited for, and only then the Experiment is deleted.

        Every step looks whether it is done already. The candidate's Model stays: deleting Models is not our right.
        """
        source = self._judged()["spec"]
        edit(self.kube, self.models, self.names.stable, lambda found: self._as_candidate(found, source))
        with suppress(MissingError):
            self._edit(lambda found: annotate(found, self._notes(found, 0)))
        wait_until(self._not_steady, self.settle, self.names.stable)
        self._delete()

    def count_probes(self, answered: Callable[[], int]) -> None:
        """As in the protocol."""
        self.split.probed = answered

    def health(self) -> Health:
        """Whether the API answers, and which Models are ready."""
        found = []
        for name in (self.names.stable, self.names.candidate.name):
            try:
                found.append(_is(self.kube.get(self.models, name), "Ready", "ModelReady"))
            except MissingError:
                found.append(False)
            except RolloutError:
                return Health(False, False, False)
        return Health(True, found[0], found[1])

    def _edit(self, change: Callable[[Json], list[Operation]]) -> Json:
        """Changes the Experiment, under our fence."""

        def fenced(found: Json) -> list[Operation]:
            require_fence(found, self.fence)
            if found["metadata"].get("deletionTimestamp"):
                raise PassingError(f"{self.names.experiment}: expected an Experiment, found one that is being deleted")
            return change(found)

        return edit(self.kube, self.experiments, self.names.experiment, fenced)

    def _require_model_fence(self) -> None:
        require_fence(self.kube.get(self.models, self.names.stable), self.fence)

    def _begun(self, found: Json) -> list[Operation]:
        require_fence(found, self.fence)
        return annotate(found, {CHAMPION: None})

    def _ensure(self) -> Json:
        """The Experiment; a new one sends everything to stable, so that a driver that is overtaken between looking
        and making does no harm: it must still change it, and that is refused.
        """
        made: list[Json] = []

        def missing() -> str | None:
            try:
                made.append(self.kube.get(self.experiments, self.names.experiment))
                leaving = made[-1]["metadata"].get("deletionTimestamp")
                return "an Experiment that is being deleted" if leaving else None
            except MissingError:
                self._require_model_fence()
            try:
                self.kube.create(self.experiments, self._neutral())
            except ConflictError:
                return "an Experiment that somebody else made just now"
            self._require_model_fence()
            return "an Experiment just made"

        wait_until(missing, self.settle, self.names.experiment)
        return made[-1]

    def _neutral(self) -> Json:
        return {
            "apiVersion": _API,
            "kind": "Experiment",
            "metadata": {"name": self.names.experiment, "annotations": {FENCE: str(self.fence)}},
            "spec": {"default": self.names.stable, "candidates": [{"name": self.names.stable, "weight": 100}]},
        }

    def _change(self, found: Json, weight: int, shadow: bool) -> list[Operation]:
        here, wanted = found["spec"], self._spec(weight, shadow)
        names = {arm["name"] for arm in here.get("candidates") or []} - {self.names.stable, self.names.candidate.name}
        if names or here.get("default") != self.names.stable:
            what = f"default {here.get('default')!r} and others {sorted(names)}"
            raise RolloutError(
                f"{self.names.experiment}: expected an Experiment of {self.names.stable!r}, found {what}"
            )
        if weight > _weight(here, self.names.candidate.name) or (shadow and not here.get("mirror")):
            missing = self._not_ready()
            if missing is not None:
                raise RolloutError(f"{self.names.experiment}: expected to be ready for more traffic, found {missing}")
            self._judged()
        operations: list[Operation] = [
            {"op": "add", "path": pointer("spec", key), "value": value}
            for key, value in wanted.items()
            if here.get(key) != value
        ]
        if "mirror" in here and "mirror" not in wanted:
            operations.append({"op": "remove", "path": "/spec/mirror"})
        return [*operations, *annotate(found, self._notes(found, weight))]

    def _spec(self, weight: int, shadow: bool) -> Json:
        """No name may stand twice, the mirror's included, and the default must be one of the candidates."""
        arms = [{"name": self.names.stable, "weight": 100 - weight}]
        if weight:
            arms.append({"name": self.names.candidate.name, "weight": weight})
        mirror = {"mirror": {"name": self.names.candidate.name, "percent": 100}} if shadow else {}
        return {"default": self.names.stable, "candidates": arms, **mirror}

    def _notes(self, found: Json, weight: int) -> dict[str, str | None]:
        kept = {MIRRORED: self.split.text(weight)} if weight else {}
        return {FENCE: str(self.fence), EXPIRES: renewed(found, self.wall(), self.time_to_live), **kept}

    def _not_ready(self) -> str | None:
        for name in (self.names.stable, self.names.candidate.name):
            if not _is(self.kube.get(self.models, name), "Ready", "ModelReady"):
                return f"Model {name!r} not ready"
        return None

    def _judged(self) -> Json:
        """The candidate's Model, which must be what the target says."""
        found = self.kube.get(self.models, self.names.candidate.name)
        if not holds(found["spec"], self.names.candidate.spec):
            uri = found["spec"].get("storageUri")
            raise RolloutError(f"{self.names.candidate.name}: expected the target's Model, found one of {uri!r}")
        return found

    def _differs(self, shadow: bool) -> str | None:
        """What keeps the Experiment from being in effect, as far as its conditions tell."""
        found = self.kube.get(self.experiments, self.names.experiment)
        require_fence(found, self.fence)
        seen = (found.get("status") or {}).get("observedGeneration") or 0
        if seen and seen < found["metadata"].get("generation", 0):
            return f"generation {seen}"
        conditions = ("ExperimentReady", "CandidatesReady", *(("MirrorReady",) if shadow else ()))
        late = [name for name in conditions if not _is(found, name)]
        return f"{', '.join(late)} not true" if late else None

    def _as_candidate(self, found: Json, source: Json) -> list[Operation]:
        require_fence(found, self.fence)
        notes = {FENCE: str(self.fence)}
        if CHAMPION not in annotations(found):
            notes[CHAMPION] = compact({key: found["spec"][key] for key in SERVED if key in found["spec"]})
        return [*served_as(found, source), *annotate(found, notes)]

    def _as_before(self, found: Json) -> list[Operation]:
        require_fence(found, self.fence)
        champion = champion_of(found)
        back = served_as(found, champion) if champion else []
        return [*back, *annotate(found, {FENCE: str(self.fence), CHAMPION: None})]

    def _promoted(self) -> bool:
        """Whether the stable Model is the candidate's already, and the Experiment gone."""
        here, there = (
            self.kube.get(self.models, name)["spec"] for name in (self.names.stable, self.names.candidate.name)
        )
        if any(here.get(key) != there.get(key) for key in SERVED):
            return False
        try:
            self.kube.get(self.experiments, self.names.experiment)
        except MissingError:
            return True
        return False

    def _not_steady(self) -> str | None:
        found = self.kube.get(self.models, self.names.stable)
        require_fence(found, self.fence)
        if not _is(found, "Ready", "ModelReady"):
            self._ready_since = None
            return f"Model {self.names.stable!r} not ready"
        self._ready_since = self._ready_since or time.monotonic()
        steady = time.monotonic() - self._ready_since
        return None if steady >= self.steady else f"Model {self.names.stable!r} ready for {steady:.1f} s only"

    def _delete(self) -> None:
        """Exactly the Experiment that was seen, under our fence; until it is gone."""

        def missing() -> str | None:
            try:
                found = self.kube.get(self.experiments, self.names.experiment)
                require_fence(found, self.fence)
                if not found["metadata"].get("deletionTimestamp"):
                    self.kube.delete(self.experiments, self.names.experiment, only=found)
            except MissingError:
                with suppress(MissingError):
                    self._require_model_fence()
                return None
            except ConflictError:
                return "an Experiment that somebody changes"
            return "an Experiment that is being deleted"

        wait_until(missing, self.settle, self.names.experiment)

    def _learn(self) -> None:
        try:
            self.split.learn(self.kube.get(self.experiments, self.names.experiment))
        except FencedError:
            raise
        except RolloutError:
            return


def models_in(namespace: str) -> Resource:
    """Models of a namespace."""
    return Resource("mlops.seldon.io", "v1alpha1", "models", namespace)


def experiments_in(namespace: str) -> Resource:
    """Experiments of a namespace."""
    return Resource("mlops.seldon.io", "v1alpha1", "experiments", namespace)


def served_as(found: Json, source: Json) -> list[Operation]:
    """Operations that make a Model serve what `source` says."""
    here = found["spec"]
    operations: list[Operation] = [
        {"op": "add", "path": pointer("spec", key), "value": source[key]}
        for key in SERVED
        if key in source and here.get(key) != source[key]
    ]
    gone = [key for key in SERVED if key in here and key not in source]
    return [*operations, *({"op": "remove", "path": pointer("spec", key)} for key in gone)]


def _is(found: Json, *conditions: str) -> bool:
    """Whether the first of these conditions that the status has is true."""
    told = {item["type"]: item["status"] for item in (found.get("status") or {}).get("conditions") or []}
    return next((told[name] == "True" for name in conditions if name in told), False)


def _weight(spec: Json, name: str) -> int:
    return next((int(arm["weight"]) for arm in spec.get("candidates") or [] if arm["name"] == name), 0)
