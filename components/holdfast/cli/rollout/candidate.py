"""`holdfast rollout next`: rolls out the version that is registered as candidate and approved, where there is one."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import Tracking, TrustFileOption
from holdfast.progress import say
from holdfast.serving.rollout.command import DriverName, ModelName, PlanOption

if TYPE_CHECKING:
    from holdfast.registry import Version
    from holdfast.serving.store import StoredBundle

DIGEST = "{digest}"
"""In a target file: the digest of the candidate's model."""


@dataclass(frozen=True)
class WantedRollout:
    """A model whose candidate is to be rolled out, and what must be there first."""

    tracking: str
    name: str
    approvals: int
    trust: Path | None


def start_next(
    name: ModelName,
    target: Annotated[Path, typer.Option(help=f"The target file; {DIGEST} in it is the digest of the candidate.")],
    driver: DriverName,
    tracking: Tracking,
    out: Annotated[Path, typer.Option(help="Folder of the records; each becomes OUT/NAME-VERSION.")],
    store: Annotated[Path, typer.Option(help="Store that the bundle is copied to first, as by `holdfast bundle`.")],
    config: PlanOption = "{}",
    approvals: Annotated[int, typer.Option(help="So many people must have approved it (with --trust).", min=0)] = 1,
    trust: TrustFileOption = None,
    values: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="{KEY} in the target file becomes VALUE.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Start the rollout of the approved candidate on a cluster, or go on with it; nothing to do is exit code 0.

    A candidate whose rollout ended is not started again by this command, but by `holdfast rollout start`.
    """
    if approvals and trust is None:
        raise typer.BadParameter("expected --trust, by which approvals count, or 0", param_hint="--approvals")
    stored = _stored(WantedRollout(tracking, name, approvals, trust), store)
    if stored is None:
        return
    record = out / f"{name}-{stored.version}"
    texts = {**_pairs(values), DIGEST: stored.digest}
    target_file = _filled(target, texts, record.with_name(f"{record.name}.target.yaml"))
    command = [
        *("rollout", "start", f"--name={name}", f"--version={stored.version}", f"--driver={driver}"),
        *(f"--target={target_file}", f"--tracking={tracking}", f"--out={record}", f"--config={config}"),
        *([] if trust is None else [f"--trust={trust}"]),
    ]
    # MLflow is in this process; the one that drives is to be small.
    os.execv(sys.executable, [sys.executable, "-m", "holdfast", *command])


def _stored(wanted: WantedRollout, store: Path) -> "StoredBundle | None":
    """The candidate, in the store; None where none is to be rolled out now."""
    from holdfast.attestation.demands import Demands
    from holdfast.serving.store import put

    version = _candidate(wanted)
    if version is None:
        return None
    stored = put(wanted.tracking, wanted.name, version.number, store, Demands.of(wanted.trust))
    say(f"rollout: {wanted.name} version {stored.version} is in {stored.folder}")
    return stored


def _candidate(wanted: WantedRollout) -> "Version | None":
    from holdfast import registry

    versions = registry.versions(wanted.tracking, wanted.name)
    found = [one for one in versions if registry.CANDIDATE in one.aliases]
    why = _objection(found[0], wanted) if found else "no version is a candidate"
    if why is None and any(registry.CHAMPION in one.aliases for one in versions):
        return found[0]
    why = why or "there is no champion yet; `holdfast bundle --first` makes the first version one"
    say(f"rollout: {wanted.name}: nothing to do: {why}")
    return None


def _objection(version: "Version", wanted: WantedRollout) -> str | None:
    """The reason not to roll a candidate out now."""
    from holdfast.registry.notes import notes_of

    decision = version.tags.get("holdfast.decision_digest")
    ended = [note for note in notes_of(version.number, version.tags) if note.decision == decision]
    if ended:
        last = ended[-1]
        return f"the rollout of version {version.number} has ended ({last.outcome}: {last.reason})"
    signed = _approvals(version.number, wanted) if wanted.approvals else 0
    if signed < wanted.approvals:
        return f"version {version.number} has {signed} of {wanted.approvals} approvals; see `holdfast approve`"
    return None


def _approvals(version: int, wanted: WantedRollout) -> int:
    """The number of people who approved a version and whose signatures count."""
    from holdfast.attestation.trust import read_trust
    from holdfast.registry.approvals import list_approvals

    assert wanted.trust is not None
    listed = list_approvals(wanted.tracking, wanted.name, version, read_trust(wanted.trust), datetime.now(UTC))
    return len({one.key for one in listed if one.state == "signed"})


def _pairs(given: list[str]) -> dict[str, str]:
    """`{KEY}` -> VALUE."""
    pairs = [one.partition("=") for one in given]
    if not all(key.isidentifier() and equals for key, equals, _ in pairs):
        raise typer.BadParameter(f"expected KEY=VALUE, found {given}", param_hint="--set")
    return {f"{{{key}}}": value for key, _, value in pairs}


def _filled(target: Path, texts: Mapping[str, str], into: Path) -> Path:
    """Writes the target file of one candidate."""
    from holdfast.artifacts.folder import read_bounded, replace_file
    from holdfast.errors import WorkloadError

    text = read_bounded(target, 2**20, "a target file").decode()
    if DIGEST not in text:
        raise WorkloadError(f"{target}: expected {DIGEST} in the candidate's address, found none")
    for key, value in texts.items():
        text = text.replace(key, value)
    into.parent.mkdir(parents=True, exist_ok=True)
    replace_file(into, text.encode())
    return into
