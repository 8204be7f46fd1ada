"""What the pipelines set for every task: its inputs with their digests, its size, retries, secrets."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.structures import ResourceSpec

from holdfast import containers, pod_cache
from holdfast.compute import GPUS
from holdfast.model.component import joined_of, part_of, with_job
from holdfast.model.train.job import JobConfig, PodToleration
from holdfast.steps import find
from holdfast_pipelines.alerts import ALERTMANAGER, ALERTMANAGER_TOKEN
from holdfast_pipelines.cluster import ClusterSettings, Notifying, PodSize
from holdfast_pipelines.notify import NOTIFY_URL
from holdfast_pipelines.pod_keys import signed_in_pod

_LONGEST_SECONDS = 14 * 86400
STEP_LABEL = "holdfast.dev/step"
"""Label of a step's pods, by which network policies choose them."""
MLFLOW_SECRET = "holdfast-mlflow"
"""Kubernetes secret (optional) with the keys `username`, `password` and `token` of the MLflow server."""


CACHE = "/var/run/holdfast/cache"
"""Where pods see the volume of what was made before."""
CACHE_SECRET = "holdfast-cache"
"""Kubernetes secret with the key `key`, which seals the entries of that volume: at least 32 characters."""


def inputs(**tasks: dsl.PipelineTask) -> dict[str, Any]:
    """For every role the artifact of its task and, as `ROLE_digest`, the digest that the reader must find."""
    artifacts = {role: task.outputs["artifact"] for role, task in tasks.items()}
    return artifacts | {f"{role}_digest": task.outputs["digest"] for role, task in tasks.items()}


@dataclass(frozen=True)
class Pods:
    """What the pods of a pipeline get; None: it runs on this machine, where a step has no pod."""

    settings: ClusterSettings | None = None

    def sized(
        self,
        task: dsl.PipelineTask,
        *,
        cpu: str,
        memory: str,
        computes: bool = False,
        step: str = "",
        size: PodSize | None = None,
    ) -> dsl.PipelineTask:
        """Gives the task its size, volumes and time; `cpu` and `memory` (also the limit) are what it gets by default.

        It has the settings of `step`, of that of its own name when left out; `size` replaces their size.
        As `set_cpu_request` and its like do; but each of these reads the source of every frame above it
        (`inspect.stack`) for a message, half a second in a pipeline.
        """
        settings, step = self.settings or ClusterSettings(), step or task.name
        size = size or settings.resources.get(step, PodSize())
        memory = size.memory or memory
        task.container_spec.resources = ResourceSpec(
            cpu_request=size.cpu or cpu, memory_request=memory, memory_limit=memory
        )
        gpus = int(computes and settings.gpu) if size.gpu is None else size.gpu
        if gpus:
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus).set_env_variable(GPUS, str(gpus))
            _on_gpu_nodes(task, settings)
        kubernetes.add_pod_label(task, STEP_LABEL, step)
        _reused(task, step, settings)
        for mount in settings.mounts(step):
            kubernetes.mount_pvc(task, mount.claim, mount.path)
        signed_in_pod(task, settings.signing)
        seconds = settings.seconds(step)
        return task if seconds is None else kubernetes.set_timeout(task, seconds)

    def reading(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """The size of a step that looks at the rows."""
        return self.sized(task, cpu="1", memory="4G")

    def computing(self, task: dsl.PipelineTask, memory: str, step: str = "") -> dsl.PipelineTask:
        """That of a step that trains or attacks: on a GPU where these are to."""
        return self.sized(task, cpu="2", memory=memory, computes=True, step=step)

    def shared(self, step: Any, given: Mapping[str, Any], memory: str) -> dsl.PipelineTask:
        """The step on one pod or, where the settings ask for it, on several that share its examples.

        Each part is a task of its own, and one more joins them: what a `dsl.ParallelFor` collects is a list of
        artifacts, of which KFP's launcher fetches the first alone.
        """
        settings = self.settings or ClusterSettings()
        count = settings.shards.get(step.name, 1)
        if count == 1:
            return self.computing(step(**given), memory)
        part, parts = part_of(step), {}
        for number in range(1, count + 1):
            task = self.computing(part(**given, shard=f"{number}/{count}"), memory, step.name)
            parts[f"part_{number}"] = task.set_display_name(f"{step.name} {number}/{count}")
        size = PodSize(memory=settings.resources.get(step.name, PodSize()).memory, gpu=0)
        return self.sized(joined_of(step, count)(**given, **inputs(**parts)), cpu="1", memory="4G", size=size)

    def training(self, step: Any, given: Mapping[str, Any], place: str) -> dsl.PipelineTask:
        """The step that trains, in its own pod, which keeps its checkpoint at `place`, or in those of a job."""
        settings = self.settings
        if settings is None or settings.train_job is None:
            return self.keeping(self.computing(step(**given), "8G"), place)
        asked, job = settings.resources.get(step.name, PodSize()), settings.train_job
        gpu = int(settings.gpu) if asked.gpu is None else asked.gpu
        config = JobConfig(
            kind=job.kind,
            image=settings.image("model"),
            claim=job.claim,
            path=job.path,
            cpu=asked.cpu or "2",
            memory=asked.memory or "8G",
            gpu=gpu,
            node_selector=settings.node_selector if gpu else {},
            tolerations=tuple(PodToleration(**vars(one)) for one in settings.tolerations) if gpu else (),
        )
        task = with_job(step)(**given, job=config.model_dump_json())
        waits = self.sized(task, cpu="500m", memory="2G", size=PodSize(gpu=0))
        return kubernetes.mount_pvc(waits, job.claim, job.path)

    def keeping(self, task: dsl.PipelineTask, place: str) -> dsl.PipelineTask:
        """Gives the task the volume of the checkpoints at `place`, where there is one."""
        claim = None if self.settings is None else self.settings.checkpoint_volume
        return task if claim is None else kubernetes.mount_pvc(task, claim, place)

    def with_source_login(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Gives the task the credentials of the place where deliveries come."""
        for one in () if self.settings is None else self.settings.source_secrets:
            kubernetes.use_secret_as_env(task, one.secret, dict(one.variables))
        return task

    @property
    def notify(self) -> Notifying | None:
        """Where the end of the run is posted; None: nowhere."""
        return None if self.settings is None else self.settings.notify

    def telling(self, pipeline: Callable[..., None]) -> Callable[..., None]:
        """A pipeline of which the end is posted, however it ends, where that is asked for; it takes a `name`."""
        return self._telling(pipeline, notify_end)

    def telling_failures(self, pipeline: Callable[..., None]) -> Callable[..., None]:
        """The same for one that runs every hour: only an end that is none of a good run is posted."""
        return self._telling(pipeline, notify_failure)

    def _telling(self, pipeline: Callable[..., None], notify: Any) -> Callable[..., None]:
        if self.notify is None:
            return pipeline

        @functools.wraps(pipeline)
        def run(*values: Any, **named: Any) -> None:
            name = inspect.signature(pipeline).bind(*values, **named).arguments["name"]
            with dsl.ExitHandler(self._posting(notify(name=name, **self._run)), name="notified"):
                pipeline(*values, **named)

        return run

    def alerting(self, report: dsl.PipelineTask, name: str, every: str) -> None:
        """Sends what a report of the monitor found to an Alertmanager, where the settings name one."""
        alerts = None if self.settings is None else self.settings.alerts
        if alerts is None:
            return
        task = alert(**inputs(report=report), name=name, every=every, **self._run)
        task.set_env_variable(ALERTMANAGER, alerts.alertmanager)
        if alerts.secret is not None:
            kubernetes.use_secret_as_env(task, alerts.secret, {alerts.key: ALERTMANAGER_TOKEN})
        never_cached(self.sized(task, cpu="100m", memory="1G", step="notify"))

    def alarmed(self, report: dsl.PipelineTask, name: str) -> None:
        """What an alarm of the monitor comes to: a message, and a run that ends as the settings have it."""
        before = [report]
        if self.notify is not None:
            before.append(self._posting(notify_refusal(**inputs(report=report), name=name, **self._run)))
        if self.settings is not None and self.settings.when_alarmed == "fail":
            refused(reason="The served model has an alarm: see the report of the step monitor.").after(*before)

    def refusing(self, report: dsl.PipelineTask, name: str, reason: str, page: dsl.PipelineTask) -> None:
        """What a refused delivery or model comes to, after its page: a message with the reasons, and a failed run."""
        before = [page]
        if self.notify is not None:
            before.append(self._posting(notify_refusal(**inputs(report=report), name=name, **self._run)))
        if self.ends_as_failed:
            refused(reason=reason).after(*before)

    @property
    def _run(self) -> dict[str, str]:
        place = None if self.notify is None else self.notify.ui
        link = "" if place is None else f"{place.rstrip('/')}/#/runs/details/"
        return {"run": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "link": link}

    def _posting(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        assert self.notify is not None
        if self.notify.secret is not None:
            kubernetes.use_secret_as_env(task, self.notify.secret, {self.notify.key: NOTIFY_URL})
        else:
            task.set_env_variable(NOTIFY_URL, str(self.notify.url))
        return never_cached(self.sized(task, cpu="100m", memory="1G", step="notify"))

    @property
    def on_cluster(self) -> bool:
        """Whether the steps run in pods."""
        return self.settings is not None

    @property
    def ends_as_failed(self) -> bool:
        """Whether a run without a model is to end as failed."""
        return self.settings is not None and self.settings.when_refused == "fail"


@dsl.container_component
def refused(reason: str) -> dsl.ContainerSpec:
    """Fails with a reason: what was refused on purpose is to be seen as failed by whoever watches the runs."""
    code = "import sys; print(sys.argv[1], file=sys.stderr); sys.exit(3)"
    return dsl.ContainerSpec(image=containers.MODEL, command=["python", "-c", code], args=[reason])


_NOTIFY = ["python", "-m", "holdfast", "notify"]


@dsl.container_component
def notify_end(status: dsl.PipelineTaskFinalStatus, name: str, run: str, link: str) -> dsl.ContainerSpec:
    """Posts how the run ended."""
    words = containers.options(workload=name, run=run, link=link, status=status)
    return dsl.ContainerSpec(image=containers.MODEL, command=_NOTIFY, args=words)


@dsl.container_component
def notify_failure(status: dsl.PipelineTaskFinalStatus, name: str, run: str, link: str) -> dsl.ContainerSpec:
    """Posts how the run ended, where that was not well."""
    words = [*containers.options(workload=name, run=run, link=link, status=status), "--failures"]
    return dsl.ContainerSpec(image=containers.MODEL, command=_NOTIFY, args=words)


@dsl.container_component
def alert(
    report: dsl.Input[dsl.Artifact], report_digest: str, name: str, every: str, run: str, link: str
) -> dsl.ContainerSpec:
    """Sends the alarms of a report to an Alertmanager; those that are over, too."""
    words = [*containers.inputs(report=(report, report_digest)), *containers.options(workload=name, run=run, link=link)]
    words += ["--alerts", *containers.options(every=every)]
    return dsl.ContainerSpec(image=containers.MODEL, command=_NOTIFY, args=words)


@dsl.container_component
def notify_refusal(
    report: dsl.Input[dsl.Artifact], report_digest: str, name: str, run: str, link: str
) -> dsl.ContainerSpec:
    """Posts why a delivery or a model was refused."""
    words = [*containers.inputs(report=(report, report_digest)), *containers.options(workload=name, run=run, link=link)]
    return dsl.ContainerSpec(image=containers.MODEL, command=_NOTIFY, args=words)


def retried(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Tries twice more after a minute and after two: nodes are drained, spot machines taken away.

    Argo counts the longest duration from the start of the first try: with less than a step takes there is no second.
    """
    return task.set_retry(2, backoff_duration="60s", backoff_factor=2, backoff_max_duration=f"{_LONGEST_SECONDS}s")


def _reused(task: dsl.PipelineTask, name: str, settings: ClusterSettings) -> None:
    """Gives the task the volume of what was made before, where there is one and the step may look there."""
    row = find(name)
    if settings.cache_volume is None or row is None or not row.reusable or not row.reads:
        return
    kubernetes.mount_pvc(task, settings.cache_volume, CACHE)
    kubernetes.use_secret_as_env(task, CACHE_SECRET, {"key": pod_cache.SECRET}, optional=True)
    task.set_env_variable(pod_cache.FOLDER, CACHE).set_env_variable(pod_cache.IMAGE, settings.image(row.environment))


def _on_gpu_nodes(task: dsl.PipelineTask, settings: ClusterSettings) -> None:
    for label, value in settings.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for taint in settings.tolerations:
        operator = "Equal" if taint.value else "Exists"
        kubernetes.add_toleration(task, taint.key or None, operator, taint.value or None, taint.effect or None)


def never_cached(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """For steps that look at, or change, something outside their inputs."""
    return task.set_caching_options(False)


def with_mlflow_login(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Gives the task the credentials that the MLflow client reads, where the cluster has them."""
    variables = {key: f"MLFLOW_TRACKING_{key.upper()}" for key in ("username", "password", "token")}
    kubernetes.use_secret_as_env(task, MLFLOW_SECRET, variables, optional=True)
    return task
