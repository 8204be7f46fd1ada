"""The same pipelines on a cluster: upload them to Kubeflow Pipelines, then start a run or make a recurring one.

A version is named by the digest of its bytes, so that uploading twice makes one. A recurring run pins one version and
cannot be changed: the new one is made first, then older ones of the same name are deleted.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import ssl
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import Ref
from holdfast.artifacts.requests import request_text
from holdfast.errors import HoldfastError, RefusedError, RunError, WorkloadError
from holdfast.progress import say
from holdfast_pipelines import parameters as given
from holdfast_pipelines.answering import answered
from holdfast_pipelines.cluster import ClusterSettings
from holdfast_pipelines.compiled import GUARDED, PIPELINES, RETRAIN, compile_pipelines
from holdfast_pipelines.retrain import CHECKPOINTS

EXPERIMENT = "holdfast"
TOKEN = "KFP_TOKEN"
"""The environment variable with the API's bearer token: a credential is no option, where others would read it."""
TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 10.0
OUTAGES = 30
"""Questions about a run that may go without an answer, one after the other."""


@dataclass(frozen=True)
class Schedule:
    """When a recurring run starts: one of the two."""

    cron: str | None = None
    """Six fields, the seconds first."""
    seconds: int | None = None
    """Between two runs."""


def submit(
    endpoint: str,
    workload: Path,
    *,
    tracking: str,
    data: str | None = None,
    seed: int = 0,
    cron: str | None = None,
    settings: ClusterSettings | None = None,
    experiment: str = EXPERIMENT,
    token: str | None = None,
    trust: str = "",
    wait: bool = False,
    because: Ref | None = None,
) -> dict[str, str]:
    """Uploads both pipelines and starts `retrain` on the workload, now or by `cron`; returns what was made.

    Args:
        endpoint: URL of the Kubeflow Pipelines API.
        workload: the workload file; its paths must mean the same in a pod.
        tracking: MLflow tracking URI as the pods see it.
        data: the source to use instead of the workload's, as the pods see it.
        seed: of everything random.
        cron: five fields, or six with the seconds first.
        settings: images, namespace, volumes and sizes.
        experiment: under which name the runs are grouped.
        token: bearer token of the API; KFP_TOKEN when left out.
        trust: a trust policy, by its path in the pods, by which models are registered; empty: none.
        wait: whether to come back only after the run has ended.
        because: the request of a monitor that the run answers.

    Raises:
        RunError: the endpoint cannot be reached, or refuses; or the run that was waited for failed.
        RefusedError: the delivery or the model of the run that was waited for was refused.
        WorkloadError: the workload, its paths or the schedule are not valid there.
    """
    cluster, plan = settings or ClusterSettings(), given.read(workload)
    plan = given.for_cluster(given.with_data(plan, data) if data is not None else plan, cluster)
    asked = "" if because is None else request_text(answered(because, plan))
    run = given.Settings(tracking=tracking, seed=seed, threads=cluster.threads, trust=trust, because=asked)
    arguments = given.retrain_parameters(plan, workload.resolve().parent, run) | checkpoint(plan.name, cluster)
    schedule = None if cron is None else Schedule(cron=six_fields(cron))
    with tempfile.TemporaryDirectory() as folder, api_errors(endpoint):
        compile_pipelines(Path(folder), cluster)
        api = KubeflowApi(endpoint, token or os.environ.get(TOKEN), cluster.ca_file)
        retrain = GUARDED if given.asked_by(arguments) else RETRAIN
        sent = [retrain if name == RETRAIN else name for name in PIPELINES]
        versions = {name: api.upload(f"holdfast-{name}", Path(folder) / f"{name}.yaml") for name in sent}
        group = api.client.create_experiment(experiment, namespace=cluster.namespace).experiment_id
        pipeline, version = versions[retrain]
        made = {"experiment": group, "pipeline": pipeline, "version": version}
        if schedule is None:
            started = made | {"run": api.start(group, plan.name, pipeline, version, arguments)}
            return started | ({"state": api.ended(started["run"])} if wait else {})
        recurring = api.schedule(group, f"{plan.name}-retrain", pipeline, version, arguments, schedule)
        return made | {"recurring_run": recurring, "cron": str(schedule.cron)}


def checkpoint(name: str, cluster: ClusterSettings) -> given.Parameters:
    """Workloads that share a volume keep their checkpoints apart."""
    return {} if cluster.checkpoint_volume is None else {"checkpoint": f"{CHECKPOINTS}/{name}"}


def six_fields(cron: str) -> str:
    """The schedule as Kubeflow reads it, seconds first: five fields get a 0 before them.

    Raises:
        WorkloadError: neither five nor six fields.
    """
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise WorkloadError(f"--cron {cron!r}: expected 5 fields (or 6 with the seconds first), found {len(fields)}")
    return " ".join(["0", *fields] if len(fields) == 5 else fields)


class KubeflowApi:
    """The few calls that submitting takes."""

    def __init__(self, endpoint: str, token: str | None, ca_file: Path | None) -> None:
        from kfp import Client

        _check_reachable(endpoint, ca_file)
        self.client = Client(
            host=endpoint, existing_token=token, ssl_ca_cert=None if ca_file is None else str(ca_file.absolute())
        )

    def upload(self, name: str, package: Path) -> tuple[str, str]:
        """The ids of the pipeline `name` and of the version with the bytes of `package`; made where missing."""
        version = f"{name}-{hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"
        pipeline = self.client.get_pipeline_id(name)
        if pipeline is None:
            # The upload makes a first version, which KFP names after the pipeline; ours is a second one.
            pipeline = self.client.upload_pipeline(str(package), pipeline_name=name).pipeline_id
        known = self._version(pipeline, version)
        if known is None:
            made = self.client.upload_pipeline_version(str(package), version, pipeline_id=pipeline)
            known = made.pipeline_version_id
        return str(pipeline), str(known)

    def start(self, group: str, name: str, pipeline: str, version: str, arguments: given.Parameters) -> str:
        """Starts one run and returns its id."""
        run = self.client.run_pipeline(group, name, params=arguments, pipeline_id=pipeline, version_id=version)
        return str(run.run_id)

    def ended(self, run: str) -> str:
        """The state of a run after it has ended well.

        Raises:
            RefusedError: its delivery or its model was refused.
            RunError: it ended otherwise.
        """
        seen = ""
        while True:
            found = self._run(run)
            state = str(found.state or "PENDING")
            if state != seen:
                say(f"submit: run {run}: {state.lower()}")
                seen = state
            if state == "SUCCEEDED":
                return state
            if state in ("FAILED", "CANCELED", "SKIPPED"):
                raise _why(run, found)
            time.sleep(POLL_SECONDS)

    def _run(self, run: str) -> Any:
        """A run, asked again while the API does not answer for a while: it lives longer than one connection."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        for _ in range(OUTAGES):
            try:
                return self.client.get_run(run)
            except (ApiException, HTTPError, TimeoutError) as error:
                if isinstance(error, ApiException) and error.status < 500:
                    raise
                time.sleep(POLL_SECONDS)
        return self.client.get_run(run)

    def schedule(
        self, group: str, name: str, pipeline: str, version: str, arguments: given.Parameters, when: Schedule
    ) -> str:
        """Makes the recurring run `name`, then deletes older ones of that name; returns its id."""
        older = self._recurring(group, name)
        made = self.client.create_recurring_run(
            group, name, cron_expression=when.cron, interval_second=when.seconds, params=arguments,
            pipeline_id=pipeline, version_id=version,
            no_catchup=True, max_concurrency=1,
        )  # fmt: skip
        for identifier in older:
            self.client.disable_recurring_run(identifier)
            self.client.delete_recurring_run(identifier)
        return str(made.recurring_run_id)

    def _version(self, pipeline: str, name: str) -> str | None:
        for version in _pages(self.client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline):
            if version.display_name == name:
                return str(version.pipeline_version_id)
        return None

    def _recurring(self, group: str, name: str) -> list[str]:
        every = _pages(self.client.list_recurring_runs, "recurring_runs", experiment_id=group)
        return [str(found.recurring_run_id) for found in every if found.display_name == name]


def _why(run: str, found: Any) -> HoldfastError:
    """Why a run ended without a model: by the tasks that failed."""
    details = getattr(found.run_details, "task_details", None) or ()
    failed = [str(one.display_name) for one in details if one.state == "FAILED" and one.display_name]
    if any(name.startswith("refused") for name in failed):
        return RefusedError(f"run {run}: the delivery or the model was refused; its steps' reports have the reasons")
    return RunError(f"run {run}: {str(found.state).lower()}; failed: {', '.join(sorted(failed)) or 'no task is named'}")


def _pages(call: Any, what: str, **arguments: str) -> Iterator[Any]:
    token = ""
    while True:
        page = call(page_token=token, page_size=100, **arguments)
        yield from getattr(page, what) or ()
        token = page.next_page_token or ""
        if not token:
            return


def _check_reachable(endpoint: str, ca_file: Path | None) -> None:
    """One quick request first: the client itself tries five times, five seconds apart, and logs a traceback each."""
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import urlopen

    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise WorkloadError(f"--endpoint {endpoint}: expected an http or https URL")
    try:
        known = None if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise WorkloadError(f"--ca-file {ca_file}: expected certificates in PEM form, found {error}") from None
    try:
        urlopen(f"{endpoint.rstrip('/')}/apis/v2beta1/healthz", timeout=TIMEOUT_SECONDS, context=known).close()
    except HTTPError:
        return  # it is there; whether it lets us in, the client will say
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise RunError(
            f"{endpoint}: expected the Kubeflow Pipelines API, found nothing that answers ({reason})"
        ) from None


@contextmanager
def api_errors(endpoint: str) -> Iterator[None]:
    """Makes refusals of the API one line, and keeps the client's own talk off standard output."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    root = logging.getLogger()
    disabled = root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ApiException as error:
        raise RunError(f"{endpoint}: the Kubeflow Pipelines API refused: {error.status} {_reason(error)}") from None
    except (HTTPError, TimeoutError) as error:
        raise RunError(f"{endpoint}: lost the Kubeflow Pipelines API ({type(error).__name__})") from None
    finally:
        logging.disable(disabled)


def _reason(error: Any) -> str:
    """The API's reason, shortened."""
    try:
        said = json.loads(error.body or "{}")
    except ValueError:
        said = {}
    message = said.get("message") or said.get("error") if isinstance(said, dict) else None
    return str(message or error.reason or "")[:200]
