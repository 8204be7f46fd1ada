"""Names from data end in terminals and on pages, and may be anything."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from holdfast.wording import markdown_text, printable_lines

EVIL = [
    "![x](https://evil.example/pixel.png)",
    "[click](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<https://evil.example>",
    "`code` **bold** __bold__ *i* _i_ ~~gone~~",
    "a | b | c",
    "&lt;b&gt; &#64;",
    "$x^2$",
    "tail\\",
    "**\n\n# a headline\n\n| a |\n|---|\n",
    "a\x1b[2Jb\u202ec",
]


def texts(name: str) -> list[tuple[str, str]]:
    """Type and content of all that a table cell with the name becomes."""
    page = f"| check | found |\n|---|---|\n| {markdown_text(name)} | end |\n"
    cells = [token for token in MarkdownIt("commonmark").enable("table").parse(page) if token.type == "inline"]
    assert [cell.content for cell in cells[:2]] == ["check", "found"]
    assert cells[-1].content == "end"
    assert len(cells) == 4
    return [(child.type, child.content) for child in cells[2].children or ()]


@pytest.mark.parametrize("name", EVIL)
def test_a_name_is_only_a_name_on_a_page(name: str) -> None:
    found = texts(name)
    assert {kind for kind, _ in found} <= {"text", "text_special"}
    shown = "".join(content for _, content in found).replace("\u2060", "")
    assert shown == printable_lines(" ".join(name.split()))


@given(st.text(alphabet="ab \\`*_[]()<>!|~&#$@:/.-+=\"'\n\t\x1bé0", max_size=60))
def test_any_text_is_only_text_on_a_page(name: str) -> None:
    assert {kind for kind, _ in texts(name)} <= {"text", "text_special"}


@pytest.mark.parametrize(
    "name", ["@team", "see https://evil.example", "WWW.evil.example", "fixes #12", "a@b.example", "see !12", "gh-12"]
)
def test_nothing_is_left_that_a_page_links_by_itself(name: str) -> None:
    assert re.search(r"@[\w-]|://|www\.|[#!]\d|GH-\d", markdown_text(name), re.IGNORECASE) is None


@pytest.mark.parametrize(
    "name", ["clean_accuracy", "0.931 (335 of 360)", "[0.906, 0.951]", "never answers 'fraud' (0 of 14); 5 % < 3"]
)
def test_an_ordinary_sentence_can_still_be_read_unrendered(name: str) -> None:
    assert markdown_text(name) == name.replace("<", "\\<")


def test_a_terminal_obeys_nothing() -> None:
    assert printable_lines("one\x1b[31m\r\ntwo\u009b") == "one\\x1b[31m\\r\ntwo\\x9b"
