"""What `run.json` holds: how a run ended, and its steps."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, NonNegativeFloat

from holdfast.artifacts.documents import Sha256

RECORD = "run.json"
MAX_RECORD_BYTES = 2**20

RunOutcome = Literal["registered", "promoted", "passed", "refused", "stopped", "rolled-back", "inconclusive", "failed"]


@dataclass(frozen=True)
class StepRecord:
    """One step of a run; `folder` is relative to the run folder."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore", allow_inf_nan=False)

    step: str
    folder: str | None = None
    digest: Sha256 | None = None
    verdict: str | None = None
    seconds: NonNegativeFloat = 0.0
    reused: bool = False


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore", allow_inf_nan=False)

    workload: str
    seed: int
    outcome: RunOutcome = field(kw_only=True)
    stopped_at: str | None = None
    """The data check that stopped the run, or the step that failed."""
    model_version: int | None = None
    retried: tuple[str, ...] = ()
    """Why each rollout was inconclusive that was tried again."""
    because: Sha256 | None = field(default=None, kw_only=True)
    """The request of a monitor that the run answered."""
    steps: tuple[StepRecord, ...] = field(kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `run.json`."""
        return asdict(self)

    def verdict(self, step: str) -> str | None:
        """The verdict of `step`, None when it did not run."""
        return next((record.verdict for record in self.steps if record.step == step), None)
