"""The documents: closed, versioned statements about what a step read and found.

Counts, never percentages; epsilon as an exact fraction; finite numbers only; unknown fields refused; no clocks
and no host names, so that equal inputs give equal bytes. `inputs` maps the role of each input to the digest of the
artifact that was read, `files` pins the files that belong to the document.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

from holdfast.artifacts.cause import Cause

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal."""

Modality = Literal["image", "tabular", "text"]
Norm = Literal["linf", "l2", "edits"]
Scalar = bool | int | float | str
UtcSecond = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
"""A time in UTC: `2026-12-31T00:00:00Z`."""
ExtractionStrategy = Literal["random", "foreign", "jacobian", "in-distribution"]
"""How an attacker chooses what to ask: `ExtractionCurve` has what the words mean."""
Setting = Scalar | tuple[Scalar, ...]
"""What a key of a section of the workload is set to."""


def _fraction(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if not re.fullmatch(r"-?[0-9]{1,12}(/[0-9]{1,12}|\.[0-9]{1,12})?", text := str(value)):
        raise ValueError('expected a fraction such as "8/255"')
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError("expected a fraction with a denominator above 0") from None


Exact = Annotated[
    Fraction,
    BeforeValidator(_fraction),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(/[0-9]+)?$", "examples": ["8/255"]}),
]
"""A number without rounding, written as a fraction: "8/255"."""


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


Real = Annotated[float, BeforeValidator(_no_bool)]
"""A number; `true` and `yes` are none."""


class Verdict(StrEnum):
    """Ordered from good to bad; the worst check decides."""

    PASS = "pass"
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of `verdicts`; inconclusive when there are none, because no evidence is not a pass."""
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.INCONCLUSIVE)


class Frozen(BaseModel):
    """Immutable, closed, finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Count(Frozen):
    """k of n. Reports hold counts, never percentages, so that intervals can be computed."""

    k: int = Field(ge=0)
    """How many of them, at most `n`."""
    n: int = Field(ge=0)
    """How many there were."""

    @model_validator(mode="after")
    def _k_of_n(self) -> Self:
        if self.k > self.n:
            raise ValueError(f"k = {self.k} is more than n = {self.n}")
        return self

    @property
    def share(self) -> float:
        """k / n; 0 when n is 0."""
        return self.k / self.n if self.n else 0.0


class FilePin(Frozen):
    """One file that belongs to the document."""

    sha256: Sha256
    """Digest of the file's bytes."""
    bytes: int = Field(ge=0)
    """Size of the file."""


class Document(Frozen):
    """What every document holds."""

    version: Literal[1] = 1
    """Version of this document's format."""
    inputs: dict[str, Sha256] = {}
    """Role of each input -> digest of the artifact (or of the policy, plan or file) that was read."""
    files: dict[str, FilePin] = {}
    """The files that belong to the document, by path relative to the folder (POSIX, no `..`)."""


class Measurement(Document):
    """What a step measured, with the settings that it measured with."""

    configuration: dict[str, Setting] = {}
    """The step's section of the workload, by key; empty: the document is older than this field."""


# --- data -----------------------------------------------------------------------------------------------------------


class Column(Frozen):
    """One column of a table, as it was delivered."""

    name: str
    """As in the delivery's header."""
    kind: Literal["number", "category", "text"]
    """What its values are."""
    integer: bool = False
    """Whether every delivered value was a whole number."""
    categories: tuple[str, ...] = ()
    """The values of a category column in the training rows, sorted."""
    immutable: bool = False
    """Whether an attacker cannot change it."""
    datetime: bool = False
    """Whether its numbers are dates: seconds since 1970-01-01T00:00:00Z; a date without a time zone is UTC."""
    fill: float | str | None = None
    """The value of a missing cell; None: a row with a missing cell is refused."""
    indicates: str | None = None
    """1 where the cell of this column was missing, else 0; such a column is computed, not delivered."""


class SourceFile(Frozen):
    """One file of the delivery; `path` is relative to the delivery, never absolute."""

    path: str
    """Relative to the delivery."""
    sha256: Sha256
    """Digest of the delivered file."""
    bytes: int = Field(ge=0)
    """Size of the delivered file."""
    read_as: str | None = None
    """How the file was read, where that is not the usual way: archive, delimiter, decimal mark, encoding."""
    address: str | None = None
    """Where it was found, when the workload names a place for deliveries: with `sha256` it pins this one."""
    version: str | None = None
    """What its store calls this version of it (ETag); None: the store has no such thing."""


class Reviewed(Frozen):
    """What a review of quarantined rows did to a delivery; the review itself is the input `review`."""

    decisions: int = Field(ge=0)
    """Rows decided, whether this delivery holds them or not."""
    dropped: int = Field(ge=0)
    """Training rows left out."""
    dropped_held_out: int = Field(ge=0)
    """Held-out rows left out."""
    released: tuple[int, ...] = ()
    """Ids of the training rows that a reviewer released, sorted; a scan does not set them aside again."""


class Undecided(Frozen):
    """Rows of a delivery that an earlier scan set aside and that no reviewer has decided; the review names them."""

    train: tuple[int, ...] = ()
    """Ids of such training rows, sorted: a scan sets them aside again."""
    held_out: int = Field(0, ge=0)
    """Such rows among the held-out rows, where they stay."""


class Snapshot(Document):
    """The exact data of one delivery.

    Files, image: `train.npz`, `test.npz` with `x` (number[N, C, H, W], the delivery's own units) and `y` (int64[N],
    index into `classes`). Tabular and text: `train.parquet`, `test.parquet` with `columns` in order, then the label
    column holding class names. The id of a training row is its position in the train file. `places.npz`: where each row
    of `train` and `test` is in the delivered file.
    """

    kind: Literal["snapshot"] = "snapshot"
    """Always `snapshot`."""
    name: str
    """Of the workload."""
    modality: Modality
    """What one example is."""
    root: Sha256
    """Merkle root (RFC 6962 shape) over `sources`."""
    sources: tuple[SourceFile, ...]
    """The file of the training rows, then that of the held-out rows, where there is one."""
    label: str
    """The column that holds the class."""
    classes: tuple[str, ...] = Field(min_length=2)
    """The classes in order; a class number is an index into them."""
    train_rows: int = Field(gt=0)
    """Rows to train on."""
    test_rows: int = Field(gt=0)
    """Held-out rows."""
    train_per_class: tuple[int, ...]
    """Training rows of each class."""
    test_per_class: tuple[int, ...]
    """Held-out rows of each class."""
    columns: tuple[Column, ...] = ()
    """Empty for images."""
    shape: tuple[int, ...]
    """One example: (C, H, W) for images, (number of columns,) for tables, (characters,) for text."""
    lower: float = 0.0
    """Images: the value that means 0 in input units [0, 1]."""
    upper: float = 1.0
    """Images: the value that means 1 in input units [0, 1]."""
    review: Reviewed | None = None
    """None when no review was given."""
    undecided: Undecided = Undecided()
    """What the review leaves open."""
    places: tuple[Literal["line", "row"], Literal["line", "row"]] | None = None
    """What `places.npz` counts, for the training rows and for the held-out rows: lines of the file from 1, or rows from
    0; None: it is not there."""
    leaked_rows: int | None = Field(None, ge=0)
    """Held-out rows whose values are those of a training row, even with another label; None: not counted."""
    left_out: tuple[str, ...] = ()
    """Identifiers and constant columns that the workload leaves out (`data.identifiers`, `data.constants`)."""
    constant: tuple[str, ...] = ()
    """Columns with one value in every delivered row that are kept."""


class Anomaly(Frozen):
    """One way in which the data breaks the schema."""

    column: str
    """Where it was found."""
    kind: str
    """TFDV's anomaly type, for example ENUM_TYPE_UNEXPECTED_STRING_VALUES."""
    detail: str
    """TFDV's own explanation."""


class SchemaReport(Document):
    """Anomalies of a snapshot against a schema. Files: `statistics.pb`, `schema.pbtxt`, `anomalies.pbtxt`."""

    kind: Literal["schema-report"] = "schema-report"
    """Always `schema-report`."""
    source: Literal["inferred", "champion", "given"]
    """Where the schema came from; inferred means that this snapshot was judged against its own training rows."""
    reviewed_by: str | None = None
    """Who read the schema; None: no person did."""
    columns: int = Field(ge=0)
    """Columns compared with the schema."""
    rows: int = Field(ge=0)
    """Rows compared with the schema."""
    anomalies: tuple[Anomaly, ...] = ()
    """Every way in which the data breaks the schema."""
    verdict: Verdict
    """Pass: no anomaly."""


class ColumnDrift(Frozen):
    """Stage one for one column."""

    column: str
    """Name of the column."""
    test: str
    """Name of the statistical test."""
    statistic: float
    """What the test measured."""
    threshold: float
    """What the statistic is compared with."""
    effect: float
    """Effect size: shift in standard deviations, by ranks (number), or total variation distance (category)."""
    drifted: bool
    """Whether the test objects and the effect is large enough to matter."""


class ConfidenceDrift(Frozen):
    """Stage two: the champion's confidence on the reference and on the new rows."""

    test: str
    """Name of the statistical test."""
    statistic: float
    """What the test measured."""
    threshold: float
    """What the statistic is compared with."""
    reference_mean: float
    """Mean confidence on the reference rows."""
    current_mean: float
    """Mean confidence on the new rows."""
    drifted: bool
    """Whether the confidences differ."""


class DriftReport(Measurement):
    """Whether the delivery comes from another distribution. Files: `evidently.html`, `distributions.json`."""

    kind: Literal["drift-report"] = "drift-report"
    """Always `drift-report`."""
    reference: Literal["champion", "held-out"]
    """The champion's training rows, or (first delivery) the held-out rows of the same delivery."""
    stage_one: tuple[ColumnDrift, ...]
    """One entry for each column."""
    drifted: Count
    """Columns drifted of columns compared."""
    stage_two: ConfidenceDrift | None = None
    """None when there is no champion yet."""
    reason: str
    """The verdict in words."""
    verdict: Verdict
    """Fail: the delivery is broken."""


class Baseline(Document):
    """The champion, fetched for comparison.

    Files when present: `model/` (its model folder, verified), `schema.pbtxt`, `reference.parquet` (a sample of its
    training rows, in the table view of `holdfast.tables`), `scores.npz` (`reference_confidence`: the champion's
    confidence on its own held-out rows; `current_confidence`: on the new training rows; float64[n] each), and, where
    the champion has some, `older.npz` (`x`, `y`: held-out rows of its delivery and of those before).
    """

    kind: Literal["baseline"] = "baseline"
    """Always `baseline`."""
    name: str
    """Of the registered model."""
    present: bool
    """Whether there is a champion."""
    model_version: int | None = None
    """The champion's version in MLflow."""
    model: Sha256 | None = None
    """Digest of the champion's model artifact."""
    request: Sha256 | None = None
    """The request of the monitor that this run answers; None: it answers none."""
    older_than: UtcSecond | None = None
    """With a request: the hour from which on rows are suspect; the champion was served before it."""


class Detector(Frozen):
    """One detector of a scan: its alarm statistic and the threshold it was held to."""

    name: str
    """Name of the detector."""
    statistic: float
    """What it measured."""
    threshold: float
    """What the statistic is compared with."""
    alarm: bool
    """Whether the statistic is over the threshold."""
    detail: str = ""
    """What it found, in words."""


class NotJudged(Frozen):
    """A class of which a scan cannot say whether its labels are right."""

    name: str
    """The class."""
    rows: int = Field(ge=0)
    """Training rows that carry its label."""
    reason: str
    """Why, in words."""


class HeldOutLabels(Frozen):
    """Held-out rows whose label the scan's models contradict. Report only: no held-out row is ever removed."""

    suspects: Count
    """Held-out rows with a suspected label, of all held-out rows."""
    per_class: tuple[int, ...] = ()
    """Suspects by (delivered) class."""
    rows: tuple[int, ...] = ()
    """Their positions in the test file, the most suspect first."""
    false_alarm_rate: float = Field(gt=0, lt=1)
    """How often a class of which every label is right has a suspect, at most."""


class ScanReport(Measurement):
    """Poison and label-error suspects.

    Files: `scores.npz`, `quarantine.npz` or `quarantine.parquet` (the rows, as delivered), `quarantine.csv` (a line for
    each of them, the most suspect first) and `held_out.csv` (the same for suspected held-out labels).
    """

    kind: Literal["scan-report"] = "scan-report"
    """Always `scan-report`."""
    detectors: tuple[Detector, ...]
    """Every detector that ran."""
    suspects: Count
    """Rows over the suspicion threshold of rows scanned."""
    budget: int = Field(ge=0)
    """The most rows that a reviewer takes in one run."""
    quarantined: tuple[int, ...] = ()
    """Row ids set aside, sorted."""
    released: tuple[int, ...] = ()
    """Row ids over the suspicion threshold that a reviewer has released: they stay, and are not among `suspects`."""
    undecided: tuple[int, ...] = ()
    """Row ids among `quarantined` that an earlier scan set aside and that no reviewer has decided, sorted. They stay
    out until they are released, and do not count against the budget."""
    not_judged: tuple[NotJudged, ...] = ()
    """Classes in which the scan looks for no wrong labels."""
    held_out: HeldOutLabels | None = None
    """None when the held-out rows were not scanned."""
    per_class: tuple[int, ...]
    """Quarantined rows by (delivered) class."""
    applied: bool = True
    """False: report only; new suspects stay in the training rows, and only the undecided ones leave them."""
    clean_rows: Sha256
    """Digest of the training rows that remain (`holdfast.model.inputs.rows_digest`)."""
    verdict: Verdict
    """Fail: more suspects than the budget, or suspects that stay in."""

    @property
    def left_out(self) -> tuple[int, ...]:
        """Row ids that are not trained on, sorted: never without those that an earlier scan set aside."""
        return self.quarantined if self.applied else self.undecided


class Decision(Frozen):
    """What a reviewer decided about a row; equal rows share it."""

    row: Sha256
    """Digest of the row's values and label (`holdfast.quarantine.rows`)."""
    decision: Literal["release", "drop"]
    """Release: the row is fine and trains again. Drop: it stays out for good."""
    by: str = Field(min_length=1, max_length=200)
    """Who decided."""
    why: str = Field(min_length=1, max_length=2000)
    """The reason that was given."""


class Review(Document):
    """Every decision about quarantined rows so far. A later one is a new artifact whose input `review` is this one."""

    kind: Literal["review"] = "review"
    """Always `review`."""
    name: str
    """Of the workload."""
    entries: tuple[Decision, ...] = ()
    """In the order in which they were made, each row once."""
    undecided: tuple[Sha256, ...] = ()
    """Digests of rows that a scan set aside and that are not decided, sorted: they stay in quarantine."""

    @model_validator(mode="after")
    def _each_row_once(self) -> Self:
        decided = {entry.row for entry in self.entries}
        if len(decided) != len(self.entries):
            raise ValueError("a row that is decided twice")
        if len(set(self.undecided)) != len(self.undecided) or decided & set(self.undecided):
            raise ValueError("an undecided row that is named twice or decided")
        if not self.entries and not self.undecided:
            raise ValueError("a review of no row")
        return self


# --- model ----------------------------------------------------------------------------------------------------------


class Feature(Frozen):
    """One input feature of a tabular model after encoding, with what an attacker may do to it."""

    name: str
    """As the network's input is called."""
    lower: float
    """Smallest value in the training rows."""
    upper: float
    """Largest value in the training rows."""
    mean: float = 0.0
    """Over the training rows, in the feature's own unit."""
    scale: float = Field(gt=0)
    """One unit of the threat model's epsilon in the feature's own unit (its standard deviation)."""
    mutable: bool = True
    """Whether an attacker can change it."""
    integer: bool = False
    """Whether every delivered value was a whole number: an attacker's rows keep that."""
    column: str = ""
    """The delivered category column whose values this feature is one of; empty for numbers."""


class InputSpec(Frozen):
    """What the network takes: `dtype[N, *shape]`."""

    modality: Modality
    """What one example is."""
    shape: tuple[int, ...]
    """Of one example, without the batch."""
    dtype: Literal["float32", "int64"]
    """Of the network's input."""
    lower: float = 0.0
    """Smallest input."""
    upper: float = 1.0
    """Largest input."""
    features: tuple[Feature, ...] = ()
    """Tables: what the network sees, in order."""
    columns: tuple[Column, ...] = ()
    """Tables: the delivered columns, from which the features are encoded."""
    raw_lower: float = 0.0
    """Images: the delivered value that becomes 0."""
    raw_upper: float = 1.0
    """Images: the delivered value that becomes 1."""

    @property
    def one_message(self) -> bool:
        """Whether an example is one text, which is sent without the name of its column."""
        return len(self.columns) == 1 and self.columns[0].kind == "text"


class FeatureThreat(Frozen):
    """What an attacker may do to one column of a table, where that differs from the rest."""

    name: str
    """Name of the column."""
    budget: Exact | None = None
    """Numbers: the largest change, in the column's own unit; None: epsilon standard deviations."""
    direction: Literal["both", "up", "down"] = "both"
    """Numbers: whether the value can only grow or only fall."""
    choose: bool = False
    """Categories: whether the attacker may write another value."""


class ThreatModel(Frozen):
    """What an attacker may change."""

    norm: Norm
    """How the size of a change is measured."""
    epsilon: Exact
    """Largest change."""
    unit: str
    """Of epsilon: "input units [0, 1]", "standard deviations of each feature", "characters"."""
    features: tuple[FeatureThreat, ...] = ()
    """Tables: columns with a rule of their own."""
    typing: bool = False
    """Text: whether an edit can also insert, leave out, or swap a character with its neighbour."""


class Architecture(Frozen):
    """How the network is built: a built-in name or `module:function`, with keyword arguments."""

    name: str
    """`cnn`, `mlp`, `text`, or `module:function`."""
    arguments: dict[str, Scalar] = {}
    """What the function was called with."""
    parameters: int = Field(gt=0)
    """Trained numbers in the network."""


class Mitigation(Frozen):
    """What unlearning recovered triggers did to a model; all counts are of the same held-out rows."""

    method: Literal["unlearning"] = "unlearning"
    """How the triggers were taken out."""
    flagged: tuple[str, ...]
    """The classes whose triggers were unlearned."""
    left_out: Count
    """Training rows that lost their class with the trigger, of those that the model was trained on."""
    clean_before: Count
    """Correct of held-out rows, before."""
    clean_after: Count
    """The same, after."""
    success_before: Count
    """Rows of other classes that the recovered triggers send to their classes."""
    success_after: Count
    """The same, after."""
    robust_before: Count
    """Correct under the selection attack."""
    robust_after: Count
    """The same, after."""


class Costs(Frozen):
    """What each of the two kinds of wrong answers costs, in a unit of your choice."""

    miss: Real = Field(gt=0)
    """A row of the positive class that is answered with the other one."""
    false_alarm: Real = Field(gt=0)
    """A row of the other class that is answered with the positive one."""


class OperatingPoint(Frozen):
    """The threshold above which a model of two classes answers the positive one, and how it was chosen.

    The network has it inside: the logit of the positive class is lowered by it, so that the largest logit is the
    decision everywhere.
    """

    positive: str
    """The class that is answered when its margin is above the threshold."""
    threshold: float
    """Of the margin (logit of the positive class less that of the other) before the network had it inside."""
    costs: Costs | None = None
    """It has the least cost on the rows set apart; None: chosen by `false_positive_rate`."""
    false_positive_rate: float | None = Field(None, gt=0, lt=1)
    """The rate asked for: the upper 95 % bound of the rate on the rows set apart is at most this."""
    misses: Count
    """Answered with the other class, of the rows of the positive class that were set apart in training."""
    false_alarms: Count
    """Answered with the positive class, of the rows of the other class that were set apart in training."""

    @property
    def rule(self) -> str:
        """How it was chosen, in words."""
        if self.costs is not None:
            return f"least cost: {self.costs.miss:g} for a miss, {self.costs.false_alarm:g} for a false alarm"
        return f"false-positive rate at most {self.false_positive_rate:g}, by its upper 95 % bound"

    @property
    def published(self) -> str:
        """What servers and MLflow publish about it: JSON in one line."""
        return self.model_dump_json(exclude={"misses", "false_alarms"}, exclude_none=True)


class Model(Document):
    """A trained network. Files: `weights.safetensors`, `program.pt2`, `curve.json` (one row per epoch)."""

    kind: Literal["model"] = "model"
    """Always `model`."""
    name: str
    """Of the workload."""
    architecture: Architecture
    """How the network is built."""
    input: InputSpec
    """What it takes."""
    classes: tuple[str, ...]
    """What its logits are for, in order."""
    threat: ThreatModel
    """What it was trained against."""
    recipe: dict[str, Scalar]
    """The training's settings, by name."""
    seed: int
    """Of every random number in training."""
    threads: int
    """CPU threads; sums depend on their number."""
    device: str
    """Where it was trained."""
    best_epoch: int
    """The epoch whose weights were kept, from 1."""
    clean: Count
    """Correct of held-out rows."""
    robust: Count
    """Correct under the selection attack, of the training rows set apart to choose the best epoch."""
    mitigation: Mitigation | None = None
    """None for a model that came from training alone."""
    operating_point: OperatingPoint | None = None
    """None: the largest logit of the network as it was trained decides."""


class TriggerResult(Frozen):
    """Trigger inversion for one target class."""

    target: str
    """The class."""
    size: float
    """L1 norm of the recovered mask (in cells), or length of the inserted string."""
    anomaly_index: float
    """How surprisingly small that is compared with the other classes, in standard deviations of a normal."""
    relative_size: float | None = None
    """Size over the median of the other classes'; None for messages."""
    success: Count
    """Held-out rows of other classes that the recovered trigger sends to the target."""
    flagged: bool
    """Whether the class looks backdoored."""
    content: str = ""
    """Few classes, messages: the trigger in words: columns and values, or an n-gram."""
    carriers: Count | None = None
    """Training rows of the class that carry the trigger. Few classes, messages: near copies once, and how many of
    them a model that saw no such row contradicts. Four classes and more, where the size was suspicious: how many of
    them are answered otherwise without the trigger."""
    others: Count | None = None
    """The same of other rows of the class that the model did not see."""
    p_value: float | None = None
    """Chance of such a difference between the two when none was planted (Fisher's exact test)."""


class BackdoorReport(Measurement):
    """Trigger inversion over all classes. Files: `triggers.npz` (mask, pattern per class)."""

    kind: Literal["backdoor-report"] = "backdoor-report"
    """Always `backdoor-report`."""
    method: str
    """How triggers were searched for."""
    triggers: tuple[TriggerResult, ...]
    """One entry for each class."""
    flagged: tuple[str, ...]
    """Classes that look backdoored."""
    verdict: Verdict
    """Fail: a class is flagged; inconclusive: there was too little to judge by."""
    reason: str = ""
    """What decided, in a sentence."""


class AttackResult(Frozen):
    """How many examples stay correct under one attack."""

    name: str
    """Name of the attack."""
    library: str
    """Whose implementation, with its version."""
    threat: ThreatModel
    """What it may change."""
    steps: int = Field(ge=0)
    """Gradient steps, or queries."""
    restarts: int = Field(ge=0)
    """Independent runs, of which the worst counts."""
    survived: Count
    """Correct of the examples evaluated."""
    cumulative: bool = False
    """Whether it took on only examples not yet misclassified: what an earlier attack broke counts as broken too."""


class EpsilonPoint(Frozen):
    """Accuracy under attack at one epsilon."""

    epsilon: Exact
    """In the unit of the threat model."""
    survived: Count
    """Correct of the examples evaluated."""


class CorruptionResult(Frozen):
    """How many images stay correct under a corruption that no attacker chose; severity 1 (faint) to 5."""

    name: str
    """Name of the corruption."""
    severity: int = Field(ge=1, le=5)
    """1 (faint) to 5."""
    survived: Count
    """Correct of the examples evaluated."""


class MaskingCheck(Frozen):
    """One sign that robustness is overestimated."""

    name: str
    """Name of the check."""
    verdict: Verdict
    """Fail: the sign was found; inconclusive: it could not be looked for."""
    detail: str
    """What was compared, with its numbers."""


class Paired(Frozen):
    """Candidate and champion on the very same examples."""

    both: int = Field(ge=0)
    """Examples that both have right."""
    only_candidate: int = Field(ge=0)
    """Examples that the candidate alone has right."""
    only_champion: int = Field(ge=0)
    """Examples that the champion alone has right."""
    neither: int = Field(ge=0)
    """Examples that neither has right."""

    @property
    def n(self) -> int:
        """How many examples were compared."""
        return self.both + self.only_candidate + self.only_champion + self.neither

    @property
    def champion_right(self) -> Count:
        """Examples that the champion has right."""
        return Count(k=self.both + self.only_champion, n=self.n)


class ClassResult(Frozen):
    """How the examples of one class were answered."""

    name: str
    """The class."""
    recall: Count
    """Answered with it, of its own examples."""
    answers: int = Field(ge=0)
    """Examples of any class that were answered with it."""
    precision: Count
    """Its own, of the examples of the sample answered with it."""


class Performance(Frozen):
    """How well the classes are separated, which accuracy alone hides where one class is rare.

    Recall and answers are counted on the sample and on more examples of classes that are rare in it; what depends on
    how frequent a class is (precision, `pr_auc`, `best_constant`) on the sample alone.
    """

    classes: tuple[ClassResult, ...] = Field(min_length=2)
    """In the order of the model's classes."""
    positive: str | None = None
    """Two classes: the rarer one among the examples, which the two areas are about."""
    roc_auc: float | None = Field(None, ge=0, le=1)
    """Two classes: chance that an example of the positive class is scored above one of the other; None otherwise."""
    pr_auc: float | None = Field(None, ge=0, le=1)
    """Two classes: average precision of the positive class; its share of the sample is what chance reaches."""
    best_constant: Count
    """What answering always the most frequent class gets right."""

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have examples; any constant answer reaches 1 / classes."""
        seen = [one.recall.share for one in self.classes if one.recall.n]
        return sum(seen) / len(seen) if seen else 0.0

    @property
    def never_answered(self) -> tuple[str, ...]:
        """Classes with examples that no example was answered with."""
        return tuple(one.name for one in self.classes if one.recall.n and not one.answers)


class Errors(Frozen):
    """The two kinds of wrong answers of a model of two classes, counted as recall is."""

    misses: Count
    """Answered with the other class, of examples of the positive class."""
    false_alarms: Count
    """Answered with the positive class, of examples of the other class."""


class OperatingResult(Frozen):
    """What the operating point of a model brings on held-out rows, where its classes are as frequent as they are there.

    Costs are those of the operating point; where it has none, a miss and a false alarm cost 1 each.
    """

    point: OperatingPoint
    """Of the model."""
    other: str
    """The class that is not the positive one."""
    positives: Count
    """Held-out rows of the positive class, of all of them."""
    clean: Errors
    """Without any attack."""
    worst_case: Errors
    """Under every attack."""
    without_threshold: Errors
    """Without any attack, if the largest logit of the network as it was trained decided."""

    def per_thousand(self, errors: Errors) -> tuple[float, float]:
        """Expected misses and false alarms among 1,000 rows."""
        share = self.positives.share
        return 1000 * share * errors.misses.share, 1000 * (1 - share) * errors.false_alarms.share

    def cost(self, errors: Errors) -> float:
        """Expected cost of 1,000 rows."""
        of_misses, of_alarms = self.cost_of_each
        return of_misses * errors.misses.share + of_alarms * errors.false_alarms.share

    @property
    def cost_of_each(self) -> tuple[float, float]:
        """What 1,000 rows cost when every positive one is missed, and when every other one is a false alarm."""
        share, costs = self.positives.share, self.point.costs or Costs(miss=1, false_alarm=1)
        return 1000 * share * costs.miss, 1000 * (1 - share) * costs.false_alarm

    @property
    def constant_errors(self) -> Errors:
        """Those of the constant answer that costs less."""
        of_misses, of_alarms = self.cost_of_each
        always = int(of_alarms < of_misses)
        return Errors(misses=Count(k=1 - always, n=1), false_alarms=Count(k=always, n=1))

    @property
    def best_constant(self) -> str:
        """The class of the constant answer that costs less."""
        return self.other if self.constant_errors.misses.k else self.point.positive


class ClassPaired(Frozen):
    """Candidate and champion on the same examples of one class."""

    name: str
    """The class."""
    clean: Paired
    """Without any attack."""
    worst_case: Paired
    """Under every attack."""


class ChampionComparison(Frozen):
    """How the champion was measured, with the candidate."""

    model_version: int | None = None
    """The champion's version in MLflow; None: there is no champion."""
    differences: tuple[str, ...] = ()
    """Where the candidate's contract with its clients is not the champion's, in words."""
    not_compared: str | None = None
    """Why the champion was not measured at all."""
    not_attacked: str | None = None
    """Why it was measured without an attack only."""


class OlderRows(Frozen):
    """Candidate and champion on held-out rows of earlier deliveries, without an attack."""

    pairs: Paired | None = None
    """None: they were not compared."""
    not_compared: str | None = None
    """Why not."""
    request: Sha256 | None = None
    """The request of the monitor that the run answers; None: it answers none."""
    older_than: UtcSecond | None = None
    """With a request: the hour from which on rows are suspect; these rows are from before."""


class RobustnessReport(Measurement):
    """Accuracy under attack. Files: `flags.npz` (per example: `index`, `label`, `clean`, `worst`, `answer`,
    `worst_answer`, one array per attack).

    And `attacks.npz`: up to 128 adversarial examples (`x`, `y`, `fooled`), which a rollout sends to the served model.
    """

    kind: Literal["robustness-report"] = "robustness-report"
    """Always `robustness-report`."""
    tier: Literal["pr", "nightly", "release"]
    """Which attacks ran, and with what budget."""
    seed: int
    """Of every random number in the attacks."""
    clean: Count
    """Correct without any attack."""
    attacks: tuple[AttackResult, ...]
    """One entry for each attack."""
    worst_case: Count
    """Examples correct under every attack (and without any)."""
    curve: tuple[EpsilonPoint, ...] = ()
    """Accuracy under attack by epsilon."""
    corruptions: tuple[CorruptionResult, ...] = ()
    """Images only; no attack, and not part of the worst case."""
    masking: tuple[MaskingCheck, ...]
    """Signs that the numbers are too good."""
    no_second_opinion: str | None = None
    """Why no second library attacked the model too; None: one did, or the report is older than this field."""
    champion_clean: Paired | None = None
    """Candidate and champion, without any attack."""
    champion_worst_case: Paired | None = None
    """The same under every attack; None, as before, where they are not compared."""
    clean_performance: Performance | None = None
    """By class, without any attack, on the examples of `clean` and more of classes that are rare among them."""
    worst_case_performance: Performance | None = None
    """By class, each example as the attack left it that came closest to another answer, or went furthest beyond."""
    champion_classes: tuple[ClassPaired, ...] = ()
    """Candidate and champion by class; empty where they are not compared."""
    operating_point: OperatingResult | None = None
    """None for a model without an operating point."""
    champion: ChampionComparison | None = None
    """None: made without a baseline, so that it is not known whether there is a champion."""
    older: OlderRows | None = None
    """None: the baseline holds no rows of earlier deliveries, and the run answers no request."""


class CertifiedAt(Frozen):
    """How many examples are certified, and correct, at a radius."""

    radius: float = Field(ge=0)
    """In the certificate's unit."""
    certified: Count
    """Correct, and certified at this radius, of the examples evaluated."""
    classes: dict[str, Count] = {}
    """The same by class, on the examples above and more of classes that are rare among them."""


class Certificate(Measurement):
    """Certified robustness. Files: `radii.npz` (per example: `index`, `radius`; -1 is not certified)."""

    kind: Literal["certificate"] = "certificate"
    """Always `certificate`."""
    method: Literal["randomized-smoothing", "randomized-ablation", "ibp", "crown"]
    """Deterministic bounds: `ibp` when IBP alone proved all that is proven, otherwise `crown`."""
    norm: Norm
    """Of the radii."""
    unit: str
    """Of the radii."""
    noise: float = Field(ge=0)
    """Smoothing: sigma. Ablation: share of characters kept. Deterministic bounds: 0."""
    alpha: float = Field(ge=0, lt=1)
    """Chance, per example, that its certificate is wrong; 0 for deterministic bounds."""
    samples: int = Field(ge=0)
    """The most noisy copies per example that estimate; 0 for deterministic bounds."""
    selection_samples: int = Field(ge=0)
    """Noisy copies per example that choose the class; 0 for deterministic bounds."""
    mode: Literal["fixed", "sequential"] = "fixed"
    """Whether each example took all samples, or only as many as its decision at these radii needed."""
    forwards: int = Field(0, ge=0)
    """How many copies the network was asked about, over all examples."""
    seed: int
    """Of the noise."""
    certified: tuple[CertifiedAt, ...]
    """One entry for each radius asked."""
    abstained: Count
    """Examples without an answer."""


class PartialMeasurement(Measurement):
    """What one of several processes saw of its share of the examples; the step joins the parts of all of them.

    Files: `rows.npz` (by block, `BLOCK/NAME`: one array per observation). A part without a block has no file.
    """

    shard: int = Field(ge=1)
    """Which of the parts, from 1."""
    shards: int = Field(ge=1)
    """How many parts there are; with `shard` it decides which blocks of examples are measured."""
    blocks: tuple[int, ...] = ()
    """The numbers of the blocks that it holds, from 0 on in the order of the examples."""
    seed: int
    """Of every random number."""
    device: Literal["cpu", "cuda"]
    """Where it was measured: on another device, blocks are of another size and sums are rounded in another way."""
    threads: int = Field(ge=1)
    """CPU threads: sums depend on them."""
    library: str
    """What measured it, with its version."""


class AttackPart(PartialMeasurement):
    """A part of the measurements under attack."""

    kind: Literal["attack-part"] = "attack-part"
    """Always `attack-part`."""
    gradients: bool
    """Whether the network shows a gradient on the first examples, which decides the attacks that run."""


class CertifyPart(PartialMeasurement):
    """A part of the certificates."""

    kind: Literal["certify-part"] = "certify-part"
    """Always `certify-part`."""


# --- the guard ------------------------------------------------------------------------------------------------------


class GuardStream(Frozen):
    """A made-up client, and when the guard noticed."""

    name: Literal["noise", "shuffled"]
    """noise: random values in the range of each place; shuffled: each place's value from another held-out row."""
    queries: int = Field(ge=0)
    """How many it asked at most."""
    alarm_at: int | None = Field(None, ge=1)
    """After which of them it was alarmed; None: after none."""


class GuardCalibration(Document):
    """What the guard compares a client's queries with; for one model alone. Files: `calibration.npz`."""

    kind: Literal["guard-calibration"] = "guard-calibration"
    """Always `guard-calibration`."""
    name: str
    """Of the workload."""
    features: Literal["penultimate", "columns", "logits"]
    """Where distances are taken: activations before the last layer, scaled columns of a table, or logits."""
    reference_rows: int = Field(ge=1)
    """Training rows that queries are compared with."""
    held_out_rows: int = Field(ge=1)
    """Held-out rows that show what is usual."""
    near_rows: int = Field(ge=1)
    """Those of them that show how near two queries come by chance."""
    judged_together: tuple[str, ...] = ()
    """Classes with too few of the latter for a group of their own."""
    alpha: Real = Field(gt=0, lt=1)
    """Chance that a client who asks as the held-out rows are distributed is ever alarmed."""
    confidence: Real = Field(gt=0, lt=1)
    """That the held-out rows were not drawn so unluckily that the chance is larger."""
    least_p: Real = Field(gt=0, le=1)
    """The smallest p-value that one query can have: the fewer held-out rows, the later an alarm."""
    seed: int
    """Of the draws."""
    benign: Count
    """Alarmed of the clients who asked held-out rows that the calibration did not use, each in an order of its own."""
    streams: tuple[GuardStream, ...]
    """Clients who must be noticed."""


# --- detectors of single inputs -------------------------------------------------------------------------------------


class CaughtAttack(Frozen):
    """What a detector noticed of one attack that does not know it."""

    attack: str
    """Its name."""
    caught: Count
    """Noticed, of the examples whose answer it turned wrong."""


class InputDetector(Frozen):
    """A detector with its limit."""

    name: str
    """The squeezer that it uses, or `joint`: the largest score of all, each in units of what is usual for it."""
    limit: Real = Field(ge=0)
    """A row is suspicious above it: L1 distance of the model's probabilities for the row and for the squeezed row."""
    false_alarms: Count
    """Suspicious, of the held-out rows without any attack that did not set the limit."""
    caught: tuple[CaughtAttack, ...]
    """Per attack."""
    evaded: Count
    """Answered wrongly and not noticed under the best attack of one who knows the detector, of the examples that are
    answered correctly without attacks."""


class Purifier(Frozen):
    """The model behind a squeezer; correct answers, of all examples."""

    name: str
    """The squeezer."""
    clean: Count
    """Without attacks."""
    attacked: Count
    """Under every attack that knows the model and not the squeezer."""
    adaptive: Count
    """Under those that know both, too."""


class DetectionReport(Document):
    """What detectors of single adversarial inputs notice. It is a measurement, and no reason for a gate to pass."""

    kind: Literal["detection-report"] = "detection-report"
    """Always `detection-report`."""
    name: str
    """Of the workload."""
    threat: ThreatModel
    """What the attackers may change."""
    rate: Real = Field(gt=0, lt=1)
    """Chance that a row drawn as the held-out rows is suspicious to a detector."""
    calibration_rows: int = Field(ge=1)
    """Held-out rows that set the limits."""
    seed: int
    """Of the draws."""
    clean: Count
    """Examples that the model alone answers correctly."""
    attacked: Count
    """Those that it still answers correctly under every attack."""
    detectors: tuple[InputDetector, ...]
    """Each squeezer's, and the joint one."""
    purifiers: tuple[Purifier, ...]
    """The squeezers before the model."""


class ExtractionPoint(Frozen):
    """How often a copy agrees with the model after some queries."""

    queries: int = Field(ge=1)
    """Rows that the attacker asked."""
    agreed: Count
    """Held-out rows, none of them asked, to which the copy gives the model's class."""


class ExtractionCurve(Frozen):
    """One attacker, who asks more and more."""

    strategy: ExtractionStrategy
    """What is asked. random: even noise; foreign: rows of another kind, or of no one; jacobian: a few real rows and
    steps from them along the copy's slope; in-distribution: real rows."""
    outputs: Literal["label", "rounded", "full"]
    """What is learned from: the class alone, rounded probabilities, or all of them."""
    points: tuple[ExtractionPoint, ...] = Field(min_length=1)
    """By the number of queries, rising."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        queries = [point.queries for point in self.points]
        if sorted(set(queries)) != queries or len({point.agreed.n for point in self.points}) != 1:
            raise ValueError(f"expected points with rising queries about the same rows, found queries {queries}")
        return self


class ExtractionLeftOut(Frozen):
    """What was not tried."""

    strategy: ExtractionStrategy
    """Of the attacker."""
    queries: int | None = Field(None, ge=1)
    """From so many queries on; None: not at all."""
    reason: str
    """Why not."""


class ExtractionReport(Measurement):
    """How well the model can be copied by its answers, and after how many queries that matters."""

    kind: Literal["extraction-report"] = "extraction-report"
    """Always `extraction-report`."""
    name: str
    """Of the workload."""
    curves: tuple[ExtractionCurve, ...] = Field(min_length=1)
    """One for each strategy and each kind of outputs that was tried."""
    left_out: tuple[ExtractionLeftOut, ...] = ()
    """What was not, and why."""
    agreement_at_most: Real = Field(ge=0, le=1)
    """The agreement that the budget keeps a copy below."""
    alpha: Real = Field(gt=0, lt=1)
    """Chance, for each count, that its upper bound is below the true agreement."""
    budget: int | None = Field(None, ge=1)
    """The largest measured number of queries up to which the upper bound of every curve is at most
    `agreement_at_most`; None: the smallest measured number is already too many."""
    budget_reason: str
    """Which curve decided, in words."""
    seed: int
    """Of the draws and of the copies."""

    @model_validator(mode="after")
    def _curves_of_their_own(self) -> Self:
        named = [(curve.strategy, curve.outputs) for curve in self.curves]
        if len(set(named)) != len(named):
            raise ValueError(f"expected one curve for each strategy and outputs, found {named}")
        return self


# --- judgement and serving ------------------------------------------------------------------------------------------


class Requirements(Frozen):
    """What a model needs besides passing checks before it is registered, rolled out and served."""

    attested: bool = False
    """Every step behind it was signed by a role of the trust policy, and the gate signed its verdict."""
    approvals: int = Field(0, ge=0, le=20)
    """People who approved it, each with a key of their own in the role approver; more than 0 needs `attested`."""
    approver_not_trainer: bool = False
    """Whether an approval by a key that has the role trainer, too, does not count."""
    max_age_days: float | None = Field(None, gt=0)
    """The age at which the gate's verdict no longer counts; left out: never."""
    waivers_at_most: int = Field(0, ge=0)
    """Checks that people may waive, each with a signed waiver that has an owner, a reason and an end; more than 0 needs
    `attested`."""
    waiver_days: int = Field(90, ge=1, le=366)
    """How many days after it was signed a waiver may end."""

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if not self.attested and (self.approvals or self.waivers_at_most or self.max_age_days is not None):
            raise ValueError(
                "approvals, waivers_at_most and max_age_days need attested: true; without it they could be forged"
            )
        return self


class CheckResult(Frozen):
    """What a check found."""

    measured: float | None = None
    """A rate, a number of findings, or a difference from the champion."""
    count: Count | None = None
    """What the rate was counted from."""
    lower: float | None = None
    """One-sided lower (or upper, for things that must be small) confidence bound that was compared."""
    upper: float | None = None
    """One-sided upper confidence bound."""
    required: str
    """The policy's threshold, in words."""
    champion: float | None = None
    """The champion's value on the same examples."""
    verdict: Verdict
    """Of this check."""
    reason: str = ""
    """Why, where the numbers alone do not show it."""

    def named(self, name: str) -> "Check":
        """The line of the check of this name."""
        return Check(name=name, **dict(self))


class Check(CheckResult):
    """One line of the gate's table."""

    name: str
    """Name of the check."""


NEVER_WAIVED = frozenset({"lineage", "policy"})
"""Checks that no one can accept: that the bytes belong together, and that anything is asked at all."""


class CountedWaiver(Frozen):
    """A check that the model did not pass, and that a person accepts for a while."""

    check: str
    """Name of the check."""
    owner: str
    """Who answers for it."""
    reason: str
    """Why it is accepted."""
    until: UtcSecond
    """When it ends (UTC): the model is then no longer registered, rolled out or served."""
    statement: Sha256
    """SHA-256 of what was signed."""


class MeasuredSetting(Frozen):
    """What a piece of evidence was measured with, and what the policy asks of it."""

    name: str
    """As in the workload: `attack.examples`."""
    measured: Setting | None = None
    """None: the evidence does not name it."""
    required: str = ""
    """The least or the most that the policy accepts, in words; empty: it asks nothing."""
    kept: bool = True
    """Whether the policy is kept."""


class GateDecision(Document):
    """The verdict on one model, with every check that led to it. Files: `decision.md`, `junit.xml`."""

    kind: Literal["gate-decision"] = "gate-decision"
    """Always `gate-decision`."""
    name: str
    """Of the workload."""
    policy: Sha256
    """Digest of the policy in effect."""
    policy_name: str
    """Name of the policy."""
    alpha: float
    """Chance, for each check, that a model outside the threshold passes."""
    checks: tuple[Check, ...]
    """Every check that was asked."""
    measured_with: tuple[MeasuredSetting, ...] = ()
    """How the evidence was measured, and how the policy asks it to be; empty: the decision is older than this field."""
    waivers: tuple[CountedWaiver, ...] = ()
    """Checks that did not pass and do not count, because a person waived them for this model."""
    waivers_not_counted: tuple[str, ...] = ()
    """Why other waivers were not counted."""
    require: Requirements = Requirements()
    """What else the policy asks, of whoever takes the model in."""
    verdict: Verdict
    """That of the worst check that was not waived."""

    @property
    def counting(self) -> tuple[Check, ...]:
        """The checks that were not waived."""
        waived = {waiver.check for waiver in self.waivers}
        return tuple(check for check in self.checks if check.name not in waived)

    @model_validator(mode="after")
    def _waivers_are_allowed(self) -> Self:
        waivable = {check.name for check in self.checks if check.verdict is not Verdict.PASS} - NEVER_WAIVED
        waived = [waiver.check for waiver in self.waivers]
        if len(waived) > self.require.waivers_at_most or len({*waived}) < len(waived) or not waivable >= {*waived}:
            raise ValueError(
                f"waivers of {', '.join(waived)}: the policy counts at most {self.require.waivers_at_most}, each of a "
                "check of its own that did not pass"
            )
        return self

    @model_validator(mode="after")
    def _worst_check_decides(self) -> Self:
        found = worst(check.verdict for check in self.counting)
        if self.verdict is not found:
            raise ValueError(f"verdict {self.verdict} but the worst check's is {found}")
        return self


class AnswerTimes(Frozen):
    """How long the network takes to answer on one CPU thread of the machine that registered it, without any server."""

    single_row_ms: float = Field(gt=0)
    """Median for one row, in milliseconds."""
    batch_ms: float = Field(gt=0)
    """Median for `batch_rows` rows at once, in milliseconds."""
    batch_rows: int = Field(gt=0)
    """Rows of that batch."""


class Registration(Document):
    """Where the model is in MLflow."""

    kind: Literal["registration"] = "registration"
    """Always `registration`."""
    name: str
    """Of the registered model."""
    model_version: int = Field(gt=0)
    """Its version in MLflow."""
    model: Sha256
    """Digest of the model artifact."""
    run_id: str
    """The run in MLflow that holds its evidence."""
    latency: AnswerTimes | None = None
    """As the run in MLflow has it; None where it was not measured."""


class Transition(Frozen):
    """One move of a rollout with the evidence that caused it."""

    state_before: str
    """State of the rollout before."""
    state_after: str
    """State of the rollout afterwards."""
    weight: int = Field(ge=0, le=100)
    """Percent of live traffic on the candidate afterwards."""
    reason: str
    """Why it moved."""
    candidate: Count
    """Failed of answered requests at the candidate so far."""
    champion: Count
    """Failed of answered requests at the champion so far."""
    evidence: dict[str, float] = {}
    """Values of the tests at that moment, by name."""


class RolloutRecord(Document):
    """What happened in a rollout.

    Files: `journal.jsonl`, `log.jsonl`, `timeline.json`, `plan.json`, `incident.md`, `incident.html`.
    """

    kind: Literal["rollout-record"] = "rollout-record"
    """Always `rollout-record`."""
    name: str
    """Of the registered model."""
    candidate_version: int
    """The candidate's version in MLflow."""
    champion_version: int | None
    """The champion's version in MLflow; None: there was none."""
    transitions: tuple[Transition, ...]
    """Every move, in order."""
    requests_sent: int = Field(ge=0)
    """Requests of clients."""
    requests_failed: int = Field(ge=0)
    """Requests of clients without a good answer."""
    outcome: Literal["promoted", "rolled-back", "inconclusive"]
    """How it ended."""
    reason: str
    """Why it ended so."""
    cause: Cause
    """Where the fault was; `none` when it was promoted."""
    verdict: Verdict
    """Pass: promoted; fail: rolled back."""


class MonitoredStage(Frozen):
    """One stage of the monitor in the period that is running."""

    stage: Literal["inputs", "model", "labels"]
    """What it looks at."""
    evidence: float = Field(ge=0)
    """The most evidence that something changed; while nothing does, 1 / alpha is reached with chance alpha at most."""
    limit: float = Field(gt=0)
    """The evidence from which it is an alarm."""
    seen: int = Field(ge=0)
    """Windows or labels that it was judged by."""
    alarm: bool
    """Whether a person is to look."""
    reason: str
    """What the numbers rest on."""


class MonitoredColumn(Frozen):
    """How far a column is from all windows so far, since the change or in the last window."""

    column: str
    """Name of the column."""
    distance: float
    """Mean stability index in units of its median over all windows."""
    usual: float
    """The largest of a stable window."""
    moved: float = Field(ge=0, le=1)
    """Share of the rows that are in another bin than in the stable windows."""
    unknown: float = Field(ge=0, le=1)
    """Share of the rows without a value, or with one that the stable windows did not have."""


class MonitorReport(Measurement):
    """A served model up to an hour.

    Files: `windows.npz` and `bins.json`, the state that the next report goes on from; `report.html`; `metrics.prom`.
    """

    kind: Literal["monitor-report"] = "monitor-report"
    """Always `monitor-report`."""
    name: str
    """Of the workload."""
    model: Sha256
    """Digest of the model that was watched."""
    first: UtcSecond
    """Start of the first window; that of 1970 while there is none."""
    last: UtcSecond
    """Start of the last window; that of 1970 while there is none."""
    windows: int = Field(ge=0)
    """Hours that were compared, the stable ones among them."""
    stages: tuple[MonitoredStage, ...]
    """Inputs, model, labels."""
    columns: tuple[MonitoredColumn, ...]
    """Those that moved most."""
    change: Literal["sudden", "gradual", "unclear", "none"]
    """How the inputs changed; `none` without an alarm of theirs."""
    began: UtcSecond | None
    """When; None without an alarm of the inputs."""
    loss: Count | None
    """Wrong answers of labelled rows; None without labels."""
    selected: bool
    """Whether the labels are no random sample."""
    next: Literal["none", "record", "repair", "retrain", "review"]
    """What to do."""
    advice: str
    """The same in words."""
    reason: str
    """The verdict in words."""
    verdict: Verdict
    """Fail: an alarm. Inconclusive: too little recorded."""


class RetrainRequest(Document):
    """Asks for a retraining, because of a report of the monitor (input `report`); the request before is `previous`."""

    kind: Literal["retrain-request"] = "retrain-request"
    """Always `retrain-request`."""
    name: str
    """Of the workload."""
    model: Sha256
    """Digest of the model that was watched."""
    reason: str
    """Why, in words."""
    asked: UtcSecond
    """Start of the last hour that the report judged; the cooldown counts from it."""
    older_than: UtcSecond
    """Champion and challenger are to be compared on rows from before this: later ones may be poisoned."""
    cooldown_days: int = Field(ge=0)
    """Days before another request about this name is written."""


class IncidentEntry(Frozen):
    """Something that happened, or that was found, before or during an incident."""

    at: UtcSecond | None
    """When; None: not known."""
    clock: Literal["signed", "claimed", "noted", "none"]
    """Whose time it is: in a statement whose signature counts; in one that was not checked; in a log or a registry."""
    source: Literal["artifact", "altered", "guard", "registry", "rollout", "person"]
    """Where it was found; `altered`: bytes that are not those that were pinned, or cannot be read."""
    what: str = Field(min_length=1, max_length=500)
    """In one line."""
    digest: Sha256 | None
    """Of the artifact that it is about; None: of none."""
    link: Sha256
    """SHA-256 of the link before and this entry: none can be changed, left out or moved alone."""


class IncidentRecord(Document):
    """What is known about an incident with a model. A later one is a new artifact whose input `incident` is this one.

    Files: `incident.html`.
    """

    kind: Literal["incident"] = "incident"
    """Always `incident`."""
    name: str = Field(min_length=1, max_length=200)
    """Of the registered model."""
    model: Sha256
    """Digest of the model."""
    state: Literal["open", "closed"]
    """Whether a person has closed it."""
    entries: tuple[IncidentEntry, ...] = Field(min_length=1)
    """In the order in which they were recorded; those of one day of work by time."""

    @model_validator(mode="after")
    def _chained(self) -> Self:
        before = first_link(self.name, self.model)
        for number, entry in enumerate(self.entries, start=1):
            if entry.link != link_after(before, entry.model_dump(mode="json", exclude={"link"})):
                raise ValueError(f"an entry that was changed, added or left out at number {number}")
            before = entry.link
        return self


class GameDayFinding(Frozen):
    """One expectation of an exercise, and what happened."""

    what: str
    """The expectation, in words."""
    found: str
    """What was found."""
    seconds: float | None = Field(ge=0)
    """When it was known, since the attack or the fault began; None: it was read from a record afterwards."""
    held: bool
    """Whether it was as expected."""


class GameDayReport(Document):
    """How an exercise against a local deployment ended.

    Files: `report.html`.
    """

    kind: Literal["game-day-report"] = "game-day-report"
    """Always `game-day-report`."""
    exercise: str
    """Its name."""
    seed: int = Field(ge=0)
    """Of everything random in it."""
    findings: tuple[GameDayFinding, ...] = Field(min_length=1)
    """In the order in which they were known."""
    detected: float = Field(ge=0)
    """Seconds from the beginning of the attack or the fault until it was known."""
    safe: float = Field(ge=0)
    """Seconds until clients were safe again."""
    stated: float = Field(gt=0)
    """The most seconds that the exercise may take until then."""
    verdict: Verdict
    """Pass: every expectation held, within the stated time."""


def first_link(name: str, model: str) -> str:
    """What the first entry of an incident is linked to."""
    return link_after("", {"incident": 1, "name": name, "model": model})


def link_after(before: str, facts: Mapping[str, object]) -> str:
    """SHA-256 of the link before and the facts of an entry, in hexadecimal."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


AnyDocument = Annotated[
    Snapshot
    | SchemaReport
    | DriftReport
    | Baseline
    | ScanReport
    | Review
    | Model
    | BackdoorReport
    | RobustnessReport
    | Certificate
    | AttackPart
    | CertifyPart
    | ExtractionReport
    | GuardCalibration
    | DetectionReport
    | GateDecision
    | Registration
    | RolloutRecord
    | MonitorReport
    | RetrainRequest
    | IncidentRecord
    | GameDayReport,
    Field(discriminator="kind"),
]
"""Any document, told apart by `kind`."""

ANY: TypeAdapter[AnyDocument] = TypeAdapter(AnyDocument)
