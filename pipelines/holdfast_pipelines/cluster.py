"""How the pipelines run on a cluster: images, volumes, sizes, GPU nodes. One file for a whole team, or options."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from holdfast import containers
from holdfast.artifacts.documents import GateDecision
from holdfast.errors import WorkloadError
from holdfast.model.train.job import JobKind
from holdfast.steps import STEPS, Role, every, names, writer
from holdfast.wording import without_credentials
from holdfast.workload.schema import Section
from holdfast.workload.yaml import read_yaml

MOVING_TAGS = ("latest", "main", "master", "dev", "edge", "nightly", "stable")
MOST_SHARDS = 64
DECIDES = writer(GateDecision).name
"""The step that looks at waivers."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_IN_PODS = names(step for step in every() if step.pipeline != "none")


def _known(step: str) -> str:
    if step not in _IN_PODS:
        raise ValueError(f"expected one of the steps {', '.join(_IN_PODS)}")
    return step


def _below_the_root(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or path == "/":
        raise ValueError("expected an absolute path in the pod")
    return path


def _does_not_move(tag: str) -> str:
    if tag in MOVING_TAGS or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", tag):
        raise ValueError("expected an immutable image tag (a version or a commit), found one that moves")
    return tag


def _is_web(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("expected an http or https URL without a user in it")
    return url


def _done_in_parts(step: str) -> str:
    known = names(one for one in STEPS if one.writes_part)
    if step not in known:
        raise ValueError(f"expected one of the steps that work in parts: {', '.join(known)}")
    return step


StepName = Annotated[str, AfterValidator(_known)]
SharedStep = Annotated[str, AfterValidator(_done_in_parts)]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
PodPath = Annotated[str, AfterValidator(_below_the_root)]
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}[smhd]$")]
"""Such as `90m` or `6h`."""


class PodSize(Section):
    """What a step asks for; what is left out is the step's own."""

    cpu: Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,3}|m)?$")] | None = None
    """Cores, requested: `4` or `500m`."""
    memory: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}(Mi|Gi|M|G)$")] | None = None
    """Requested, and the limit: `16G`."""
    gpu: int | None = Field(None, ge=0, le=64)
    """GPUs (nvidia.com/gpu)."""


class ClaimMount(Section):
    """A PersistentVolumeClaim in the pods of steps."""

    claim: KubernetesName
    """Its name, in the namespace of the run."""
    path: PodPath
    """Where the pods see it."""
    steps: tuple[StepName, ...] = ()
    """Which steps; none: all."""


class NodeToleration(Section):
    """A taint of nodes that the pods accept."""

    key: str = ""
    """Of the taint; empty: every taint."""
    value: str = ""
    """Of the taint; empty: any."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Of the taint; empty: every one."""


class TrainJobSettings(Section):
    """Training in the pods of a job; `train.workers` of the workload is their number."""

    kind: JobKind = "TrainJob"
    """TrainJob: Kubeflow Trainer (v2). PyTorchJob: Training Operator (v1)."""
    claim: KubernetesName
    """A PersistentVolumeClaim (ReadWriteMany) for what the pods read, their checkpoint and their model."""
    path: PodPath = "/holdfast/training"
    """Where the pods see it."""


class SecretVariables(Section):
    """Keys of a Kubernetes secret that pods get as environment variables."""

    secret: KubernetesName
    """Its name, in the namespace of the run."""
    variables: dict[SecretKey, VariableName]
    """Key in the secret -> environment variable, such as `{access: AWS_ACCESS_KEY_ID}`."""


class SigningKeys(Section):
    """By whom the steps on a cluster are signed, and whose signatures they ask for; all by reference."""

    keys: dict[Role, KubernetesName] = {}
    """Role -> the secret with its private key, `key.pem`; only pods of steps that this role signs get it."""
    statements: KubernetesName
    """The claim of a volume (ReadWriteMany) on which the statements of each run are kept, a folder for each."""
    trust: KubernetesName | None = None
    """The secret with `trust.yaml` and the public keys that it names, for the steps that take a model in."""
    waivers: PodPath | None = None
    """A folder on a volume of the step gate with what people signed (`holdfast waive`)."""

    @model_validator(mode="after")
    def _checks_waivers(self) -> Self:
        if self.waivers is not None and self.trust is None:
            raise ValueError("waivers: expected trust with it, by which their signatures are known")
        return self


class Notifying(Section):
    """Where the end of every run is posted, and what a person follows from there."""

    url: Annotated[str, AfterValidator(_is_web)] | None = None
    """An http or https URL that takes a POST. Those of Slack and Teams are credentials: keep them in a secret."""
    secret: KubernetesName | None = None
    """Instead: the secret that holds the URL."""
    key: SecretKey = "url"
    """The key in that secret."""
    ui: Annotated[str, AfterValidator(_is_web)] | None = None
    """Address of Kubeflow Pipelines for people, for the link to the run."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.secret is None):
            raise ValueError("expected url or secret, one of them")
        return self


class Alerting(Section):
    """Where alarms about served models go."""

    alertmanager: Annotated[str, AfterValidator(_is_web)]
    """Address of an Alertmanager, without `/api/v2/alerts`."""
    secret: KubernetesName | None = None
    """The secret with the bearer token of a proxy in front of it."""
    key: SecretKey = "token"
    """The key in that secret."""


class ClusterSettings(Section):
    """`cluster.yaml`."""

    registry: str | None = None
    """HOST/PATH that the images are pulled from."""
    tag: Annotated[str, AfterValidator(_does_not_move)] | None = None
    """Of the images; it must not move, because Kubeflow's cache does not see what an image holds."""
    images: dict[Literal["data", "model", "serving"], str] = {}
    """The whole name of an environment's image, for one that holds your network too; best with its digest."""
    namespace: KubernetesName | None = None
    """Where runs belong, on a Kubeflow of many users."""
    ca_file: Path | None = None
    """Certificates (PEM) by which the API of Kubeflow is known; a path from this file's folder."""
    threads: int = Field(1, ge=1, le=256)
    """Of each step. With more than one, equal inputs give other bytes, and a busy node is many times slower."""
    gpu: bool = False
    """Whether scan, train, backdoor, attack and certify ask for a GPU each. Their image is the one whose tag ends in
    `-cuda` (`make images TORCH=cuda`); one that `images` names must hold CUDA too."""
    resources: dict[StepName, PodSize] = {}
    """By step."""
    shards: dict[SharedStep, Annotated[int, Field(ge=1, le=MOST_SHARDS)]] = {}
    """By step (attack, certify): how many pods share its examples; one more joins what they saw. Equal results."""
    train_job: TrainJobSettings | None = None
    """A job of several pods that trains; none: the step trains in its own pod, with as many processes."""
    timeouts: dict[StepName, Duration] = {}
    """By step: how long its pod may run. A step that hangs would block every later run of a schedule."""
    volumes: tuple[ClaimMount, ...] = ()
    """With deliveries, contracts, reviews."""
    checkpoint_volume: KubernetesName | None = None
    """The claim on which train keeps its checkpoints, so that a pod that was taken away resumes."""
    cache_volume: KubernetesName | None = None
    """The claim on which steps keep what they made, so that a run on unchanged data computes nothing twice. Its
    entries are sealed with the key of the secret `holdfast-cache`."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes for steps that ask for a GPU."""
    tolerations: tuple[NodeToleration, ...] = ()
    """Taints of the nodes for steps that ask for a GPU."""
    when_refused: Literal["fail", "succeed"] = "fail"
    """How a run ends whose delivery was stopped or whose model did not pass."""
    source_secrets: tuple[SecretVariables, ...] = ()
    """Credentials of the store or the database that the step snapshot reads from."""
    source_identity: bool = False
    """Whether the pods' own account may read the stores (a role of the cloud), so that no secret is needed."""
    notify: Notifying | None = None
    """Where the end of every run is posted."""
    alerts: Alerting | None = None
    """The Alertmanager that the pipeline `monitor` sends alarms to."""
    when_alarmed: Literal["fail", "succeed"] = "fail"
    """How a run of the pipeline `monitor` ends whose report has an alarm."""
    kubeflow: Annotated[str, AfterValidator(_is_web)] = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    """The API of Kubeflow Pipelines as pods reach it, for a monitor that starts a retraining."""
    signing: SigningKeys | None = None
    """By whom the steps are signed, and whose signatures they ask for; None: nothing is signed."""

    @model_validator(mode="after")
    def _mounted_once(self) -> Self:
        paths = [mount.path for mount in self.volumes]
        if len(set(paths)) < len(paths):
            raise ValueError("volumes: expected different paths, found one of them twice")
        waivers = None if self.signing is None else self.signing.waivers
        places = [mount.path for mount in self.mounts(DECIDES)]
        if waivers is not None and not any(PurePosixPath(waivers).is_relative_to(place) for place in places):
            raise ValueError(f"signing.waivers: expected a folder on a volume of the step {DECIDES}")
        return self

    def image(self, environment: str) -> str:
        """The image of an environment."""
        named = {str(key): image for key, image in self.images.items()}
        cuda = self.asks_for_gpus(environment)
        return named.get(environment) or containers.image(environment, registry=self.registry, tag=self.tag, cuda=cuda)

    def asks_for_gpus(self, environment: str) -> bool:
        """Whether a step of an environment does: its image is the one that holds CUDA."""
        sizes = {name: size.gpu for name, size in self.resources.items() if size.gpu is not None}
        steps = [step for step in STEPS if step.environment == environment]
        return any(sizes.get(step.name, int(self.gpu and step.computes)) > 0 for step in steps)

    def require_registry(self) -> None:
        """Nothing, where every image has a place of its own.

        Raises:
            WorkloadError: one has not: a pod could not pull it.
        """
        missing = [name for name in containers.ENVIRONMENTS if name not in self.images]
        if self.registry is None and missing:
            raise WorkloadError(
                f"--registry: expected HOST/PATH that the images are pulled from, found none, and no --image of "
                f"{', '.join(missing)}"
            )

    def mounts(self, step: str) -> list[ClaimMount]:
        """The volumes that the pod of a step has."""
        return [mount for mount in self.volumes if not mount.steps or step in mount.steps]

    def seconds(self, step: str) -> int | None:
        """How long the pod of a step may run; None: as long as it takes."""
        text = self.timeouts.get(step)
        return None if text is None else seconds_of(text)


def seconds_of(text: str) -> int:
    """Of a time such as `90m` or `6h`.

    Raises:
        WorkloadError: it is none.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,5}[smhd]", text):
        raise WorkloadError(f"expected a time such as 90m or 6h, found {text[:20]!r}")
    return int(text[:-1]) * UNITS[text[-1]]


def settings_of(file: Path | None, given: Mapping[str, Any]) -> ClusterSettings:
    """The settings in a file, with what was `given` by options in place of, or in addition to, the file's.

    Raises:
        WorkloadError: the file or an option is not valid.
    """
    found = ClusterSettings() if file is None else read_yaml(file, ClusterSettings)
    merged = found.model_dump(exclude_unset=True)
    if file is not None and found.ca_file is not None:
        merged["ca_file"] = file.parent / found.ca_file
    for key, value in given.items():
        if value in (None, (), {}, False):
            continue
        before = merged.get(key)
        if isinstance(before, dict):
            merged[key] = before | value
        else:
            merged[key] = (*before, *value) if isinstance(before, tuple) and isinstance(value, tuple) else value
    try:
        return ClusterSettings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])).replace("_", "-")
        text, shown = first["msg"].removeprefix("Value error, "), without_credentials(str(first["input"]))
        raise WorkloadError(f"--{where}: {text}, found {shown[:60]!r}") from None


# --- options ----------------------------------------------------------------------------------------------------------


def volumes(texts: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """`CLAIM:PATH` or `CLAIM:PATH:STEP,STEP`."""
    found = []
    for text in texts:
        claim, path, steps = _parts(text, "--volume", "CLAIM:PATH or CLAIM:PATH:STEP,STEP", ":", 2, 3)
        found.append({"claim": claim, "path": path, "steps": tuple(steps.split(",")) if steps else ()})
    return tuple(found)


def sizes(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`STEP=CPU,MEMORY` or `STEP=CPU,MEMORY,GPUS`; one that is empty is the step's own."""
    found: dict[str, dict[str, Any]] = {}
    form = "STEP=CPU,MEMORY or STEP=CPU,MEMORY,GPUS"
    for text in texts:
        step, size = _parts(text, "--resources", form, "=", 2, 2)
        cpu, memory, gpu = _parts(size, "--resources", form, ",", 2, 3)
        asked = {"cpu": cpu, "memory": memory, "gpu": gpu}
        found[step] = {key: value for key, value in asked.items() if value}
    return found


def source_secrets(texts: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """`SECRET:KEY=VARIABLE,KEY=VARIABLE`."""
    found = []
    for text in texts:
        secret, variables = _parts(text, "--source-secret", "SECRET:KEY=VARIABLE,…", ":", 2, 2)
        found.append({"secret": secret, "variables": pairs(variables.split(","), "--source-secret")})
    return tuple(found)


def notifying(text: str | None) -> dict[str, str]:
    """A URL, or `secret:NAME` or `secret:NAME/KEY` for one that is kept in a secret."""
    if text is None or not text.startswith("secret:"):
        return {} if text is None else {"url": text}
    secret, key = _parts(text.removeprefix("secret:"), "--notify", "URL or secret:NAME/KEY", "/", 1, 2)
    return {"secret": secret} | ({"key": key} if key else {})


def counts(texts: Iterable[str], option: str) -> dict[str, int]:
    """`STEP=N`."""
    found = {}
    for text in texts:
        step, count = _parts(text, option, "STEP=N", "=", 2, 2)
        if not count.isdecimal() or len(count) > 3:
            raise WorkloadError(f"{option} {text}: expected STEP=N, a whole number, found {count!r}")
        found[step] = int(count)
    return found


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """`KEY=VALUE`."""
    return dict(tuple(_parts(text, option, "KEY=VALUE", "=", 2, 2)) for text in texts)  # type: ignore[misc]


def tolerations(texts: Iterable[str]) -> tuple[dict[str, str], ...]:
    """`KEY`, `KEY=VALUE`, `KEY:EFFECT` or `KEY=VALUE:EFFECT`, as kubectl writes taints."""
    found = []
    for text in texts:
        taint, _, effect = text.partition(":")
        key, _, value = taint.partition("=")
        found.append({"key": key, "value": value, "effect": effect})
    return tuple(found)


def _parts(text: str, option: str, form: str, separator: str, least: int, most: int) -> list[str]:
    parts = text.split(separator)
    if not least <= len(parts) <= most or not parts[0]:
        raise WorkloadError(f"{option} {text}: expected {form}")
    return parts + [""] * (most - len(parts))
