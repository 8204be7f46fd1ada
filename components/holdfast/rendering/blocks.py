"""What a page is made of: sections of tables, figures, galleries and words; the template knows only these."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from markupsafe import Markup

from holdfast.artifacts.documents import Count, Verdict
from holdfast.rendering.numbers import interval, number, percent, span
from holdfast.rendering.svg import tag

BlockCell = Count | Verdict | Markup | str | int | float | None
"""A count becomes a rate with its interval, a verdict a badge, Markup stays, everything else is escaped text."""

GOOD = frozenset({"pass", "promoted", "registered"})
UNSURE = frozenset({"inconclusive"})


@dataclass(frozen=True)
class TableBlock:
    """Rows under a head; `numeric` columns are set flush right, `wide` ones may wrap."""

    head: tuple[str, ...]
    rows: tuple[tuple[BlockCell, ...], ...]
    numeric: tuple[int, ...] = ()
    note: str = ""
    fold: str = ""
    """Words behind which the table is folded away; without any it is open."""
    block: Literal["table"] = "table"


@dataclass(frozen=True)
class Figure:
    """A drawing with its heading and one line on how to read it."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Figures:
    """Drawings side by side as the width allows."""

    items: tuple[Figure, ...]
    size: Literal["small", "normal", "wide"] = "normal"
    note: str = ""
    block: Literal["figures"] = "figures"


@dataclass(frozen=True)
class Picture:
    """One example as a picture (a data URI) with its title and caption."""

    uri: str
    title: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures in a grid."""

    title: str
    items: tuple[Picture, ...]
    note: str = ""
    block: Literal["gallery"] = "gallery"


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str
    block: Literal["prose"] = "prose"


@dataclass(frozen=True)
class Facts:
    """Names and values in a row."""

    pairs: tuple[tuple[str, BlockCell], ...]
    block: Literal["facts"] = "facts"


@dataclass(frozen=True)
class TwoColumns:
    """Two blocks side by side where the page is wide enough."""

    left: "Block"
    right: "Block"
    block: Literal["split"] = "split"


@dataclass(frozen=True)
class Steps:
    """Sentences in the order in which they are to be done."""

    items: tuple[Markup | str, ...]
    block: Literal["steps"] = "steps"


@dataclass(frozen=True)
class Output:
    """Lines of a program, as they are."""

    text: str
    block: Literal["output"] = "output"


Block = TableBlock | Figures | Gallery | Prose | Facts | TwoColumns | Steps | Output


@dataclass(frozen=True)
class PageSection:
    """One part of a run's page."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    verdict: str | None = None
    lead: str = ""


@dataclass(frozen=True)
class PageLocation:
    """Where the page will lie, from which relative links are made."""

    page: Path

    def link(self, target: Path, words: str) -> Markup:
        """A relative link to a file of the run."""
        return tag("a", words, href=quote(self.path(target)))

    def path(self, target: Path) -> str:
        """The path of `target` as seen from the page's folder; what is in it may be a link to another place."""
        folder = self.page.parent
        if target.absolute().is_relative_to(folder.absolute()):
            return target.absolute().relative_to(folder.absolute()).as_posix()
        return Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()


def show(cell: BlockCell) -> Markup | str:
    """A cell as the page shows it."""
    if cell is None:
        return tag("span", "–", class_="none")
    if isinstance(cell, Verdict):
        return badge(cell.value)
    if isinstance(cell, Count):
        return rate(cell)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return number(cell) if isinstance(cell, int | float) else cell


def badge(word: str) -> Markup:
    """A verdict or an outcome: a word, a shape and a colour."""
    tone = "pass" if word in GOOD else "inconclusive" if word in UNSURE else "idle" if word == "not run" else "fail"
    return tag("span", word.replace("-", " "), class_=f"badge badge-{tone}")


def rate(count: Count) -> Markup:
    """k of n as a rate with its interval and the counts themselves."""
    if not count.n:
        return tag("span", "nothing counted", class_="none")
    return tag(
        "span",
        tag("b", percent(count.share)),
        " ",
        tag("small", span(*interval(count))),
        " ",
        tag("small", f"{count.k} of {count.n}", class_="of"),
        class_="rate",
    )


def code(words: str, title: str = "") -> Markup:
    """A digest or a name as code."""
    return tag("code", words, title=title) if title else tag("code", words)


def pairs(**named: BlockCell) -> tuple[tuple[str, BlockCell], ...]:
    """Facts by keyword: `model_version=1` reads "model version"."""
    return tuple((name.replace("_", " "), value) for name, value in named.items())


def cut(
    rows: Sequence[tuple[BlockCell, ...]], most: int, head: tuple[str, ...], *, numeric: tuple[int, ...] = ()
) -> TableBlock:
    """A table of the first `most` rows, with the number of those left out."""
    left = len(rows) - most
    note = f"and {left} more" if left > 0 else ""
    return TableBlock(head, tuple(rows[:most]), numeric, note)
