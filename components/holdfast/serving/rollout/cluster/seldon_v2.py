"""The driver for Seldon Core 2 (`mlops.seldon.io/v1alpha1`): two Models and one Experiment.

The Experiment is the traffic: it is made for the first mirror, changed step by step, and deleted to go back. It goes
away, so what must last (state, fence) is kept on the stable Model; the Experiment carries the fence too, so that a
driver that was overtaken cannot change it, and the lease.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from holdfast.errors import RolloutError
from holdfast.kubernetes.api import ConflictError, Kube, MissingError, PassingError, Resource, edit, wait_until
from holdfast.kubernetes.objects import Json, Operation, annotate, annotations, condition, holds, pointer
from holdfast.serving.rollout.cluster.fenced import Edit, FencedDriver, Notes, Seen
from holdfast.serving.rollout.cluster.live_answers import MIRRORED
from holdfast.serving.rollout.cluster.protocol import TrafficShares
from holdfast.serving.rollout.cluster.store import (
    CHAMPION,
    EXPIRES,
    FENCE,
    Wall,
    champion_of,
    compact,
    fence_of,
    require_fence,
    taken_back,
)
from holdfast.serving.rollout.cluster.target import SeldonV2Target, Target
from holdfast.serving.rollout.contract.driver import Provider

STEADY_SECONDS = 5.0
"""A Model that was changed counts as served when it has been Ready for so long: its status has no generation."""
SPREAD_SECONDS = 1.0
"""So long a change of weights is given to reach the routers, for the same reason."""
SERVED = ("storageUri", "artifactVersion", "modelType", "requirements", "parameters", "schemaUri", "secretName")
"""What decides which model is served, and how; not how often."""
_API = "mlops.seldon.io/v1alpha1"
_LEAVING = "an Experiment that is being deleted"


@dataclass
class SeldonV2(FencedDriver):
    """Implements `holdfast.serving.rollout.cluster.protocol.ClusterDriver` on one Experiment.

    An Experiment's conditions do not show which change they are about: that traffic has moved shows in the counts only,
    and `observe` gives no weight. Without weight and mirror there is no Experiment.
    """

    kind = "Experiment"
    section = SeldonV2Target

    names: SeldonV2Target
    steady: float = STEADY_SECONDS
    spread: float = SPREAD_SECONDS
    _ready_since: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.models = models_in(self.namespace)

    @classmethod
    def lease_holders(cls, namespace: str) -> Resource:
        """Experiments."""
        return experiments_in(namespace)

    @property
    def name(self) -> str:
        """The Experiment."""
        return self.names.experiment

    @classmethod
    def home(cls, target: Target) -> tuple[Resource, str]:
        """The stable Model: the Experiment comes and goes."""
        return models_in(target.namespace), target.section_of(SeldonV2Target).stable

    @classmethod
    def of(cls, target: Target, kube: Kube, fence: int, provider: Provider | None, wall: Wall) -> Self:
        """Makes the driver; the Experiment, if there is one, gets the fence here."""
        made = super().of(target, kube, fence, provider, wall)
        made.take_over()
        return made

    @classmethod
    def traffic(cls, target: Target, kube: Kube, home: Json) -> TrafficShares:
        """The shares of the Experiment; without one the stable Model has it all."""
        try:
            found = kube.get(experiments_in(target.namespace), target.section_of(SeldonV2Target).experiment)
        except MissingError:
            return TrafficShares(((home["metadata"]["name"], "100 %"),), None)
        arms, mirror = found["spec"]["candidates"], found["spec"].get("mirror")
        whole = sum(arm["weight"] for arm in arms) or 1
        weights = [(arm["name"], f"{100 * arm['weight'] / whole:.0f} %") for arm in arms]
        shadow = [(mirror["name"], "shadow")] if mirror else []
        return TrafficShares((*weights, *shadow), annotations(found).get(EXPIRES))

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
        except ConflictError:  # renewed meanwhile, or changed: the next time shows it
            return False

        def change(here: Json) -> Sequence[Operation]:
            if fence_of(here) >= fence:
                return ()
            operations, notes = cls.way_back(here)
            return [*operations, *annotate(here, {**notes, **taken_back(here, at, wall())})]

        edit(kube, models_in(meta["namespace"]), str(found["spec"]["default"]), change)
        return there

    @classmethod
    def way_back(cls, found: Json) -> Edit:
        """The stable Model gets its own content back, if a promotion had begun."""
        champion = champion_of(found)
        return served_as(found, champion) if champion else [], dict.fromkeys((MIRRORED, CHAMPION))

    def take_over(self) -> None:
        """Puts our fence on the Experiment, if there is one: from then on no earlier driver can change it.

        Raises:
            RolloutError, FencedError: as `apply`.
        """
        with suppress(MissingError):
            self._edit(lambda found: ((), {}))

    def prepare(self, seconds: float = 600.0) -> None:
        """Adds the candidate's Model, if it is not there, and returns when both Models are ready.

        Raises:
            RolloutError: also: the candidate's Model is there with another content. One is never changed in place,
                take another name.
        """
        self.take_over()
        self._edit_stable(lambda found: ((), {CHAMPION: None}))
        wait_until(self._unprepared, seconds, self.names.candidate.name)

    def remove_candidate(self) -> None:
        """Gives the stable Model its own content back, if a promotion had begun, and deletes the Experiment.

        Returns when it is gone, its finalizer done.
        """
        self._removed = True
        with suppress(MissingError):
            self._edit_stable(self.way_back)
        self._delete()

    def promote(self) -> None:
        """The stable Model becomes what the candidate's is, is waited for, and only then the Experiment is deleted.

        Every step looks whether it is done already. The candidate's Model stays: deleting Models is not our right.
        """
        source = self._judged()["spec"]
        self._edit_stable(lambda found: _as_candidate(found, source))
        with suppress(MissingError):
            self._edit(lambda found: ((), self._notes(found, 0)))
        wait_until(self._not_steady, self.settle, self.names.stable)
        self._delete()

    def _move(self, weight: int, shadow: bool) -> None:
        if not weight and not shadow:
            self.live.note(None, 0)
            self._delete()
        elif weight != 100 or not self._promoted():
            self.live.note(self._ensure(), weight)
            self._put(weight, shadow)

    def _settle(self, missing: Callable[[Json], str | None], seconds: float | None = None) -> None:
        super()._settle(missing, seconds)
        time.sleep(self.spread)

    def _edit(self, change: Callable[[Json], Edit]) -> Json:
        """Changes the Experiment, unless it is being deleted."""

        def living(found: Json) -> Edit:
            if found["metadata"].get("deletionTimestamp"):
                raise PassingError(f"{self.name}: the Experiment is being deleted")
            return change(found)

        return super()._edit(living)

    def _edit_stable(self, change: Callable[[Json], Edit]) -> Json:
        return self._edit_of(self.models, self.names.stable, change)

    def _require_model_fence(self) -> None:
        require_fence(self.kube.get(self.models, self.names.stable), self.fence)

    def _seen(self) -> Seen:
        if self.live.mark is None:
            with suppress(MissingError):
                self.live.learn(self.kube.get(self.resource, self.name))
        champion, candidate = self._ready()
        return Seen(champion=champion, candidate=candidate)

    def _ready(self) -> tuple[bool, bool]:
        return self._model_ready(self.names.stable), self._model_ready(self.names.candidate.name)

    def _model_ready(self, name: str) -> bool:
        try:
            return condition(self.kube.get(self.models, name), "Ready", "ModelReady")
        except MissingError:
            return False

    def _ensure(self) -> Json:
        """The Experiment; a new one sends everything to stable, so that a driver that is overtaken between looking
        and making does no harm: it must still change it, and that is refused.
        """
        made: list[Json] = []

        def missing() -> str | None:
            try:
                made.append(self.kube.get(self.resource, self.name))
                return _LEAVING if made[-1]["metadata"].get("deletionTimestamp") else None
            except MissingError:
                self._require_model_fence()
            try:
                self.kube.create(self.resource, self._neutral())
            except ConflictError:
                return "an Experiment that another client made just now"
            self._require_model_fence()
            return "an Experiment just made"

        wait_until(missing, self.settle, self.name)
        return made[-1]

    def _neutral(self) -> Json:
        return {
            "apiVersion": _API,
            "kind": "Experiment",
            "metadata": {"name": self.name, "annotations": {FENCE: str(self.fence)}},
            "spec": {"default": self.names.stable, "candidates": [{"name": self.names.stable, "weight": 100}]},
        }

    def _change(self, found: Json, weight: int, shadow: bool) -> Edit:
        here, wanted = found["spec"], self._spec(weight, shadow)
        names = {arm["name"] for arm in here.get("candidates") or []} - {self.names.stable, self.names.candidate.name}
        if names or here.get("default") != self.names.stable:
            what = f"default {here.get('default')!r} and others {sorted(names)}"
            raise RolloutError(f"{self.name}: expected an Experiment of {self.names.stable!r}, found {what}")
        if weight > _weight(here, self.names.candidate.name) or (shadow and not here.get("mirror")):
            self._require_ready(self._not_ready())
            self._judged()
        return _replaced(here, wanted, ("default", "candidates", "mirror")), self._notes(found, weight)

    def _spec(self, weight: int, shadow: bool) -> Json:
        """No name may be there twice, the mirror's included, and the default must be one of the candidates."""
        arms = [{"name": self.names.stable, "weight": 100 - weight}]
        if weight:
            arms.append({"name": self.names.candidate.name, "weight": weight})
        mirror = {"mirror": {"name": self.names.candidate.name, "percent": 100}} if shadow else {}
        return {"default": self.names.stable, "candidates": arms, **mirror}

    def _notes(self, found: Json, weight: int) -> Notes:
        return {EXPIRES: self._lease(found), **({MIRRORED: self.live.text(weight)} if weight else {})}

    def _unprepared(self) -> str | None:
        """The reason that keeps the candidate from its first request; its Model is made where it is missing."""
        body = {"apiVersion": _API, "kind": "Model", "metadata": {"name": self.names.candidate.name}}
        try:
            self._judged()
        except MissingError:
            with suppress(ConflictError):  # ours, whose answer was lost
                self.kube.create(self.models, {**body, "spec": self.names.candidate.model_dump(mode="json")["spec"]})
        return self._not_ready()

    def _not_ready(self) -> str | None:
        for name in (self.names.stable, self.names.candidate.name):
            if not condition(self.kube.get(self.models, name), "Ready", "ModelReady"):
                return f"Model {name!r} not ready"
        return None

    def _judged(self) -> Json:
        """The candidate's Model, which must be the target's."""
        found = self.kube.get(self.models, self.names.candidate.name)
        if not holds(found["spec"], self.names.candidate.spec):
            uri = found["spec"].get("storageUri")
            raise RolloutError(f"{self.names.candidate.name}: expected the target's Model, found one of {uri!r}")
        return found

    def _differs(self, found: Json, weight: int, shadow: bool) -> str | None:
        """The reason, as far as the conditions show it."""
        seen = (found.get("status") or {}).get("observedGeneration") or 0
        if seen and seen < found["metadata"].get("generation", 0):
            return f"generation {seen}"
        conditions = ("ExperimentReady", "CandidatesReady", *(("MirrorReady",) if shadow else ()))
        late = [name for name in conditions if not condition(found, name)]
        return f"{', '.join(late)} not true" if late else None

    def _promoted(self) -> bool:
        """Whether the stable Model is the candidate's already, and the Experiment gone."""
        names = (self.names.stable, self.names.candidate.name)
        here, there = (_content(self.kube.get(self.models, name)) for name in names)
        if here != there:
            return False
        try:
            self.kube.get(self.resource, self.name)
        except MissingError:
            return True
        return False

    def _not_steady(self) -> str | None:
        found = self.kube.get(self.models, self.names.stable)
        require_fence(found, self.fence)
        if not condition(found, "Ready", "ModelReady"):
            self._ready_since = None
            return f"Model {self.names.stable!r} not ready"
        self._ready_since = self._ready_since or time.monotonic()
        steady = time.monotonic() - self._ready_since
        return None if steady >= self.steady else f"Model {self.names.stable!r} ready for {steady:.1f} s only"

    def _delete(self) -> None:
        """Exactly the Experiment that was seen, under our fence; until it is gone."""

        def missing() -> str | None:
            try:
                found = self._found()
                if not found["metadata"].get("deletionTimestamp"):
                    self.kube.delete(self.resource, self.name, only=found)
            except MissingError:
                with suppress(MissingError):
                    self._require_model_fence()
                return None
            except ConflictError:
                return "an Experiment that another client changes"
            return _LEAVING

        wait_until(missing, self.settle, self.name)


def models_in(namespace: str) -> Resource:
    """Models of a namespace."""
    return Resource("mlops.seldon.io", "v1alpha1", "models", namespace)


def experiments_in(namespace: str) -> Resource:
    """Experiments of a namespace."""
    return Resource("mlops.seldon.io", "v1alpha1", "experiments", namespace)


def served_as(found: Json, source: Json) -> list[Operation]:
    """Operations that make a Model serve what `source` has."""
    return _replaced(found["spec"], source, SERVED)


def _replaced(here: Json, wanted: Json, keys: Sequence[str]) -> list[Operation]:
    """Operations that make these keys of a specification those of `wanted`, where they differ."""
    operations: list[Operation] = [
        {"op": "add", "path": pointer("spec", key), "value": wanted[key]}
        for key in keys
        if key in wanted and here.get(key) != wanted[key]
    ]
    gone = [key for key in keys if key in here and key not in wanted]
    return [*operations, *({"op": "remove", "path": pointer("spec", key)} for key in gone)]


def _as_candidate(found: Json, source: Json) -> Edit:
    """The change that makes the stable Model the candidate's; what it was is kept."""
    kept = {} if CHAMPION in annotations(found) else {CHAMPION: compact(_content(found))}
    return served_as(found, source), kept


def _content(model: Json) -> Json:
    """The keys that decide what a Model serves."""
    return {key: value for key in SERVED if (value := model["spec"].get(key)) is not None}


def _weight(spec: Json, name: str) -> int:
    return next((int(arm["weight"]) for arm in spec.get("candidates") or [] if arm["name"] == name), 0)
