"""How evidence must be measured: what a policy asks, and what the settings of a report, or the threat model, were.

A weak measurement finds nothing wrong. So a workload that attacks within an epsilon of 0.000001, or calls no class
suspicious below an index of a million, does not keep a policy that binds the measurement. Pure, as `checks`.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import ClassVar, Literal, get_args

from pydantic import Field

from holdfast.artifacts.documents import (
    Exact,
    Feature,
    FeatureThreat,
    MeasuredSetting,
    Measurement,
    Modality,
    Model,
    Norm,
    RobustnessReport,
    Setting,
    Snapshot,
)
from holdfast.workload.schema import Section, Share

Tier = Literal["pr", "nightly", "release"]
TIERS: tuple[Tier, ...] = get_args(Tier)
NOT_AS_ASKED = "not measured as the policy asks"
"""How the reason of a check begins whose evidence was measured too weakly."""
ADVICE = "Set the keys named to what the policy asks, or better, and run the step again."
_RULED_COLUMNS = 20
"""Columns with a rule of their own that are listed."""


class AskedSettings(Section):
    """Limits of a section's keys: the least value each, but for `most`; one that is left out is not asked."""

    most: ClassVar[frozenset[str]] = frozenset()
    """Keys whose limit is the most that they may be."""
    up_to_all: ClassVar[frozenset[str]] = frozenset()
    """Keys that count held-out rows: all that there are is always enough."""


class AskedOfDrift(AskedSettings):
    """Section `drift`."""

    most = frozenset({"min_effect", "break_share"})

    alpha: float | None = Field(None, gt=0, lt=1)
    """Least chance of a false alarm: with less, less is found."""
    min_effect: float | None = Field(None, ge=0)
    """Most that the smallest effect that matters may be."""
    break_share: float | None = Field(None, gt=0, le=1)
    """Most that the share of drifted columns that is a broken delivery may be."""
    max_rows: int | None = Field(None, gt=0)
    """Least bound on the rows that are compared."""


class AskedOfScan(AskedSettings):
    """Section `scan`."""

    folds: int | None = Field(None, ge=2)
    """Least parts of the cross-fitting."""
    epochs: int | None = Field(None, gt=0)
    """Least epochs of the scan's networks."""


class AskedOfBackdoor(AskedSettings):
    """Section `backdoor`."""

    most = frozenset({"anomaly_index", "attack_success"})

    steps: int | None = Field(None, gt=0)
    """Least gradient steps of a trigger's search."""
    examples: int | None = Field(None, gt=0)
    """Least rows that a trigger is made from, and tried on."""
    anomaly_index: float | None = Field(None, gt=0)
    """Most that the index may be above which a class is suspicious."""
    relative_norm: float | None = Field(None, gt=0)
    """Least size below which a trigger counts, relative to the other classes'."""
    attack_success: Share | None = None
    """Most that the share of the rows may be that a trigger has to lead."""


class AskedOfAttack(AskedSettings):
    """Section `attack`."""

    up_to_all = frozenset({"examples"})

    tier: Tier | None = None
    """Least tier of attacks."""
    examples: int | None = Field(None, gt=0)
    """Least held-out rows that are attacked, or all."""
    second_opinion: Literal[True] | None = None
    """Whether ART's PGD must agree with ours."""


class AskedOfCertify(AskedSettings):
    """Section `certify`."""

    most = frozenset({"alpha"})
    up_to_all = frozenset({"examples"})

    alpha: float | None = Field(None, gt=0, lt=1)
    """Most that the chance of a wrong certificate may be, for each example."""
    examples: int | None = Field(None, gt=0)
    """Least held-out rows that are certified, or all."""


class AskedOfExtract(AskedSettings):
    """Section `extract`."""

    most = frozenset({"alpha"})

    epochs: int | None = Field(None, ge=1)
    """Least times that a copy looks at each row."""
    examples: int | None = Field(None, gt=0)
    """Least of the setting that bounds the rows which are compared; they are half of the held-out rows at most."""
    alpha: float | None = Field(None, gt=0, lt=0.5)
    """Most that the chance of a wrong bound may be in the budget."""


class MeasuredWith(Section):
    """How evidence must be measured; what is left out is not asked."""

    least_epsilon: dict[Modality, dict[Norm, Exact]] = {}
    """Modality -> norm -> the least epsilon, in the unit of the threat model; no other norm is accepted, and where
    there are some, no other modality."""
    changeable_at_least: Share | None = None
    """Tables: the least share of the columns that the attacker can change, numbers by at least the least epsilon."""
    drift: AskedOfDrift = AskedOfDrift()
    """The report on drift."""
    scan: AskedOfScan = AskedOfScan()
    """The scan of the training rows."""
    backdoor: AskedOfBackdoor = AskedOfBackdoor()
    """The search for triggers."""
    attack: AskedOfAttack = AskedOfAttack()
    """The evaluation under attack."""
    certify: AskedOfCertify = AskedOfCertify()
    """The certificate."""
    extract: AskedOfExtract | None = None
    """The copies made of the model's answers."""

    def of(self, role: str) -> AskedSettings:
        """What is asked of the evidence in this role."""
        found = getattr(self, role, None)
        return found if isinstance(found, AskedSettings) else AskedSettings()


def settings(
    asked: MeasuredWith, role: str, report: Measurement, model: Model, snapshot: Snapshot
) -> tuple[MeasuredSetting, ...]:
    """What the report in this role was measured with, the threat model included where attacks keep to it."""
    limits, found = asked.of(role), report.configuration
    demanded = limits.model_dump(exclude_none=True)
    keys = [*found, *(key for key in demanded if key not in found)]
    own = (_compare(f"{role}.{key}", found.get(key), _limit(limits, key, snapshot), key in limits.most) for key in keys)
    return (*(_threat(asked, model) if isinstance(report, RobustnessReport) else ()), *own)


def weaknesses(found: Iterable[MeasuredSetting]) -> str:
    """The settings that do not keep what the policy asks, in words; empty: all do."""
    wrong = [f"{one.name} is {in_words(one.measured)}, asked is {one.required}" for one in found if not one.kept]
    return f"{NOT_AS_ASKED}: {'; '.join(wrong)}" if wrong else ""


def in_words(value: Setting | None) -> str:
    """A setting as a person reads it."""
    if value is None:
        return "not named"
    if isinstance(value, tuple):
        return ", ".join(in_words(part) for part in value) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _limit(limits: AskedSettings, key: str, snapshot: Snapshot) -> Setting | None:
    wanted: Setting | None = getattr(limits, key, None) if key in type(limits).model_fields else None
    if isinstance(wanted, int) and key in limits.up_to_all:
        return min(wanted, snapshot.test_rows)
    return wanted


def _compare(name: str, found: Setting | None, wanted: Setting | None, most: bool) -> MeasuredSetting:
    if wanted is None:
        return MeasuredSetting(name=name, measured=found)
    words = in_words(wanted) if wanted is True else f"at {'most' if most else 'least'} {in_words(wanted)}"
    return MeasuredSetting(name=name, measured=found, required=words, kept=_keeps(found, wanted, most))


def _keeps(found: Setting | None, wanted: Setting, most: bool) -> bool:
    if isinstance(wanted, str):
        return found in TIERS and TIERS.index(found) >= TIERS.index(wanted)
    if not isinstance(found, int | float) or not isinstance(wanted, int | float):
        return False
    return found <= wanted if most else found >= wanted


def _threat(asked: MeasuredWith, model: Model) -> Iterable[MeasuredSetting]:
    """The threat model that the attacks keep to."""
    threat, norms = model.threat, asked.least_epsilon.get(model.input.modality, {})
    least, bound = norms.get(threat.norm), bool(asked.least_epsilon)
    wanted = " or ".join(sorted(norms)) or f"a norm for the modality {model.input.modality}"
    yield MeasuredSetting(
        name="threat.norm", measured=threat.norm, required=wanted if bound else "", kept=not bound or least is not None
    )
    yield MeasuredSetting(
        name="threat.epsilon",
        measured=str(threat.epsilon),
        required="" if least is None else f"at least {least}",
        kept=least is None or threat.epsilon >= least,
    )
    if model.input.features:
        yield from _columns(model, least or Fraction(0), asked.changeable_at_least)
    if threat.typing:
        yield MeasuredSetting(name="threat.typing", measured=threat.typing)


def _columns(model: Model, least: Fraction, share: float | None) -> Iterable[MeasuredSetting]:
    """Which columns of a table an attacker can change."""
    rules = {rule.name: rule for rule in model.threat.features}
    found = {f.column or f.name: _changeable(f, rules, least) for f in model.input.features}
    count = sum(found.values())
    yield MeasuredSetting(
        name="threat.changeable",
        measured=f"{count} of {len(found)} columns",
        required="" if share is None else f"at least {share:g} of the columns",
        kept=share is None or count >= share * len(found),
    )
    told = tuple(_rule_in_words(rule) for rule in model.threat.features[:_RULED_COLUMNS])
    yield MeasuredSetting(name="threat.features", measured=told)


def _changeable(feature: Feature, rules: Mapping[str, FeatureThreat], least: Fraction) -> bool:
    """Whether an attacker can change the column: a number by `least` standard deviations, or what was not named."""
    rule = rules.get(feature.column or feature.name)
    if feature.column:
        return rule is not None and rule.choose
    budget = None if rule is None else rule.budget
    return feature.mutable and (budget is None or float(budget) >= float(least) * feature.scale)


def _rule_in_words(rule: FeatureThreat) -> str:
    budget = () if rule.budget is None else (f"at most {rule.budget}",)
    direction = () if rule.direction == "both" else (rule.direction,)
    return f"{rule.name}: {' '.join((*budget, *direction)) or ('any value' if rule.choose else 'epsilon')}"
