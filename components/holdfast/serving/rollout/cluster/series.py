"""Section `metrics` of a target: which series count the answers of both arms, and the sets of series with a name."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from holdfast.workload.schema import Section

Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
Metric = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
LabelMatchers = dict[Label, str]
"""Label -> regular expression that the whole value must match."""
SetName = Literal["envoy", "mlserver", "seldon-v1", "seldon-v2", "istio", "knative"]


class CounterSelector(Section):
    """Counters of one name, added up."""

    metric: Metric
    labels: LabelMatchers = {}
    """In addition to those of the arm."""
    absent_is_zero: bool = False
    """Whether a counter that has never counted does not exist yet, where the arm's answers do. A typing error in
    the name then reads as 0: leave it out for a name of your own."""


class SeriesSet(Section):
    """Which series hold what is counted; every selector gets the arm's labels too, but for the last three."""

    answered: tuple[CounterSelector, ...] = Field(min_length=1)
    """Added up: answers and failures together."""
    failed: tuple[CounterSelector, ...] = Field(min_length=1)
    """Added up; also counted in `answered`."""
    absorbed: tuple[CounterSelector, ...] = ()
    """Added up: what a retry at the other arm hid from clients. A failure in any case, also where `failed` has less."""
    buckets: CounterSelector | None = None
    """A histogram's `_bucket`."""
    bucket_ms: float = Field(1000.0, gt=0)
    """Milliseconds that 1 in its label `le` means."""
    mirrored: CounterSelector | None = None
    """Answers of the candidate that no client saw; left out: told apart by when they came."""
    routed: CounterSelector | None = None
    """Live requests that the router sent to either arm, counted by the server that counts `answered` too. Left out:
    the split of traffic is not checked; servers that are scraped at different moments would seem to disagree."""
    ejections: CounterSelector | None = None


def _counter(metric: str, *, absent_is_zero: bool = False, **labels: str) -> CounterSelector:
    return CounterSelector(metric=metric, labels=labels, absent_is_zero=absent_is_zero)


SETS: dict[SetName, SeriesSet] = {
    "envoy": SeriesSet(
        answered=(_counter("envoy_cluster_endpoint_rq_success"), _counter("envoy_cluster_endpoint_rq_error")),
        failed=(_counter("envoy_cluster_endpoint_rq_error"),),
        absorbed=(_counter("envoy_cluster_upstream_rq_retry"),),
        buckets=_counter("envoy_cluster_upstream_rq_time_bucket"),
        bucket_ms=1.0,
        routed=_counter("envoy_cluster_upstream_rq_completed", envoy_cluster_name="stable|candidate_then_stable"),
        mirrored=_counter("envoy_cluster_upstream_rq_completed", envoy_cluster_name="candidate"),
        ejections=_counter("envoy_cluster_outlier_detection_ejections_enforced_total", envoy_cluster_name="candidate"),
    ),
    "mlserver": SeriesSet(
        answered=(
            _counter("model_infer_request_success_total"),
            _counter("model_infer_request_failure_total", absent_is_zero=True),
        ),
        failed=(_counter("model_infer_request_failure_total", absent_is_zero=True),),
        buckets=_counter("rest_server_request_duration_seconds_bucket"),
    ),
    "seldon-v1": SeriesSet(
        answered=(_counter("seldon_api_executor_server_requests_seconds_count"),),
        failed=(
            _counter("seldon_api_executor_server_requests_seconds_count", absent_is_zero=True, code="[^24].*|404"),
        ),
        buckets=_counter("seldon_api_executor_server_requests_seconds_bucket"),
    ),
    "seldon-v2": SeriesSet(
        answered=(_counter("seldon_model_infer_total"),),
        failed=(_counter("seldon_model_infer_total", absent_is_zero=True, code="[^2O].*"),),
    ),
    "istio": SeriesSet(
        answered=(_counter("istio_requests_total", reporter="source"),),
        failed=(_counter("istio_requests_total", absent_is_zero=True, reporter="source", response_code="5..|0"),),
        buckets=_counter("istio_request_duration_milliseconds_bucket", reporter="source"),
        bucket_ms=1.0,
    ),
    "knative": SeriesSet(
        answered=(_counter("revision_app_request_count"),),
        failed=(_counter("revision_app_request_count", absent_is_zero=True, response_code="5..|404"),),
        buckets=_counter("revision_app_request_latencies_bucket"),
        bucket_ms=1.0,
    ),
}
"""A 4xx is the client's, but for 404, which a server gives that lost its model.

Names as the sources say them (docs/rollout-on-seldon.md); only `envoy` was scraped from a real server here."""


class MetricsSource(Section):
    """The Prometheus that has the counters, and their names."""

    prometheus: str = Field(pattern=r"^https?://")
    series: SetName | SeriesSet = "seldon-v1"
    scrape_seconds: float = Field(15.0, gt=0, le=120)
    """Time between two scrapes; a sample older than two of them is stale."""
    champion: LabelMatchers
    """Which series are the champion's and not another's: label -> regular expression."""
    candidate: LabelMatchers
    up: bool = False
    """Whether `up` with the arm's labels shows that its server is scraped: then an arm that has never answered counts
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
