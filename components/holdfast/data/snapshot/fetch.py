"""The files of a delivery, from the address in a workload."""

import os
import unicodedata
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from holdfast.artifacts.regular import open_regular
from holdfast.artifacts.verified import IN_MEMORY, FileContent, VerifiedFile
from holdfast.data.snapshot import bundled
from holdfast.data.snapshot.delivered import DeliveredFile, Format, delivered, pin_of
from holdfast.data.snapshot.download import Wanted, download
from holdfast.data.snapshot.listing import quoted
from holdfast.data.snapshot.sources.query import take_query
from holdfast.data.snapshot.sources.take import take_newest, take_object
from holdfast.errors import InputError, IntegrityError, LimitError
from holdfast.wording import without_credentials
from holdfast.workload.addresses import kind_of
from holdfast.workload.schema import DataConfig

_BUNDLED: dict[str, Format] = {"sklearn:digits": "digits", "sklearn:breast-cancer": "breast-cancer"}


def fetch(config: DataConfig, override: Path | None) -> list[DeliveredFile]:
    """The file of the training rows and, where there is one, that of the held-out rows; `override` instead of a source.

    Raises:
        InputError: a file cannot be read, or its name does not show how it is written.
        LimitError: a file is larger than `data.max_bytes`.
        IntegrityError: the first file has not the digest that the workload promises.
    """
    if override is None and config.source in bundled.FILES:
        data = _bundled_bytes(config.source, config.max_bytes)
        return [DeliveredFile(config.source, data, _BUNDLED[config.source], pin_of(config.source, data))]
    if override is None and config.source.startswith("sklearn:"):
        raise InputError(f"{config.source}: expected one of {quoted(bundled.FILES)}")
    if override is None and config.newest is not None:
        return take_newest(config, config.newest)
    if override is None and config.query is not None:
        return [_checked(take_query(config), config)]
    if override is None and kind_of(config.source) == "bucket":
        return [_pinned_object(config)]
    first = _local_path(config) if override is None else override
    paths = [first] if config.test is None else [first, Path(config.test)]
    named = zip(paths, _names(config, override, paths), strict=True)
    files = [_read_file(path, name, config) for path, name in named]
    if override is None:
        _check_digest(files[0], config, first)
    return files


def _pinned_object(config: DataConfig) -> DeliveredFile:
    if config.sha256 is None or config.test is not None:
        raise InputError(
            f"{config.source}: expected data.newest, or data.sha256 without data.test, with an object store; "
            "a single object is pinned"
        )
    return _checked(take_object(config), config)


def _checked(file: DeliveredFile, config: DataConfig) -> DeliveredFile:
    _check_digest(file, config, config.source)
    return file


def _local_path(config: DataConfig) -> Path:
    if kind_of(config.source) != "url":
        return Path(config.source)
    if config.sha256 is None:
        url = without_credentials(config.source)
        raise InputError(f"{url}: expected data.sha256 with a URL, found none; downloads are pinned")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return download(Wanted(config.source, config.sha256, config.max_bytes), home / "holdfast" / "downloads")


def _check_digest(file: DeliveredFile, config: DataConfig, path: object) -> None:
    if config.sha256 is not None and file.pin.sha256 != config.sha256:
        raise IntegrityError(
            f"{path}: expected sha256 {config.sha256[:12]}… (data.sha256), found {file.pin.sha256[:12]}…"
        )


def _names(config: DataConfig, override: Path | None, paths: Sequence[Path]) -> list[str]:
    """Paths relative to the delivery: the file names, with their folders where two files have one name."""
    url = override is None and kind_of(config.source) == "url"
    first = config.source.split("?")[0].rstrip("/").rpartition("/")[2] if url else paths[0].name
    names = [first, *(path.name for path in paths[1:])]
    if len(set(names)) < len(names):
        common = os.path.commonpath([path.absolute().parent for path in paths])
        names = [path.absolute().relative_to(common).as_posix() for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"{paths[0]}: expected another file in data.test, found the same one")
    return [unicodedata.normalize("NFC", name) for name in names]


def _read_file(path: Path, name: str, config: DataConfig) -> DeliveredFile:
    return delivered(_read_content(path, config.max_bytes), name, config)


def _bundled_bytes(source: str, max_bytes: int) -> bytes:
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{source}: scikit-learn brings it", name="sklearn")
    return _read_bytes(Path(spec.origin).parent / "datasets" / "data" / bundled.FILES[source], max_bytes)


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    """All bytes of a regular file."""
    content = _read_content(path, max_bytes, in_memory=max_bytes)
    assert isinstance(content, bytes)
    return content


def _read_content(path: Path, max_bytes: int, in_memory: int = IN_MEMORY) -> FileContent:
    """A regular file: what is hashed later is what was read, and it did not change in between."""
    with open_regular(path, "a data file", links=True) as stream:
        before = os.fstat(stream.fileno())
        if before.st_size > max_bytes:
            raise LimitError(f"{path}: expected at most {max_bytes} bytes (data.max_bytes), found {before.st_size}")
        try:
            content = _content(stream, str(path), before.st_size, in_memory)
        except OSError as error:
            raise InputError(f"{path}: expected a data file, found none that can be read ({error.strerror})") from None
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(content) != after.st_size:
        raise InputError(f"{path}: expected a file at rest, found one that changed while it was read")
    if not content:
        raise InputError(f"{path}: expected data, found an empty file")
    return content


def _content(stream: IO[bytes], name: str, size: int, in_memory: int) -> FileContent:
    if size <= in_memory:
        return stream.read(size + 1)
    return VerifiedFile.hashed(stream.fileno(), name, most=size)
