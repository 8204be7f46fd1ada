"""The newest complete delivery, of a folder on this machine."""

import hashlib
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.artifacts.documents import Snapshot
from holdfast.artifacts.folder import Artifact
from holdfast.data.snapshot.sources import stores
from holdfast.errors import InputError, IntegrityError, LimitError
from holdfast.workload.naming import NamePattern
from holdfast.workload.schema import DataConfig

Take = Callable[..., Artifact[Snapshot]]
NAME, MARKER = "%Y-%m-%d/orders.csv", "%Y-%m-%d/_SUCCESS"
BY_MARKER = {"name": NAME, "marker": MARKER}
BY_MANIFEST = {"name": NAME, "manifest": "%Y-%m-%d/SHA256SUMS"}


def table(rows: int = 20) -> str:
    return "age,label\n" + "".join(f"{20 + i},{'yes' if i % 4 else 'no'}\n" for i in range(rows))


def deliver(root: Path, day: str, text: str = table(), *, marker: bool = True) -> Path:
    path = root / day / "orders.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    if marker:
        (path.parent / "_SUCCESS").touch()
    return path


def rows(taken: Artifact[Snapshot]) -> int:
    return taken.document.train_rows + taken.document.test_rows


def test_the_next_run_reads_the_delivery_that_came(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", "2026-11-26")
    assert rows(take(tmp_path / "in", newest=BY_MARKER)) == 20
    path = deliver(tmp_path / "in", "2026-11-27", table(24))
    taken = take(tmp_path / "in", newest=BY_MARKER)
    assert rows(taken) == 24
    source = taken.document.sources[0]
    assert (source.path, source.address) == ("orders.csv", str(path))
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_content_has_the_digest_of_a_local_file(take: Take, tmp_path: Path) -> None:
    path = deliver(tmp_path / "in", "2026-11-26")
    moving, local = take(tmp_path / "in", newest=BY_MARKER), take(path)
    assert moving.document.root == local.document.root
    assert moving.document.files == local.document.files


def test_the_pin_that_is_printed_reads_the_same_delivery_later(
    take: Take, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(tmp_path / "in", "2026-11-26")
    first = take(tmp_path / "in", newest=BY_MARKER)
    found = re.search(r"data\.source: (\S+), data\.sha256: (\w{64})", capsys.readouterr().err)
    assert found
    deliver(tmp_path / "in", "2026-11-27", table(24))
    again = take(found[1], sha256=found[2])
    assert again.document.root == first.document.root


def test_a_delivery_without_its_marker_is_half_written_and_skipped(
    take: Take, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(tmp_path / "in", "2026-11-26")
    deliver(tmp_path / "in", "2026-11-27", table(24), marker=False)
    assert rows(take(tmp_path / "in", newest=BY_MARKER)) == 20
    said = "2026-11-27/orders.csv is not complete: it has no marker; looking at the one before"
    assert said in capsys.readouterr().err


def test_a_marker_that_was_there_before_the_last_byte_is_forged(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", "2026-11-26")
    path = deliver(tmp_path / "in", "2026-11-27", table(24))
    os.utime(path.parent / "_SUCCESS", (1.0, 1.0))
    assert rows(take(tmp_path / "in", newest=BY_MARKER)) == 20


def test_a_marker_that_is_a_link_is_refused(take: Take, tmp_path: Path) -> None:
    path = deliver(tmp_path / "in", "2026-11-27", marker=False)
    (path.parent / "_SUCCESS").symlink_to(path)
    with pytest.raises(InputError, match="_SUCCESS: expected a file or a folder, found a link"):
        take(tmp_path / "in", newest=BY_MARKER)


@pytest.mark.parametrize("day", ["2026-11-27", "2026-11-27/orders.csv"])
def test_a_delivery_that_is_a_link_is_refused(take: Take, tmp_path: Path, day: str) -> None:
    real = deliver(tmp_path / "elsewhere", "2026-11-27")
    link = tmp_path / "in" / day
    link.parent.mkdir(parents=True)
    link.symlink_to(real if day.endswith("csv") else real.parent)
    with pytest.raises(InputError, match=f"{day}: expected a file or a folder, found a link"):
        take(tmp_path / "in", newest=BY_MARKER)


def test_a_link_that_no_delivery_can_be_is_not_looked_at(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", "2026-11-26")
    (tmp_path / "in" / "latest").symlink_to("2026-11-26")
    assert rows(take(tmp_path / "in", newest=BY_MARKER)) == 20


def with_manifest(path: Path, digest: str | None = None) -> Path:
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = path.parent / "SHA256SUMS"
    manifest.write_text(f"{digest}  orders.csv\n")
    return manifest


def test_a_manifest_as_sha256sum_writes_it_shows_a_complete_delivery(take: Take, tmp_path: Path) -> None:
    with_manifest(deliver(tmp_path / "in", "2026-11-26", marker=False))
    deliver(tmp_path / "in", "2026-11-27", table(24), marker=False)
    assert rows(take(tmp_path / "in", newest=BY_MANIFEST)) == 20


def test_a_manifest_with_another_digest_ends_the_run(take: Take, tmp_path: Path) -> None:
    with_manifest(deliver(tmp_path / "in", "2026-11-26", marker=False), "0" * 64)
    with pytest.raises(IntegrityError, match=r"SHA256SUMS: expected the digest of orders\.csv, .* found 000000000000…"):
        take(tmp_path / "in", newest=BY_MANIFEST)


def test_a_manifest_that_is_none_names_its_line(take: Take, tmp_path: Path) -> None:
    path = deliver(tmp_path / "in", "2026-11-26", marker=False)
    with_manifest(path).write_text("\nd41d8cd98f00b204e9800998ecf8427e  orders.csv\n")
    with pytest.raises(InputError, match="SHA256SUMS:2: expected a SHA-256, two spaces and a name"):
        take(tmp_path / "in", newest=BY_MANIFEST)


def test_a_delivery_that_still_grows_is_skipped(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(tmp_path / "in", "2026-11-26")
    growing = deliver(tmp_path / "in", "2026-11-27", table(24))
    # What a writer does while the step waits.
    monkeypatch.setattr("time.sleep", lambda _: growing.write_text(growing.read_text() + "50,yes\n"))
    assert rows(take(tmp_path / "in", newest={"name": NAME, "settled_seconds": 1})) == 20


def test_held_out_rows_of_the_same_delivery_are_read(take: Take, tmp_path: Path) -> None:
    for day, marker in (("2026-11-26", True), ("2026-11-27", True)):
        path = deliver(tmp_path / "in", day, marker=False)
        if day == "2026-11-26":
            path.with_name("held-out.csv").write_text(table(8))
        if marker:
            (path.parent / "_SUCCESS").touch()
    document = take(tmp_path / "in", newest={**BY_MARKER, "test": "%Y-%m-%d/held-out.csv"}).document
    assert (document.train_rows, document.test_rows) == (20, 8)
    assert [source.path for source in document.sources] == ["orders.csv", "held-out.csv"]


def test_an_empty_delivery_is_skipped(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", "2026-11-26")
    deliver(tmp_path / "in", "2026-11-27", "")
    assert rows(take(tmp_path / "in", newest=BY_MARKER)) == 20


def test_nothing_complete_is_one_line_with_the_reason(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", "2026-11-27", marker=False)
    with pytest.raises(InputError, match=r"in: expected a complete delivery .* \(1 of that name; .* has no marker\)"):
        take(tmp_path / "in", newest=BY_MARKER)
    with pytest.raises(InputError, match="nowhere: expected a folder of deliveries, found none"):
        take(tmp_path / "nowhere", newest=BY_MARKER)


def test_two_deliveries_of_one_date_are_refused(take: Take, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"orders-2026-11-27-{name}.csv").write_text(table())
    with pytest.raises(InputError, match="one file for each date and number, found 'orders-2026-11-27-a.csv', "):
        take(tmp_path, newest={"name": "orders-%Y-%m-%d-*.csv", "settled_seconds": 1})


def test_a_date_to_come_would_be_the_newest_for_ever(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", f"{datetime.now(UTC).year + 1}-11-27")
    with pytest.raises(InputError, match="expected deliveries up to today, found one of"):
        take(tmp_path / "in", newest=BY_MARKER)


def test_a_folder_with_too_many_names_is_refused(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MAX_ENTRIES", 2)
    for day in ("2026-11-25", "2026-11-26", "2026-11-27"):
        deliver(tmp_path / "in", day)
    with pytest.raises(LimitError, match="expected at most 2 files and folders, found more"):
        take(tmp_path / "in", newest=BY_MARKER)


def test_a_delivery_larger_than_allowed_is_not_read(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", "2026-11-27")
    with pytest.raises(LimitError, match=r"orders\.csv: expected at most 10 bytes \(data\.max_bytes\), found 1"):
        take(tmp_path / "in", newest=BY_MARKER, max_bytes=10)


def test_a_name_with_a_control_character_is_refused(take: Take, tmp_path: Path) -> None:
    deliver(tmp_path / "in", "2026-11-27\n")
    with pytest.raises(InputError, match=r"in: expected names of files, found '2026-11-27\\\\n'"):
        take(tmp_path / "in", newest=BY_MARKER)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "order"),
    [
        ("%Y-%m-%d/x.csv", "2026-11-27/x.csv", (2026, 11, 27)),
        ("%Y-%m-%d/x.csv", "2026-02-30/x.csv", None),
        ("%d.%m.%Y-*.csv", "27.11.2026-b.csv", (2026, 11, 27)),
        ("%d.%m.%Y-*.csv", "27.11.2026-b/c.csv", None),
        ("v%n.csv", "v10.csv", (10,)),
        ("v%n.csv", "v١.csv", None),
        ("%Y/%m%d%H-%n.csv", "2026/112709-3.csv", (2026, 11, 27, 9, 3)),
        ("a.b-%Y.csv", "aXb-2026.csv", None),
    ],
)
def test_a_name_has_the_order_of_its_date_and_number(pattern: str, path: str, order: tuple[int, ...] | None) -> None:
    assert NamePattern(pattern).order(path) == order


def test_numbers_are_in_order_by_their_value() -> None:
    pattern = NamePattern("v%n.csv")
    assert sorted(("v9.csv", "v10.csv"), key=lambda name: pattern.order(name) or ()) == ["v9.csv", "v10.csv"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("orders.csv", "expected a date"),
        ("%m-%d.csv", "expected a date .from %Y on"),
        ("../%Y.csv", "expected a path below the source"),
        ("/%Y.csv", "expected a path below the source"),
        ("%Y%Y.csv", "each once at most"),
        ("%q.csv", "expected %Y %m %d"),
        ("**/%Y.csv", "once in a row"),
    ],
)
def test_a_pattern_without_an_order_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NamePattern(pattern)


# --- the workload's section -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"newest": {"name": NAME}}, "expected one of marker, manifest and settled_seconds"),
        ({"newest": {**BY_MARKER, "settled_seconds": 3}}, "expected one of marker, manifest and settled_seconds"),
        ({"newest": {"name": NAME, "marker": "%Y/_SUCCESS"}}, "expected the same parts of a date"),
        ({"newest": BY_MARKER, "sha256": "0" * 64}, "expected neither sha256 nor test"),
        ({"newest": BY_MARKER, "source": "sklearn:digits"}, "expected a folder or a prefix of a store"),
        ({"source": "postgresql://user:secret@db/orders"}, "belongs in an environment variable"),
        ({"source": "s3://key:secret@bucket/x.csv"}, "expected no credentials in it"),
        ({"source": "s3://bucket/../x.csv"}, r"without \. and \.\."),
    ],
)
def test_a_source_that_cannot_be_is_refused_in_the_file(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate({"source": "in", **section})


# --- stores without a server here -----------------------------------------------------------------------------------


def test_google_s_storage_is_read_through_pyarrow(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    deliver(tmp_path / "bucket" / "in", "2026-11-26")
    deliver(tmp_path / "bucket" / "in", "2026-11-27", table(24), marker=False)
    # The wrapper is the real one; only what it wraps is another file system of pyarrow.
    monkeypatch.setattr(
        "pyarrow.fs.GcsFileSystem", lambda: SubTreeFileSystem(str(tmp_path), LocalFileSystem()), raising=False
    )
    assert isinstance(stores.BucketStore("gs://bucket/in")._system, ArrowFSWrapper)
    taken = take("gs://bucket/in", newest=BY_MARKER)
    assert (rows(taken), taken.document.sources[0].address) == (20, "gs://bucket/in/2026-11-26/orders.csv")


def test_a_library_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://b/in: expected the extra sources-s3, .* 'holdfast\[sources-s3\]'"):
        stores.BucketStore("s3://b/in").entries("")
