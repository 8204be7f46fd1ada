"""The steps of the pipelines, one row each. Every list of steps elsewhere is made from these rows.

A new step is a folder, its row here and its line in a pipeline; docs/architecture.md has the list of its files.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from holdfast.artifacts.documents import Document
    from holdfast.artifacts.folder import Artifact

EnvironmentName = Literal["data", "model", "serving"]
HelpPanel = Literal["Data", "Model", "Gate", "Serving"]
Role = Literal["data-owner", "trainer", "attacker", "gate", "approver", "release"]
"""In which a person or a machine signs statements about artifacts (`holdfast.attestation`)."""


@dataclass(frozen=True)
class Step:
    """What the command line, the pipelines, the report and the gate need to know about a step.

    A library is a MODULE, or MODULE:FUNCTION, which imports.
    """

    name: str
    package: str
    """Where `step.py`, `component.py`, `command.py` and `README.md` are."""
    environment: EnvironmentName
    panel: HelpPanel
    """Where `holdfast --help` lists its commands."""
    writes: str
    """The class of its document, in `holdfast.artifacts.documents`."""
    writes_part: str = ""
    """The class of the document of a part of its work; empty: it is not done in parts."""
    signed_by: Role = "trainer"
    """Who signs the statement about its artifact."""
    reads: tuple[str, ...] = ()
    """The roles of the artifacts that it needs."""
    may_read: tuple[str, ...] = ()
    """The roles of artifacts that it reads where there are any."""
    writes_role: str = ""
    """The role of its artifact, where that is not the step's name."""
    follows: tuple[str, ...] = ()
    """Steps that must have ended before, although their artifacts are not read."""
    config: str = ""
    """The attribute of `holdfast.workload.schema.Workload` that is its section; empty: it has none."""
    computes: bool = False
    """Whether it takes a device and a number of threads."""
    reusable: bool = True
    """False where it observes or changes something that is not an input, or is cheap."""
    evidence: bool = False
    """Whether the gate reads its artifact."""
    stops_delivery: bool = False
    """Whether its verdict "fail" ends the run before anything is trained."""
    libraries: tuple[str, ...] = ()
    """What a warm process imports for it; what is missing here the step imports itself."""
    libraries_if_changed: tuple[str, ...] = ()
    """What it needs only for a delivery or a model that is new."""
    starts_processes: bool = False
    """Whether it starts processes that need the same libraries."""
    pipeline: Literal["retrain", "rollout", "monitor", "none"] = "retrain"
    """The pipeline that it is a part of; none: people run it."""
    prepares: tuple[EnvironmentName, ...] = ()
    """Environments whose steps' libraries are imported ahead as soon as this step makes something new."""

    @property
    def role(self) -> str:
        """What the steps that read its artifact call it."""
        return self.writes_role or self.name

    @property
    def judges(self) -> bool:
        """Whether its document is the result of a test, not of a making."""
        return self.evidence or "verdict" in self.document.model_fields

    @property
    def document(self) -> "type[Document]":
        """The class of its document."""
        return _class(self.writes)

    @property
    def documents(self) -> "tuple[type[Document], ...]":
        """That class and, where its work is done in parts, the class of a part's document."""
        return tuple(_class(name) for name in (self.writes, self.writes_part) if name)


def _class(name: str) -> "type[Document]":
    from holdfast.artifacts import documents

    found: type[Document] = getattr(documents, name)
    return found


_PARQUET = ("pandas", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.pandas_compat")
"""The last two are imported when the first table is read."""
_TABLES = ("holdfast.cli", "holdfast.tables", *_PARQUET)
_NETWORKS = (
    "holdfast.cli", "torch", "holdfast.model.networks", "holdfast.model.inputs", "scipy.special", "safetensors.torch",
    *_PARQUET,
)  # fmt: skip
_TRAINING = (*_NETWORKS, "torch._dynamo")
"""Making the first optimizer imports the latter: 3 s of CPU where its bytecode is not kept."""
SERVERS = (
    "holdfast.serving.rollout.local.deployment", "holdfast.serving.rollout.traffic.clients",
    "holdfast.serving.predictor.intake", "holdfast.serving.predictor.runtime",
    "mlserver.cli.serve", "mlserver.server", "uvloop", *_NETWORKS,
)  # fmt: skip
"""What the processes of a rollout on one machine import."""
_REGISTRY = ("holdfast.cli", "holdfast.registry:library")

_BEFORE_THE_GATE: tuple[Step, ...] = (
    Step(
        "snapshot", "holdfast.data.snapshot", "data", "Data", "Snapshot",
        signed_by="data-owner", config="snapshot_config",
        libraries=("holdfast.data.snapshot.step", *_TABLES, "sklearn.datasets"), prepares=("data", "model"),
    ),
    Step(
        "baseline", "holdfast.model.baseline", "model", "Model", "Baseline", reads=("snapshot",), computes=True,
        reusable=False, libraries=("holdfast.model.baseline.step", *_REGISTRY, *_NETWORKS),
    ),
    Step(
        "schema", "holdfast.data.schema", "data", "Data", "SchemaReport",
        signed_by="data-owner", reads=("snapshot", "baseline"),
        config="schema_", evidence=True, stops_delivery=True,
        libraries=("holdfast.data.schema.step", *_TABLES, "holdfast.data.schema.contract:library"),
    ),
    Step(
        "drift", "holdfast.data.drift", "data", "Data", "DriftReport",
        signed_by="data-owner", reads=("snapshot", "baseline"), config="drift",
        evidence=True, stops_delivery=True, libraries=("holdfast.data.drift.step", *_TABLES),
        libraries_if_changed=("holdfast.data.drift.evidently_report:library",),
    ),
    Step(
        "scan", "holdfast.model.scan", "model", "Model", "ScanReport",
        signed_by="data-owner", reads=("snapshot",), follows=("schema", "drift"),
        config="scan", computes=True, evidence=True,
        libraries=("holdfast.model.scan.step", *_TRAINING, "holdfast.model.learners:library"),
    ),
    Step(
        "train", "holdfast.model.train", "model", "Model", "Model", reads=("snapshot", "scan", "baseline"),
        writes_role="model", config="train_config", computes=True, prepares=("serving",),
        libraries=("holdfast.model.train.step", *_TRAINING, "torch.export._trace", "holdfast.model.train.recipes"),
    ),
    Step(
        "backdoor", "holdfast.model.backdoor", "model", "Model", "BackdoorReport",
        signed_by="attacker", reads=("model", "snapshot"),
        config="backdoor", computes=True, evidence=True, libraries=("holdfast.model.backdoor.step", *_NETWORKS),
    ),
    Step(
        "attack", "holdfast.model.attack", "model", "Model", "RobustnessReport",
        writes_part="AttackPart", signed_by="attacker",
        reads=("model", "snapshot", "baseline"), config="attack", computes=True, evidence=True,
        libraries=(
            "holdfast.model.attack.step", *_NETWORKS, "holdfast.model.attack.kinds", "holdfast.model.attack.suite",
        ),
        libraries_if_changed=("holdfast.model.attack.art:load",),
    ),
    Step(
        "certify", "holdfast.model.certify", "model", "Model", "Certificate",
        writes_part="CertifyPart", signed_by="attacker", reads=("model", "snapshot"),
        config="certify", computes=True, evidence=True,
        libraries=("holdfast.model.certify.step", *_NETWORKS, "holdfast.model.certify.smoothing"),
    ),
)  # fmt: skip
_EVIDENCE = tuple(step.role for step in _BEFORE_THE_GATE if step.evidence)
ON_REQUEST: tuple[Step, ...] = (
    Step(
        "calibrate", "holdfast.serving.guard", "model", "Serving", "GuardCalibration",
        reads=("model", "snapshot"), writes_role="guard", config="guard", computes=True, evidence=True,
        libraries=("holdfast.serving.guard.step", *_NETWORKS),
    ),
    Step(
        "extract", "holdfast.model.extract", "model", "Model", "ExtractionReport",
        signed_by="attacker", reads=("model", "snapshot"), config="extract", computes=True, evidence=True,
        libraries=("holdfast.model.extract.step", *_TRAINING),
    ),
)  # fmt: skip
"""Steps that a run makes, before the gate, where its policy or the workload's guard asks for them."""
_ON_REQUEST = tuple(step.role for step in ON_REQUEST)
STEPS: tuple[Step, ...] = (
    *_BEFORE_THE_GATE,
    Step(
        "gate", "holdfast_gates", "model", "Gate", "GateDecision",
        signed_by="gate", reads=("model", "snapshot", *_EVIDENCE), may_read=_ON_REQUEST,
        writes_role="decision", reusable=False, libraries=("holdfast_gates.step", "holdfast.cli", "scipy.special"),
    ),
    Step(
        "register", "holdfast.model.register", "model", "Model", "Registration",
        signed_by="gate",
        reads=("model", "decision", "snapshot", *_EVIDENCE), may_read=_ON_REQUEST, reusable=False,
        libraries=("holdfast.model.register.step", *_REGISTRY, *_NETWORKS),
    ),
    Step(
        "rollout", "holdfast.serving.rollout", "serving", "Serving", "RolloutRecord",
        signed_by="release", follows=("register",),
        config="rollout", reusable=False, starts_processes=True, pipeline="rollout",
        libraries=("holdfast.serving.rollout.step", *_REGISTRY), libraries_if_changed=SERVERS,
    ),
)  # fmt: skip
"""Every step of each run, each after those that it reads or follows."""
APART: tuple[Step, ...] = (
    Step(
        "detect", "holdfast.model.detect", "model", "Model", "DetectionReport",
        reads=("model", "snapshot"), config="detect", computes=True, pipeline="none",
        libraries=("holdfast.model.detect.step", *_TRAINING),
    ),
    Step(
        "monitor", "holdfast.monitor", "serving", "Serving", "MonitorReport",
        signed_by="data-owner", writes_role="report", config="monitor", reusable=False, pipeline="monitor",
    ),
    Step(
        "request", "holdfast.monitor.request", "serving", "Serving", "RetrainRequest",
        signed_by="data-owner", reads=("report",), config="monitor", reusable=False, pipeline="monitor",
    ),
)  # fmt: skip
"""Steps that a run does without."""


def names(steps: Iterable[Step] | None = None) -> tuple[str, ...]:
    """The names of `steps`, of all when left out."""
    return tuple(step.name for step in (STEPS if steps is None else steps))


def possible() -> tuple[Step, ...]:
    """The steps of a run with all that can be asked for, each after those that it reads or follows."""
    before = len(_BEFORE_THE_GATE)
    return (*STEPS[:before], *ON_REQUEST, *STEPS[before:])


def every() -> tuple[Step, ...]:
    """The steps that a run can make, and those that it does without."""
    return (*possible(), *APART)


def find(name: str) -> Step | None:
    """The step of a run of that name; None when there is none."""
    return next((step for step in possible() if step.name == name), None)


def writer(kind: "type[Document]") -> Step:
    """The step that writes documents of this kind, whole or in parts."""
    return next(step for step in every() if kind.__name__ in (step.writes, step.writes_part))


def role_of(kind: "type[Document]") -> str:
    """What the steps that read documents of this kind call them."""
    return writer(kind).role


def by_role(*artifacts: "Artifact[Any] | None") -> dict[str, str]:
    """Role -> digest: the `inputs` of a document that was made from these artifacts; None was not given."""
    return {role_of(type(found.document)): found.digest for found in artifacts if found is not None}


def made_from(document: "Document", kind: "type[Document]") -> str | None:
    """The digest of the artifact of this kind that a document was made from; None: it names none."""
    return document.inputs.get(role_of(kind))


def of(environment: str) -> tuple[Step, ...]:
    """The steps that run in `environment`."""
    return tuple(step for step in STEPS if step.environment == environment)


def evidence() -> dict[str, Step]:
    """Role -> the step that makes this evidence, in the order of the steps."""
    return {step.role: step for step in possible() if step.evidence}


def columns(more: Iterable[str] = ()) -> tuple[tuple[Step, ...], ...]:
    """The steps, those that can run at the same time together; each after all that it reads or follows.

    Args:
        more: the names of steps `ON_REQUEST` that are there, too.
    """
    depths: dict[str, int] = {}
    steps = [step for step in possible() if step not in ON_REQUEST or step.name in more]
    for step in steps:
        read = (*step.reads, *step.may_read)
        before = [depths[other.name] for other in steps if other.role in read or other.name in step.follows]
        depths[step.name] = 1 + max(before, default=-1)
    return tuple(
        tuple(step for step in steps if depths[step.name] == depth) for depth in range(1 + max(depths.values()))
    )
