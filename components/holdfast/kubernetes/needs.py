"""What Holdfast needs of a cluster, and what is missing there: it reads only, and asks the API server about rights."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from holdfast.errors import ClusterError
from holdfast.http_client import HttpClient
from holdfast.kubernetes.api import ForbiddenError, Kube, MissingError, Resource
from holdfast.kubernetes.objects import Json, annotations

ApiRight = tuple[str, str, str]
"""Group, plural, verb."""
ApiCalls = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Group, plural, verbs."""
NO_REGISTRY = ("registry.invalid/", "holdfast/", "docker.io/holdfast/", "index.docker.io/holdfast/")
"""So begin images of ours for which no registry was named: they are not found, or are what others put there."""
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_GPU = "nvidia.com/gpu"
_SELDON_V1, _SELDON_V2, _KSERVE = "machinelearning.seldon.io", "mlops.seldon.io", "serving.kserve.io"
_ISTIO = "networking.istio.io"
_KINDS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "kserve": ((_KSERVE, "v1beta1", "inferenceservices"), (_KSERVE, "v1alpha1", "servingruntimes")),
    "seldon-v1": ((_SELDON_V1, "v1", "seldondeployments"), (_ISTIO, "v1beta1", "virtualservices")),
    "seldon-v2": tuple((_SELDON_V2, "v1alpha1", plural) for plural in ("models", "experiments", "servers")),
}
_ROLLOUT: Mapping[str, ApiCalls] = {
    "kserve": ((_KSERVE, "inferenceservices", ("get", "patch")),),
    "seldon-v1": (
        (_SELDON_V1, "seldondeployments", ("get", "patch")),
        (_ISTIO, "virtualservices", ("list",)),
        ("apps", "deployments", ("get",)),
    ),
    "seldon-v2": (
        (_SELDON_V2, "experiments", ("get", "create", "patch", "delete")),
        (_SELDON_V2, "models", ("get", "create", "patch")),
    ),
}
_WATCHDOG: Mapping[str, ApiCalls] = {
    "kserve": ((_KSERVE, "inferenceservices", ("get", "list", "patch")),),
    "seldon-v1": ((_SELDON_V1, "seldondeployments", ("get", "list", "patch")),),
    "seldon-v2": ((_SELDON_V2, "experiments", ("list", "delete")), (_SELDON_V2, "models", ("get", "patch"))),
}
_APPLY: ApiCalls = tuple(
    (group, plural, ("get", "create", "patch"))
    for group, plurals in {
        "": ("configmaps", "persistentvolumeclaims", "serviceaccounts", "services"),
        "apps": ("deployments",),
        "batch": ("cronjobs",),
        "networking.k8s.io": ("networkpolicies",),
        "rbac.authorization.k8s.io": ("roles", "rolebindings"),
    }.items()
    for plural in plurals
)
"""What whoever applies an overlay needs."""
DRIVERS = tuple(_KINDS)
_SECRETS: Mapping[str, tuple[str, ...]] = {
    "holdfast-mlflow-server": ("auth.ini", "backend-store-uri", "session-key"),
    "holdfast-mlflow": (),
}
"""Secret -> the keys without which nothing starts; a login has either a name and a password or a token."""
_CLAIMS = ("holdfast-mlflow", "holdfast-models", "holdfast-rollout")


class NeedState(StrEnum):
    """What was found."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Need:
    """One row: what is needed, whether it is there, and what was found or is to be done."""

    name: str
    state: NeedState
    detail: str


@dataclass(frozen=True)
class ClusterToCheck:
    """The cluster that is meant, and what for."""

    namespace: str
    driver: str
    pipelines: str = "kubeflow"
    """The namespace of Kubeflow Pipelines' own services."""
    tracking: str | None = None
    """MLflow's address, as it is reached from here; None: its Deployment is looked at."""
    prometheus: str | None = None
    """Prometheus' address, as it is reached from here."""
    gpu: bool = False


@dataclass(frozen=True)
class _Lack:
    """The answer to a question where something is missing: what, or what to do."""

    text: str


_Question = Callable[[], str | _Lack]


def look(kube: Kube, place: ClusterToCheck) -> list[Need]:
    """Every need with what was found.

    Raises:
        ClusterError: the API server does not answer, or lets no one in with these credentials.
    """
    kube.served("", "v1")
    return [need for part in _PARTS for need in part(kube, place)]


def rights_of(driver: str) -> dict[str, tuple[ApiRight, ...]]:
    """Service account -> the rights that it needs for rollouts by a driver."""
    accounts = {"holdfast-rollout": _ROLLOUT[driver], "holdfast-rollout-watchdog": _WATCHDOG[driver]}
    return {name: _single(calls) for name, calls in accounts.items()}


def has_no_registry(image: str) -> bool:
    """Whether an image is one of ours for which no registry was named."""
    return image.startswith(NO_REGISTRY)


def _single(calls: ApiCalls) -> tuple[ApiRight, ...]:
    return tuple((group, plural, verb) for group, plural, verbs in calls for verb in verbs)


def _asked(name: str, question: _Question, gone: str = "it is not there") -> Need:
    """One row; `gone` is the detail where the object is not there."""
    try:
        answer = question()
    except MissingError:
        answer = _Lack(gone)
    except ForbiddenError as error:
        return Need(name, NeedState.UNKNOWN, f"you have no right to look: {error}")
    except ClusterError as error:
        return Need(name, NeedState.UNKNOWN, str(error))
    return Need(name, NeedState.MISSING, answer.text) if isinstance(answer, _Lack) else Need(name, NeedState.OK, answer)


def _namespace(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    def find() -> str:
        found = kube.get(Resource("", "v1", "namespaces", None), place.namespace)
        level = (found["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce", "none")
        return f"Pod Security: {level}"

    yield _asked(f"namespace {place.namespace}", find, "apply an overlay of manifests/overlays")


def _kinds(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    def find(group: str, version: str, plural: str) -> str | _Lack:
        return version if plural in kube.served(group, version) else _Lack(f"install what serves {group}/{version}")

    for kind in (*_KINDS[place.driver], ("argoproj.io", "v1alpha1", "workflows")):
        yield _asked(f"kind {kind[2]}.{kind[0]}", partial(find, *kind))


def _pipelines(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    def find() -> str:
        kube.get(Resource("", "v1", "services", place.pipelines), "ml-pipeline")
        return f"service ml-pipeline in {place.pipelines}"

    gone = f"no service ml-pipeline in {place.pipelines}; --pipelines-namespace names another place"
    yield _asked("Kubeflow Pipelines", find, gone)


def _rights(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    """Ours, and those of the service accounts, as the API server judges them."""
    own = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", None)
    others = Resource("authorization.k8s.io", "v1", "localsubjectaccessreviews", place.namespace)
    yield _asked("your rights", partial(_refused, kube, own, place.namespace, _single(_APPLY), None))
    for account, rights in rights_of(place.driver).items():
        user = f"system:serviceaccount:{place.namespace}:{account}"
        yield _asked(f"rights of {account}", partial(_refused, kube, others, place.namespace, rights, user))


def _refused(
    kube: Kube, reviews: Resource, namespace: str, rights: tuple[ApiRight, ...], user: str | None
) -> str | _Lack:
    refused = [right for right in rights if not _may(kube, reviews, namespace, right, user)]
    if refused:
        names = ", ".join(f"{verb} {plural}" for _, plural, verb in refused)
        return _Lack(f"no right to {names}" + ("" if user is None else "; apply manifests/base/rollout"))
    return f"{len(rights)} calls allowed"


def _may(kube: Kube, reviews: Resource, namespace: str, right: ApiRight, user: str | None) -> bool:
    group, plural, verb = right
    kind = "SelfSubjectAccessReview" if user is None else "LocalSubjectAccessReview"
    attributes = {"namespace": namespace, "group": group, "resource": plural, "verb": verb}
    spec = {"resourceAttributes": attributes, **({} if user is None else {"user": user})}
    meta = {} if user is None else {"metadata": {"namespace": namespace}}
    answer = kube.create(reviews, {"apiVersion": "authorization.k8s.io/v1", "kind": kind, **meta, "spec": spec})
    return bool((answer.get("status") or {}).get("allowed"))


def _secrets(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    secrets = Resource("", "v1", "secrets", place.namespace)

    def find(name: str, keys: tuple[str, ...]) -> str | _Lack:
        here = set(kube.get(secrets, name).get("data") or {})
        login = {"username", "password"} <= here or "token" in here
        lacks = sorted(set(keys) - here) if keys else ([] if login else ["username", "password"])
        return _Lack(f"expected {', '.join(lacks)} in it") if lacks else f"has {', '.join(sorted(here))}"

    for name, keys in _SECRETS.items():
        wanted = ", ".join(keys) or "username, password"
        yield _asked(f"secret {name}", partial(find, name, keys), f"make it, with {wanted}")


def _storage(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    claims = Resource("", "v1", "persistentvolumeclaims", place.namespace)

    def default_class() -> str | _Lack:
        found = kube.list(Resource("storage.k8s.io", "v1", "storageclasses", None))
        marked = [str(one["metadata"]["name"]) for one in found if annotations(one).get(_DEFAULT_CLASS) == "true"]
        return marked[0] if marked else _Lack("mark one as default, or name storageClassName in your overlay")

    def bound(name: str) -> str | _Lack:
        phase = (kube.get(claims, name).get("status") or {}).get("phase", "Pending")
        return "bound" if phase == "Bound" else _Lack(f"it is {phase}: kubectl describe persistentvolumeclaim {name}")

    yield _asked("default storage class", default_class)
    for name in _CLAIMS:
        yield _asked(f"claim {name}", partial(bound, name))


def _gpus(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    def find() -> str | _Lack:
        nodes = kube.list(Resource("", "v1", "nodes", None))
        counts = [int(((one.get("status") or {}).get("allocatable") or {}).get(_GPU, 0)) for one in nodes]
        if place.gpu and not any(counts):
            return _Lack(f"no node has {_GPU}; install the device plug-in, or compile without --gpu")
        return f"{sum(counts)} on {len(nodes)} nodes"

    yield _asked("GPUs", find)


def _servers(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    def ready() -> str | _Lack:
        found = kube.get(Resource("apps", "v1", "deployments", place.namespace), "holdfast-mlflow")
        count = (found.get("status") or {}).get("readyReplicas", 0)
        return f"{count} pods ready" if count else _Lack("no pod of holdfast-mlflow is ready")

    if place.tracking is None:
        yield _asked("MLflow", ready, "no Deployment holdfast-mlflow; --tracking names another server")
    else:
        yield _reached("MLflow", place.tracking, "/health")
    if place.prometheus is None:
        yield Need("Prometheus", NeedState.UNKNOWN, "--prometheus names the address that your target file has")
    else:
        yield _reached("Prometheus", place.prometheus, "/-/ready")


def _reached(name: str, url: str, path: str) -> Need:
    client = HttpClient(url)
    try:
        status = client.exchange("GET", path, {}).status
    except ClusterError as error:
        return Need(name, NeedState.MISSING, str(error))
    finally:
        client.close()
    return Need(name, NeedState.OK if status == 200 else NeedState.MISSING, f"{url}{path} answered {status}")


def _images(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    def find() -> str | _Lack:
        found = sorted({image for image in _every_image(kube, place.namespace)})
        wrong = [image for image in found if has_no_registry(image)]
        if wrong:
            return _Lack(f"name your registry in `images` of the overlay, found {', '.join(wrong)}")
        return f"{len(found)}, none without a registry" if found else _Lack("no pods of ours; apply an overlay")

    yield _asked("images", find)


def _every_image(kube: Kube, namespace: str) -> Iterator[str]:
    for resource in (Resource("apps", "v1", plural, namespace) for plural in ("deployments", "statefulsets")):
        for body in kube.list(resource):
            yield from _images_of(body["spec"]["template"]["spec"])
    for body in kube.list(_cron_jobs(kube, namespace)):
        yield from _images_of(body["spec"]["jobTemplate"]["spec"]["template"]["spec"])


def _cron_jobs(kube: Kube, namespace: str) -> Resource:
    """Of the version that the server has; before Kubernetes 1.21 it is v1beta1."""
    version = "v1" if "cronjobs" in kube.served("batch", "v1") else "v1beta1"
    return Resource("batch", version, "cronjobs", namespace)


def _images_of(pod: Json) -> Iterable[str]:
    return [str(one["image"]) for one in (*(pod.get("initContainers") or ()), *pod["containers"])]


def _watchdog(kube: Kube, place: ClusterToCheck) -> Iterator[Need]:
    def find() -> str | _Lack:
        spec = kube.get(_cron_jobs(kube, place.namespace), "holdfast-rollout-watchdog")["spec"]
        return _Lack("it is suspended") if spec.get("suspend") else f"runs at {spec['schedule']}"

    yield _asked("watchdog", find, "apply manifests/base/rollout: no rollout is safe without it")


_PARTS: tuple[Callable[[Kube, ClusterToCheck], Iterator[Need]], ...] = (
    _namespace, _kinds, _pipelines, _rights, _secrets, _storage, _gpus, _servers, _images, _watchdog,
)  # fmt: skip
