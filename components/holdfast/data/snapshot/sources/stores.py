"""Where deliveries lie: a folder, or a prefix of an object store, listed folder by folder and read within a limit."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from holdfast.artifacts.regular import open_regular
from holdfast.errors import InputError, LimitError
from holdfast.wording import printable, without_credentials
from holdfast.workload.addresses import kind_of, split_bucket

MAX_ENTRIES = 100_000
"""Of one folder; more is another layout, or a hostile one."""
_SECONDS = 20
_WRITTEN = ("LastModified", "last_modified", "updated", "mtime")
"""What the libraries call the time of an object."""


@dataclass(frozen=True)
class ListedFile:
    """What a listing has: `path` is relative to the store, with slashes."""

    path: str
    kind: Literal["file", "folder", "other"]
    size: int = 0
    modified: float | None = None
    """Seconds since 1970; None: not known."""
    version: str | None = None
    """ETag."""


class DeliveryStore(Protocol):
    """A place with files."""

    def entries(self, folder: str) -> Sequence[ListedFile]:
        """What is directly in a folder below the store; empty: in the store itself.

        Raises:
            InputError: it is not there or cannot be listed, or a name leads out of it.
            LimitError: more than `MAX_ENTRIES`.
        """
        ...

    def look(self, path: str) -> ListedFile:
        """A file as it is now."""
        ...

    def open(self, path: str) -> Any:
        """A context with a stream of the file's bytes."""
        ...

    def address(self, path: str) -> str:
        """What a workload calls the file, without credentials."""
        ...


def store_at(source: str) -> DeliveryStore:
    """The store of a data source: a folder, or a prefix of a bucket.

    Raises:
        InputError: the library of the bucket's kind is not installed.
    """
    return FolderStore(Path(source)) if kind_of(source) == "path" else BucketStore(source)


@dataclass(frozen=True)
class FolderStore:
    """A folder of this machine or of a volume; links in it are not followed."""

    root: Path

    def entries(self, folder: str) -> list[ListedFile]:
        """What is in it, as `DeliveryStore` has it."""
        place = self.root / folder
        try:
            with os.scandir(place) as found:
                return _checked((self._entry(folder, one) for one in found), str(place))
        except OSError as error:
            raise InputError(f"{place}: expected a folder of deliveries, found none ({error.strerror})") from None

    def _entry(self, folder: str, one: "os.DirEntry[str]") -> ListedFile:
        return _entry(f"{folder}/{one.name}" if folder else one.name, one.stat(follow_symlinks=False))

    def look(self, path: str) -> ListedFile:
        """The file as it is now."""
        try:
            return _entry(path, (self.root / path).lstat())
        except OSError as error:
            raise InputError(f"{self.address(path)}: expected a file, found none ({error.strerror})") from None

    def open(self, path: str) -> IO[bytes]:
        """A stream."""
        return open_regular(self.root / path, "a data file")

    def address(self, path: str) -> str:
        """Its path."""
        return str(self.root / path)


def _entry(path: str, found: os.stat_result) -> ListedFile:
    kind: Literal["file", "folder", "other"] = "other"
    if stat.S_ISREG(found.st_mode):
        kind = "file"
    elif stat.S_ISDIR(found.st_mode):
        kind = "folder"
    return ListedFile(path, kind, found.st_size, found.st_mtime)


@dataclass(frozen=True)
class BucketStore:
    """A prefix of an object store; credentials come from where its library looks for them."""

    source: str

    @cached_property
    def _driver(self) -> "_Driver":
        return _DRIVERS[split_bucket(self.source)[0]]

    @cached_property
    def _system(self) -> Any:
        with self._errors(self.source, "a library for it"):
            return self._driver.open()

    def entries(self, folder: str) -> list[ListedFile]:
        """What is directly below the prefix, as `DeliveryStore` has it."""
        prefix = self._path(folder)
        with self._errors(self.address(folder), "a folder of deliveries"):
            found = self._system.ls(prefix, detail=True, refresh=True) if folder or prefix else []
        # Consoles make an empty object for a folder.
        below = (one for one in found if str(one["name"]).rstrip("/") != prefix)
        return _checked((self._entry(one) for one in below), self.address(folder))

    def look(self, path: str) -> ListedFile:
        """The object as it is now."""
        with self._errors(self.address(path), "a file"):
            return self._entry(self._system.info(self._path(path), **self._driver.fresh))

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """A stream."""
        with (
            self._errors(self.address(path), "a data file"),
            self._system.open(self._path(path), "rb", block_size=2**23, cache_type="readahead") as stream,
        ):
            yield stream

    def address(self, path: str) -> str:
        """Its address."""
        return without_credentials(f"{self.source.rstrip('/')}/{path}".rstrip("/"))

    def _path(self, path: str) -> str:
        return f"{split_bucket(self.source)[1]}/{path}".rstrip("/")

    def _entry(self, found: dict[str, Any]) -> ListedFile:
        prefix, name = self._path(""), str(found["name"]).rstrip("/")
        if not name.startswith(f"{prefix}/"):
            raise InputError(f"{self.address('')}: expected names below it, found {printable(name)[:80]!r}")
        moment = next((found[key] for key in _WRITTEN if key in found), None)
        version = found.get("ETag") or found.get("etag")
        return ListedFile(
            name.removeprefix(f"{prefix}/"),
            "folder" if found["type"] == "directory" else "file",
            int(found.get("size") or 0),
            moment.timestamp() if isinstance(moment, datetime) else None,
            None if version is None else printable(str(version).strip('"'))[:200],
        )

    @contextmanager
    def _errors(self, address: str, wanted: str) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            raise InputError(
                f"{address}: expected the extra {self._driver.extra}, found no module {error.name}; "
                f"pip install 'holdfast[{self._driver.extra}]'"
            ) from None
        except FileNotFoundError:
            raise InputError(f"{address}: expected {wanted}, found none") from None
        except self._driver.errors() as error:
            text = without_credentials(printable(" ".join(str(error).split())))[:200]
            raise InputError(f"{address}: expected {wanted}, found {type(error).__name__}: {text}") from None


@dataclass(frozen=True)
class _Driver:
    """How the stores of a scheme are reached."""

    extra: str
    make: Callable[[], Any]
    library: str = ""
    """The module with the errors of its own that the store raises, and what they are called."""
    raised: tuple[str, ...] = ()
    fresh: Mapping[str, Any] = field(default_factory=dict)
    """What makes it ask again about a file, instead of remembering."""

    def open(self) -> Any:
        return self.make()

    def errors(self) -> tuple[type[Exception], ...]:
        try:
            own = tuple(getattr(import_module(self.library), name) for name in self.raised)
        except ModuleNotFoundError:
            own = ()
        return (OSError, ValueError, *own)


def _s3() -> Any:
    from s3fs import S3FileSystem

    patience = {"connect_timeout": _SECONDS, "read_timeout": 3 * _SECONDS, "retries": {"max_attempts": 4}}
    return S3FileSystem(config_kwargs=patience, use_listings_cache=False, skip_instance_cache=True)


def _gs() -> Any:
    # Google's storage by pyarrow: no gcsfs fits the clients that TFDV asks for.
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import GcsFileSystem

    return ArrowFSWrapper(GcsFileSystem())


def _azure() -> Any:
    from adlfs import AzureBlobFileSystem

    return AzureBlobFileSystem(use_listings_cache=False, skip_instance_cache=True)


_AZURE = _Driver("sources-azure", _azure, "azure.core.exceptions", ("AzureError",), {"refresh": True})
_DRIVERS = {
    "s3": _Driver("sources-s3", _s3, "botocore.exceptions", ("BotoCoreError", "ClientError"), {"refresh": True}),
    "gs": _Driver("data", _gs),
    "az": _AZURE,
    "abfs": _AZURE,
}


def _checked(found: Iterator[ListedFile], place: str) -> list[ListedFile]:
    """The entries in the order of their names; none leads out of the folder."""
    entries: list[ListedFile] = []
    for one in found:
        if any(part in ("", ".", "..") or not part.isprintable() for part in one.path.split("/")):
            raise InputError(f"{place}: expected names of files, found {printable(one.path)[:80]!r}")
        entries.append(one)
        if len(entries) > MAX_ENTRIES:
            raise LimitError(f"{place}: expected at most {MAX_ENTRIES} files and folders, found more")
    return sorted(entries, key=lambda one: one.path)
