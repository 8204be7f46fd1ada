"""Takes the newest complete delivery, or a pinned object, from its store: bounded, hashed, and at rest meanwhile."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import IO

from holdfast.artifacts.verified import BLOCK, IN_MEMORY, FileContent, VerifiedFile
from holdfast.data.snapshot.delivered import DeliveredFile, delivered
from holdfast.data.snapshot.sources.newest import MAX_MANIFEST, FoundDelivery, candidates, promised
from holdfast.data.snapshot.sources.stores import BucketStore, DeliveryStore, ListedFile, store_at
from holdfast.errors import InputError, IntegrityError, LimitError
from holdfast.progress import say
from holdfast.workload.addresses import split_bucket
from holdfast.workload.schema import DataConfig, NewestConfig


def take_newest(config: DataConfig, rule: NewestConfig) -> list[DeliveredFile]:
    """The files of the newest complete delivery below `data.source`, the training rows first.

    Raises:
        InputError: there is none, or not one; a file that changes, or cannot be read.
        LimitError: more than `data.max_bytes`.
        IntegrityError: a file has another digest than its manifest.
    """
    store = store_at(config.source)
    chosen = _newest(store, rule)
    files = [_take(store, entry, config) for entry in chosen.files]
    _check_manifest(store, chosen, files)
    pin = files[0].pin
    say(
        f"snapshot: newest complete delivery: {pin.address} ({_dated(chosen.files[0])}); to read this one again, "
        f"without data.newest: data.source: {pin.address}, data.sha256: {pin.sha256}"
    )
    return files


def take_object(config: DataConfig) -> DeliveredFile:
    """The object that `data.source` names, without its digest checked.

    Raises:
        InputError: it is not there, changes, or cannot be read.
        LimitError: more than `data.max_bytes`.
    """
    scheme, path = split_bucket(config.source)
    place, _, name = path.rpartition("/")
    if not place:
        raise InputError(f"{config.source}: expected a bucket and the path of an object, found a bucket")
    store = BucketStore(f"{scheme}://{place}")
    return _take(store, store.look(name), config)


def _newest(store: DeliveryStore, rule: NewestConfig) -> FoundDelivery:
    found = candidates(store, rule, datetime.now(UTC).replace(tzinfo=None))
    reasons = []
    for one in found:
        missing = one.missing or _unsettled(store, one.files, rule.settled_seconds)
        if missing is None:
            return one
        reasons.append(f"{store.address(one.files[0].path)} is not complete: {missing}")
        say(f"snapshot: {reasons[-1]}; looking at the one before")
    newest = f"; {reasons[0]}" if reasons else ""
    raise InputError(
        f"{store.address('')}: expected a complete delivery named {rule.name}, found none "
        f"({len(found)} of that name{newest})"
    )


def _unsettled(store: DeliveryStore, files: Sequence[ListedFile], seconds: int | None) -> str | None:
    """Why a delivery is not at rest; None: it is, or that is not asked."""
    if seconds is None:
        return None
    time.sleep(seconds)
    moved = next((one for one in files if _state(store.look(one.path)) != _state(one)), None)
    return None if moved is None else f"{moved.path} changed within {seconds} seconds"


def _state(entry: ListedFile) -> tuple[object, ...]:
    return entry.kind, entry.size, entry.modified, entry.version


def _take(store: DeliveryStore, entry: ListedFile, config: DataConfig) -> DeliveredFile:
    address = store.address(entry.path)
    if entry.kind != "file":
        raise InputError(f"{address}: expected a file, found a folder; data.newest says which of its files is read")
    if entry.size > config.max_bytes:
        raise LimitError(f"{address}: expected at most {config.max_bytes} bytes (data.max_bytes), found {entry.size}")
    with store.open(entry.path) as stream:
        content = _received(stream, address, entry.size)
    if _state(store.look(entry.path)) != _state(entry) or len(content) != entry.size:
        raise InputError(f"{address}: expected a file at rest, found one that changed while it was read")
    if not content:
        raise InputError(f"{address}: expected data, found an empty file")
    file = delivered(content, PurePosixPath(entry.path).name, config)
    return replace(file, pin=file.pin.model_copy(update={"address": address, "version": entry.version}))


def _received(stream: IO[bytes], name: str, size: int) -> FileContent:
    """The bytes, in memory where they are few, otherwise in a file without a name."""
    if size <= IN_MEMORY:
        return stream.read(size + 1)
    with tempfile.TemporaryFile() as kept:
        done = 0
        while done <= size and (block := stream.read(BLOCK)):
            kept.write(block)
            done += len(block)
        kept.flush()
        return VerifiedFile.hashed(kept.fileno(), name, most=size)


def _check_manifest(store: DeliveryStore, chosen: FoundDelivery, files: Sequence[DeliveredFile]) -> None:
    if chosen.manifest is None:
        return
    address = store.address(chosen.manifest.path)
    digests = promised(_text(store, chosen.manifest, address), address)
    folder = PurePosixPath(chosen.manifest.path).parent
    for entry, file in zip(chosen.files, files, strict=True):
        path = PurePosixPath(entry.path)
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else entry.path
        if digests.get(name) != file.pin.sha256:
            found = "no digest" if name not in digests else f"{digests[name][:12]}…"
            raise IntegrityError(
                f"{address}: expected the digest of {name}, {file.pin.sha256[:12]}…, found {found}; "
                "one of the two is damaged or forged"
            )


def _text(store: DeliveryStore, manifest: ListedFile, address: str) -> str:
    if manifest.size > MAX_MANIFEST:
        raise LimitError(f"{address}: expected a manifest of at most {MAX_MANIFEST} bytes, found {manifest.size}")
    with store.open(manifest.path) as stream:
        try:
            return bytes(stream.read(MAX_MANIFEST)).decode()
        except UnicodeDecodeError:
            raise InputError(f"{address}: expected a manifest in UTF-8, found other bytes") from None


def _dated(entry: ListedFile) -> str:
    """ETag and time, as far as the store has them."""
    parts = [f"ETag {entry.version}"] if entry.version else []
    if entry.modified is not None:
        parts.append(f"written {datetime.fromtimestamp(entry.modified, UTC):%Y-%m-%d %H:%M:%S} UTC")
    return ", ".join(parts) or "of unknown time"
