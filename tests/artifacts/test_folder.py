import errno
import hashlib
import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.artifacts.documents import Baseline, GateDecision, Snapshot
from holdfast.artifacts.folder import (
    DOCUMENT,
    MAX_FILE_BYTES,
    Ref,
    canonical_json,
    load,
    load_any,
    replace_file,
    save,
    seal,
    write_artifact,
)
from holdfast.errors import ArtifactError, IntegrityError

ABSENT = Baseline(name="digits", present=False)


def _with_link(work: Path) -> Path:
    (work / "x").symlink_to("/etc/hostname")
    return work


def test_a_file_larger_than_any_may_be_is_neither_pinned_nor_hashed(tmp_path: Path) -> None:
    large = tmp_path / "x"
    with large.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)  # sparse: it takes no room, and hashing it would take many seconds
    began = time.process_time()
    with pytest.raises(IntegrityError, match=f"x: expected at most {MAX_FILE_BYTES} bytes, found {MAX_FILE_BYTES + 1}"):
        seal(tmp_path, ABSENT)
    assert time.process_time() - began < 1
    assert not (tmp_path / DOCUMENT).exists()


@pytest.mark.parametrize("size", [MAX_FILE_BYTES + 1, 2**62])
def test_a_document_that_pins_a_file_larger_than_any_may_be_is_refused(tmp_path: Path, size: int) -> None:
    pin(tmp_path / "a", size)
    with pytest.raises(ArtifactError, match=f"expected files of at most {MAX_FILE_BYTES} bytes, found x: {size}"):
        load(tmp_path / "a", Baseline)


def test_a_document_that_pins_the_largest_file_is_read(tmp_path: Path) -> None:
    pin(tmp_path / "a", MAX_FILE_BYTES)
    assert load(tmp_path / "a", Baseline).document.files["x"].bytes == MAX_FILE_BYTES


def pin(folder: Path, size: int) -> None:
    """An artifact whose document promises a file `x` of `size` bytes."""
    save(folder, ABSENT, {"x": b"1"})
    document = json.loads((folder / DOCUMENT).read_bytes())
    document["files"]["x"]["bytes"] = size
    (folder / DOCUMENT).write_text(json.dumps(document))


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    saved = save(tmp_path / "a", ABSENT, {"model/weights": b"w"})
    read = load(tmp_path / "a", Baseline)
    assert read.document == saved.document
    assert read.digest == saved.digest
    assert read.open("model/weights").read() == b"w"
    assert read.path("model/weights").read_bytes() == b"w"


def test_the_digest_is_the_sha256_of_the_document(tmp_path: Path) -> None:
    saved = save(tmp_path / "a", ABSENT)
    assert hashlib.sha256((tmp_path / "a" / DOCUMENT).read_bytes()).hexdigest() == saved.digest


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    first = save(tmp_path / "a", ABSENT, {"x": b"1", "y": b"2"})
    second = save(tmp_path / "b", ABSENT, {"y": b"2", "x": b"1"})
    assert first.digest == second.digest


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(place=st.integers(0, 199), flip=st.integers(1, 255))
def test_one_altered_byte_is_refused_when_read(tmp_path: Path, place: int, flip: int) -> None:
    data = bytes(range(200))
    artifact = save(tmp_path / "a", ABSENT, {"x": data})
    altered = bytearray(data)
    altered[place] ^= flip
    (tmp_path / "a" / "x").write_bytes(bytes(altered))
    with pytest.raises(IntegrityError, match="altered after the artifact was written"):
        artifact.open("x")
    with pytest.raises(IntegrityError, match="expected sha256"):
        artifact.path("x")


def test_an_altered_document_is_refused_by_its_digest(tmp_path: Path) -> None:
    saved = save(tmp_path / "a", ABSENT)
    path = tmp_path / "a" / DOCUMENT
    path.write_bytes(path.read_bytes().replace(b"digits", b"digitz"))
    with pytest.raises(IntegrityError, match=f"expected artifact {saved.digest[:12]}"):
        load(Ref(tmp_path / "a", saved.digest), Baseline)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    artifact = save(tmp_path / "a", ABSENT, {"x": b"12345"})
    (tmp_path / "a" / "x").write_bytes(b"1234")
    with pytest.raises(IntegrityError, match="x"):
        artifact.open("x")


def test_a_file_replaced_by_a_link_is_refused(tmp_path: Path) -> None:
    artifact = save(tmp_path / "a", ABSENT, {"x": b"12345"})
    (tmp_path / "copy").write_bytes(b"12345")
    (tmp_path / "a" / "x").unlink()
    (tmp_path / "a" / "x").symlink_to(tmp_path / "copy")
    with pytest.raises(IntegrityError, match="expected a file"):
        artifact.path("x")


def test_a_link_among_the_files_of_a_step_is_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="expected a file"), write_artifact(tmp_path / "a") as work:
        seal(_with_link(work), ABSENT)
    assert list(tmp_path.iterdir()) == []


def test_another_kind_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", ABSENT)
    with pytest.raises(ArtifactError, match="expected a gate-decision, found a baseline"):
        load(tmp_path / "a", GateDecision)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON document"),
        ("[" * 100_000, "expected a JSON document"),
        ('{"kind": "baseline", "kind": "model"}', "a key that is given twice"),
        ('{"kind": "unheard-of"}', "does not match any of the expected tags"),
        ('{"kind": "baseline", "name": "x", "present": false, "extra": 1}', "[Ee]xtra inputs are not permitted"),
        ('{"kind": "baseline", "name": "x", "present": false, "version": 2}', "1"),
        (
            '{"kind": "baseline", "name": "x", "present": false, "files": {"../up": {"sha256": "%s", "bytes": 1}}}'
            % ("0" * 64),
            "relative file names",
        ),
    ],
)
def test_a_document_that_is_not_one_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / DOCUMENT).write_text(text)
    with pytest.raises(ArtifactError, match=message):
        load_any(tmp_path)


def test_not_a_number_never_enters_a_document(tmp_path: Path) -> None:
    text = canonical_json(ABSENT).decode().replace('"present":false', '"present":NaN')
    (tmp_path / DOCUMENT).write_text(text)
    with pytest.raises(ArtifactError, match="present"):
        load_any(tmp_path)


def test_a_folder_without_a_document_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a file of an artifact"):
        load(tmp_path, Snapshot)


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_artifact(tmp_path / "a") as work:
        len(work.name) / (work / "half").write_text("")
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_forgets_its_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="without sealing"), write_artifact(tmp_path / "a"):
        pass


def test_running_twice_replaces_the_artifact(tmp_path: Path) -> None:
    save(tmp_path / "a", ABSENT, {"old": b"1"})
    save(tmp_path / "a", ABSENT, {"new": b"2"})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [DOCUMENT, "new"]


def test_a_reference_names_folder_and_digest() -> None:
    digest = "0" * 64
    assert Ref.parse(f"/x/a@{digest}") == Ref(Path("/x/a"), digest)
    assert Ref.parse("/x/a@home") == Ref(Path("/x/a@home"))


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    program = (
        "import sys; from pathlib import Path; from holdfast.artifacts.folder import replace_file\n"
        "print('go', flush=True)\n"
        "while True: replace_file(Path(sys.argv[1]), b'new' * 100_000)"
    )
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        child.wait()
        assert path.read_bytes() in (b"old", b"new" * 100_000)


def test_a_full_disk_is_an_error_that_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            replace_file(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_canonical_json_is_sorted_and_closed_by_one_newline() -> None:
    text = canonical_json(ABSENT).decode()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_a_large_file_is_read_from_disk_and_an_altered_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.artifacts.folder.IN_MEMORY", 10)
    made = save(tmp_path / "out", ABSENT, {"rows": b"0123456789" * 20, "few": b"0123"})
    with made.stream("rows") as rows, made.stream("few") as few:
        rows.seek(195)
        assert (rows.read(), few.read()) == (b"56789", b"0123")
    (made.folder / "rows").write_bytes(b"0123456789" * 19 + b"012345678x")
    with pytest.raises(IntegrityError, match="rows: expected sha256 .* found other bytes"):
        made.stream("rows")


@pytest.mark.parametrize(
    ("mask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o007, 0o770, 0o660)]
)
def test_others_read_what_the_umask_allows_and_never_what_is_private(
    tmp_path: Path, mask: int, folder: int, file: int
) -> None:
    before = os.umask(mask)
    try:
        saved = save(tmp_path / "a", Baseline(name="digits", present=False), {"x": b"1"})
        replace_file(tmp_path / "secret", b"", private=True)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (saved.folder, saved.folder / DOCUMENT, tmp_path / "secret")]
    assert modes == [folder, file, 0o600]


def document(**changes: object) -> bytes:
    value = {"kind": "baseline", "name": "t", "present": False, "inputs": {}, "files": {}, **changes}
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (document(name=[0] * 1_000_001), "expected a document of at most 1000000 values, found more"),
        (document(files={str(n): 1 for n in range(5_000)}), "expected a Holdfast document, found 5000 values that are"),
        (
            document(files={str(n): {"sha256": "0" * 64, "bytes": 0} for n in range(10_001)}),
            "expected at most 10000 files, found 10001",
        ),
        (document(files={".": {"sha256": "0" * 64, "bytes": 0}}), "expected relative file names, found '.'"),
    ],
)
def test_a_document_of_too_much_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_bytes(data)
    with pytest.raises(ArtifactError, match=message):
        load_any(tmp_path)
