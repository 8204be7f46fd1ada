"""A compiled pipeline run as Kubeflow runs it: the launcher's rules, with one container after the other.

After kubeflow/pipelines (backend/src/v2): a fresh /minio in each pod; artifacts travel as plain files only, to a store
and from it; parameters come out of /tmp/kfp/outputs or the executor's output; conditions are evaluated on values;
secrets are environment variables; the image, command, resources and retries are those of the YAML. What Kubeflow would
do on several nodes at the same time, this does one by one.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from holdfast_pipelines.wiring import STEP_LABEL
from tests.images.engine import USER, Container, ContainerEnd, Mount, run

RUN_ID = "5f0c7d1e-run"
"""The label `pipeline/runid` of every pod."""
BUCKET = "/minio/mlpipeline/v2/artifacts"
OUTPUTS = "/tmp/kfp/outputs"
EXECUTOR_OUTPUT = "/tmp/kfp_outputs/output_metadata.json"
AT_MLFLOW = ("baseline", "register", "rollout")
"""The steps that a NetworkPolicy would let reach MLflow, by their label; the others have no network at all."""
_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] (==|!=) '([^']*)'")
_PLACEHOLDER = re.compile(
    r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\['([^']+)'\](?:\.(path|uri|output_file))?\}\}"
)


@dataclass(frozen=True)
class Given:
    """The values and artifacts (folders of the store) that a task or a group of tasks gets."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class Task:
    """What became of one task."""

    name: str
    state: str = "skipped"
    """`succeeded`, `failed` or `skipped`."""
    given: Given = field(default_factory=Given)
    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    ended: ContainerEnd | None = None
    attempts: int = 0
    container: Container | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """What people see in the UI, by artifact, as the executor's output says it."""


@dataclass
class StandInCluster:
    """Where a pipeline runs."""

    folder: Path
    """Made for this run: the store, and the folders of the pods."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Of every pod with a network."""
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name -> key -> value."""
    claims: Mapping[str, Path] = field(default_factory=dict)
    """PersistentVolumeClaims: name -> folder of this machine."""
    retries: bool = True
    start: Callable[[Container], ContainerEnd] | None = None
    """Runs the container of a pod to its end; None: the engine of this machine."""


def read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A compiled pipeline: the specification, and what is Kubernetes' of it (empty where there is none)."""
    documents = list(yaml.load_all(file.read_text(), yaml.CSafeLoader))  # ten times the speed of safe_load_all
    platform = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if documents[1:] else {}
    return documents[0], platform


def run_pipeline(file: Path, parameters: Mapping[str, Any], cluster: StandInCluster) -> dict[str, Task]:
    """Runs a compiled pipeline; the tasks by name, those in groups and those that were skipped too."""
    specification, platform = read(file)
    run = _Run(specification, platform, cluster)
    root = specification["root"]
    defaults = root.get("inputDefinitions", {}).get("parameters", {})
    values = {key: entry["defaultValue"] for key, entry in defaults.items() if "defaultValue" in entry}
    run.group(root["dag"], Given({**values, **parameters}))
    return run.tasks


class _Run:
    def __init__(self, specification: dict[str, Any], platform: dict[str, Any], cluster: StandInCluster) -> None:
        self.components = specification["components"]
        self.executors = specification["deploymentSpec"]["executors"]
        self.platform = platform
        self.cluster = cluster
        self.tasks: dict[str, Task] = {}

    def group(self, dag: dict[str, Any], given: Given) -> bool:
        """Runs the tasks of a group; whether all succeeded or were skipped."""
        found: dict[str, Task] = {}
        for name, entry in _in_order(dag["tasks"]):
            found[name] = self.tasks[name] = self._task(name, entry, given, found)
        return all(task.state != "failed" for task in found.values())

    def _task(self, name: str, entry: dict[str, Any], given: Given, siblings: Mapping[str, Task]) -> Task:
        task, trigger = Task(name), entry.get("triggerPolicy", {})
        always = trigger.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        before = [siblings[other] for other in entry.get("dependentTasks", [])]
        if any(other.state != "succeeded" for other in before) and not always:
            return task
        task.given = _resolve(entry.get("inputs", {}), given, siblings)
        if not _taken(trigger.get("condition"), task.given.parameters):
            return task
        component = self.components[entry["componentRef"]["name"]]
        if "dag" in component:
            task.state = "succeeded" if self.group(component["dag"], task.given) else "failed"
        else:
            self._attempt(task, component, entry.get("retryPolicy", {}).get("maxRetryCount", 0))
        return task

    def _attempt(self, task: Task, component: dict[str, Any], retries: int) -> None:
        label = component["executorLabel"]
        executor, platform = self.executors[label]["container"], self.platform.get(label, {})
        for task.attempts in range(1, 2 + (retries if self.cluster.retries else 0)):
            pod = _Pod(self.cluster, task, component.get("outputDefinitions", {}))
            task.container = pod.container(executor, platform)
            task.ended = (self.cluster.start or run)(task.container)
            (pod.folder / "log.txt").write_text(task.ended.log)
            if task.ended.code == 0:
                task.state = "succeeded"
                return pod.collect()
        task.state = "failed"
        return None


class _Pod:
    """The folders of one pod, and what the launcher does in it before and after."""

    def __init__(self, cluster: StandInCluster, task: Task, outputs: dict[str, Any]) -> None:
        self.cluster, self.task, self.outputs = cluster, task, outputs
        self.folder = cluster.folder / "pods" / f"{task.name}-{task.attempts}"
        self.minio, self.tmp = self.folder / "minio", self.folder / "kfp"
        self.inputs = {key: f"{BUCKET}/inputs/{key}/artifact" for key in task.given.artifacts}
        self.made = {key: f"{BUCKET}/{task.name}/{key}" for key in outputs.get("artifacts", {})}
        for key, path in self.inputs.items():
            _copy_files(task.given.artifacts[key], self._here(path))
        for path in self.made.values():
            self._here(path).parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.tmp / "outputs", self.tmp / "metadata"):
            folder.mkdir(parents=True)
        _own(self.folder)

    def container(self, executor: dict[str, Any], platform: dict[str, Any]) -> Container:
        """As the kubelet would start it."""
        name = self.task.name
        limit = executor.get("resources", {}).get("resourceMemoryLimit")
        mounts = [Mount(self.minio, "/minio"), Mount(self.tmp / "outputs", OUTPUTS)]
        mounts.append(Mount(self.tmp / "metadata", str(Path(EXECUTOR_OUTPUT).parent)))
        for mount in platform.get("pvcMount", []):
            claim = mount.get("constant") or mount["pvcNameParameter"]["runtimeValue"]["constant"]
            mounts.append(Mount(self.cluster.claims[claim], mount["mountPath"]))
        mounts += [self._secret_volume(one) for one in platform.get("secretAsVolume", [])]
        labels = platform.get("podMetadata", {}).get("labels", {})
        online = labels.get(STEP_LABEL, name) in AT_MLFLOW
        env = {entry["name"]: entry["value"] for entry in executor.get("env", [])}
        env |= {**self._secrets(platform), **(self.cluster.env if online else {}), **_fields(platform)}
        return Container(
            image=executor["image"],
            command=[_expanded(self._filled(word), env) for word in (*executor["command"], *executor["args"])],
            mounts=mounts,
            env=env,
            memory=_bytes(limit) if limit else None,
            network="host" if online else "none",
            labels=labels,
        )

    def collect(self) -> None:
        """What the launcher reads and uploads after the container has ended well."""
        task = self.task
        said = self._executor_output()
        values = said.get("parameterValues", {})
        task.metadata = {key: one["artifacts"][0].get("metadata", {}) for key, one in said.get("artifacts", {}).items()}
        for key in self.outputs.get("parameters", {}):
            file = self.tmp / "outputs" / key
            if file.is_file():
                task.parameters[key] = file.read_text()
            elif key in values:
                task.parameters[key] = values[key]
        for key, path in self.made.items():
            kept = self.cluster.folder / "store" / task.name / key
            if self._here(path).exists():
                _copy_files(self._here(path), kept)
                task.artifacts[key] = kept

    def _executor_output(self) -> dict[str, Any]:
        file = self.tmp / "metadata" / Path(EXECUTOR_OUTPUT).name
        return json.loads(file.read_text()) if file.is_file() else {}

    def _here(self, path: str) -> Path:
        return self.minio / Path(path).relative_to("/minio")

    def _secrets(self, platform: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for secret in platform.get("secretAsEnv", []):
            name = secret.get("secretName") or secret["secretNameParameter"]["runtimeValue"]["constant"]
            values = self.cluster.secrets.get(name)
            if values is None and not secret.get("optional"):
                raise KeyError(f"secret {name}: expected by {self.task.name}, found none")
            keys = {entry["envVar"]: entry["secretKey"] for entry in secret["keyToEnv"]}
            found |= {variable: values[key] for variable, key in keys.items() if values and key in values}
        return found

    def _secret_volume(self, volume: Mapping[str, Any]) -> Mount:
        """As the kubelet lays it out: root's files, which others may read."""
        name = volume.get("secretName") or volume["secretNameParameter"]["runtimeValue"]["constant"]
        folder = self.folder / "secrets" / name
        folder.mkdir(parents=True)
        for key, value in self.cluster.secrets[name].items():
            (folder / key).write_text(value)
            (folder / key).chmod(0o644)
        return Mount(folder, volume["mountPath"], readonly=True)

    def _filled(self, word: str) -> str:
        word = word.replace("{{$}}", json.dumps(self._executor_input()))
        word = word.replace("{{$.outputs.output_file}}", EXECUTOR_OUTPUT)
        return _PLACEHOLDER.sub(self._value, word)

    def _value(self, match: re.Match[str]) -> str:
        side, kind, key, _ = match.groups()
        if kind == "parameters":
            return _text(self.task.given.parameters[key]) if side == "inputs" else f"{OUTPUTS}/{key}"
        return (self.inputs if side == "inputs" else self.made)[key]

    def _executor_input(self) -> dict[str, Any]:
        def listed(paths: Mapping[str, str]) -> dict[str, Any]:
            return {
                key: {"artifacts": [{"name": key, "uri": f"minio:/{path.removeprefix('/minio')}", "metadata": {}}]}
                for key, path in paths.items()
            }

        files = {key: {"outputFile": f"{OUTPUTS}/{key}"} for key in self.outputs.get("parameters", {})}
        return {
            "inputs": {"parameterValues": dict(self.task.given.parameters), "artifacts": listed(self.inputs)},
            "outputs": {"parameters": files, "artifacts": listed(self.made), "outputFile": EXECUTOR_OUTPUT},
        }


@dataclass(frozen=True)
class Elsewhere:
    """A task's command on this machine: the same words, with folders of this machine for those of the pod."""

    command: tuple[str, ...]
    folder: Path
    outputs: Path

    def output(self, key: str) -> str:
        """An output parameter, once the command has ended."""
        return (self.outputs / key).read_text()


def on_this_machine(task: Task, folder: Path) -> Elsewhere:
    """Prepares what a task of a finished run did in its container to be done again without one, below `folder`."""
    assert task.container is not None
    again = replace(task, attempts=0, parameters={}, artifacts={})
    outputs = {"artifacts": task.artifacts, "parameters": task.parameters}
    pod = _Pod(StandInCluster(folder), again, outputs)
    outputs_here = pod.tmp / "outputs"
    said = str(Path(EXECUTOR_OUTPUT).parent)
    places = {"/minio": pod.minio, OUTPUTS: outputs_here, said: pod.tmp / "metadata", "/tmp/holdfast": folder}
    words = [_moved(word, places) for word in task.container.command]
    return Elsewhere(tuple(words), folder, outputs_here)


def _moved(word: str, places: Mapping[str, Path]) -> str:
    """With other folders, also in the message about the outputs."""
    for place, folder in places.items():
        word = word.replace(f"={place}/", f"={folder}/").replace(f'"{place}/', f'"{folder}/')
    return word


def _in_order(tasks: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each task after those that it depends on."""
    left, done = dict(tasks), set[str]()
    while left:
        ready = sorted(name for name, entry in left.items() if set(entry.get("dependentTasks", [])) <= done)
        if not ready:
            raise ValueError(f"expected an order of the tasks, found a circle among {', '.join(sorted(left))}")
        for name in ready:
            yield name, left.pop(name)
        done |= set(ready)


def _resolve(inputs: Mapping[str, Any], given: Given, siblings: Mapping[str, Task]) -> Given:
    parameters, artifacts = {}, {}
    for key, entry in inputs.get("parameters", {}).items():
        if "componentInputParameter" in entry:
            parameters[key] = given.parameters[entry["componentInputParameter"]]
        elif "taskOutputParameter" in entry:
            source = entry["taskOutputParameter"]
            parameters[key] = siblings[source["producerTask"]].parameters[source["outputParameterKey"]]
        elif "runtimeValue" in entry:
            parameters[key] = entry["runtimeValue"]["constant"]
    for key, entry in inputs.get("artifacts", {}).items():
        if "componentInputArtifact" in entry:
            artifacts[key] = given.artifacts[entry["componentInputArtifact"]]
        else:
            source = entry["taskOutputArtifact"]
            artifacts[key] = siblings[source["producerTask"]].artifacts[source["outputArtifactKey"]]
    return Given(parameters, artifacts)


def _taken(condition: str | None, parameters: Mapping[str, Any]) -> bool:
    if condition is None:
        return True
    if condition.startswith("!(") and condition.endswith(")"):
        return not _taken(condition[2:-1], parameters)
    parts = [_CONDITION.fullmatch(part) for part in condition.split(" && ")]
    if None in parts:
        raise ValueError(f"condition {condition!r}: expected comparisons of texts")
    return all((_text(parameters[part[1]]) == part[3]) == (part[2] == "==") for part in parts if part)


def _text(value: Any) -> str:
    """As the launcher writes a value into a command."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def _fields(platform: Mapping[str, Any]) -> dict[str, str]:
    """Variables that the kubelet takes from the pod's own labels."""
    known = {"metadata.labels['pipeline/runid']": RUN_ID}
    return {entry["name"]: known[entry["fieldPath"]] for entry in platform.get("fieldPathAsEnv", [])}


def _expanded(word: str, env: Mapping[str, str]) -> str:
    """With variables as the kubelet writes them into a command."""
    return re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), word)


def _bytes(quantity: str) -> str:
    """Kubernetes' `4G` and `4Gi` as bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)([KMG]i?)?", quantity).groups()  # type: ignore[union-attr]
    power = {"K": 1, "M": 2, "G": 3}.get((unit or " ")[0], 0)
    return str(int(float(number) * (1024 if unit and unit.endswith("i") else 1000) ** power))


def _copy_files(source: Path, target: Path) -> None:
    """Files only, as an object store keeps them: no empty folder, no link, no mode."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for file in sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink()):
        copied = target / file.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)


def _own(folder: Path) -> None:
    """What is below belongs to the pod's user, as what a launcher downloads does."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if os.getuid() == 0:
            os.chown(path, USER, USER)
        else:
            path.chmod(0o777 if path.is_dir() else 0o666)
