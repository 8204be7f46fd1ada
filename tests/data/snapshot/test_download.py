"""Against a real server on this machine that knows ranges and can be told to break."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from holdfast.data.snapshot.download import Wanted, download
from holdfast.errors import InputError, IntegrityError, LimitError

BODY = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """What the server does, and what it was asked."""

    url: str = ""
    ranges: bool = True
    length: bool = True
    break_after: list[int] = field(default_factory=list)
    """One entry per answer that breaks off after so many bytes."""
    status: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    told = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked = self.headers.get("Range")
            told.asked.append(asked)
            if told.status:
                self.send_error(told.status.pop(0))
                return
            start = int(re.findall(r"\d+", asked)[0]) if asked and told.ranges else 0
            if start >= len(BODY):
                self.send_error(416)
                return
            self._answer(start)

        def _answer(self, start: int) -> None:
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
            if told.length:
                self.send_header("Content-Length", str(len(BODY) - start))
            self.end_headers()
            self.wfile.write(BODY[start:][: told.break_after.pop(0) if told.break_after else None])

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/data.npz"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


def wanted(site: Site, sha256: str = DIGEST, *, max_bytes: int = 2**23, attempts: int = 3) -> Wanted:
    return Wanted(site.url, sha256, max_bytes, attempts=attempts, wait_seconds=0.0)


def test_a_file_is_downloaded_once_and_kept_by_its_digest(site: Site, tmp_path: Path) -> None:
    path = download(wanted(site), tmp_path)
    assert path.read_bytes() == BODY
    assert path.name == DIGEST
    assert download(wanted(site), tmp_path) == path
    assert len(site.asked) == 1


def test_the_log_of_a_pod_shows_how_far_it_got(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(wanted(site), tmp_path)
    assert "download: 3/3" in capsys.readouterr().err


def test_a_broken_connection_is_continued_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.break_after = [1_500_000]
    assert download(wanted(site), tmp_path).read_bytes() == BODY
    assert site.asked == [None, "bytes=1500000-"]


def test_an_interrupted_run_keeps_its_part_and_the_next_goes_on(site: Site, tmp_path: Path) -> None:
    site.break_after = [1_000_000]
    with pytest.raises(InputError, match="found a connection that ended too early after 1000000 bytes in 1 attempts"):
        download(wanted(site, attempts=1), tmp_path)
    assert (tmp_path / f"{DIGEST}.part").stat().st_size == 1_000_000
    assert download(wanted(site), tmp_path).read_bytes() == BODY
    assert site.asked[-1] == "bytes=1000000-"


def test_a_server_without_ranges_sends_it_all_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.break_after = False, [1_000_000]
    assert download(wanted(site), tmp_path).read_bytes() == BODY


def test_an_answer_without_length_is_read_to_its_end(site: Site, tmp_path: Path) -> None:
    site.length = False
    assert download(wanted(site), tmp_path).read_bytes() == BODY


def test_a_part_that_is_already_whole_is_taken(site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.part").write_bytes(BODY)
    assert download(wanted(site), tmp_path).read_bytes() == BODY


def test_a_part_longer_than_the_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.part").write_bytes(BODY + b"more")
    assert download(wanted(site), tmp_path).read_bytes() == BODY


def test_a_server_that_is_busy_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.status = [503, 500]
    assert download(wanted(site), tmp_path).read_bytes() == BODY


def test_other_bytes_are_refused_and_deleted(site: Site, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=f"data.npz: expected sha256 0000.*found {DIGEST[:12]}.*deleted"):
        download(wanted(site, "0" * 64), tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_kept_file_that_was_altered_is_fetched_again(site: Site, tmp_path: Path) -> None:
    download(wanted(site), tmp_path).write_bytes(b"altered")
    assert download(wanted(site), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("length", [True, False])
def test_more_than_the_limit_is_refused(site: Site, tmp_path: Path, length: bool) -> None:
    site.length = length
    with pytest.raises(LimitError, match="expected at most 1000000 bytes"):
        download(wanted(site, max_bytes=1_000_000), tmp_path)
    assert not (tmp_path / f"{DIGEST}.part").exists()


def test_a_missing_file_is_not_asked_for_twice(site: Site, tmp_path: Path) -> None:
    site.status = [404]
    with pytest.raises(InputError, match="expected a file, found status 404"):
        download(wanted(site), tmp_path)
    assert len(site.asked) == 1


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = Wanted("http://127.0.0.1:9/data.npz", DIGEST, 2**20, attempts=2, wait_seconds=0.0)
    with pytest.raises(InputError, match="http://127.0.0.1:9/data.npz: expected the whole file, found no connection"):
        download(nowhere, tmp_path)
