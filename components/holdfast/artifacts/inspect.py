"""Artifacts for people: what one holds, and whether it and everything it was made from still have their bytes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from holdfast.artifacts.documents import AnyDocument, Count, Document, Verdict
from holdfast.artifacts.folder import DOCUMENT, Artifact, load_any, sha256_of
from holdfast.errors import ArtifactError

MAX_FOLDERS = 10_000
SHOWN = 12


@dataclass(frozen=True)
class Finding:
    """One line of `holdfast verify`."""

    state: Literal["ok", "altered", "added", "missing", "refused"]
    role: str
    detail: str


def verdict_of(document: Document) -> str:
    """The document's own verdict; "pass" for one that judges nothing (the step that wrote it has finished)."""
    return str(getattr(document, "verdict", Verdict.PASS))


def summary(artifact: Artifact[AnyDocument]) -> str:
    """A document as lines for a person: counts with their share, long lists cut."""
    document = artifact.document
    skipped = {"version", "kind", "files", "inputs"}
    lines = [f"{document.kind}  {artifact.digest}", f"  folder: {artifact.folder}"]
    lines += [f"  {line}" for name, value in document if name not in skipped for line in _lines(name, value)]
    lines += [f"  made from {role}: {digest}" for role, digest in sorted(document.inputs.items())]
    lines += [f"  file {name}: {pin.bytes} bytes, sha256 {pin.sha256[:16]}…" for name, pin in document.files.items()]
    return "\n".join(lines)


def verify_chain(folder: Path, search: Path) -> list[Finding]:
    """Checks the artifact in `folder`, its files, and every input that is found below `search`, back to the data.

    An input that is not found is reported as missing: it was not checked, which is not the same as altered. A file in
    an artifact's folder that its document does not pin is reported as added: no step wrote it.
    """
    known = {digest: found for found in artifacts_below(search) if (digest := _digest(found)) is not None}
    findings: list[Finding] = []
    seen: set[str] = set()
    queue: list[tuple[str, Path, str | None]] = [("artifact", folder, None)]
    while queue:
        role, place, wanted = queue.pop(0)
        try:
            artifact = load_any(place)
        except ArtifactError as error:
            findings.append(Finding("altered", role, str(error)))
            continue
        if artifact.digest in seen:
            continue
        seen.add(artifact.digest)
        findings.append(Finding("ok", role, f"{artifact.document.kind} {artifact.digest[:16]}… in {place}"))
        findings += _check_files(artifact, role)
        findings += _added(artifact, role)
        for name, digest in sorted(artifact.document.inputs.items()):
            if digest in known:
                queue.append((f"{role} < {name}" if role != "artifact" else name, known[digest], digest))
            elif digest not in seen:
                findings.append(Finding("missing", name, f"{digest[:16]}… is not below {search}"))
    return findings


def _check_files(artifact: Artifact[AnyDocument], role: str) -> Iterator[Finding]:
    for name, pin in artifact.document.files.items():
        try:
            found = sha256_of(artifact.folder / name)
        except ArtifactError as error:
            yield Finding("altered", f"{role}/{name}", str(error))
            continue
        if found != pin:
            yield Finding("altered", f"{role}/{name}", f"expected {pin.sha256[:16]}…, found {found.sha256[:16]}…")
        else:
            yield Finding("ok", f"{role}/{name}", f"{pin.bytes} bytes")


def _added(artifact: Artifact[AnyDocument], role: str) -> Iterator[Finding]:
    pinned = {DOCUMENT, *artifact.document.files}
    folders = {parent.as_posix() for name in pinned for parent in Path(name).parents}
    for number, path in enumerate(sorted(artifact.folder.rglob("*"))):
        name = path.relative_to(artifact.folder).as_posix()
        known = name in folders if path.is_dir() and not path.is_symlink() else name in pinned
        if not known:
            yield Finding("added", f"{role}/{name}", "is not pinned by artifact.json")
        if number >= MAX_FOLDERS:
            yield Finding("added", role, f"more than {MAX_FOLDERS} files")
            return


def artifacts_below(search: Path) -> Iterator[Path]:
    """The folders with a document below `search`, at most `MAX_FOLDERS`."""
    for number, path in enumerate(search.rglob(DOCUMENT)):
        if number >= MAX_FOLDERS:
            return
        yield path.parent


def _digest(folder: Path) -> str | None:
    try:
        return sha256_of(folder / DOCUMENT).sha256
    except ArtifactError:
        return None


def _lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        yield f"{name}:"
        yield from (f"  - {_short(item)}" for item in value[:SHOWN])
        if len(value) > SHOWN:
            yield f"  … {len(value) - SHOWN} more"
    else:
        yield f"{name}: {_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, Count):
        return f"{value.k} of {value.n} ({value.share:.1%})"
    if isinstance(value, BaseModel):
        return ", ".join(f"{name} {_short(item)}" for name, item in value)
    if isinstance(value, tuple):
        cut = ", ".join(_short(item) for item in value[:SHOWN])
        return f"[{cut}{', …' if len(value) > SHOWN else ''}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
