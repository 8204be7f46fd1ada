"""The policy: which checks a model must pass and how it is rolled out: a closed file, with the workload's overrides."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from holdfast.artifacts.documents import Modality, Requirements, Scalar
from holdfast.artifacts.policies import canonical, policy_digest
from holdfast.errors import WorkloadError
from holdfast.modality import MODALITIES
from holdfast.workload.schema import GateConfig, RolloutPlan, Section, Share
from holdfast.workload.yaml import parse_yaml, read_yaml
from holdfast_gates.measurement import TIERS, MeasuredWith, Tier

Overrides = dict[str, dict[str, Scalar]]
"""Check -> threshold -> value."""


class CheckConfig(Section):
    """What every check may say."""

    applies_to: tuple[Modality, ...] = tuple(MODALITIES)
    """Modalities in which the check is asked."""


class VerdictCheck(CheckConfig):
    """A check that takes over the verdict of the evidence."""

    worst_accepted: Literal["pass", "inconclusive"] = "pass"
    """`inconclusive` lets evidence pass that found something short of a failure."""


class SuspectsLeft(VerdictCheck):
    """Poison suspects that stayed in the training rows."""

    left_in_at_most: Share
    """Share of the scanned rows."""


class AtLeast(CheckConfig):
    """A rate whose lower confidence bound must reach `at_least`."""

    at_least: Share
    """The rate that the lower confidence bound must reach."""


class AtRadius(AtLeast):
    """A certified rate at a radius."""

    radius: float = Field(ge=0)
    """In the unit of the certificate (images: L2 in input units; text: characters)."""


class AtMost(CheckConfig):
    """A rate whose upper confidence bound must stay at or below `at_most`."""

    at_most: Share
    """The rate that the upper confidence bound must not exceed."""


class LeakedRows(CheckConfig):
    """Held-out rows that are equal to training rows."""

    at_most: Share
    """Share of the held-out rows."""


class Margin(CheckConfig):
    """How much worse than the champion, on the same examples, is still as good."""

    margin: Share
    """Largest loss against the champion, as a share of the examples."""


class CopiesAgree(CheckConfig):
    """How often a copy of the model, made of its answers, agrees with it."""

    at_queries: int = Field(ge=1)
    """After so many queries, and after fewer."""
    at_most: Share
    """The rate that the upper confidence bound must not exceed."""


class FalseAlarms(CheckConfig):
    """Alarms of the guard about clients who ask as users do."""

    per_client_at_most: float = Field(gt=0, lt=1)
    """Chance that such a client is ever alarmed."""


class StreamNoticed(CheckConfig):
    """A made-up attacker whom the guard must notice."""

    stream: Literal["noise", "shuffled"]
    """Whom: `GuardStream` has what the words mean."""
    queries_at_most: int = Field(ge=1)
    """After how many queries."""


class Checks(Section):
    """Every check that a policy can ask for; one that is left out is not asked."""

    schema_anomalies: VerdictCheck | None = None
    """The delivery keeps to its schema."""
    leakage: LeakedRows | None = None
    """Few held-out rows are equal to training rows."""
    drift: VerdictCheck | None = None
    """The delivery comes from the distribution of before."""
    poison: SuspectsLeft | None = None
    """Few enough suspects stayed in the training rows."""
    backdoor: VerdictCheck | None = None
    """No class looks backdoored."""
    clean_accuracy: AtLeast | None = None
    """Accuracy without any attack."""
    robust_accuracy: AtLeast | None = None
    """Accuracy under every attack of the tier."""
    better_than_constant: CheckConfig | None = None
    """Balanced accuracy above that of a constant answer, without and under attack."""
    class_recall: AtLeast | None = None
    """Share of every class that is answered with it, without any attack."""
    robust_class_recall: AtLeast | None = None
    """Share of every class that is answered with it under every attack of the tier."""
    gradient_masking: VerdictCheck | None = None
    """No sign that the accuracy under attack is too good."""
    certified_accuracy: AtRadius | None = None
    """Share of examples certified, and correct, at a radius."""
    certified_class_recall: AtRadius | None = None
    """Share of every class that is certified, and correct, at a radius."""
    abstention: AtMost | None = None
    """Share of examples without a certified answer."""
    champion_clean: Margin | None = None
    """Not worse than the champion without any attack."""
    champion_robust: Margin | None = None
    """Not worse than the champion under attack."""
    champion_class_recall: Margin | None = None
    """In no class proven worse than the champion, without or under attack."""
    extraction_agreement: CopiesAgree | None = None
    """No copy made of so many answers agrees too often with the model."""
    guard_false_alarms: FalseAlarms | None = None
    """The guard is quiet about users."""
    guard_detection: StreamNoticed | None = None
    """The guard notices an attacker."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_empty(cls, value: object) -> object:
        # `drift:` with nothing after it would otherwise switch the check off without a word.
        if value is None:
            raise ValueError("a check needs its thresholds ({} for none), or leave its key out")
        return value


class Policy(Section):
    """What a model must prove before it is registered."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """As workloads and decisions call it."""
    alpha: float = Field(gt=0, lt=0.5)
    """Chance, for each check, that a model truly outside the threshold passes."""
    checks: Checks
    """What is asked."""
    allow_new_contract: bool = False
    """Whether a model may read other columns, or answer other classes, than the champion: its clients were moved."""
    measured_with: MeasuredWith = MeasuredWith()
    """How evidence must be measured; no workload overrides it."""
    require: Requirements = Requirements()
    """What the model needs besides: signatures, approvals, a young verdict."""
    overridden: Overrides = {}
    """What the workload asked otherwise; written by `with_overrides` for the record."""
    rollout: RolloutPlan | None = None
    """Limits and steps of every rollout under this policy; a workload's own section `rollout` overrides single keys."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_empty(cls, value: object) -> object:
        if value is None:
            raise ValueError("expected a value, found none; leave the key out")
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.checks.model_fields_set:
            raise ValueError("a policy asks for at least one check")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the policy in effect, overrides included."""
        return policy_digest(self.to_json())

    def to_json(self) -> str:
        """The policy in effect as canonical JSON: what a pipeline hands to the gate step."""
        return canonical(self.model_dump(mode="json", exclude_none=True))


def with_overrides(policy: Policy, override: Mapping[str, Mapping[str, Scalar]]) -> Policy:
    """The policy with the workload's thresholds in place, and a record of them.

    Raises:
        WorkloadError: an unknown check or threshold, or a value that the check cannot take.
    """
    if not override:
        return policy
    value = policy.model_dump(mode="json", exclude_none=True)
    for check, thresholds in override.items():
        _refuse_unknown(check, list(Checks.model_fields), "check")
        _refuse_unknown_thresholds(check, thresholds)
        value["checks"].setdefault(check, {}).update(thresholds)
        value["overridden"].setdefault(check, {}).update(thresholds)
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise WorkloadError(f"gate.override: {where}: {first['msg']}, found {str(first['input'])[:60]!r}") from None


def at_tier(policy: Policy, tier: Tier) -> Policy:
    """The policy where no more than this tier of attacks is asked, and a record of it where it asked for more."""
    asked = policy.measured_with.attack
    if asked.tier is None or TIERS.index(asked.tier) <= TIERS.index(tier):
        return policy
    attack = asked.model_copy(update={"tier": tier})
    record = {**policy.overridden, "measured_with": {"attack.tier": tier}}
    limits = policy.measured_with.model_copy(update={"attack": attack})
    return policy.model_copy(update={"measured_with": limits, "overridden": record})


def packaged() -> dict[str, Path]:
    """The policies that ship, by name."""
    here = Path(__file__).resolve().parent
    # In the source tree the folder is next to the package, in a wheel inside it.
    folder = next((f for f in (here / "policies", here.parent / "policies") if f.is_dir()), here)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(text: str, folder: Path | None = None) -> Policy:
    """What `--policy` takes: the name of a packaged policy, a file (relative to `folder`), or JSON.

    JSON is a whole policy (`Policy.to_json`), or the gate section of a workload: `{"policy": ..., "override": ...}`.

    Raises:
        WorkloadError: there is no such policy, or it is not valid.
    """
    if text.lstrip().startswith("{"):
        return _from_json(text, folder)
    known = packaged()
    if text in known:
        return read_yaml(known[text], Policy)
    path = (folder or Path()) / text
    if "/" in text or path.suffix in {".yaml", ".yml", ".json"}:
        return read_yaml(path, Policy)
    close = difflib.get_close_matches(text, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise WorkloadError(f"policy {text!r}: expected the name of a policy or a file, found neither; {hint}")


def resolve(config: GateConfig, folder: Path | None = None) -> Policy:
    """The policy in effect for a workload whose file is in `folder`."""
    return _with_contract(with_overrides(find(config.policy, folder), config.override), config.allow_new_contract)


def _with_contract(policy: Policy, allowed: bool | None) -> Policy:
    """The policy with what the workload has to say of a new contract, and a record of it."""
    if allowed is None or allowed == policy.allow_new_contract:
        return policy
    record = {**policy.overridden, "policy": {"allow_new_contract": allowed}}
    return policy.model_copy(update={"allow_new_contract": allowed, "overridden": record})


def _from_json(text: str, folder: Path | None) -> Policy:
    if {"policy", "override"} & set(_keys(text)):
        return resolve(parse_yaml(text, GateConfig, name="--policy"), folder)
    return parse_yaml(text, Policy, name="--policy")


def _keys(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"--policy: expected JSON, found {error}") from None
    return list(value)


def _refuse_unknown_thresholds(check: str, thresholds: Mapping[str, Scalar]) -> None:
    known = _thresholds(check)
    for threshold in thresholds:
        _refuse_unknown(threshold, known, f"threshold of {check}")


def _thresholds(check: str) -> list[str]:
    section = Checks.model_fields[check].annotation
    options = [kind for kind in getattr(section, "__args__", ()) if kind is not type(None)]
    return [name for name in options[0].model_fields if name != "applies_to"]


def _refuse_unknown(name: str, known: list[str], what: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise WorkloadError(f"gate.override: unknown {what} {name!r}; {hint}")
