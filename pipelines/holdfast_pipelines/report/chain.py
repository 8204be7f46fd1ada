"""The section on the chain of digests that ties a run to bytes, and on who signed them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import Artifact
from holdfast.attestation import store
from holdfast.attestation.envelope import read_bundle
from holdfast.attestation.statement import VERDICT, parse_statement
from holdfast.errors import ArtifactError
from holdfast.rendering.blocks import BlockCell, Facts, PageLocation, PageSection, Prose, TableBlock, code
from holdfast.rendering.numbers import short
from holdfast_pipelines.report.evidence import KINDS, LoadedRun

Bundles = Mapping[str, Iterable[bytes]]
_PINNED = (
    "Each artifact pins its files and its inputs by SHA-256. What is shown here was checked when it was read; the "
    "command checks everything, back to the data."
)
_SIGNED = (
    " The keys are those that the statements name; whether the signatures hold, and whether these keys may sign, is "
    "what the command finds out with your trust policy."
)


def chain(run: LoadedRun, place: PageLocation) -> PageSection:
    """The digests of every artifact and of what it was made from, and the keys that signed about them."""
    known = {artifact.digest: step for step, artifact in run.artifacts.items()}
    bundles = _bundles(run)
    head: tuple[str, ...] = ("step", "artifact (sha256 of artifact.json)", "made from")
    rows = [_row(step, artifact, known) for step, artifact in run.artifacts.items()]
    if bundles:
        head = (*head, "signed with key")
        rows = [(*row, _keys(one.digest, bundles)) for row, one in zip(rows, run.artifacts.values(), strict=True)]
    asked = f"holdfast verify {place.path(run.folder if bundles else _last(run))}"
    command = code(f"{asked} --trust trust.yaml" if bundles else asked)
    words = Prose(_PINNED + _SIGNED if bundles else _PINNED)
    facts = Facts((("how to verify, from this page's folder", command),))
    return PageSection("chain", "Chain of evidence", (words, facts, TableBlock(head, tuple(rows))))


def _bundles(run: LoadedRun) -> Bundles:
    """What was signed about the run's artifacts, not verified; nothing where it cannot be read."""
    try:
        return store.read_all(run.folder / store.ATTESTATIONS)
    except ArtifactError:
        return {}


def _keys(digest: str, bundles: Bundles) -> BlockCell:
    """The keys that statements about an artifact name."""
    return ", ".join(sorted({_key(one) for one in bundles.get(digest, ())})) or "not signed"


def _key(bundle: bytes) -> str:
    try:
        signed = read_bundle(bundle, "a bundle")
        kind = parse_statement(signed.payload, "a bundle").predicateType
    except ArtifactError:
        return "a bundle that cannot be read"
    return f"{short(signed.hint)}{' (the verdict)' if kind == VERDICT else ''}"


def _row(step: str, artifact: Artifact[Any], known: Mapping[str, str]) -> tuple[BlockCell, ...]:
    inputs = [
        f"{role} {short(digest)}{_from(role, known.get(digest))}"
        for role, digest in sorted(artifact.document.inputs.items())
    ]
    return step, code(artifact.digest), ", ".join(inputs) or "–"


def _from(role: str, step: str | None) -> str:
    return "" if step is None or step == role else f" ({step})"


def _last(run: LoadedRun) -> Path:
    """The folder of the last artifact."""
    done = [step for step in KINDS if step in run.artifacts]
    return run.artifacts[done[-1]].folder if done else run.folder
