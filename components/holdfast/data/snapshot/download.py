"""Downloads with a promised digest: streamed, bounded, resumed after an interruption, kept by content.

This module talks to the network and writes below the folder that it is given; nothing else does in this step.
"""

import fcntl
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from holdfast import __version__
from holdfast.artifacts.folder import sha256_of
from holdfast.errors import InputError, IntegrityError, LimitError
from holdfast.progress import say, track
from holdfast.wording import without_credentials

_CHUNK = 2**20
_RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Wanted:
    """What is downloaded and how hard it is tried."""

    url: str
    sha256: str
    max_bytes: int
    attempts: int = 4
    wait_seconds: float = 1.0
    """Before the second attempt; doubled before each further one."""
    timeout_seconds: float = 30.0

    @property
    def shown(self) -> str:
        """The URL in messages: what is behind a question mark may be a signature."""
        return without_credentials(self.url)


def download(wanted: Wanted, folder: Path) -> Path:
    """The file with the promised digest, from `folder` when it is there already, otherwise from its URL.

    What an interruption left (`DIGEST.part`) is continued where the server allows it.

    Raises:
        InputError: the server refuses, or the connection broke more often than is tried.
        LimitError: it is larger than `max_bytes`.
        IntegrityError: the bytes have another digest; they were deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / wanted.sha256
    with _locked(folder / f"{wanted.sha256}.lock"):
        if kept.exists():
            if sha256_of(kept).sha256 == wanted.sha256:
                return kept
            kept.unlink()
        part = folder / f"{wanted.sha256}.part"
        _complete(wanted, part)
        _check(wanted, part)
        part.replace(kept)
    return kept


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two runs that want the same file do not write it at the same time."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _complete(wanted: Wanted, part: Path) -> None:
    for attempt in range(1, wanted.attempts + 1):
        problem = _attempt(wanted, part)
        if problem is None:
            return
        have = part.stat().st_size if part.exists() else 0
        if attempt == wanted.attempts:
            raise InputError(
                f"{wanted.shown}: expected the whole file, found {problem} after {have} bytes in {attempt} attempts; "
                "run again to go on from there"
            )
        say(f"download: {problem} after {have} bytes; trying again")
        time.sleep(wanted.wait_seconds * 2 ** (attempt - 1))


def _attempt(wanted: Wanted, part: Path) -> str | None:
    """One connection; None when the part is complete, otherwise what went wrong that may be tried again."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(wanted.url, headers={"User-Agent": f"holdfast/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=wanted.timeout_seconds) as response:
            return _receive(wanted, part, response)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _over_full(wanted, part)
        if error.code in _RETRIED_STATUS:
            return f"status {error.code}"
        raise InputError(f"{wanted.shown}: expected a file, found status {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        return f"no connection ({error.reason})"
    except (OSError, http.client.HTTPException) as error:
        return f"a broken connection ({type(error).__name__})"


def _over_full(wanted: Wanted, part: Path) -> str | None:
    """The server has nothing beyond what is here: it is complete, or it was another file."""
    if sha256_of(part).sha256 == wanted.sha256:
        return None
    part.unlink()
    return "an earlier part of another file"


def _receive(wanted: Wanted, part: Path, response: http.client.HTTPResponse) -> str | None:
    start = _start(response)
    length = response.headers.get("Content-Length")
    total = start + int(length) if length and length.isdigit() else None
    if total is not None and total > wanted.max_bytes:
        raise _too_large(wanted, part, total)
    with part.open("r+b" if part.exists() else "wb") as stream:
        stream.seek(start)
        stream.truncate()
        done = start + _copy(wanted, part, response, stream, remaining=None if total is None else total - start)
    return None if total is None or done == total else "a connection that ended too early"


def _start(response: http.client.HTTPResponse) -> int:
    """The position of the answer's first byte: 0 unless the server continues what is here."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range") or "")
    return int(found[1]) if response.status == http.HTTPStatus.PARTIAL_CONTENT and found else 0


def _copy(
    wanted: Wanted, part: Path, response: http.client.HTTPResponse, stream: BinaryIO, *, remaining: int | None
) -> int:
    limit = wanted.max_bytes - stream.tell()
    done = 0
    for chunk in _chunks(response, remaining):
        done += len(chunk)
        if done > limit:
            raise _too_large(wanted, part, wanted.max_bytes - limit + done)
        stream.write(chunk)
    stream.flush()
    os.fsync(stream.fileno())
    return done


def _chunks(response: http.client.HTTPResponse, remaining: int | None) -> Iterator[bytes]:
    if remaining is None:
        while chunk := response.read(_CHUNK):
            yield chunk
        return
    for _ in track(range(-(-remaining // _CHUNK)), "download"):
        chunk = response.read(_CHUNK)
        if not chunk:
            return
        yield chunk


def _check(wanted: Wanted, part: Path) -> None:
    digest = sha256_of(part).sha256
    if digest != wanted.sha256:
        part.unlink()
        raise IntegrityError(
            f"{wanted.shown}: expected sha256 {wanted.sha256[:12]}… (data.sha256), found {digest[:12]}…; "
            "what was downloaded is deleted"
        )


def _too_large(wanted: Wanted, part: Path, size: int) -> LimitError:
    part.unlink(missing_ok=True)
    return LimitError(f"{wanted.shown}: expected at most {wanted.max_bytes} bytes (data.max_bytes), found {size}")
