"""How fast files are pinned: ours beside the standard library's, on one 64 MiB file in the page cache."""

import hashlib
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from holdfast.artifacts.folder import sha256_of

MIB = 64


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hashing") / "big"
    path.write_bytes(bytes(range(256)) * (MIB * 4096))
    return path


def in_memory(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@pytest.mark.benchmark(group="sha256 of 64 MiB")
def test_raw_limit(benchmark: BenchmarkFixture, big: Path) -> None:
    benchmark(in_memory, big.read_bytes())


@pytest.mark.benchmark(group="sha256 of 64 MiB")
def test_standard_library(benchmark: BenchmarkFixture, big: Path) -> None:
    benchmark(file_digest, big)


@pytest.mark.benchmark(group="sha256 of 64 MiB")
def test_holdfast(benchmark: BenchmarkFixture, big: Path) -> None:
    assert benchmark(sha256_of, big).sha256 == file_digest(big)
