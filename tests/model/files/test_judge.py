"""Which files are accepted: the harmless ones of three kinds, and nothing else."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import corpus
import numpy as np
import pytest
import torch
from torch import nn

from holdfast.model.files.judge import judge, judge_file, lines

HARMLESS = {
    "safetensors": corpus.good_safetensors,
    "torch-zip": lambda: corpus.torch_zip(corpus.WEIGHTS),
    "torch-legacy": lambda: corpus.torch_legacy(corpus.WEIGHTS),
    "onnx": corpus.onnx,
}


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """What every payload would make; a script for runpy lies beside it. Nothing may have made it at the end."""
    path = tmp_path / "it-ran"
    path.with_suffix(".py").write_text(f"open({str(path)!r}, 'w')")
    yield path
    assert not path.exists()


@pytest.mark.parametrize("kind", HARMLESS)
def test_the_harmless_file_of_each_kind_is_accepted(kind: str) -> None:
    found = judge(HARMLESS[kind](), "any name")
    assert (found.kind, found.verdict, found.advice) == (kind, "accepted", ())


def test_our_onnx_file_is_one_by_the_onnx_library_in_torch() -> None:
    torch._C._check_onnx_proto(corpus.onnx())


@pytest.mark.parametrize("payload", ["os.system", "eval", "runpy"])
@pytest.mark.parametrize("made", [pickle.dumps, corpus.torch_zip, corpus.torch_legacy, corpus.joblib_like])
def test_a_pickle_with_a_call_is_refused_and_not_run(
    made: Callable[[object], bytes], payload: str, marker: Path
) -> None:
    found = judge(made(corpus.payloads(marker)[payload]), "model.pt")
    assert found.verdict == "refused"


@pytest.mark.parametrize("made", [pickle.dumps, corpus.torch_zip, corpus.torch_legacy])
def test_the_advice_names_the_call(made: Callable[[object], bytes], marker: Path) -> None:
    found = judge(made({"w": corpus.payloads(marker)["os.system"]}), "model.pt")
    assert found.advice == ("picklescan: dangerous import posix.system",)


def test_a_whole_module_is_refused_with_the_class_that_it_asks_for() -> None:
    found = judge(corpus.torch_zip(nn.Linear(2, 2)), "model.pt")
    assert found.reason.endswith("found a call of torch.nn.modules.linear.Linear")


def test_what_cannot_be_scanned_is_refused(marker: Path) -> None:
    found = judge(corpus.joblib_like(corpus.payloads(marker)["eval"]), "model.joblib")
    assert found.reason == "expected a pickle that picklescan can scan, found one that it cannot read"
    broken = corpus.rezipped(corpus.torch_zip(corpus.WEIGHTS), {"archive/data.pkl": b"\x80\x02}q\x00("})
    assert judge(broken, "model.pt").reason.startswith("expected a pickle that can be scanned, found")


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_file_that_was_cut_is_refused(kind: str) -> None:
    data = HARMLESS[kind]()
    for size in sorted({0, 1, 7, 8, len(data) // 2, len(data) - 9, len(data) - 1}):
        assert judge(data[:size], "model").verdict == "refused", size


@pytest.mark.parametrize("kind", HARMLESS)
def test_no_altered_file_gets_past_as_an_error(kind: str) -> None:
    good, rng = HARMLESS[kind](), np.random.default_rng(0)
    for place in rng.integers(0, min(len(good), 900), 60):
        data = bytearray(good)
        data[place] ^= 1 << int(rng.integers(8))
        assert judge(bytes(data), "model").verdict in ("accepted", "refused")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x08" * 50,
        b"\x08\x08",
        bytes(range(256)) * 4,
        b"GGUF\x03\0\0\0",
        b"\x93NUMPY\x01\0",
        b"PK\x05\x06",
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    assert judge(data, "model.onnx").verdict == "refused"


def test_a_zip_behind_zero_bytes_is_refused() -> None:
    found = judge(bytes(16) + corpus.torch_zip(corpus.WEIGHTS), "model.pt")
    assert (found.kind, found.verdict) == ("unknown", "refused")


def test_an_extension_says_nothing(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(corpus.payloads(marker)["eval"]))
    (tmp_path / "a.exe").write_bytes(corpus.good_safetensors())
    assert judge_file(tmp_path / "a.safetensors").kind == "pickle"
    assert judge_file(tmp_path / "a.exe").verdict == "accepted"


def test_links_folders_and_absent_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(corpus.good_safetensors())
    (tmp_path / "link").symlink_to(tmp_path / "good")
    for path in (tmp_path / "link", tmp_path, tmp_path / "absent", Path("/dev/zero")):
        assert judge_file(path).verdict == "refused", path


# --- zip archives ---------------------------------------------------------------------------------------------------


def zip_with(**change: bytes | None) -> bytes:
    names = {name.replace("__", "/").replace("_pkl", ".pkl"): content for name, content in change.items()}
    return corpus.rezipped(corpus.torch_zip(corpus.WEIGHTS), names)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            lambda: corpus.rezipped(corpus.torch_zip(corpus.WEIGHTS), {}, compress=True),
            "found 'archive/data.pkl' compr",
        ),
        (lambda: zip_with(archive__code__x=b"1"), "expected the members that torch.save writes, found 'code/x'"),
        (lambda: zip_with(archive__data_pkl=None), "expected the members that torch.save writes"),
        (lambda: zip_with(other__data=b"1"), "expected members in one folder of the archive, found 'other/data'"),
        (lambda: zip_with(alone=b"1"), "expected members in one folder"),
        (lambda: corpus.rezipped(corpus.torch_zip({}), {"archive/../../x": b"1"}), "expected members in one folder"),
        (lambda: corpus.rezipped(corpus.torch_zip({}), {"/archive/x": b"1"}), "expected members in one folder"),
    ],
)
def test_an_archive_that_torch_would_not_write_is_refused(data: Callable[[], bytes], message: str) -> None:
    assert message in judge(data(), "model.pt").reason


def between_members(data: bytes, more: bytes) -> bytes:
    """The archive with bytes between its last member and its directory, which records the new place."""
    directory = int.from_bytes(data[-6:-2], "little")
    moved = (directory + len(more)).to_bytes(4, "little")
    found = zipfile.ZipFile(io.BytesIO(data)).start_dir
    assert found == directory
    return data[:directory] + more + data[directory:-6] + moved + data[-2:]


@pytest.mark.parametrize(
    "hide",
    [
        lambda data, more: data + more,
        lambda data, more: data[:-2] + len(more).to_bytes(2, "little") + more,
        between_members,
    ],
    ids=["behind", "comment", "between"],
)
@pytest.mark.parametrize("rewritten", [False, True])
def test_bytes_that_no_reader_of_the_archive_sees_are_refused(
    hide: Callable[[bytes, bytes], bytes], rewritten: bool
) -> None:
    whole = corpus.torch_zip(corpus.WEIGHTS)
    data = corpus.rezipped(whole, {}) if rewritten else whole
    assert judge(data, "model.pt").verdict == "accepted"
    hidden = pickle.dumps({"more": 1})
    assert judge(hide(data, hidden), "model.pt").verdict == "refused"


@pytest.mark.parametrize("more", [b"\0", b"\0" * 100, pickle.dumps({"more": 1})])
def test_bytes_behind_the_storages_of_a_legacy_file_are_refused(more: bytes) -> None:
    data = corpus.torch_legacy(corpus.WEIGHTS)
    assert judge(data, "model.pt").verdict == "accepted"
    found = judge(data + more, "model.pt")
    assert found.verdict == "refused"
    assert f"nothing behind them, found {len(more)} bytes more" in found.reason


def test_a_member_that_stands_twice_is_refused() -> None:
    data = bytearray(zip_with(archive__data__9=b"9", archive__data__8=b"8"))
    data = data.replace(b"archive/data/9", b"archive/data/8")
    assert judge(bytes(data), "model.pt").reason == "expected each member once, found a name twice"


def test_two_names_for_one_member_are_refused() -> None:
    data = zip_with(archive__data__9=b"9")
    at = data.index(b"archive/data/9")
    lying = data[:at] + b"archive/data/7" + data[at + 14 :]
    assert "where the directory records it, found b'archive/data/7'" in judge(lying, "model.pt").reason


def test_a_bomb_is_refused_by_arithmetic() -> None:
    # Overlapping members (Fifield 2019) declare more bytes than the file has; compressed ones are not read at all.
    data = bytearray(zip_with(archive__data__9=bytes(100)))
    last = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, last + 20, 2**31 - 1, 2**31 - 1)
    assert "(the file's own), found 21474" in judge(bytes(data), "model.pt").reason


# --- what a file costs ----------------------------------------------------------------------------------------------


def test_a_small_file_that_becomes_four_gigabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(corpus.four_gigabytes())
    found = judge_file(tmp_path / "m.pt")
    assert (found.kind, found.verdict) == ("torch-zip", "refused")
    assert found.reason == "expected tensors that memory holds, found a file that asks for more"


def test_a_small_file_that_takes_for_ever_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(corpus.slow_key())
    found = judge_file(tmp_path / "m.pt")
    assert found.reason == "expected to be read within 1 s of CPU time, found a file that takes more"


def test_what_is_larger_than_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "m.pt").open("wb") as stream:
        stream.truncate(2**40)
    assert judge_file(tmp_path / "m.pt").reason == f"expected at most {2**32} bytes, found {2**40}"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_regular_files_are_opened(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "m.pt")
    assert judge_file(tmp_path / "m.pt").verdict == "refused"


# --- safetensors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"a": corpus.entry(0, 8, [2]), "b": corpus.entry(4, 12, [2])}, 12, "to begin at 8, found 4 (an overlap)"),
        ({"a": corpus.entry(0, 8, [2]), "b": corpus.entry(12, 20, [2])}, 20, "to begin at 8, found 12 (a hole)"),
        ({"a": corpus.entry(0, 8, [2])}, 12, "expected 8 bytes of tensors, found 12"),
        ({"a": corpus.entry(0, 8, [2])}, 4, "expected 8 bytes of tensors, found 4"),
        ({"a": corpus.entry(0, 8, [3])}, 8, "expected the bytes of F32[3], found other offsets"),
        ({"a": corpus.entry(8, 0, [2])}, 8, "expected two offsets in order, found [8, 0]"),
        ({"a": corpus.entry(-8, 0, [2])}, 8, "expected two offsets in order"),
        ({"a": corpus.entry(0, 8, [2**40, 2**40])}, 8, "expected the bytes of F32"),
        ({"a": corpus.entry(0, 8, [-2])}, 8, "expected a shape of whole numbers"),
        ({"a": corpus.entry(0, 8, [True, 2])}, 8, "expected a shape of whole numbers"),
        ({"a": corpus.entry(0, 8, [2], "F33")}, 8, "expected a known dtype, found 'F33'"),
        ({"a": {"dtype": "F32"}}, 0, "expected dtype, shape and data_offsets"),
        ({"__metadata__": {"a": 1}}, 0, "expected text in __metadata__"),
        ('{"a":{},"a":{}}', 0, "expected a JSON header, found a name that occurs twice"),
        ("{" * 5000, 0, "expected a JSON header"),
        ('{"a":NaN', 0, "expected a JSON header"),
    ],
)  # fmt: skip
def test_a_safetensors_header_must_describe_the_bytes(header: object, body: int, message: str) -> None:
    found = judge(corpus.safetensors(header, bytes(body)), "model.safetensors")
    assert (found.kind, found.verdict) == ("safetensors", "refused")
    assert message in found.reason


def test_a_huge_header_is_refused_before_it_is_read() -> None:
    declared = struct.pack("<Q", 2**40) + b"{}"
    assert "at most 16777216 bytes, found 1099511627776 declared" in judge(declared, "m").reason


def test_what_safetensors_writes_it_also_reads_after_the_check() -> None:
    from safetensors.torch import load

    assert torch.equal(load(corpus.good_safetensors())["w"], corpus.WEIGHTS["w"])


# --- ONNX -----------------------------------------------------------------------------------------------------------


def test_onnx_with_tensors_in_other_files_is_refused() -> None:
    found = judge(corpus.onnx(tensor=corpus.EXTERNAL), "m.onnx")
    assert (found.kind, found.verdict) == ("onnx", "refused")
    assert found.reason.startswith("expected all tensors inside the file, found")


@pytest.mark.parametrize("place", [2, 2**32 + 1, 2**63 + 1, 2**64 - 1])
def test_another_way_to_write_that_a_tensor_lies_elsewhere_is_refused(place: int) -> None:
    found = judge(corpus.onnx(tensor=corpus.proto((14, place))), "m.onnx")
    assert (found.kind, found.verdict) == ("onnx", "refused")
    assert found.reason == f"expected the place of an ONNX tensor's data to be 0 or 1, found {place}"
    assert judge(corpus.onnx(tensor=corpus.proto((14, 0))), "m.onnx").verdict == "accepted"


def test_external_data_is_found_inside_a_nested_graph_and_a_sparse_tensor() -> None:
    tensor = corpus.proto((1, 2), (2, 1), (8, "w")) + corpus.EXTERNAL
    for attribute in (
        corpus.proto((1, "a"), (6, corpus.proto((5, tensor)))),
        corpus.proto((22, corpus.proto((1, tensor)))),
    ):
        function = corpus.proto((1, "f"), (7, corpus.proto((4, "If"), (5, attribute))))
        assert "external data" in judge(corpus.onnx(more=corpus.proto((25, function))), "m").reason


def test_onnx_operators_and_functions_of_others_are_told() -> None:
    assert judge(corpus.onnx(domain="com.acme"), "m").advice == (
        "operators of 'com.acme', which the runtime must be given as code",
    )
    function = corpus.proto((1, "f"), (10, ""))
    assert judge(corpus.onnx(more=corpus.proto((25, function))), "m").advice == ("1 functions of its own",)


@pytest.mark.parametrize("more", [corpus.proto((77, b"x")), corpus.proto((7, b"")), corpus.proto((1, b"text"))])
def test_onnx_with_fields_that_onnx_does_not_have_is_refused(more: bytes) -> None:
    assert judge(corpus.onnx(more=more), "m.onnx").verdict == "refused"


def test_onnx_nested_too_deeply_is_refused() -> None:
    graph = b""
    for _ in range(200):
        graph = corpus.proto((1, corpus.proto((5, corpus.proto((6, graph))))))
    assert "nested messages" in judge(corpus.onnx(more=corpus.proto((20, corpus.proto((1, graph))))), "m").reason


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_line_for_each_file_and_fails_if_one_is_refused(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "good").write_bytes(corpus.good_safetensors())
    (tmp_path / "bad").write_bytes(corpus.torch_zip(corpus.payloads(marker)["os.system"]))
    command = [sys.executable, "-m", "holdfast", "check-model"]
    good = subprocess.run([*command, tmp_path / "good"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout.split()[:2]) == (0, ["accepted", "safetensors"])
    both = subprocess.run([*command, tmp_path / "bad", tmp_path / "good", "--json"], capture_output=True, check=False)
    assert both.returncode == 1
    assert [one["verdict"] for one in json.loads(both.stdout)] == ["refused", "accepted"]


def test_a_name_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in lines(judge(b"", "a\x1b[2J"))
