"""Against a real S3 server on this machine, moto's, in a process of its own."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot.sources.stores import BucketStore
from holdfast.errors import InputError, IntegrityError, LimitError

pytest.importorskip("s3fs", reason="the extra sources-s3 is not installed")
Take = Callable[..., Artifact[Snapshot]]
ROOT = Path(__file__).parents[4]
SERVER = shutil.which("moto_server", path=f"{os.environ['PATH']}:{ROOT / '.venv' / 'bin'}")
if SERVER is None:
    pytest.skip("moto_server is not installed", allow_module_level=True)
RULE = {"name": "%Y-%m-%d/orders.csv", "marker": "%Y-%m-%d/_SUCCESS"}
TABLE = "age,label\n" + "".join(f"{20 + i},{'yes' if i % 4 else 'no'}\n" for i in range(20))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    assert SERVER is not None
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    quiet = subprocess.DEVNULL
    child = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=quiet, stderr=quiet)
    try:
        _wait_for(f"{url}/moto-api/", child)
        yield url
    finally:
        child.kill()
        child.wait()


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(url: str, child: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("moto_server did not start")


@pytest.fixture
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(credentials: None, request: pytest.FixtureRequest) -> Any:
    """An empty bucket, filled by `pipe`."""
    from s3fs import S3FileSystem

    system = S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    name = f"b-{abs(hash(request.node.name)) % 10**9}"
    system.mkdir(name)

    def put(key: str, content: str = TABLE) -> str:
        system.pipe(f"{name}/{key}", content.encode())
        return f"s3://{name}/{key}"

    put.place = f"s3://{name}/in"  # type: ignore[attr-defined]
    return put


def deliver(bucket: Any, day: str, content: str = TABLE, *, marker: bool = True) -> str:
    address = bucket(f"in/{day}/orders.csv", content)
    if marker:
        bucket(f"in/{day}/_SUCCESS", "")
    return str(address)


def rows(taken: Artifact[Snapshot]) -> int:
    return taken.document.train_rows + taken.document.test_rows


def test_the_next_run_reads_what_came_and_records_its_version(bucket: Any, take: Take) -> None:
    deliver(bucket, "2026-11-26")
    assert rows(take(bucket.place, newest=RULE)) == 20
    address = deliver(bucket, "2026-11-27", TABLE + "50,yes\n")
    taken = take(bucket.place, newest=RULE)
    assert rows(taken) == 21
    source = taken.document.sources[0]
    assert (source.path, source.address) == ("orders.csv", address)
    assert source.version is not None
    assert take(bucket.place, newest=RULE).digest == taken.digest


def test_the_same_content_has_the_digest_of_a_local_file(bucket: Any, take: Take, tmp_path: Path) -> None:
    deliver(bucket, "2026-11-26")
    (tmp_path / "orders.csv").write_text(TABLE)
    remote, local = take(bucket.place, newest=RULE), take(tmp_path / "orders.csv")
    assert remote.document.root == local.document.root
    assert remote.document.files == local.document.files


def test_a_half_written_delivery_is_skipped(bucket: Any, take: Take) -> None:
    deliver(bucket, "2026-11-26")
    deliver(bucket, "2026-11-27", TABLE + "50,yes\n", marker=False)
    assert rows(take(bucket.place, newest=RULE)) == 20


def test_a_marker_that_is_older_than_its_delivery_is_forged(bucket: Any, take: Take) -> None:
    deliver(bucket, "2026-11-26")
    deliver(bucket, "2026-11-27")
    time.sleep(1.1)  # S3's times are in seconds
    bucket("in/2026-11-27/orders.csv", TABLE + "50,yes\n")
    assert rows(take(bucket.place, newest=RULE)) == 20


@pytest.mark.parametrize("key", ["in/../orders.csv", "in/2026-11-27/../orders.csv"])
def test_a_listing_that_leads_out_of_its_place_is_refused(bucket: Any, take: Take, key: str) -> None:
    deliver(bucket, "2026-11-27")
    bucket(key)
    with pytest.raises(InputError, match="expected names of files, found "):
        take(bucket.place, newest=RULE)


def test_a_pinned_object_is_read_and_another_content_is_refused(bucket: Any, take: Take) -> None:
    address = deliver(bucket, "2026-11-26")
    pin = take(bucket.place, newest=RULE).document.sources[0].sha256
    assert rows(take(address, sha256=pin)) == 20
    bucket("in/2026-11-26/orders.csv", TABLE + "50,yes\n")
    with pytest.raises(IntegrityError, match=r"orders\.csv: expected sha256 .* \(data\.sha256\), found"):
        take(address, sha256=pin)
    with pytest.raises(InputError, match=r"expected data\.newest, or data\.sha256 .* a single object is pinned"):
        take(address)


def test_an_object_larger_than_allowed_is_not_read(bucket: Any, take: Take) -> None:
    deliver(bucket, "2026-11-26")
    with pytest.raises(LimitError, match=r"orders\.csv: expected at most 99 bytes \(data\.max_bytes\)"):
        take(bucket.place, newest=RULE, max_bytes=99)


@pytest.mark.parametrize("place", ["s3://no-such-bucket/in", "s3://no-such-bucket"])
def test_a_bucket_that_is_not_there_is_one_line(credentials: None, take: Take, place: str) -> None:
    with pytest.raises(InputError, match=f"{place}: expected a folder of deliveries, found"):
        take(place, newest=RULE)


def test_a_server_that_does_not_answer_is_one_line_without_credentials(
    credentials: None, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hunter2@127.0.0.1:{unused_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputError, match="expected a folder of deliveries, found HTTPClientError") as raised:
        take("s3://bucket/in", newest=RULE)
    assert "hunter2" not in str(raised.value)
    assert "very-secret" not in str(raised.value)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(InputError, match=r"expected the extra sources-azure, .* 'holdfast\[sources-azure\]'"):
        BucketStore("az://container/in").entries("")
