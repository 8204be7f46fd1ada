"""Known answers: the tree hashed by hand, and RFC 6962's own recursion as brute force."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.artifacts.documents import SourceFile
from holdfast.data.snapshot.merkle import leaf, root, tree
from holdfast.errors import InputError


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def source(path: str, content: bytes) -> SourceFile:
    return SourceFile(path=path, sha256=sha(content).hex(), bytes=len(content))


def brute_force(leaves: list[bytes]) -> bytes:
    # Level by level; an odd last node moves up unchanged: the same tree as the RFC's recursion, by another route.
    level = leaves
    while len(level) > 1:
        pairs = [sha(b"\x01" + a + b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + (level[-1:] if len(level) % 2 else [])
    return level[0]


def test_the_root_of_one_file_is_the_hash_of_its_entry() -> None:
    entry = b"\x00" + b"data.csv" + b"\x00" + (5).to_bytes(8, "big") + sha(b"hello")
    assert root([source("data.csv", b"hello")]) == sha(entry).hex()


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert root([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # RFC 6962, 2.1


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40))
def test_the_tree_is_that_of_the_levels(leaves: list[bytes]) -> None:
    assert tree(leaves) == brute_force(leaves)


@given(st.permutations([("b", b"1"), ("a", b"2"), ("ä", b"3"), ("Z", b"4"), ("a/b", b"5")]))
def test_the_order_of_the_files_does_not_matter(files: list[tuple[str, bytes]]) -> None:
    ordered = sorted((path.encode(), content) for path, content in files)
    expected = brute_force([leaf(source(path.decode(), content)) for path, content in ordered])
    assert root([source(*file) for file in files]) == expected.hex()


def test_renaming_or_swapping_files_changes_the_root() -> None:
    roots = {
        root([source("a", b"1"), source("b", b"2")]),
        root([source("a", b"2"), source("b", b"1")]),
        root([source("a", b"1"), source("c", b"2")]),
        root([source("a", b"1")]),
    }
    assert len(roots) == 4


def test_a_path_that_stands_twice_is_refused() -> None:
    with pytest.raises(InputError, match="data.csv: expected each file of the delivery once, found it twice"):
        root([source("data.csv", b"1"), source("data.csv", b"2")])
