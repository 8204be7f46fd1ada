"""What one arm of a rollout serves."""

from dataclasses import dataclass
from pathlib import Path

from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import Artifact, Ref
from holdfast.serving.predictor.admission import admit
from holdfast.serving.predictor.settings import Served


@dataclass(frozen=True)
class ServedArm:
    """What an arm serves, and the model artifact (admitted)."""

    served: Served
    model: Artifact[Model]


def served_arm(name: str, version: int, bundle: Path, game_day: str | None = None) -> ServedArm:
    """An arm from a bundle's folder (`model/`, `decision/`), after the model was admitted.

    Raises:
        RefusedError: no passing verdict for its very bytes.
    """
    model = admit(Ref(bundle / "model"), Ref(bundle / "decision"))
    served = Served(name, version, Ref(bundle / "model", model.digest), Ref(bundle / "decision"), game_day)
    return ServedArm(served, model)
