"""The target of a rollout on a cluster, a YAML file of its own; the plan is the same for every driver.

```yaml
namespace: models
kubeconfig: /etc/holdfast/kubeconfig    # left out: the pod's own service account
seldon-v1:
  deployment: fraud                     # the SeldonDeployment
  stable: main                          # the predictor that serves now
  candidate:                            # added when it is not there; without traffic and shadow, which the driver sets
    name: candidate
    replicas: 1
    graph: {name: classifier, implementation: MLFLOW_SERVER, modelUri: "s3://models/sha256/<digest>"}
metrics:
  prometheus: http://prometheus.monitoring:9090
  series: seldon-v1                     # a name of `SETS`, or series of one's own
  scrape_seconds: 15
  champion: {deployment_name: fraud, predictor_name: main}
  candidate: {deployment_name: fraud, predictor_name: candidate}
probes:                                 # left out: predictions are not compared
  champion: {url: "http://fraud-main.models:8000/v2/models/classifier/infer"}
  candidate: {url: "http://fraud-candidate.models:8000/v2/models/classifier/infer"}
```

For Seldon Core 2 the middle part is

```yaml
seldon-v2:
  experiment: fraud                     # made and deleted by the driver
  stable: fraud-main                    # the Model that clients address
  candidate:                            # added when it is not there
    name: fraud-candidate
    spec: {storageUri: "s3://models/sha256/<digest>", requirements: [sklearn]}
```

For KServe it is as follows. In the labels of both arms `{champion}` and `{candidate}` become the names of their
revisions, as in `candidate: {revision_name: "{candidate}"}` for the series `knative`.

```yaml
kserve:
  service: fraud                        # the InferenceService
  candidate:                            # what spec.predictor becomes; canaryTrafficPercent is the driver's
    model: {modelFormat: {name: mlflow}, protocolVersion: v2, storageUri: "s3://models/sha256/<digest>"}
```
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import Field, JsonValue, model_validator

from holdfast.errors import WorkloadError
from holdfast.serving.rollout.cluster.series import MetricsSource
from holdfast.serving.rollout.contract.arms import Arms
from holdfast.workload.schema import Section
from holdfast.workload.yaml import read_yaml

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""Name of an object or of a predictor."""


class DriverSection(Section):
    """The part of the file that belongs to one driver."""

    candidate: Section
    """The candidate; its SHA-256 is part of what a rollout is known by."""


class NamedTemplate(Section):
    """A candidate with a name of its own."""

    name: DnsLabel


class OpenTemplate(Section):
    """A part of an object as it is written on the cluster; keys that are not named here are passed on."""

    model_config = {**Section.model_config, "extra": "allow"}
    __pydantic_extra__: dict[str, JsonValue]
    traffic_keys: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _driver_sets_traffic(self) -> Self:
        for key in self.traffic_keys:
            if key in (self.__pydantic_extra__ or {}):
                raise ValueError(f"{key} is the driver's; leave it out")
        return self


class PredictorTemplate(NamedTemplate, OpenTemplate):
    """The candidate of a SeldonDeployment: a predictor without `traffic` and `shadow`."""

    traffic_keys = ("traffic", "shadow")
    graph: dict[str, JsonValue]

    @model_validator(mode="after")
    def _graph_has_a_name(self) -> Self:
        if not isinstance(self.graph.get("name"), str):
            raise ValueError("graph.name is missing")
        return self


class ModelTemplate(NamedTemplate):
    """The candidate of an Experiment."""

    spec: dict[str, JsonValue]

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if not isinstance(self.spec.get("storageUri"), str):
            raise ValueError("spec.storageUri is missing")
        return self


class SeldonTarget(DriverSection):
    """Two arms that have a name each."""

    stable: DnsLabel
    """The arm that serves now."""
    candidate: NamedTemplate

    @model_validator(mode="after")
    def _two_names(self) -> Self:
        if self.stable == self.candidate.name:
            raise ValueError("stable and candidate.name must differ")
        return self


class SeldonV1Target(SeldonTarget):
    """A SeldonDeployment, routed by Istio."""

    deployment: DnsLabel
    candidate: PredictorTemplate
    routes: Literal["virtualservice", "status"] = "virtualservice"
    """Proof that weights are in effect: the VirtualServices that the operator made of them, or, where they must
    not be read, the object's status, which can be older than the change."""


class SeldonV2Target(SeldonTarget):
    """Two Models and one Experiment of Seldon Core 2."""

    experiment: DnsLabel
    candidate: ModelTemplate


class InferencePredictor(OpenTemplate):
    """The candidate of an InferenceService: its whole `spec.predictor`, without `canaryTrafficPercent`."""

    traffic_keys = ("canaryTrafficPercent",)
    model: dict[str, JsonValue]

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if not isinstance(self.model.get("storageUri"), str):
            raise ValueError("model.storageUri is missing")
        for key in ("storage", "storageUris"):
            if key in self.model or key in (self.__pydantic_extra__ or {}):
                raise ValueError(f"expected model.storageUri only, found {key}")
        return self


class KServeTarget(DriverSection):
    """An InferenceService whose revisions Knative keeps (KServe's serverless mode)."""

    service: DnsLabel
    candidate: InferencePredictor


class Probing(Arms):
    """Rows of the candidate's bundle that are sent to both arms, in addition to users' requests; left out: none."""

    per_second: float = Field(2.0, gt=0, le=100)
    """Pairs of one row; where the bundle has adversarial rows, as many of them go to the candidate."""
    counted: bool = True
    """Whether the metrics count an answer to a probe as one of the arm's. Then a step does not take it for a user's."""

    @model_validator(mode="after")
    def _two_addresses(self) -> Self:
        if self.champion == self.candidate:
            raise ValueError("champion and candidate must differ in url or headers")
        return self


Own = TypeVar("Own", bound=DriverSection)


class Target(Section):
    """A target file."""

    namespace: DnsLabel
    kubeconfig: Path | None = None
    context: str | None = None
    """A context of the kubeconfig; left out: its current one."""
    seldon_v1: SeldonV1Target | None = Field(None, alias="seldon-v1")
    seldon_v2: SeldonV2Target | None = Field(None, alias="seldon-v2")
    kserve: KServeTarget | None = None
    metrics: MetricsSource
    probes: Probing | None = None
    time_to_live_seconds: float = Field(120.0, ge=10, le=86400)
    """A weight or a mirror that no driver renews for so long is taken back by the watchdog."""
    settle_seconds: float = Field(10.0, gt=0, le=300)
    """So long one call waits for a change to be in effect before that is an error."""

    @model_validator(mode="after")
    def _one_driver(self) -> Self:
        if len(self._sections()) != 1:
            raise ValueError(f"expected one of {' and '.join(section_names())}")
        return self

    @property
    def driver(self) -> str:
        """Name of the driver whose section the file has."""
        return self._sections()[0][0]

    @property
    def section(self) -> DriverSection:
        """That section."""
        return self._sections()[0][1]

    def section_of(self, kind: type[Own]) -> Own:
        """That section, for its driver, which knows the kind.

        Raises:
            WorkloadError: the file has the section of another driver.
        """
        if not isinstance(self.section, kind):
            raise WorkloadError(f"target: expected a section of {kind.__name__}, found {self.driver}")
        return self.section

    def _sections(self) -> list[tuple[str, DriverSection]]:
        fields = type(self).model_fields.items()
        found = ((field.alias or name, getattr(self, name)) for name, field in fields)
        return [(name, section) for name, section in found if isinstance(section, DriverSection)]


def section_names() -> tuple[str, ...]:
    """The sections of which a file has one, each named like its driver."""
    return tuple(
        field.alias or name
        for name, field in Target.model_fields.items()
        if any(isinstance(kind, type) and issubclass(kind, DriverSection) for kind in get_args(field.annotation))
    )


def read_target(path: Path) -> Target:
    """Reads a target file.

    Raises:
        WorkloadError: with the line and, for a typing error, the key meant.
    """
    return read_yaml(path, Target)
