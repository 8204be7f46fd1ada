"""The document `pr-gate.json`: closed, versioned and bounded, because a pull request's own code may have written it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from holdfast.artifacts.documents import Check, Count, Frozen, Sha256, Verdict, worst

Sentences = Annotated[str, Field(max_length=2000)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
NAME = r"^[a-z][a-z0-9-]{0,62}$"
"""Of a workload."""


class Measurement(Frozen):
    """What one model reached."""

    value: float
    """A rate, or a number of findings."""
    count: Count | None = None
    """What the rate was counted from."""


class Difference(Frozen):
    """Head less another model, on the same examples."""

    value: float
    """Of the two rates."""
    lower: float
    """One-sided lower bound."""
    upper: float
    """One-sided upper bound."""


class ComparedCheck(Check):
    """One line of the table: a check of the head, and what champion and base branch reach."""

    line: int = Field(1, ge=1)
    """Of the workload file: where this check is configured; the first one where it is not."""
    of_champion: Measurement | None = None
    """The champion on the same examples; None: not compared."""
    of_base: Measurement | None = None
    """The base branch's model; None: not measured."""
    of_head: Measurement | None = None
    """The head's model; None: not measured."""
    difference: Difference | None = None
    """Head less champion, or head less base branch, by the name of the check."""
    advice: Sentences = ""
    """What helps where the check did not pass."""


class ChangedKey(Frozen):
    """A key that the pull request changes."""

    key: Annotated[str, Field(max_length=200)]
    """Its dotted name."""
    base: Annotated[str, Field(max_length=300)]
    """Its value in the base branch."""
    head: Annotated[str, Field(max_length=300)]
    """Its value in the head."""


class PullRequestReport(Frozen):
    """What the pull-request gate found."""

    kind: Literal["pr-gate"] = "pr-gate"
    """Always `pr-gate`."""
    version: Literal[1] = 1
    """Version of this document's format."""
    workload: str = Field(pattern=NAME)
    """Name of the workload."""
    file: Annotated[str, Field(min_length=1, max_length=500)]
    """The workload file, from the top of the repository."""
    base: Commit
    """The commit that the head is compared with."""
    head: Commit
    """The commit that is judged."""
    tier: Literal["pr", "nightly", "release"] = "pr"
    """Which attacks ran."""
    policy_from: Literal["base", "head"]
    """Which commit's thresholds, threat model and measurements were required."""
    policy_name: Annotated[str, Field(max_length=100)]
    """Name of the policy in effect."""
    policy: Sha256
    """Digest of the policy in effect."""
    alpha: float = Field(gt=0, lt=0.5)
    """Chance, for each check, that a model outside the threshold passes."""
    requirements_changed: tuple[ChangedKey, ...] = Field((), max_length=100)
    """What the pull request would change of what is required."""
    data_changed: tuple[ChangedKey, ...] = Field((), max_length=100)
    """What the pull request changes of the data, and with it of the examples."""
    notes: tuple[Sentences, ...] = Field((), max_length=20)
    """What a reader must know about how it was measured."""
    checks: tuple[ComparedCheck, ...] = Field(min_length=1, max_length=100)
    """Every check."""
    verdict: Verdict
    """That of the worst check."""

    @model_validator(mode="after")
    def _verdict_is_that_of_the_worst_check(self) -> Self:
        if self.verdict is not worst(check.verdict for check in self.checks):
            raise ValueError("expected the worst check's verdict, found another one")
        return self
