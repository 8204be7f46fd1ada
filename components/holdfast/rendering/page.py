"""One HTML file of articles that needs nothing else: its only style sheet is inside and pinned, and nothing runs."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from holdfast.rendering.blocks import BlockCell, Facts, PageSection, badge, show


@dataclass(frozen=True)
class Article:
    """One part of a page with its own sections: a run, an incident."""

    key: str
    """Its anchor in the page."""
    title: str
    sections: tuple[PageSection, ...]
    alert: Markup | str = ""
    """What a reader must not miss; it comes first."""
    text: tuple[str, ...] = ()
    outcome: str | None = None
    facts: Facts = Facts(())
    drawing: tuple[Markup, Markup] | None = None
    """The steps, from left to right and from top to bottom."""
    missing: str = ""
    """About the sections that are not there."""
    row: tuple[BlockCell, ...] = ()
    """Its line in the overview of a page with several articles."""


def render(title: str, articles: Sequence[Article], *, motto: str, footer: str) -> str:
    """The page as HTML."""
    here = files("holdfast.rendering")
    style = here.joinpath("style.css").read_text("utf-8")
    loader = DictLoader({"page": here.joinpath("template.html.j2").read_text("utf-8")})
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"show": show, "badge": badge}
    # The policy names the one style sheet by its digest: nothing else can style, run, or be fetched.
    pin = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page").render(
        title=title, acts=articles, motto=motto, footer=footer, style=Markup(style), pin=pin  # noqa: S704
    )  # fmt: skip
