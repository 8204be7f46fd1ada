"""Versions of a model and the aliases that name them: find, download, promote."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.artifacts.documents import Verdict
from holdfast.artifacts.policies import PolicyList
from holdfast.attestation.demands import Demands, keep_tags
from holdfast.errors import InputError, RefusedError, RegistryError
from holdfast.registry.bundle import BUNDLE, DECISION, Bundle, bundle_in, check_package, read_bundle
from holdfast.registry.client import connected, exists, or_none, public
from holdfast.registry.notes import notes_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CANDIDATE, PREVIOUS = "champion", "candidate", "previous"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>[0-9]{1,9}))")
DECIDED = "holdfast.decided"
"""Tag: when (Unix milliseconds) a version was registered again with the same decision."""


@dataclass(frozen=True)
class Registered:
    """The version and the run that a model has in MLflow."""

    version: int
    run_id: str


@dataclass(frozen=True)
class Version:
    """A registered version without its bytes."""

    number: int
    decided: float
    """Unix seconds: when it was registered, or registered again with the same decision."""
    tags: Mapping[str, str]
    aliases: tuple[str, ...]


def named(uri: str) -> tuple[str, int | str]:
    """The model's name, and the number or the alias, in `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Raises:
        InputError: it is written otherwise.
    """
    asked = _URI.fullmatch(uri)
    if asked is None:
        raise InputError(f"expected models:/NAME@ALIAS or models:/NAME/VERSION, found {uri[:100]!r}")
    return asked["name"], asked["alias"] or int(asked["version"])


def fetch(
    tracking: str,
    name: str,
    version: int | str,
    into: Path,
    demands: Demands | None = None,
    policies: PolicyList | None = None,
) -> Bundle | None:
    """Downloads a version (its number or an alias) to the folder `into`, verified; None when there is no such version.

    `policies` are those whose verdicts count; left out, those of the demands, or the ones that ship.

    Raises:
        RegistryError: MLflow cannot be reached.
        IntegrityError: bytes are not those that were registered, or the tags that pin them are gone.
        RefusedError: no passing decision about these very bytes by a policy that counts, or a signature that is
            demanded is not there.
    """
    if not exists(tracking):
        return None
    into.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{into.name}.", suffix=".partial", dir=into.parent))
    try:
        with connected(tracking) as client:
            found = _version(client, name, version)
            if found is None:
                return None
            _download(client, name, int(found.version), work)
        check_package(work, name, int(found.version), found.tags)
        counted = policies or (demands or Demands()).policies
        read_bundle(bundle_in(work, name), name, int(found.version), tags=found.tags, demands=demands, policies=counted)
        if into.exists():
            shutil.rmtree(into)
        bundle_in(work, name).rename(into)
        keep_tags(into, found.tags)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return read_bundle(into, name, int(found.version), tags=found.tags)


@contextmanager
def fetched(
    tracking: str,
    name: str,
    version: int | str,
    demands: Demands | None = None,
    policies: PolicyList | None = None,
) -> Iterator[Bundle | None]:
    """As `fetch`, into a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="holdfast-version-") as folder:
        yield fetch(tracking, name, version, Path(folder) / BUNDLE, demands, policies)


def aliases(tracking: str, name: str) -> dict[str, int]:
    """Alias -> version; empty when nothing of that name is registered."""
    if not exists(tracking):
        return {}
    with connected(tracking) as client:
        return aliases_of(client, name)


def versions(tracking: str, name: str) -> tuple[Version, ...]:
    """Every version of model `name`, oldest first; empty when nothing of that name is registered.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    if not exists(tracking):
        return ()
    with connected(tracking) as client:
        now = aliases_of(client, name)
        found = [_plain(version, now) for version in _every_version(client, name)]
    return tuple(sorted(found, key=lambda version: version.number))


def tag(tracking: str, name: str, version: int, key: str, value: str) -> bool:
    """Sets one tag of a version; False when there is no such version.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    if not exists(tracking):
        raise RegistryError(f"{public(tracking)}: expected MLflow to answer, found no database")
    with connected(tracking) as client:
        if _version(client, name, version) is None:
            return False
        client.set_model_version_tag(name, str(version), key, value)
        return True


def set_alias(tracking: str, name: str, alias: str, version: int) -> None:
    """Points `alias` at `version`."""
    with connected(tracking) as client:
        client.set_registered_model_alias(name, alias, str(version))


def promote(tracking: str, name: str, version: int) -> None:
    """The champion becomes `previous`, `version` the champion and no longer candidate; doing it twice changes nothing.

    Raises:
        RefusedError: there is no such version, or its verdict is not pass.
    """
    with connected(tracking) as client:
        found = _version(client, name, version)
        verdict = found.tags.get("holdfast.verdict") if found is not None else None
        if verdict != Verdict.PASS:
            raise RefusedError(f"{name} version {version}: expected the verdict pass, found {verdict or 'no version'}")
        now = aliases_of(client, name)
        # Each order of these three calls that a crash can leave is repaired by running them again.
        if now.get(CHAMPION) not in (None, version):
            client.set_registered_model_alias(name, PREVIOUS, str(now[CHAMPION]))
        if now.get(CHAMPION) != version:
            client.set_registered_model_alias(name, CHAMPION, str(version))
        if now.get(CANDIDATE) == version:
            client.delete_registered_model_alias(name, CANDIDATE)


def take_back(tracking: str, name: str, version: int, previous: int) -> None:
    """The version `previous` becomes the champion in place of `version`, and nothing is `previous`; twice is once.

    Raises:
        RefusedError: there is no such version, its verdict is not pass, or another version is the champion by now.
    """
    with connected(tracking) as client:
        found = _version(client, name, previous)
        verdict = found.tags.get("holdfast.verdict") if found is not None else None
        now = aliases_of(client, name).get(CHAMPION)
        if verdict != Verdict.PASS or now not in (version, previous):
            raise RefusedError(
                f"{name}: cannot go back from version {version} to {previous}: the champion is {now}, the verdict on "
                f"version {previous} {verdict or 'unknown'}"
            )
        client.set_registered_model_alias(name, CHAMPION, str(previous))
        if aliases_of(client, name).get(PREVIOUS) == previous:
            client.delete_registered_model_alias(name, PREVIOUS)


def find(tracking: str, name: str, model_digest: str, *, decision: str | None = None) -> Registered | None:
    """The complete version of exactly this model, if it was registered.

    With the digest of a `decision`: not one that was rolled back under another one.
    """
    if not exists(tracking):
        return None
    with connected(tracking) as client:
        versions = versions_of(client, name, model_digest, decision)
        return Registered(int(versions[0].version), str(versions[0].run_id)) if versions else None


def metrics(tracking: str, run_id: str) -> dict[str, float]:
    """The last value of each metric of a run; empty when there is no such run.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    with connected(tracking) as client:
        run = or_none(lambda: client.get_run(run_id))
        return {} if run is None else dict(run.data.metrics)


def aliases_of(client: "MlflowClient", name: str) -> dict[str, int]:
    """Alias -> version, asked of a client."""
    model = or_none(lambda: client.get_registered_model(name))
    return {} if model is None else {alias: int(version) for alias, version in model.aliases.items()}


def versions_of(client: "MlflowClient", name: str, model_digest: str, decision: str | None) -> list[Any]:
    """Complete versions of this model, oldest first; incomplete ones are removed.

    With a `decision`, not those that were rolled back under another one: the new decision needs a version of its own.
    """
    ready = []
    for version in _every_version(client, name):
        if version.tags.get("holdfast.model_digest") != model_digest:
            continue
        if version.status != "READY":
            client.delete_model_version(name, str(version.version))
        elif decision in (None, version.tags.get(DECISION)) or not _failed_by_its_own_fault(version):
            ready.append(version)
    return sorted(ready, key=lambda version: int(version.version))


def _version(client: "MlflowClient", name: str, version: int | str) -> Any:
    number = aliases_of(client, name).get(version) if isinstance(version, str) else version
    if number is None:
        return None
    return or_none(lambda: client.get_model_version(name, str(number)))


def _failed_by_its_own_fault(version: Any) -> bool:
    return any(note.counts_against_model for note in notes_of(int(version.version), version.tags))


def _every_version(client: "MlflowClient", name: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _plain(version: Any, aliases: Mapping[str, int]) -> Version:
    number, tags = int(version.version), dict(version.tags)
    again = tags.get(DECIDED, "")
    decided = max(int(version.creation_timestamp), int(again) if again.isdecimal() else 0) / 1000
    return Version(number, decided, tags, tuple(sorted(alias for alias, at in aliases.items() if at == number)))


def _download(client: "MlflowClient", name: str, version: int, into: Path) -> None:
    import mlflow

    source = client.get_model_version_download_uri(name, str(version))
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".download.") as folder:
        got = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder))
        shutil.copytree(got, into, dirs_exist_ok=True, symlinks=True)
