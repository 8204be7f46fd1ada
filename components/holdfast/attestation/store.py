"""Where bundles lie: `attestations/DIGEST.jsonl` next to the artifacts of a run, one bundle per line.

Never inside an artifact's folder, where every file is pinned. The lines protect themselves: whoever can write here can
take statements away, which a verifier notices, and add none that count.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from holdfast.artifacts.folder import read_bounded, replace_file
from holdfast.attestation.envelope import MAX_BUNDLE_BYTES, read_bundle
from holdfast.attestation.statement import parse_statement
from holdfast.errors import HoldfastError, IntegrityError

ATTESTATIONS = "attestations"
"""The folder in a run folder, and in a registered version."""
MAX_FILES = 10_000
MAX_FILE_BYTES = 16 * 2**20
_NAME = re.compile(r"[0-9a-f]{64}\.jsonl")


def keep(folder: Path, bundle: bytes) -> Path:
    """Adds a bundle to those about the same subject; one that is there already is not added again."""
    found = read_bundle(bundle, "a bundle")
    path = folder / f"{parse_statement(found.payload, 'a bundle').digest}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    lines = _lines(path) if path.exists() else []
    if bundle not in lines:
        replace_file(path, b"".join(line + b"\n" for line in (*lines, bundle)))
    return path


def read_all(folder: Path) -> dict[str, list[bytes]]:
    """Digest of the subject, by the name of the file -> the bundles in it; empty where there is no such folder.

    Raises:
        IntegrityError: more than `MAX_FILES` files, or one that is larger than `MAX_FILE_BYTES`.
        ArtifactError: a file that cannot be read.
    """
    if not folder.is_dir():
        return {}
    paths = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    if len(paths) > MAX_FILES:
        raise IntegrityError(f"{folder}: expected at most {MAX_FILES} files, found {len(paths)}")
    return {path.stem: _lines(path) for path in paths}


def copy_of(bundles: Mapping[str, Iterable[bytes]], into: Path) -> None:
    """Writes bundles, by the digest of their subject, into a folder that is new; none makes no folder."""
    if bundles:
        into.mkdir(parents=True)
    for digest, found in sorted(bundles.items()):
        (into / f"{digest}.jsonl").write_bytes(b"".join(line + b"\n" for line in found))


def by_subject(bundles: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Bundles by the digest of what they claim to be about, not verified; what is no bundle is left out."""
    found: dict[str, list[bytes]] = {}
    for bundle in bundles:
        with contextlib.suppress(HoldfastError):
            digest = parse_statement(read_bundle(bundle, "a bundle").payload, "a bundle").digest
            found.setdefault(digest, []).append(bundle)
    return found


def _lines(path: Path) -> list[bytes]:
    data = read_bounded(path, MAX_FILE_BYTES, "bundles")
    return [line[: MAX_BUNDLE_BYTES + 1] for line in data.split(b"\n") if line.strip()]
