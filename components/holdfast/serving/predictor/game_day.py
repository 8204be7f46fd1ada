"""Game days: a served model turns bad on purpose, so that a rollback is seen to work before it is needed.

Off unless a specification is given by hand; then it is in the model's settings, in every answer's parameters and in
the rollout's record. The fault lives in this one server process; the model's bytes are untouched.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import WorkloadError

if TYPE_CHECKING:
    import numpy as np

    from holdfast.serving.predictor.core import Answer

BEGINS = "game day: the fault begins at monotonic second"
"""Words in the server's log when the fault sets in, followed by the time."""
_SHARES = ("wrong", "error", "nan", "shape", "crash")
_KEYS = ("delay_ms", *_SHARES, "after")


@dataclass(frozen=True)
class GameDay:
    """The fault: after `after` live answers every answer is late, and a share is bad in one way or several."""

    delay_ms: float = 0.0
    wrong: float = 0.0
    """Labels are shifted by one class."""
    error: float = 0.0
    """Status 500."""
    nan: float = 0.0
    """The network gives NaN."""
    shape: float = 0.0
    """One class is missing in the answer."""
    crash: float = 0.0
    """The server kills itself."""
    after: int = 0

    @classmethod
    def parse(cls, text: str) -> "GameDay":
        """Reads for example `delay_ms=400,wrong=1.0,after=150`.

        Raises:
            WorkloadError: an unknown key or a value out of range.
        """
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(key in _KEYS and equals for key, equals, _ in pairs):
            raise WorkloadError(f"game day {text!r}: expected KEY=NUMBER with keys {', '.join(_KEYS)}")
        try:
            found = {key: float(value) for key, _, value in pairs}
        except ValueError:
            raise WorkloadError(f"game day {text!r}: expected numbers, for example delay_ms=400") from None
        after = found.pop("after", 0.0)
        day = cls(**found, after=int(after) if 0 <= after < 2**31 else -1)
        shares = all(0 <= getattr(day, key) <= 1 for key in _SHARES)
        if not (shares and 0 <= day.delay_ms < float("inf") and day.after >= 0):
            raise WorkloadError(f"game day {text!r}: expected shares in [0, 1] and numbers of at least 0")
        return day

    def spoil(self, answer: "Answer", chance: "np.random.Generator") -> "Answer":
        """The answer with a share `wrong` of its labels, and their probabilities, moved on by one class."""
        import numpy as np

        from holdfast.serving.predictor.core import Answer

        hit = chance.random(len(answer.label)) < self.wrong
        shifted = np.roll(answer.probabilities, 1, axis=1)
        probabilities = np.where(hit[:, None], shifted, answer.probabilities)
        return Answer(probabilities.argmax(axis=1), probabilities)
