"""Builds the documentation as a site: `make docs`.

    .venv-docs/bin/python tools/build_docs.py [--out build/docs]

The pages stay where they are edited (README.md, docs/, the README.md in each step's folder); this copies them into one
folder, makes the page about the command line, turns links to other files of the repository into links to copies of
them, and runs `zensical build --strict`, which fails on a link or an anchor that leads nowhere. Settings of the site:
docs/zensical.toml.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from os.path import relpath
from pathlib import Path, PurePosixPath

from cli_reference import anchor, reference

ROOT = Path(__file__).resolve().parents[1]
CLI = "docs/command-line.md"
"""Where the page about the command line would be in the repository."""
STEPS = "Steps"
"""The section of the steps, whose pages are found."""
COMMANDS = {"rollout": "rollout start", "guard": "calibrate", "monitor": "monitor run"}
"""Step's folder -> its command, where that has another name."""
NAVIGATION: dict[str, tuple[str, ...]] = {
    "Start": (
        "README.md", "docs/bring-your-own.md", "docs/deliveries.md", "docs/hardening.md",
        "docs/reading-the-report.md", "docs/pull-request-gate.md", "docs/index.md",
    ),
    STEPS: ("components/README.md",),
    "What is measured": (
        "docs/attacks.md", "docs/certificates.md", "docs/backdoors.md", "docs/scans.md", "docs/quarantine.md",
        "gates/README.md",
    ),
    "On a cluster": (
        "docs/cluster.md", "pipelines/README.md", "docs/work-in-parts.md", "manifests/README.md",
        "docs/rollout-on-seldon.md", "docs/rollout-on-kserve.md", "docs/guard.md", "docs/monitoring.md",
        "docs/reliability.md", "docs/runbooks/rollback.md", "docs/runbooks/monitor.md", "docs/incidents.md",
        "components/holdfast/serving/predictor/README.md",
    ),
    "Reference": (CLI, "docs/workload.md", "docs/benchmarks.md", "CHANGELOG.md"),
    "Security and contributing": (
        "docs/threat-model.md", "docs/signed-evidence.md", "docs/security.md", ".github/SECURITY.md",
        ".github/CONTRIBUTING.md", "docs/architecture.md",
    ),
}  # fmt: skip
"""Section of the site -> its pages, as files of the repository. A page that is in no section fails the build."""
LEFT_OUT = {".github/pull_request_template.md", "tests/MOVED.md"}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
CODE = re.compile(r"(?ms)(^```.*?^```[ ]*$|^ {4,}[^\n]*$|`[^`\n]*`)")
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What zensical's pages load from another host so that search works from the file system."""
OWN_SHIM = "assets/iframe-worker.js"
LOADED = {
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"), "embed": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "object": ("data",), "link": ("href",),
    "use": ("href", "xlink:href"),
}  # fmt: skip
"""Attributes whose address a browser loads by itself."""
ELSEWHERE = re.compile(r"(?i)(?:https?:)?//")
IN_STYLES = re.compile(r"""(?i)(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""")
AS_THEY_ARE = {".svg", ".png"}
"""Files that a browser shows; others get `.txt` so that it shows them, too."""


class DocsError(Exception):
    """The pages cannot be made into a site."""


def main(arguments: list[str] | None = None) -> int:
    """Builds the site and prints where it is; 1 where a page, a link or zensical fails."""
    parser = argparse.ArgumentParser(description="Build the documentation as a site.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="folder to write (replaced)")
    out = parser.parse_args(arguments).out.resolve()
    try:
        assemble(ROOT, out)
        build(out)
    except DocsError as error:
        sys.stderr.write(f"docs: {error}\n")
        return 1
    sys.stdout.write(f"{out / 'site' / 'index.html'}\n")
    return 0


def build(out: Path) -> None:
    """Runs the zensical of this interpreter's environment; a warning fails, and so does a file of another host."""
    zensical = Path(sys.executable).parent / "zensical"
    command = [str(zensical), "build", "--strict", "--clean", "--config-file", str(out / "zensical.toml")]
    if subprocess.run(command, cwd=out, check=False).returncode:
        raise DocsError("zensical found what its lines above name; the site is not complete")
    keep_shim(out / "site")
    if found := next(loaded_from_elsewhere(out / "site"), None):
        raise DocsError(f"expected nothing from another host, found {found}")


def keep_shim(site: Path) -> None:
    """Lets every page load the copy of the shim in docs/assets."""
    shutil.copyfile(ROOT / "docs" / OWN_SHIM, site / OWN_SHIM)
    for page in site.rglob("*.html"):
        page.write_text(page.read_text().replace(SHIM, relpath(site / OWN_SHIM, page.parent)))


def loaded_from_elsewhere(site: Path) -> Iterator[str]:
    """Every address of another host that a page or a style sheet makes a browser load."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".svg"):
            loads = Loads()
            loads.feed(path.read_text())
            yield from (f"{address} in {path.relative_to(site)}" for address in loads.found)
        if path.suffix in (".html", ".svg", ".css"):
            yield from (f"{address} in {path.relative_to(site)}" for address in IN_STYLES.findall(path.read_text()))


class Loads(HTMLParser):
    """Collects what a browser loads from another host while it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Looks at the attributes of one element."""
        values = [value or "" for name, value in attrs if name in LOADED.get(tag, ())]
        self.found += [value for value in values if ELSEWHERE.match(value.strip())]


def assemble(root: Path, out: Path) -> None:
    """Writes into `out` what zensical reads: its settings, the pages, and the files that pages link to."""
    shutil.rmtree(out, ignore_errors=True)
    site = Site(root, out / "pages", pages(root))
    for page in site.places:
        text = reference() if page == CLI else (root / page).read_text()
        site.write(page, text)
    settings = (root / "docs" / "zensical.toml").read_text()
    filled = settings.replace("nav = []\n", f"nav = {_nav(navigation(list(site.places)), site.places)}\n")
    (out / "zensical.toml").write_text(filled)


def pages(root: Path) -> list[str]:
    """Every Markdown page that git knows or would take, and the page about the command line."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    tracked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.split()
    return [*(name for name in tracked or _walk(root) if name not in LEFT_OUT and (root / name).is_file()), CLI]


def _walk(root: Path) -> list[str]:
    """The pages of a source archive, which git does not know."""
    found = [path.relative_to(root) for path in root.rglob("*.md")]
    hidden = {path for path in found if path.parts[0].startswith(".") and path.parts[0] != ".github"}
    return sorted(str(path) for path in found if path not in hidden and path.parts[0] != "build")


def navigation(found: list[str]) -> dict[str, list[str]]:
    """Section -> its pages; each page has one place."""
    sections = {title: list(listed) for title, listed in NAVIGATION.items()}
    named = {page for listed in sections.values() for page in listed}
    sections[STEPS] += sorted((page for page in found if is_step(page)), key=_order)
    named |= set(sections[STEPS])
    if missing := sorted(set(found) - named):
        raise DocsError(f"{missing[0]}: expected a section in NAVIGATION of tools/build_docs.py, found none")
    if absent := sorted(named - set(found)):
        raise DocsError(f"{absent[0]}: expected the page that NAVIGATION of tools/build_docs.py names, found none")
    return sections


def is_step(page: str) -> bool:
    """Whether a page belongs to a step: a README.md next to a `component.py`."""
    return page.endswith("/README.md") and (ROOT / page).with_name("component.py").is_file()


def _order(page: str) -> int:
    """Steps in the order of the table in components/README.md, which is the order of the pipeline."""
    return (ROOT / "components" / "README.md").read_text().find(f"| {PurePosixPath(page).parent.name} |")


def _nav(sections: dict[str, list[str]], places: dict[str, str]) -> str:
    """TOML: sections in order, each with its pages; titles come from the pages."""
    return json.dumps([{title: [places[page] for page in listed]} for title, listed in sections.items()]).replace(
        '": [', '" = ['
    )


def place(page: str) -> str:
    """Where a page of the repository is on the site."""
    path = PurePosixPath(page)
    if page == "README.md":
        return "index.md"
    if path.name == "README.md":
        return f"steps/{path.parent.name}.md" if is_step(page) else f"{path.parent.name}.md"
    if page == "docs/index.md":
        return "pages.md"
    return str(path.relative_to("docs")) if path.parts[0] == "docs" else f"{path.stem.lower()}.md"


class Site:
    """The folder of pages that zensical reads."""

    def __init__(self, root: Path, folder: Path, found: list[str]) -> None:
        self.root = root
        self.folder = folder
        self.places = {page: place(page) for page in found}

    def write(self, page: str, text: str) -> None:
        """Writes a page, its links pointing to the site's own files."""
        path = self.folder / self.places[page]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(spaced(outside_code(text, lambda part: self._linked(page, part))) + self._options(page))

    def _options(self, page: str) -> str:
        """The line that leads from a step to its options."""
        if not is_step(page):
            return ""
        name = PurePosixPath(page).parent.name
        words = f"holdfast {COMMANDS.get(name, name)}"
        target = relpath(self.places[CLI], PurePosixPath(self.places[page]).parent)
        return f"\n\nAll options: [`{words}`]({target}#{anchor(words)}).\n"

    def _linked(self, page: str, text: str) -> str:
        return LINK.sub(lambda found: self.target(page, found[1]), text)

    def target(self, page: str, link: str) -> str:
        """Where a page's link leads on the site."""
        path, mark, heading = link.partition("#")
        if re.match(r"[a-z]+:", link) or not path:
            return link
        found = relpath(self.root / PurePosixPath(page).parent / path, self.root)
        if found.startswith("..") or not (self.root / found).exists() and found not in self.places:
            raise DocsError(f"{page}: link to {link}, found no such file")
        return relpath(self._page_of(found), PurePosixPath(self.places[page]).parent) + mark + heading

    def _page_of(self, name: str) -> str:
        """A page, the page of a folder or of the nearest one above it that has one, or the copy of a file."""
        if name in self.places:
            return self.places[name]
        if (self.root / name).is_dir():
            above = [name, *map(str, PurePosixPath(name).parents)]
            return next(self.places[readme] for folder in above if (readme := _readme(folder)) in self.places)
        return self._copied(name)

    def _copied(self, name: str) -> str:
        suffix = "" if PurePosixPath(name).suffix in AS_THEY_ARE else ".txt"
        copy = f"files/{name}{suffix}"
        (self.folder / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / name, self.folder / copy)
        return copy


def _readme(folder: str) -> str:
    return "README.md" if folder == "." else f"{folder}/README.md"


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with `change` made to everything but code."""
    return "".join(part if number % 2 else change(part) for number, part in enumerate(CODE.split(text)))


def spaced(text: str) -> str:
    """The text with an empty line before each list, where GitHub needs none and Python-Markdown does."""
    return "\n".join(_spaced_lines(text.split("\n")))


def _spaced_lines(lines: list[str]) -> Iterator[str]:
    item = re.compile(r"(?:[-*]|\d+\.) ")
    fenced, before = False, ""
    for line in lines:
        fenced ^= line.startswith("```")
        opens = item.match(line) and before.strip() and not item.match(before) and not before.startswith(" ")
        if opens and not fenced:
            yield ""
        yield line
        before = line


if __name__ == "__main__":
    sys.exit(main())
