import numpy as np
import pytest

from holdfast.errors import ArtifactError
from holdfast.serving.guard.calibration import Calibration
from holdfast.serving.guard.client import queries
from holdfast.serving.guard.packing import pack, unpack
from tests.serving.guard.conftest import CLASSES, Draw


def test_a_calibration_read_back_judges_as_before(calibration: Calibration, draw: Draw) -> None:
    again = unpack(pack(calibration), CLASSES, "c")
    for one, other in zip(*(queries(c, draw(50, 3), range(50)) for c in (calibration, again)), strict=True):
        assert (one.p_far, one.group, one.sketch.tolist()) == (other.p_far, other.group, other.sketch.tolist())
        assert again.near.p_value(one.group, 90, one.to_rows) == calibration.near.p_value(one.group, 90, one.to_rows)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("far_tails", np.zeros(3), "others in scores, far_tails"),
        ("near_starts", np.array([0, 1, 2, 3]), "others in near_starts"),
        ("groups", np.array([0, 1, 9]), "others in groups"),
        ("spread", np.array([1.0, 0.0, 1.0]), "others in middle, spread"),
        ("turn", np.zeros((12, 12), np.int64), "turn: expected an array of float32, found int64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(calibration: Calibration, name: str, value: object, found: str) -> None:
    with pytest.raises(ArtifactError, match=found):
        unpack({**pack(calibration), name: np.asarray(value)}, CLASSES, "calibration.npz")


def test_chances_that_would_never_alarm_or_always_are_refused(calibration: Calibration) -> None:
    arrays = pack(calibration)
    for chance in (0.0, np.nan, 1.5):
        with pytest.raises(ArtifactError, match="found others in far_tails"):
            unpack({**arrays, "far_tails": np.full_like(arrays["far_tails"], chance)}, CLASSES, "c")
