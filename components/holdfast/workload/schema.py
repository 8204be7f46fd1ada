"""The workload: what is kept robust, in one YAML file that the model's owner writes.

Each section is the configuration of one step; a step receives nothing but its section.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from unicodedata import normalize

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from holdfast.artifacts.documents import (
    Costs,
    Exact,
    ExtractionStrategy,
    FeatureThreat,
    Modality,
    Norm,
    Real,
    Scalar,
    Setting,
    Sha256,
    ThreatModel,
)
from holdfast.errors import WorkloadError
from holdfast.wording import quoted
from holdfast.workload.addresses import kind_of
from holdfast.workload.naming import NamePattern
from holdfast.workload.statements import check_statement
from holdfast.workload.yaml import read_yaml, top_keys

Share = Annotated[float, Field(ge=0, le=1)]
OwnFunction = Annotated[str, Field(pattern=r"^\w+(\.\w+)*:\w+$")]
DeclaredKind = Literal["category", "number", "datetime"]
BeamRunner = Literal["direct", "flink", "spark", "dataflow"]
RunnerOption = bool | int | float | str | tuple[str, ...]
Radius = Annotated[float, Field(ge=0)]
Recipe = Literal["pgd", "standard", "curriculum", "fgsm-rs", "trades", "awp", "multi-norm", "ibp", "finetune"]
ART_RECIPES: tuple[Recipe, ...] = ("pgd", "trades", "awp")


class Section(BaseModel):
    """One section of the file: closed, so that a typing error is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, use_attribute_docstrings=True
    )

    @property
    def configuration(self) -> dict[str, Setting]:
        """What a document records of a section of single values and lists, defaults included."""
        found: dict[str, Setting] = self.model_dump(mode="json", exclude_none=True)
        return found


def _is_a_pattern(text: str) -> str:
    NamePattern(text)
    return text


PatternText = Annotated[str, AfterValidator(_is_a_pattern)]


class NewestConfig(Section):
    """Which delivery below `data.source` is read: the newest one that is complete."""

    name: PatternText
    """Path of a delivery below the source, such as `%Y-%m-%d/train.csv`: `%Y %m %d %H %M %S` are parts of a date, `%n`
    is a number, `*` is any text; the date and the number put deliveries in order."""
    test: PatternText | None = None
    """Path of the held-out rows of the same delivery."""
    marker: PatternText | None = None
    """A file that is written after the others, such as `%Y-%m-%d/_SUCCESS`: without it a delivery is not complete."""
    manifest: PatternText | None = None
    """A file with a SHA-256 and a name in each line, as `sha256sum` writes it, written after the others."""
    settled_seconds: int | None = Field(None, gt=0, le=600)
    """A delivery is complete that did not change in so many seconds, for which the step waits."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        rules = [one for one in (self.marker, self.manifest, self.settled_seconds) if one is not None]
        if len(rules) != 1:
            raise ValueError(
                "expected one of marker, manifest and settled_seconds: how a delivery shows it is complete"
            )
        wanted = NamePattern(self.name).directives
        for text in (self.test, self.marker, self.manifest):
            if text is not None and NamePattern(text).directives != wanted:
                raise ValueError("expected the same parts of a date in name, test, marker and manifest")
        return self


class DataConfig(Section):
    """Where the data is and what its parts mean."""

    source: str
    """`sklearn:digits`, `sklearn:breast-cancer`, a file in this one's folder, an https URL or an object of a store (s3,
    gs, az, abfs; then with `sha256`), or, with `newest`, a folder or a prefix of a store; with `query`, `env:NAME`."""
    sha256: Sha256 | None = None
    """Of the file: the run ends when it has another digest."""
    newest: NewestConfig | None = None
    """Deliveries that come below `source`, of which the newest complete one is read."""
    query: str | None = None
    """In SQL: its answer is the delivery. `source` is then `env:NAME`, the variable with the URL of the database."""
    key: tuple[str, ...] = ()
    """Columns of the answer that are different in each row, by which it is put in order; without, the query has an
    ORDER BY."""
    format: Literal["auto", "csv", "tsv", "parquet", "npz"] = "auto"
    """`auto`: by the name of the file."""
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    """Between the cells of a CSV; left out: found in the file, or refused where several fit."""
    decimal: Literal[".", ","] | None = None
    """Before the fraction of a number in a CSV or TSV; left out: found in the file, or refused."""
    encoding: str | None = None
    """Of a CSV or TSV, such as `latin-1`; left out: UTF-8, or what the byte order mark shows."""
    columns: tuple[str, ...] | None = None
    """Names of the columns when a CSV or TSV has no header row."""
    label: str = "label"
    """The column that holds the class."""
    text: str | None = None
    """The column that holds the message (text workloads)."""
    classes: tuple[str, ...] | None = None
    """The classes in order; found in the data when left out. NPZ labels are indices into them, or, where all are
    numbers, the classes themselves."""
    drop: tuple[str, ...] = ()
    """Columns that the model must not see; they are not read."""
    columns_as: dict[str, DeclaredKind] = {}
    """What columns are where their cells do not show it: `category` (codes), `number`, or `datetime` (ISO 8601; becomes
    seconds since 1970-01-01T00:00:00Z, and a date without a time zone is UTC)."""
    missing: Literal["refuse", "indicator"] | dict[str, str | float] = "refuse"
    """Missing cells (empty, NaN, NULL, None, NA ...): `refuse`; `indicator` adds a column of 0 and 1 for each column
    that has some and fills with the mean or the most frequent value of the training rows; or `{column: value}`."""
    identifiers: Literal["refuse", "drop", "keep"] = "refuse"
    """Columns in which each row has its own value: categories of which nine in ten do, and whole numbers that number
    the rows (from 100 rows; the snapshot step's page has the rule)."""
    constants: Literal["keep", "drop", "refuse"] = "keep"
    """Columns with one value in every row: nothing can be learned from them, and they do no harm."""
    immutable: tuple[str, ...] = ()
    """Columns that an attacker cannot change."""
    test: str | None = None
    """A second file with the held-out rows; otherwise `holdout` of the rows are set apart."""
    holdout: float = Field(0.2, gt=0, lt=1)
    """Share of each class that is held out for evaluation."""
    duplicates: Literal["anywhere", "together"] = "anywhere"
    """Rows of equal values, where the held-out rows are chosen here: `together` keeps them in one part."""
    split_seed: int = 0
    """Of the held-out choice: it stays the same for every seed of the run."""
    value_range: tuple[float, float] | None = Field(None, alias="range")
    """Images: the delivered values that mean 0 and 1; left out: from 0 to 1, 255 or 65535, by the largest value."""
    length: int = Field(200, ge=8, le=4096)
    """Text: how many characters of a message the model sees."""
    review: str | None = None
    """Decisions about quarantined rows (`holdfast quarantine`): a folder of reviews, of which the newest counts, or
    one review as FOLDER or FOLDER@DIGEST."""
    max_bytes: int = Field(4 * 2**30, gt=0)
    """Largest delivery (decoded) that is read."""

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, found: str) -> str:
        kind_of(found)
        return found

    @model_validator(mode="after")
    def _asks_a_database(self) -> Self:
        if (kind_of(self.source) == "database") != (self.query is not None) or (self.key and self.query is None):
            raise ValueError("query: expected query (and key) with a source env:NAME, and neither with another source")
        if self.query is not None:
            check_statement(self.query, ordered=not self.key)
        if self.query is not None and (self.test is not None or self.newest is not None):
            raise ValueError("query: expected neither test nor newest with it")
        return self

    @model_validator(mode="after")
    def _one_delivery(self) -> Self:
        if self.newest is None:
            return self
        if kind_of(self.source) not in ("path", "bucket"):
            raise ValueError("newest: expected a folder or a prefix of a store in source")
        if self.sha256 is not None or self.test is not None:
            raise ValueError("newest: expected neither sha256 nor test with it; a pinned delivery is named in source")
        return self

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, found: str | None) -> str | None:
        try:
            "".encode(found or "utf-8")
        except LookupError:
            raise ValueError("expected an encoding such as utf-8, utf-16, latin-1 or cp1252") from None
        return found

    @field_validator("label", "text", "columns", "drop", "immutable", "classes", "columns_as", "missing", mode="before")
    @classmethod
    def _composed(cls, found: object) -> object:
        """Names in composed Unicode (NFC), as they are read from files."""
        if isinstance(found, str):
            return normalize("NFC", found)
        if isinstance(found, list | tuple):
            return tuple(normalize("NFC", name) if isinstance(name, str) else name for name in found)
        if isinstance(found, dict):
            return {normalize("NFC", key) if isinstance(key, str) else key: value for key, value in found.items()}
        return found

    def fill_of(self, column: str) -> str | float | None:
        """What the workload writes into the missing cells of `column`; None where it does not say."""
        return None if isinstance(self.missing, str) else self.missing.get(column)


class SnapshotConfig(Section):
    """What the snapshot step needs."""

    name: str
    """Of the workload."""
    modality: Modality
    """What one example is."""
    data: DataConfig
    """Where the data is."""


class SchemaConfig(Section):
    """The data's contract."""

    path: str | None = None
    """A reviewed `schema.pbtxt` in the workload's folder; otherwise the champion's, otherwise inferred."""
    reviewed_by: str | None = None
    """Who read the schema; it is written into the report."""
    runner: BeamRunner | None = None
    """Tables: what computes the statistics, an Apache Beam runner; left out: this process, a block of rows at a time.
    `direct` is the processors of this machine; the others are clusters that `runner_options` name."""
    runner_options: dict[str, RunnerOption] = {}
    """Options of the runner, handed on as Beam spells them, such as `flink_master`, `project` or `temp_location`."""

    @model_validator(mode="after")
    def _options_have_a_runner(self) -> "SchemaConfig":
        if self.runner_options and self.runner is None:
            raise ValueError("runner_options: expected a runner with them (schema.runner), found none")
        return self


class DriftConfig(Section):
    """When a delivery counts as another distribution."""

    alpha: float = Field(0.01, gt=0, lt=1)
    """False alarms over all columns together (Bonferroni)."""
    min_effect: float = Field(0.2, ge=0)
    """Smallest effect that matters: shift in standard deviations (by ranks), or total variation distance."""
    break_share: float = Field(0.5, gt=0, le=1)
    """Share of drifted columns that is a broken delivery, even if the champion is as sure as before."""
    max_rows: int = Field(20_000, gt=0)
    """Rows of each side that enter the report."""


class ScanConfig(Section):
    """Poison and label-error scan."""

    review_budget: float = Field(0.075, gt=0, lt=0.5)
    """Largest share of the training rows that is put before a reviewer."""
    folds: int = Field(4, ge=2, le=10)
    """Parts of the training rows; each is judged by networks that did not see it."""
    epochs: int = Field(12, gt=0)
    """Of the scan's own small networks."""
    apply: bool = True
    """False: report only; new suspects stay in the training rows and the gate sees it. Undecided rows leave even so."""


class NetworkConfig(Section):
    """The network: `cnn`, `mlp`, `text`, or `module:function` returning a `torch.nn.Module` with logits."""

    architecture: str
    """A built-in name, or `module:function` from a file next to the workload."""
    arguments: dict[str, Scalar] = {}
    """Keyword arguments of the function."""


class FeatureConfig(Section):
    """What the attacker may do to one column."""

    budget: Exact | None = None
    """Numbers: the largest change, in the column's own unit; left out: epsilon standard deviations."""
    direction: Literal["both", "up", "down"] = "both"
    """Numbers: `up` when the value can only grow, `down` when it can only fall."""
    choose: bool = False
    """Categories: whether the attacker may write another value of the column."""

    @model_validator(mode="after")
    def _budget_is_positive(self) -> Self:
        if self.budget is not None and self.budget <= 0:
            raise ValueError("budget must be above 0; a column that cannot change belongs in data.immutable")
        return self


class ThreatConfig(Section):
    """What the attacker may change."""

    norm: Norm
    """How the size of a change is measured: `linf`, `l2`, or `edits` (text)."""
    epsilon: Exact
    """A fraction such as 8/255; in input units [0, 1], standard deviations of each feature, or characters."""
    features: dict[str, FeatureConfig] = {}
    """Tables: column -> its own rule, where it differs from the rest (`data.immutable` names what never changes)."""
    typing: bool = False
    """Text: whether an edit can also insert, leave out, or swap a character with its neighbour (typing errors)."""


_BY_CLASS = "class_weights."


def _by_class(weights: Mapping[str, float]) -> dict[str, Scalar]:
    return {f"{_BY_CLASS}{name}": weight for name, weight in weights.items()}


class RecipeConfig(Section):
    """How the network is trained."""

    recipe: Recipe = "pgd"
    """`standard`, `pgd`, `curriculum`, `fgsm-rs`, `trades`, `awp`, `multi-norm`, `ibp` (certified) or `finetune`."""
    epochs: int = Field(20, gt=0)
    """Passes over the training rows."""
    batch: int = Field(128, gt=0)
    """Rows in a batch."""
    learning_rate: float = Field(2e-3, gt=0)
    """The largest one of the schedule."""
    weight_decay: float = Field(5e-4, ge=0)
    """Of the optimizer."""
    attack_steps: int = Field(7, gt=0)
    """PGD steps of the training attack."""
    fast_steps: int = Field(2, gt=0)
    """fgsm-rs: steps of its attack. 1 is that of the paper: a third cheaper, and easier to fool at a large epsilon."""
    adversarial_share: Share = 1.0
    """Share of each batch that is attacked; the rest stays clean."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of Gaussian noise added in training (text: share of characters hidden), for certification."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    """How much each row counts in the loss: `balanced` weighs every class alike, however rare; or a weight by class."""
    selection_rows: int = Field(500, gt=0)
    """Training rows set apart to choose the best epoch, by the balanced accuracy clean and under PGD."""
    average: float = Field(0.0, ge=0, lt=1)
    """The kept weights are a running mean: its share of the past in each batch (0.995, for example); 0: no mean."""
    beta: float = Field(6.0, gt=0)
    """trades: weight of the distance between the answers to a clean and a moved row."""
    weight_step: float = Field(0.005, gt=0)
    """awp: how far the weights are moved, relative to the norm of each weight matrix."""
    second_norm: Literal["linf", "l2"] | None = None
    """multi-norm: the second ball; `threat` names the first."""
    second_epsilon: Exact | None = None
    """multi-norm: size of the second ball."""
    engine: Literal["holdfast", "art"] = "holdfast"
    """Whose training loop: `art` runs the trainers of the Adversarial Robustness Toolbox for pgd, trades and awp."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where sums are float32 (autocast) on a GPU, float32 on a CPU."""
    workers: int = Field(1, ge=1, le=64)
    """Processes that fit a share of every batch each; on a cluster, a pod each. Their number is part of the result."""
    compile: bool = False
    """Whether torch.compile makes the network's kernels; it needs a C++ compiler and a minute."""

    @property
    def scalars(self) -> dict[str, Scalar]:
        """The settings that a model's document records; those by class as `class_weights.NAME`."""
        found: dict[str, Scalar] = self.model_dump(mode="json", exclude={"class_weights"}, exclude_none=True)
        weights = self.class_weights
        by_class = {"class_weights": weights} if isinstance(weights, str) else _by_class(weights)
        return {**found, **by_class}

    @classmethod
    def from_scalars(cls, found: Mapping[str, Scalar]) -> Self:
        """The recipe whose `scalars` these are."""
        by_class = {name: value for name, value in found.items() if name.startswith(_BY_CLASS)}
        settings: dict[str, object] = {name: value for name, value in found.items() if name not in by_class}
        if by_class:
            settings["class_weights"] = {name.removeprefix(_BY_CLASS): value for name, value in by_class.items()}
        return cls.model_validate(settings)

    @model_validator(mode="after")
    def _second_ball(self) -> Self:
        given = self.second_norm is not None and self.second_epsilon is not None
        if given != (self.recipe == "multi-norm") or (self.second_norm is None) != (self.second_epsilon is None):
            raise ValueError("recipe multi-norm, and no other, takes second_norm and second_epsilon")
        return self

    @model_validator(mode="after")
    def _engine_can(self) -> Self:
        if self.engine == "art" and self.recipe not in ART_RECIPES:
            raise ValueError(
                f"engine art runs {', '.join(ART_RECIPES)}, not {self.recipe} (docs/hardening.md has the reasons)"
            )
        if self.engine == "art" and (self.noise or self.average or self.adversarial_share < 1):
            raise ValueError("engine art has no noise, average or adversarial_share; leave them out")
        if self.engine == "art" and (self.class_weights != "none" or self.workers > 1):
            raise ValueError("engine art has no class_weights or workers; leave them out")
        return self


class DecisionConfig(Section):
    """The operating point of a model of two classes: by which rule the threshold of its decision is chosen.

    It is chosen on the training rows set apart (`train.selection_rows`), and every attack, proof and server uses it.
    """

    positive: str
    """The class that is looked for, such as fraud; the other one is answered where its margin is too small."""
    costs: Costs | None = None
    """`{miss: 50, false_alarm: 1}`: the threshold whose wrong answers cost least."""
    false_positive_rate: Real | None = Field(None, gt=0, lt=1)
    """`0.01`: the lowest threshold at which the upper 95 % bound of the false-positive rate is at most this."""

    @field_validator("positive")
    @classmethod
    def _composed_name(cls, found: str) -> str:
        """In composed Unicode (NFC), as class names are read from files."""
        return normalize("NFC", found)

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.costs is None) == (self.false_positive_rate is None):
            found = "none" if self.costs is None else "both"
            raise ValueError(f"expected one of costs and false_positive_rate, found {found}")
        return self

    def index_in(self, classes: Sequence[str]) -> int:
        """The position of the positive class.

        Raises:
            WorkloadError: not two classes, or not one of them.
        """
        if len(classes) != 2:
            raise WorkloadError(f"decision: expected data of two classes, found {len(classes)}: {quoted(classes)}")
        if self.positive not in classes:
            raise WorkloadError(
                f"decision.positive: expected one of {quoted(classes)}, found {quoted([self.positive])}"
            )
        return classes.index(self.positive)


class TrainConfig(Section):
    """What the train step needs."""

    name: str
    """Of the workload."""
    network: NetworkConfig
    """What is trained."""
    threat: ThreatModel
    """What it is trained against."""
    train: RecipeConfig
    """How it is trained."""
    decision: DecisionConfig | None = None
    """How its operating point is chosen; None: the largest logit decides."""
    allow_new_contract: bool = False
    """Whether categories that the champion does not know get places of their own; the key of the gate's section."""


class BackdoorConfig(Section):
    """Trigger inversion."""

    steps: int = Field(300, gt=0)
    """Gradient steps of a trigger's search."""
    examples: int = Field(400, gt=0)
    """Training rows that a trigger is made from, and as many held-out rows that it is tried on."""
    anomaly_index: float = Field(2.0, gt=0)
    """Four classes and more: a class is suspicious above this index."""
    relative_norm: float = Field(0.5, gt=0)
    """Largest size of a trigger, relative to the median of the other classes'."""
    attack_success: Share = 0.9
    """A trigger works when it sends more than this share of the rows to its class."""


class AttackConfig(Section):
    """Evaluation under attack."""

    tier: Literal["pr", "nightly", "release"] = "pr"
    """How much is tried: `pr` (least), `nightly`, `release` (most)."""
    examples: int = Field(500, gt=0)
    """Held-out rows that are attacked."""
    curve: tuple[Exact, ...] = ()
    """Epsilons of the accuracy curve; left out: 0, 1/2, 1, 3/2 and 2 times the threat model's."""
    second_opinion: bool = True
    """Whether ART's PGD must agree with ours."""
    own: tuple[OwnFunction, ...] = ()
    """Attacks of your own, `module:function` each, from files next to the workload; they run after the tier's."""

    @field_validator("own")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("expected each attack once")
        return names


class CertifyConfig(Section):
    """Randomized smoothing (images, tables), randomized ablation (text), or bounds on the network itself."""

    method: Literal["smoothing", "bounds"] = "smoothing"
    """bounds: IBP and CROWN, linf; no noise, and the radii are epsilons in the threat model's unit."""
    mode: Literal["fixed", "sequential"] = "fixed"
    """sequential: only as many samples as an example's decision at these radii needs; `samples` is the most."""
    noise: float = Field(0.25, gt=0)
    """Sigma in the threat model's unit; text: share of characters kept."""
    samples: int = Field(1000, gt=0)
    """Noisy copies per example that estimate."""
    selection_samples: int = Field(100, gt=0)
    """Noisy copies per example that choose the class."""
    alpha: float = Field(0.001, gt=0, lt=1)
    """Chance, per example, that its certificate is wrong."""
    examples: int = Field(200, gt=0)
    """Held-out rows that are certified."""
    radii: tuple[Radius, ...] = Field((0.0, 0.1, 0.25, 0.5), min_length=1)
    """Radii at which certified accuracy is reported, in the threat model's unit."""


class ExtractConfig(Section):
    """How the model is copied, to see how many answers that takes."""

    strategies: tuple[ExtractionStrategy, ...] = Field(
        ("random", "foreign", "jacobian", "in-distribution"), min_length=1
    )
    """What the attackers ask."""
    outputs: tuple[Literal["label", "rounded", "full"], ...] = Field(("label", "full"), min_length=1)
    """What they learn from: the class alone, probabilities of `digits` digits, or probabilities."""
    queries: tuple[Annotated[int, Field(ge=1, le=50_000)], ...] = Field((100, 300, 1_000, 3_000), min_length=1)
    """After how many queries the copies are compared, rising."""
    digits: int = Field(1, ge=0, le=9)
    """Of a rounded probability."""
    epochs: int = Field(5, ge=1, le=1_000)
    """How often a copy that is a network looks at each row, of few rows more often."""
    examples: int = Field(2_000, gt=0)
    """Most held-out rows on which model and copy are compared: half of them at most, the attacker has the others."""
    agreement_at_most: Share = 0.8
    """The agreement that the budget keeps a copy below; a run takes it from the policy's check, where it has one."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Chance, for each count, that its bound is wrong."""

    @field_validator("strategies", "outputs", "queries")
    @classmethod
    def _different(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"expected different values, found {list(value)}")
        return value

    @field_validator("queries")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if sorted(value) != list(value):
            raise ValueError(f"expected rising numbers, found {list(value)}")
        return value


class GateConfig(Section):
    """Which policy judges the evidence, and where this workload asks for more or less."""

    policy: str = "default"
    """A name in gates/policies, or a file in the workload's folder."""
    override: dict[str, dict[str, Scalar]] = {}
    """Check -> thresholds that replace the policy's; recorded in the decision."""
    allow_new_contract: bool | None = None
    """Whether the model may have another contract with its clients than the champion; recorded in the decision."""


class RolloutStep(Section):
    """One canary step; what is left out is the plan's `step_requests`, `min_step_seconds`, `max_step_seconds`."""

    weight: int = Field(ge=1, le=100)
    """Percent of live traffic on the candidate."""
    requests: int | None = Field(None, gt=0)
    """Live answers that the candidate must give before the next step."""
    min_seconds: float | None = Field(None, ge=0)
    """The step takes at least so long."""
    max_seconds: float | None = Field(None, gt=0)
    """Deadline of the step."""


class RolloutPlan(Section):
    """Shadow, canary, promotion: section `rollout` of a workload, or a file of its own. The same for every driver.

    Written as JSON it has only the keys that were asked.
    """

    shadow_requests: int = Field(200, ge=0)
    """Mirrored requests before the first live one."""
    steps: tuple[int | RolloutStep, ...] = Field((5, 25, 50, 100), min_length=1, max_length=20)
    """Percent of live traffic on the candidate; or `{weight: 5, requests: 500, min_seconds: 60, max_seconds: 600}`."""
    step_requests: int = Field(60, gt=0)
    """Live answers that the candidate must give at each step before the next."""
    min_step_seconds: float = Field(0.0, ge=0)
    """A step takes at least so long."""
    max_step_seconds: float = Field(60.0, gt=0)
    """Deadline of a step; no verdict by then is inconclusive and rolls back."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """False rollbacks over all metrics together."""
    margin: float = Field(0.01, gt=0, lt=1)
    """Promotion needs the Newcombe 95 % upper bound of (candidate's - champion's failure share) below it."""
    max_errors: float | None = Field(None, gt=0, lt=1)
    """Service level: the candidate's own failure share may not be proven above it, however the champion does."""
    max_disagreement: Share = 0.25
    """Largest share of paired answers in which candidate and champion may differ."""
    max_drift: Share = 0.1
    """Furthest that the share of any predicted class may move away from the champion's, on the same rows."""
    max_attack_excess: Share = 0.05
    """How far attack success on the served candidate may exceed what the gate measured."""
    latency_limit_ms: float = Field(250.0, gt=0)
    """An answer slower than this counts as slow. A machine that keeps Holdfast itself waiting for half as long is too
    busy to judge latency."""
    latency_floor_ms: float = Field(25.0, ge=0)
    """An answer faster than this is never slow, however quick the champion's answers are."""
    max_blind_seconds: float = Field(15.0, gt=0)
    """No counters for longer than this is inconclusive and rolls back."""
    ttl_seconds: float = Field(3.0, gt=0)
    """Lease of a driver: a weight that it did not renew for so long is taken back without it."""
    hold_without_champion: bool = False
    """Whether the candidate keeps its weight while the champion's server is gone; otherwise it goes out."""
    approval: bool = False
    """Whether a person must say `holdfast rollout promote` before the last act."""
    approval_seconds: float = Field(3600.0, gt=0)
    """Without an approval by then the rollout is inconclusive and rolls back."""
    max_decision_days: float = Field(7.0, gt=0)
    """A version is not rolled out, and a rollout under way turns back, when its gate decision is older than this."""
    rate: float = Field(200.0, gt=0)
    """Replayed requests per second, where Holdfast itself sends the traffic."""
    clients: int = Field(8, gt=0)
    """Connections of the replayed traffic."""
    max_body_bytes: int | None = Field(None, ge=2**10, le=2**30)
    """Largest body of a client's request, on this machine; left out: what the model's largest request needs, between
    1 and 8 MiB."""
    arm_header_from: tuple[str, ...] = Field((), max_length=64)
    """Addresses (CIDR) of clients who may choose their arm with the header `x-rollout` (A/B tests), on this machine.
    For all others it is removed."""

    @field_validator("arm_header_from")
    @classmethod
    def _are_networks(cls, found: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(ip_network(text)) for text in found)
        except ValueError as error:
            raise ValueError(f"expected addresses such as 127.0.0.1 or 10.0.0.0/8, found {error}") from None

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        weights = [step if isinstance(step, int) else step.weight for step in self.steps]
        if weights != sorted(set(weights)) or weights[0] < 1 or weights[-1] > 100:
            raise ValueError(f"steps: expected rising percentages between 1 and 100, found {weights}")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        # So that what a workload leaves out can still be filled by the policy after it went through JSON.
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}

    @property
    def complete(self) -> "RolloutPlan":
        """The same plan with every key written down, its defaults too."""
        return RolloutPlan.model_construct(**dict(self))

    def over(self, defaults: "RolloutPlan") -> "RolloutPlan":
        """This plan, with the values of `defaults` for the keys that it leaves out."""
        return RolloutPlan.model_validate({**defaults.model_dump(), **self.model_dump()})


class DetectConfig(Section):
    """Detectors of single adversarial inputs."""

    false_alarms: float = Field(0.05, gt=0, lt=1)
    """Chance that a user's row is suspicious to a detector."""
    examples: int = Field(200, gt=0)
    """Held-out rows that are attacked."""
    calibration_rows: int = Field(2000, gt=0)
    """Most of the other held-out rows that set a detector's limit."""


class GuardOutputs(Section):
    """What `degrade` leaves of an answer."""

    round: int = Field(1, ge=0, le=9)
    """Digits of a probability."""
    top1: bool = False
    """Whether only the largest probability is left, and the others share the rest evenly."""


class GuardConfig(Section):
    """The guard in front of a served model."""

    mode: Literal["observe", "flag", "degrade", "refuse"] = "observe"
    """What happens to a client who is alarmed, or has used up the budget: only counted; marked in the answer; the
    answer coarser, too; or no answer."""
    client_header: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{1,64}$")
    """The header that names a client, set by a proxy that knows who it is; left out: the address of the peer."""
    alpha: float = Field(1e-4, gt=0, lt=1)
    """Chance that a client who asks as users do is ever alarmed."""
    budget: Annotated[int, Field(gt=0)] | Literal["auto"] | None = None
    """Most rows that one client may ask in `budget_days`; auto: as the step `extract` found; left out: no limit."""
    budget_days: float = Field(30.0, gt=0)
    """After so many days a client's budget is full again."""
    outputs: GuardOutputs | None = None
    """What `degrade` leaves of an answer; left out: probabilities of one digit."""


class MonitorLabels(Section):
    """Where the labels of served rows come, when they come."""

    source: str
    """A folder with requests (`*.json`, as `holdfast monitor labels` draws them) and answers (`*.csv`)."""
    delay_days: int = Field(7, ge=0)
    """So long the answers to a request are waited for; then missing ones make all labels selected ones."""


class MonitorConfig(Section):
    """How a served model is watched."""

    log: str | None = None
    """The folder of the model server's sample_log; left out: the pipeline `monitor` cannot run."""
    kept: str | None = None
    """A folder in which reports and requests are kept from run to run; needed where `log` is."""
    every: str = Field("1h", pattern=r"^[1-9][0-9]{0,3}[mhd]$")
    """How often the pipeline `monitor` runs."""
    alarms: float = Field(0.01, ge=1e-6, le=0.5)
    """Expected false alarms in a month (720 hours)."""
    stable: int = Field(168, ge=24)
    """First hours, which a person vouches for."""
    season: int = Field(1, ge=1)
    """24: each hour is compared with the same hour of other days."""
    labels: MonitorLabels | None = None
    """Labels of served rows; left out: none come."""
    on_drift: tuple[Literal["report", "retrain"], ...] = ("report",)
    """What an alarm leads to: a report, and a retraining where the change is none that must be repaired first."""
    cooldown_days: int = Field(7, ge=0)
    """Days before another retraining is asked for."""

    @model_validator(mode="after")
    def _kept_with_a_log(self) -> Self:
        if self.log is not None and self.kept is None:
            raise ValueError("log: expected kept with it, a folder for the reports")
        return self


GuardedSignal = Literal["errors", "latency", "attack", "loss", "extraction"]


class OperationConfig(Section):
    """What takes a promoted model back by itself: proof against what was approved, and never drift alone."""

    guarded: tuple[GuardedSignal, ...] = ("errors", "latency", "loss")
    """Which proofs lead to a rollback to `previous`."""
    alpha: float = Field(0.01, gt=0, lt=1)
    """Chance of a rollback for errors, latency or attack success in `days` while each keeps to its limit."""
    days: int = Field(30, ge=1, le=365)
    """After so many days the evidence begins again."""
    max_errors: float = Field(0.02, gt=0, lt=1)
    """Largest share of failed answers."""
    slow_ms: float = Field(250.0, gt=0)
    """A slower answer counts as slow."""
    max_slow: float = Field(0.05, gt=0, lt=1)
    """Largest share of slow answers."""
    max_attack_excess: float = Field(0.05, gt=0, lt=1)
    """How far attack success on the served model may exceed what the gate measured on the same rows."""
    max_alarmed_clients: int = Field(0, ge=0)
    """Clients with an alarm of the guard from which on that counts as an extraction."""
    look_seconds: float = Field(30.0, gt=0, le=3600)
    """Time between two looks."""


class Workload(Section):
    """The whole file."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """Also the name of the registered model."""
    modality: Modality
    """What one example is."""
    data: DataConfig
    """The delivery: its files and what their parts mean."""
    network: NetworkConfig
    """What is trained."""
    threat: ThreatConfig
    """What an attacker may change."""
    schema_: SchemaConfig = Field(SchemaConfig(), alias="schema")
    """What every delivery must keep to."""
    drift: DriftConfig = DriftConfig()
    """When a delivery differs too much from the reference."""
    scan: ScanConfig = ScanConfig()
    """The search for poisoned and mislabelled rows."""
    train: RecipeConfig = RecipeConfig()
    """The recipe of training and its settings."""
    decision: DecisionConfig | None = None
    """Two classes: by which rule the threshold of the model's decision is chosen; left out: the largest logit."""
    backdoor: BackdoorConfig = BackdoorConfig()
    """The search for triggers."""
    attack: AttackConfig = AttackConfig()
    """How much is tried against the model."""
    certify: CertifyConfig = CertifyConfig()
    """What is proven, and with how many samples."""
    extract: ExtractConfig = ExtractConfig()
    """How the model is copied by its answers."""
    gate: GateConfig = GateConfig()
    """Which policy judges the evidence."""
    rollout: RolloutPlan = RolloutPlan()
    """How traffic moves to a new model; what is left out is as the policy has it."""
    guard: GuardConfig = GuardConfig()
    """What is done about clients who ask as users do not."""
    detect: DetectConfig = DetectConfig()
    """What detectors of single adversarial inputs are measured with."""
    monitor: MonitorConfig = MonitorConfig()
    """How the served model is watched, and what an alarm leads to."""
    operation: OperationConfig = OperationConfig()
    """What takes a promoted model back by itself."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        # Arrays come in with the first whole workload: a rollout's controller, which reads only its plan, stays small.
        from holdfast.modality import modality_of
        from holdfast.modality.norms import BOXES

        modality = modality_of(self.modality)
        if self.threat.norm not in modality.norms:
            raise ValueError(f"norm {self.threat.norm!r} does not fit a workload of modality {self.modality!r}")
        if modality.one_column and self.data.text is None:
            raise ValueError(f"a {self.modality} workload names its text column in data.text")
        if modality.recipes != "all" and self.train.recipe not in modality.recipes:
            fitting = ", ".join(modality.recipes)
            raise ValueError(f"recipe {self.train.recipe!r} does not fit {self.modality}; expected {fitting}")
        if self.train.engine == "art" and (not modality.fits_art or self.threat.features):
            raise ValueError("engine art attacks images and tables without threat.features; leave train.engine out")
        if self.train.recipe == "ibp" and self.threat.norm not in BOXES:
            raise ValueError(f"recipe ibp bounds boxes: expected norm {' or '.join(BOXES)}, found {self.threat.norm}")
        if self.threat.typing and "typing" not in modality.threat_keys:
            raise ValueError("threat.typing belongs to a text workload")
        if self.threat.features and "features" not in modality.threat_keys:
            raise ValueError(f"threat.features belongs to a tabular workload, not to one of modality {self.modality!r}")
        if self.threat.epsilon <= 0:
            raise ValueError("threat.epsilon must be above 0")
        return self

    @model_validator(mode="after")
    def _decision_fits(self) -> Self:
        if self.decision is not None and self.data.classes is not None:
            try:
                self.decision.index_in(self.data.classes)
            except WorkloadError as error:
                raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _methods_fit(self) -> Self:
        from holdfast.modality import modality_of
        from holdfast.modality.norms import BOXES

        modality, name, proof = modality_of(self.modality), self.network.architecture, self.certify
        if ":" not in name and name not in modality.networks:
            fitting = ", ".join(modality.networks)
            raise ValueError(f"network.architecture {name!r}: {self.modality} data takes {fitting} or module:function")
        if proof.method == "bounds" and self.threat.norm not in BOXES:
            raise ValueError(f"certify.method bounds: expected norm {' or '.join(BOXES)}, found {self.threat.norm}")
        hides = proof.method == "smoothing" and modality.certification == "randomized-ablation"
        if hides and proof.noise > 1:
            raise ValueError(f"certify.noise: expected the share of characters kept, at most 1, found {proof.noise}")
        return self

    @property
    def threat_model(self) -> ThreatModel:
        """The threat model with its unit."""
        from holdfast.modality import modality_of

        features = tuple(FeatureThreat(name=name, **rule.model_dump()) for name, rule in self.threat.features.items())
        threat, unit = self.threat, modality_of(self.modality).unit
        return ThreatModel(norm=threat.norm, epsilon=threat.epsilon, unit=unit, features=features, typing=threat.typing)

    @property
    def snapshot_config(self) -> SnapshotConfig:
        """The section of the snapshot step."""
        return SnapshotConfig(name=self.name, modality=self.modality, data=self.data)

    @property
    def train_config(self) -> TrainConfig:
        """The section of the train step."""
        return TrainConfig(
            name=self.name,
            network=self.network,
            threat=self.threat_model,
            train=self.train,
            decision=self.decision,
            allow_new_contract=bool(self.gate.allow_new_contract),
        )


def read_plan(path: Path) -> RolloutPlan:
    """Reads a rollout's plan from a file of its own, or from a workload file.

    Raises:
        WorkloadError: as `read_workload`.
    """
    keys = top_keys(path)
    sections = {field.alias or name for name, field in Workload.model_fields.items()}
    return read_workload(path).rollout if keys & sections else read_yaml(path, RolloutPlan)


def read_workload(path: Path) -> Workload:
    """Reads a workload file.

    Raises:
        WorkloadError: with the line and, for a typing error, the key meant.
    """
    return read_yaml(path, Workload)
