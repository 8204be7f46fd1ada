"""What needs MLflow, done by short-lived child processes: the controller itself stays small and quick.

python -m holdfast.serving.rollout.conduct.errands fetch TRACKING NAME VERSION FOLDER
python -m holdfast.serving.rollout.conduct.errands promote TRACKING NAME VERSION
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast import errors
from holdfast.errors import HoldfastError, RegistryError, RolloutError
from holdfast.processes import dying_with_us

CANDIDATE, CHAMPION = "candidate-bundle", "champion-bundle"
SECONDS = 300.0
_KINDS: dict[str, type[HoldfastError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HoldfastError)
}


@dataclass(frozen=True)
class Fetched:
    """Verified bundles on this machine."""

    candidate: Path
    champion: Path | None
    champion_version: int | None


def fetch(tracking: str, name: str, version: int, folder: Path) -> Fetched:
    """Brings version `version` and the champion into `folder`; what is there already is not fetched again.

    Raises:
        RolloutError: the version does not exist.
        RefusedError: a version without a passing verdict for its very bytes.
        RegistryError: MLflow cannot be reached.
    """
    kept = folder / "fetched.json"
    if not kept.exists():
        _run(["fetch", tracking, name, str(version), str(folder)])
    found = json.loads(kept.read_bytes())
    if (found["tracking"], found["name"], found["version"]) != (tracking, name, version):
        raise RolloutError(
            f"{folder}: expected a rollout of {name} version {version}, found one of {found['name']} version "
            f"{found['version']}; choose another --out"
        )
    champion = found["champion"]
    return Fetched(folder / CANDIDATE, folder / CHAMPION if champion else None, champion)


def promote(tracking: str, name: str, version: int) -> None:
    """Moves the aliases `champion` and `previous`; the second time it changes nothing.

    Raises:
        RegistryError: MLflow cannot be reached or refuses.
    """
    _run(["promote", tracking, name, str(version)])


def _run(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "holdfast.serving.rollout.conduct.errands", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, preexec_fn=dying_with_us()
        )
    except subprocess.TimeoutExpired:
        raise RegistryError(f"{arguments[1]}: expected an answer within {SECONDS:g} s, found none") from None
    if done.returncode:
        kind, _, message = (done.stderr.strip().splitlines() or [""])[-1].partition(": ")
        raise _KINDS.get(kind, RegistryError)(message if kind in _KINDS else done.stderr.strip()[-2000:])


def _fetch(tracking: str, name: str, version: str, folder: str) -> None:
    from holdfast import registry
    from holdfast.artifacts.folder import replace_file

    into = Path(folder)
    bundle = registry.fetch(tracking, name, int(version), into / CANDIDATE)
    if bundle is None:
        raise RolloutError(f"{tracking}: expected version {version} of model {name}, found none")
    current = registry.fetch(tracking, name, "champion", into / CHAMPION)
    champion = None if current is None or current.version == bundle.version else current.version
    found = {"tracking": tracking, "name": name, "version": bundle.version, "champion": champion}
    replace_file(into / "fetched.json", json.dumps(found).encode())


def _promote(tracking: str, name: str, version: str) -> None:
    from holdfast import registry

    registry.promote(tracking, name, int(version))


_ERRANDS: dict[str, Callable[..., None]] = {"fetch": _fetch, "promote": _promote}

if __name__ == "__main__":
    try:
        _ERRANDS[sys.argv[1]](*sys.argv[2:])
    except HoldfastError as error:
        sys.stderr.write(f"\n{type(error).__name__}: {' '.join(str(error).splitlines())}\n")
        sys.exit(error.exit_code)
