"""An artifact on disk: a folder with `artifact.json`, written last and by rename, and the files that it pins.

A folder with a document is complete. Files are checked against their digests when they are read, not only when they
were written: one flipped bit in a Parquet file goes unnoticed by three readers of four.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Generic, TypeVar

from pydantic import ValidationError

from holdfast.artifacts.documents import ANY, AnyDocument, Document, FilePin
from holdfast.artifacts.regular import open_regular, read_at_most
from holdfast.artifacts.verified import IN_MEMORY, VerifiedFile
from holdfast.errors import ArtifactError, IntegrityError

DOCUMENT = "artifact.json"
MAX_DOCUMENT_BYTES = 16 * 2**20
MAX_VALUES, MAX_FILES = 1_000_000, 10_000
"""Values in a document, and files that it pins."""
MAX_FILE_BYTES = 8 * 2**30
"""One file of an artifact, when it is pinned and when it is read."""
_BUFFER_BYTES = 2**20
_SHOWN_ERRORS = 1_000

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Ref:
    """Where an artifact lies, and the digest that it must have when the caller knows it."""

    folder: Path
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """Reads `FOLDER` or `FOLDER@DIGEST` (64 hexadecimal digits)."""
        folder, at, digest = text.rpartition("@")
        if at and re.fullmatch(r"[0-9a-f]{64}", digest):
            return cls(Path(folder), digest)
        return cls(Path(text))


@dataclass(frozen=True)
class Artifact(Generic[D]):
    """A document that was read and checked, with its folder and its digest."""

    folder: Path
    document: D
    digest: str

    def path(self, name: str) -> Path:
        """The path of the pinned file `name`, after its bytes were hashed and found to be the pinned ones.

        Raises:
            ArtifactError: nothing of that name is pinned.
            IntegrityError: the file is missing or its bytes are others.
        """
        pin = self._pin(name)
        path = self.folder / name
        found = sha256_of(path)
        if found != pin:
            raise IntegrityError(
                f"{path}: expected sha256 {pin.sha256[:12]}… ({pin.bytes} bytes), "
                f"found {found.sha256[:12]}… ({found.bytes} bytes); the file was altered after the artifact was written"
            )
        return path

    def open(self, name: str) -> io.BytesIO:
        """The bytes of the pinned file `name`; what is returned is what was hashed."""
        pin = self._pin(name)
        data = read_bounded(self.folder / name, pin.bytes)
        if (hashlib.sha256(data).hexdigest(), len(data)) != (pin.sha256, pin.bytes):
            raise IntegrityError(
                f"{self.folder / name}: expected sha256 {pin.sha256[:12]}… ({pin.bytes} bytes), found other bytes "
                f"({len(data)}); the file was altered after the artifact was written"
            )
        return io.BytesIO(data)

    def stream(self, name: str) -> IO[bytes]:
        """As `open`; a large file stays on disk, and each block that is read is compared with what was hashed."""
        pin = self._pin(name)
        if pin.bytes <= IN_MEMORY:
            return self.open(name)
        path = self.folder / name
        with open_regular(path, error=IntegrityError) as source:
            file = VerifiedFile.hashed(source.fileno(), str(path), most=pin.bytes)
        if (file.sha256, len(file)) != (pin.sha256, pin.bytes):
            raise IntegrityError(
                f"{path}: expected sha256 {pin.sha256[:12]}… ({pin.bytes} bytes), found other bytes; the file was "
                "altered after the artifact was written"
            )
        return file.open()

    def _pin(self, name: str) -> FilePin:
        if name not in self.document.files:
            raise ArtifactError(f"{self.folder}: expected a pinned file {name}, found {sorted(self.document.files)}")
        return self.document.files[name]


def canonical_json(document: Document) -> bytes:
    """The bytes of a document: sorted keys, no spaces, UTF-8, one newline at the end."""
    value = document.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def sha256_of(path: Path) -> FilePin:
    """Streams a regular file once; symbolic links and special files are refused.

    Raises:
        IntegrityError: the file is missing, is not a regular file, or is larger than any file of an artifact may be.
    """
    with open_regular(path, error=IntegrityError) as stream:
        about = os.fstat(stream.fileno())
        if about.st_size > MAX_FILE_BYTES:
            raise IntegrityError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, found {about.st_size}")
        digest, total = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
            total += count
    return FilePin(sha256=digest.hexdigest(), bytes=total)


@contextmanager
def write_artifact(out: Path) -> Iterator[Path]:
    """Gives an empty folder next to `out` to write files into; it becomes `out` when `seal` was called in it.

    An interrupted or failed step leaves no `out`. What an earlier interrupted step left is swept first.
    """
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield work
        if not (work / DOCUMENT).exists():
            raise ArtifactError(f"{out}: the step ended without sealing its artifact")
        work.chmod(_allowed(0o777))
        if out.exists():
            shutil.rmtree(out)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_place(out: Path) -> None:
    """An artifact may be written to `out`: nothing is there, an empty folder, or an artifact, which is replaced.

    Raises:
        ArtifactError: otherwise.
    """
    blocked = next((place for place in (out, *out.parents) if place.exists() and not place.is_dir()), None)
    if blocked is not None:
        raise ArtifactError(f"{blocked}: expected a folder for the artifact, found a file; choose another --out")
    if out.is_dir() and not (out / DOCUMENT).exists() and any(out.iterdir()):
        raise ArtifactError(f"{out}: expected an artifact or an empty folder, found other files; choose another --out")


def seal(work: Path, document: D) -> Artifact[D]:
    """Pins every file in `work` into `document` and writes the document last."""
    files = {
        path.relative_to(work).as_posix(): sha256_of(path)
        for path in sorted(work.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    pinned = type(document).model_validate(
        {**document.model_dump(), "files": {k: v.model_dump() for k, v in files.items()}}
    )
    data = canonical_json(pinned)
    replace_file(work / DOCUMENT, data)
    return Artifact(work, pinned, hashlib.sha256(data).hexdigest())


def save(out: Path, document: D, files: Mapping[str, bytes] | None = None) -> Artifact[D]:
    """Writes an artifact whose files are already in memory."""
    with write_artifact(out) as work:
        for name, data in (files or {}).items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(data)
        sealed = seal(work, document)
    return Artifact(out, sealed.document, sealed.digest)


def load(ref: Ref | Path, kind: type[D]) -> Artifact[D]:
    """Reads and checks the document of the artifact at `ref`; its files are checked when they are opened.

    Raises:
        ArtifactError: no document, an unreadable one, or one of another kind.
        IntegrityError: its digest is not the one that `ref` asks for.
    """
    artifact = load_any(ref)
    if not isinstance(artifact.document, kind):
        wanted = kind.model_fields["kind"].default
        raise ArtifactError(f"{artifact.folder}: expected a {wanted}, found a {artifact.document.kind}")
    return Artifact(artifact.folder, artifact.document, artifact.digest)


def load_any(ref: Ref | Path) -> Artifact[AnyDocument]:
    """As `load`, for any kind of document."""
    ref = ref if isinstance(ref, Ref) else Ref(ref)
    path = ref.folder / DOCUMENT
    data = read_bounded(path, MAX_DOCUMENT_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if ref.digest is not None and digest != ref.digest:
        raise IntegrityError(f"{path}: expected artifact {ref.digest[:12]}…, found {digest[:12]}…")
    if data.count(b",") > MAX_VALUES:
        raise ArtifactError(f"{path}: expected a document of at most {MAX_VALUES} values, found more")
    try:
        document = ANY.validate_python(strict_json(data, str(path)))
    except ValidationError as error:
        raise ArtifactError(f"{path}: expected a Holdfast document, found {_first(error)}") from None
    if len(document.files) > MAX_FILES:
        raise ArtifactError(f"{path}: expected at most {MAX_FILES} files, found {len(document.files)}")
    for name, pin in document.files.items():
        _check_name(name, path)
        if pin.bytes > MAX_FILE_BYTES:
            raise ArtifactError(f"{path}: expected files of at most {MAX_FILE_BYTES} bytes, found {name}: {pin.bytes}")
    return Artifact(ref.folder, document, digest)


def _first(error: ValidationError) -> str:
    if error.error_count() > _SHOWN_ERRORS:  # each takes a kilobyte
        return f"{error.error_count()} values that are none"
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{first['msg']} at {where or 'the top'}"


def replace_file(path: Path, data: bytes, *, sync: bool = True, private: bool = False) -> None:
    """Writes `path` so that a reader sees the old bytes or the new ones: temporary file, fsync, rename.

    Without `sync` it is quick, and what was written last may be lost when the machine fails. What is private, such as
    an address with a password, only its owner reads; everything else, whom the process's umask allows.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), 0o600 if private else _allowed(0o666))
            if sync:
                os.fsync(stream.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes a file that is not there yet, complete at once; of two processes the first one wins.

    Raises:
        FileExistsError: it is there.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        path.hardlink_to(name)
    finally:
        Path(name).unlink()


def _allowed(mode: int) -> int:
    """The mode that a new file would get: without the bits of the process's umask."""
    mask = os.umask(0o077)  # it can only be read by setting it; what another thread makes meanwhile is stricter
    os.umask(mask)
    return mode & ~mask


def read_bounded(path: Path, limit: int, wanted: str = "a file of an artifact") -> bytes:
    """The bytes of a regular file; messages call it what was `wanted`.

    Raises:
        ArtifactError: there is none that can be read.
        IntegrityError: it has more than `limit` bytes, of which none is read.
    """
    return read_at_most(path, limit, wanted, error=ArtifactError, too_large=IntegrityError)


def strict_json(data: bytes, name: str) -> object:
    """The value of a JSON text, `name` in messages; a key that is given twice is an error.

    Raises:
        ArtifactError: not JSON.
    """
    try:
        return json.loads(data, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name}: expected a JSON document, found {error}") from None


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key that is given twice")
    return dict(pairs)


def _check_name(name: str, path: Path) -> None:
    pure = PurePosixPath(name)
    if (
        not pure.parts
        or pure.is_absolute()
        or ".." in pure.parts
        or name != pure.as_posix()
        or "\\" in name
        or "\0" in name
    ):
        raise ArtifactError(f"{path}: expected relative file names, found {name!r}")
