"""A page of articles: what is shown where, and that nothing on it runs."""

import re

from holdfast.rendering.blocks import Output, PageSection, Prose, Steps, TableBlock
from holdfast.rendering.page import Article, render


def page(**more: object) -> str:
    sections = (PageSection("next", "Next", (Steps(("first <b>", "second")), Output("a\n<script>b"), Prose("words"))),)
    return render("Title", [Article("one", "Part", sections, **more)], motto="", footer="")


def test_an_alert_comes_before_the_paragraphs() -> None:
    shown = page(alert="out of traffic", text=("why", "how"))
    assert re.search(r'<p class="alert">out of traffic</p>\s*<p class="text">why</p><p class="text">how</p>', shown)


def test_without_alert_motto_and_footer_there_is_no_trace_of_them() -> None:
    body = page(text=("why",)).split("</style>")[1]
    assert not re.search('class="(alert|motto)"|<footer>', body)


def test_steps_are_numbered_and_output_stays_as_it_is() -> None:
    shown = page()
    assert '<ol class="steps"><li>first &lt;b&gt;</li><li>second</li></ol>' in shown
    assert "<pre>a\n&lt;script&gt;b</pre>" in shown


def test_the_policy_allows_the_one_style_sheet_and_nothing_else() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page())
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in policy


def test_each_cell_of_a_table_carries_the_name_of_its_column_for_narrow_screens() -> None:
    table = TableBlock(("check <a>", "measured"), (("x", "0.1"),))
    shown = render("T", [Article("a", "b", (PageSection("c", "d", (table,)),))], motto="", footer="")
    assert '<td data-head="check &lt;a&gt;">x</td><td data-head="measured">0.1</td>' in shown
    assert "td::before { content: attr(data-head)" in shown


def test_dark_colours_are_for_screens_alone() -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in page()
    assert "@media (prefers-color-scheme" not in page()
