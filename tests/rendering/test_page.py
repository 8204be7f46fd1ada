"""A page of articles: what is shown where, and that nothing on it runs."""

import re

from holdfast.rendering.blocks import Output, PageSection, Prose, Steps
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
