"""Where bundles lie: `attestations/DIGEST.jsonl` next to the artifacts of a run, one bundle per line.

Never inside an artifact's folder, where every file is pinned. The lines protect themselves: whoever can write here can
take statements away, which a verifier notices, and add none that count.
"""

import contextlib
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from holdfast.artifacts.folder import read_bounded, replace_file
from holdfast.attestation.envelope import read_bundle
from holdfast.attestation.statement import parse_statement
from holdfast.errors import HoldfastError, IntegrityError

ATTESTATIONS = "attestations"
"""The folder in a run folder, and in a registered version."""
MAX_FILES, MAX_LINES = 1_000, 1_000
"""Subjects in a folder, and bundles about one of them."""
MAX_FILE_BYTES, MAX_BYTES = 4 * 2**20, 64 * 2**20
"""Of one file, and of all."""
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
        IntegrityError: more files, lines or bytes than the limits above.
        ArtifactError: a file that cannot be read.
    """
    if not folder.is_dir():
        return {}
    paths = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    if len(paths) > MAX_FILES:
        raise IntegrityError(f"{folder}: expected at most {MAX_FILES} files, found {len(paths)}")
    found, total = {}, 0
    for path in paths:
        found[path.stem] = _lines(path)
        total += sum(map(len, found[path.stem]))
        if total > MAX_BYTES:
            raise IntegrityError(f"{folder}: expected at most {MAX_BYTES} bytes of bundles, found more")
    return found


def copy_of(bundles: Mapping[str, Iterable[bytes]], into: Path) -> None:
    """Writes bundles, by the digest of their subject, into a folder that is new; none makes no folder."""
    if bundles:
        into.mkdir(parents=True)
    for digest, found in sorted(bundles.items()):
        (into / f"{digest}.jsonl").write_bytes(b"".join(line + b"\n" for line in found))


def replace_all(bundles: Mapping[str, Iterable[bytes]], into: Path) -> None:
    """The same into a folder that may be there already: what was in it is gone."""
    shutil.rmtree(into, ignore_errors=True)
    copy_of(bundles, into)


def by_subject(bundles: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Bundles by the digest of what they claim to be about, not verified; what is no bundle is left out."""
    found: dict[str, list[bytes]] = {}
    for bundle in bundles:
        with contextlib.suppress(HoldfastError):
            digest = parse_statement(read_bundle(bundle, "a bundle").payload, "a bundle").digest
            found.setdefault(digest, []).append(bundle)
    return found


def _lines(path: Path) -> list[bytes]:
    lines = [line for line in read_bounded(path, MAX_FILE_BYTES, "bundles").split(b"\n") if line.strip()]
    if len(lines) > MAX_LINES:
        raise IntegrityError(f"{path}: expected at most {MAX_LINES} bundles, found {len(lines)}")
    return lines
