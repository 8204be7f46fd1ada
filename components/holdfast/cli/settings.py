"""What `holdfast run` would use here: interpreters, device, stores, files. Nothing is started."""

import os
from collections.abc import Mapping
from pathlib import Path

from holdfast import containers
from holdfast.errors import RunError
from holdfast.options import STATE, TRACKING
from holdfast.registry.client import exists, sqlite_file
from holdfast.resources import workloads

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def settings_of_a_run(root: Path, *, gpu: bool, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Name -> what a run in the folder `root` without options would use."""
    return {
        **{f"{name} steps": _python(name) for name in containers.ENVIRONMENTS},
        "device": "cuda (auto, where torch can use the GPU)" if gpu else "cpu (auto: no GPU was found)",
        "threads": "1 (--threads)",
        "MLflow store": _store(root),
        "kept steps": _folder(root / STATE / "cache"),
        "runs": _folder(root / STATE / "runs"),
        "images": f"{containers.image('model', registry='REGISTRY')} and so on, on a cluster only (--registry, --tag)",
        "cluster": _cluster(env),
        "workloads": ", ".join(path.stem for path in workloads()),
    }


def _python(environment: str) -> str:
    from holdfast.environments import interpreter

    try:
        return str(interpreter(environment))
    except RunError as error:
        return f"missing: {error}"


def _store(root: Path) -> str:
    place = sqlite_file(TRACKING)
    found = place is not None and exists(f"sqlite:///{root / place}")
    return f"{TRACKING} ({'there' if found else 'made by the first run'}; --tracking)"


def _folder(place: Path) -> str:
    count = sum(1 for _ in place.iterdir()) if place.is_dir() else 0
    return f"{place} ({count} entries)" if count else f"{place} (none yet)"


def _cluster(env: Mapping[str, str]) -> str:
    if _SERVICE_ACCOUNT.exists():
        return "the service account of this pod"
    named = [Path(part).expanduser() for part in env.get("KUBECONFIG", "~/.kube/config").split(os.pathsep) if part]
    found = next((path for path in named if path.is_file()), None)
    if found is None:
        return "none: no kubeconfig was found; `run` needs none"
    return f"{found}; `run` does not use it, a rollout on a cluster names it in its --target"
