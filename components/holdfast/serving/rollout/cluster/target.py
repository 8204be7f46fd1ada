"""Where a rollout happens on a cluster: one YAML file beside the plan. The plan is the same for every driver.

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

import re
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import Field, JsonValue, model_validator

from holdfast.errors import WorkloadError
from holdfast.serving.rollout.contract.arms import Arms
from holdfast.workload.schema import Section
from holdfast.workload.yaml import read_yaml

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""Of an object or of a predictor: a DNS label."""
Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
Metric = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
Labels = dict[Label, str]
"""Label -> regular expression that the whole value must match."""
SetName = Literal["envoy", "mlserver", "seldon-v1", "seldon-v2", "istio", "knative"]


class Series(Section):
    """Counters of one name, added up."""

    metric: Metric
    labels: Labels = {}
    """Beside those of the arm."""
    absent_is_zero: bool = False
    """Whether a counter that has never counted does not exist yet, where the arm's answers do. A typing error in
    the name then reads as 0: leave it out for a name of your own."""


class SeriesSet(Section):
    """Which series hold what is counted; every selector gets the arm's labels too, but for the last three."""

    answered: tuple[Series, ...] = Field(min_length=1)
    """Added up: answers and failures together."""
    failed: tuple[Series, ...] = Field(min_length=1)
    """Added up; also counted in `answered`."""
    absorbed: tuple[Series, ...] = ()
    """Added up: what a retry at the other arm hid from clients. A failure in any case, also where `failed` has less."""
    buckets: Series | None = None
    """A histogram's `_bucket`."""
    bucket_ms: float = Field(1000.0, gt=0)
    """What 1 in its label `le` means."""
    mirrored: Series | None = None
    """Answers of the candidate that no client saw; left out: told apart by when they came."""
    routed: Series | None = None
    """Live requests that the router sent to either arm, counted by the server that counts `answered` too. Left out:
    the split of traffic is not checked; servers that are scraped at different moments would seem to disagree."""
    ejections: Series | None = None


SETS: dict[SetName, SeriesSet] = {
    "envoy": SeriesSet(
        answered=(Series(metric="envoy_cluster_endpoint_rq_success"), Series(metric="envoy_cluster_endpoint_rq_error")),
        failed=(Series(metric="envoy_cluster_endpoint_rq_error"),),
        absorbed=(Series(metric="envoy_cluster_upstream_rq_retry"),),
        buckets=Series(metric="envoy_cluster_upstream_rq_time_bucket"),
        bucket_ms=1.0,
        routed=Series(
            metric="envoy_cluster_upstream_rq_completed",
            labels={"envoy_cluster_name": "stable|candidate_then_stable"},
        ),
        mirrored=Series(metric="envoy_cluster_upstream_rq_completed", labels={"envoy_cluster_name": "candidate"}),
        ejections=Series(
            metric="envoy_cluster_outlier_detection_ejections_enforced_total",
            labels={"envoy_cluster_name": "candidate"},
        ),
    ),
    "mlserver": SeriesSet(
        answered=(
            Series(metric="model_infer_request_success_total"),
            Series(metric="model_infer_request_failure_total", absent_is_zero=True),
        ),
        failed=(Series(metric="model_infer_request_failure_total", absent_is_zero=True),),
        buckets=Series(metric="rest_server_request_duration_seconds_bucket"),
    ),
    "seldon-v1": SeriesSet(
        answered=(Series(metric="seldon_api_executor_server_requests_seconds_count"),),
        failed=(
            Series(
                metric="seldon_api_executor_server_requests_seconds_count",
                labels={"code": "[^24].*|404"},
                absent_is_zero=True,
            ),
        ),
        buckets=Series(metric="seldon_api_executor_server_requests_seconds_bucket"),
    ),
    "seldon-v2": SeriesSet(
        answered=(Series(metric="seldon_model_infer_total"),),
        failed=(Series(metric="seldon_model_infer_total", labels={"code": "[^2O].*"}, absent_is_zero=True),),
    ),
    "istio": SeriesSet(
        answered=(Series(metric="istio_requests_total", labels={"reporter": "source"}),),
        failed=(
            Series(
                metric="istio_requests_total",
                labels={"reporter": "source", "response_code": "5..|0"},
                absent_is_zero=True,
            ),
        ),
        buckets=Series(metric="istio_request_duration_milliseconds_bucket", labels={"reporter": "source"}),
        bucket_ms=1.0,
    ),
    "knative": SeriesSet(
        answered=(Series(metric="revision_app_request_count"),),
        failed=(
            Series(
                metric="revision_app_request_count",
                labels={"response_code": "5..|404"},
                absent_is_zero=True,
            ),
        ),
        buckets=Series(metric="revision_app_request_latencies_bucket"),
        bucket_ms=1.0,
    ),
}
"""A 4xx is the client's, but for 404, which a server gives that lost its model.

Names as the sources say them (docs/rollout-on-seldon.md); only `envoy` was scraped from a real server here."""


class Metrics(Section):
    """Where the counters come from."""

    prometheus: str = Field(pattern=r"^https?://")
    series: SetName | SeriesSet = "seldon-v1"
    scrape_seconds: float = Field(15.0, gt=0, le=120)
    """How often Prometheus looks; a sample older than two of them is stale."""
    champion: Labels
    """What tells the champion's series from all others: label -> regular expression."""
    candidate: Labels
    up: bool = False
    """Whether `up` with the arm's labels says that its server is scraped: then an arm that has never answered counts
    as 0 answers, and one that is not up as dead. The scrape must put the arm's labels on the target."""
    token_file: Path | None = None
    ca_file: Path | None = None

    @property
    def set(self) -> SeriesSet:
        """The series, with a built-in name resolved."""
        return SETS[self.series] if isinstance(self.series, str) else self.series

    @model_validator(mode="after")
    def _arms_differ(self) -> Self:
        for role, labels in (("champion", self.champion), ("candidate", self.candidate)):
            for label, pattern in labels.items():
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{role}.{label}: expected a regular expression, found {error}") from None
        if self.champion == self.candidate or not self.champion or not self.candidate:
            raise ValueError("champion and candidate must be told apart by labels")
        return self


class DriverSection(Section):
    """The part of the file that belongs to one driver."""

    candidate: Section
    """What is rolled out; its SHA-256 is part of what a rollout is known by."""


class Predictor(Section):
    """The candidate of a SeldonDeployment: a predictor without `traffic` and `shadow`."""

    model_config = {**Section.model_config, "extra": "allow"}
    __pydantic_extra__: dict[str, JsonValue]
    name: Name
    graph: dict[str, JsonValue]

    @model_validator(mode="after")
    def _driver_sets_traffic(self) -> Self:
        for key in ("traffic", "shadow"):
            if key in (self.__pydantic_extra__ or {}):
                raise ValueError(f"{key} is the driver's; leave it out")
        if not isinstance(self.graph.get("name"), str):
            raise ValueError("graph.name is missing")
        return self


class SeldonV1(DriverSection):
    """A SeldonDeployment, routed by Istio."""

    deployment: Name
    stable: Name
    candidate: Predictor
    routes: Literal["virtualservice", "status"] = "virtualservice"
    """What tells that weights are in effect: the VirtualServices that the operator made of them, or, where they must
    not be read, the object's status, which can be older than the change."""

    @model_validator(mode="after")
    def _two_predictors(self) -> Self:
        if self.stable == self.candidate.name:
            raise ValueError("stable and candidate.name must differ")
        return self


class Model(Section):
    """The candidate of an Experiment."""

    name: Name
    spec: dict[str, JsonValue]

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if not isinstance(self.spec.get("storageUri"), str):
            raise ValueError("spec.storageUri is missing")
        return self


class SeldonV2(DriverSection):
    """Two Models and one Experiment of Seldon Core 2."""

    experiment: Name
    stable: Name
    candidate: Model

    @model_validator(mode="after")
    def _two_models(self) -> Self:
        if self.stable == self.candidate.name:
            raise ValueError("stable and candidate.name must differ")
        return self


class InferencePredictor(Section):
    """The candidate of an InferenceService: its whole `spec.predictor`, without `canaryTrafficPercent`."""

    model_config = {**Section.model_config, "extra": "allow"}
    __pydantic_extra__: dict[str, JsonValue]
    model: dict[str, JsonValue]

    @model_validator(mode="after")
    def _driver_sets_traffic(self) -> Self:
        if "canaryTrafficPercent" in (self.__pydantic_extra__ or {}):
            raise ValueError("canaryTrafficPercent is the driver's; leave it out")
        if not isinstance(self.model.get("storageUri"), str):
            raise ValueError("model.storageUri is missing")
        for key in ("storage", "storageUris"):
            if key in self.model or key in (self.__pydantic_extra__ or {}):
                raise ValueError(f"expected model.storageUri only, found {key}")
        return self


class KServe(DriverSection):
    """An InferenceService whose revisions Knative keeps (KServe's serverless mode)."""

    service: Name
    candidate: InferencePredictor


class Probing(Arms):
    """Rows of the candidate's bundle that are sent to both arms, beside the users' requests; left out: none are."""

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
    """The whole file."""

    namespace: Name
    kubeconfig: Path | None = None
    context: str | None = None
    """Of the kubeconfig; left out: its current one."""
    seldon_v1: SeldonV1 | None = Field(None, alias="seldon-v1")
    seldon_v2: SeldonV2 | None = Field(None, alias="seldon-v2")
    kserve: KServe | None = None
    metrics: Metrics
    probes: Probing | None = None
    time_to_live_seconds: float = Field(120.0, ge=10, le=86400)
    """A weight or a mirror that no driver renews for so long is taken back by the watchdog."""
    settle_seconds: float = Field(10.0, gt=0, le=300)
    """So long one call waits for a change to be in effect before it says that it is not."""

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
