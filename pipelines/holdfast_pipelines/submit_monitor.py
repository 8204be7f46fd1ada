"""The pipeline `monitor` on a cluster: a recurring run that watches the champion of a workload."""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from holdfast.artifacts.documents import MonitorReport
from holdfast.errors import WorkloadError
from holdfast.monitor.starting import RetrainStart
from holdfast.steps import writer
from holdfast.workload.schema import MonitorConfig, Workload
from holdfast_pipelines import parameters as given
from holdfast_pipelines.cluster import ClusterSettings, seconds_of
from holdfast_pipelines.compiled import compile_pipelines
from holdfast_pipelines.submit import EXPERIMENT, TOKEN, KubeflowApi, Schedule, api_errors, checkpoint, six_fields

MONITOR = "monitor"


def submit_monitor(
    endpoint: str,
    workload: Path,
    *,
    tracking: str,
    cron: str | None = None,
    every: str | None = None,
    settings: ClusterSettings | None = None,
    experiment: str = EXPERIMENT,
    token: str | None = None,
    trust: str = "",
    once: bool = False,
) -> dict[str, str]:
    """Uploads `monitor` and makes its recurring run, in place of an older one; returns what was made.

    Args:
        endpoint: URL of the Kubeflow Pipelines API.
        workload: the workload file, whose section `monitor` names the log.
        tracking: MLflow tracking URI as the pods see it.
        cron: five fields, or six with the seconds first.
        every: such as `1h`, instead; `monitor.every` when both are left out.
        settings: images, namespace, volumes and sizes.
        experiment: under which name the runs are grouped.
        token: bearer token of the API; KFP_TOKEN when left out.
        trust: a trust policy, by its path in the pods, by which the champion is taken; empty: none.
        once: one run now, and no recurring one; then it waits for its end.

    Raises:
        RunError: the endpoint cannot be reached, or refuses; or the run that was waited for failed.
        WorkloadError: the section, its paths or the schedule are not valid there.
    """
    cluster, plan = settings or ClusterSettings(), given.read(workload)
    _require_places(plan.monitor, cluster)
    retrains = _retraining(plan, workload, cluster, tracking, trust)
    when = Schedule(seconds=seconds_of(every or plan.monitor.every)) if cron is None else Schedule(six_fields(cron))
    with tempfile.TemporaryDirectory() as folder, api_errors(endpoint):
        compile_pipelines(Path(folder), cluster)
        api = KubeflowApi(endpoint, token or os.environ.get(TOKEN), cluster.ca_file)
        pipeline, version = api.upload(f"holdfast-{MONITOR}", Path(folder) / f"{MONITOR}.yaml")
        group = api.client.create_experiment(experiment, namespace=cluster.namespace).experiment_id
        arguments = _arguments(plan, tracking, trust, every or plan.monitor.every)
        if retrains is not None:
            arguments["start"] = _start(api, group, Path(folder), cluster, retrains)
        made = {"experiment": group, "pipeline": pipeline, "version": version}
        if once:
            run = api.start(group, f"{plan.name}-{MONITOR}", pipeline, version, arguments)
            return made | {"run": run, "state": api.ended(run)}
        name = f"{plan.name}-{MONITOR}"
        recurring = api.schedule(group, name, pipeline, version, arguments, when)
        shown = {"cron": when.cron} if when.cron is not None else {"every": f"{when.seconds} s"}
        return made | {"recurring_run": recurring, **shown}


def _arguments(plan: Workload, tracking: str, trust: str, every: str) -> given.Parameters:
    config = plan.monitor.model_dump_json()
    return {"name": plan.name, "tracking": tracking, "config": config, "trust": trust, "every": every}


def _retraining(
    plan: Workload, workload: Path, cluster: ClusterSettings, tracking: str, trust: str
) -> given.Parameters | None:
    """The parameters of the retraining that an alarm leads to; None: it leads to none.

    Raises:
        WorkloadError: nothing keeps rows in quarantine out of it.
    """
    if "retrain" not in plan.monitor.on_drift:
        return None
    if plan.data.review is None:
        raise WorkloadError(
            "monitor.on_drift: expected data.review with retrain, so that rows in quarantine stay out, found none"
        )
    settings = given.Settings(tracking=tracking, threads=cluster.threads, trust=trust)
    found = given.retrain_parameters(given.for_cluster(plan, cluster), workload.resolve().parent, settings)
    return {name: value for name, value in found.items() if name != "because"} | checkpoint(plan.name, cluster)


def _start(api: KubeflowApi, group: str, folder: Path, cluster: ClusterSettings, parameters: given.Parameters) -> str:
    """What the pipeline needs to start `retrain`, as JSON; its version is uploaded, too."""
    pipeline, version = api.upload("holdfast-retrain", folder / "retrain.yaml")
    how = RetrainStart(cluster.kubeflow, group, pipeline, version, parameters)
    return json.dumps(asdict(how))


def _require_places(section: MonitorConfig, cluster: ClusterSettings) -> None:
    """The log, what is kept and the labels lie on a volume of the step.

    Raises:
        WorkloadError: there is no log, or a place is on none.
    """
    if section.log is None or section.kept is None:
        raise WorkloadError("monitor.log: expected the folder of a sample_log on a volume, found none")
    named = {"monitor.log": section.log, "monitor.kept": section.kept}
    if section.labels is not None:
        named["monitor.labels.source"] = section.labels.source
    for key, place in named.items():
        given.check_mounted(key, place, writer(MonitorReport).name, cluster)
