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


def served_arm(
    name: str, version: int, at: Path, game_day: str | None = None, trust: Path | None = None, incumbent: bool = False
) -> ServedArm:
    """An arm from a bundle's folder (`model/`, `decision/`), after the model was admitted.

    Raises:
        RefusedError: no passing verdict for its very bytes, or a signature that `trust` demands is missing.
    """
    model = admit(Ref(at / "model"), Ref(at / "decision"), trust, incumbent=incumbent)
    refs = Ref(at / "model", model.digest), Ref(at / "decision")
    served = Served(name, version, *refs, game_day, trust=trust, incumbent=incumbent)
    return ServedArm(served, model)
