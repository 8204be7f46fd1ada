"""The documentation as a site: strict, complete, and with nothing from another host."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-docs" / "bin" / "python"


def load_tool(name: str) -> ModuleType:
    """A module of tools/, which is no package."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(ROOT / "tools"))


docs = load_tool("build_docs")
cli_reference = load_tool("cli_reference")


def build(out: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs, into another folder."""
    if not PYTHON.exists():
        pytest.skip("needs the documentation's environment: make .venv-docs/.done")
    command = [str(PYTHON), "tools/build_docs.py", "--out", str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs")
    done = build(out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "site"


def words(page: Path) -> str:
    """A page's text without its elements."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_page_of_the_repository_is_on_the_site(site):
    for page in docs.pages(ROOT):
        assert (site / docs.place(page)).with_suffix(".html").is_file(), page


def test_every_step_has_a_page_that_leads_to_its_options(site):
    steps = [page for page in docs.pages(ROOT) if docs.is_step(page)]
    assert len(steps) >= 11
    for step in steps:
        page = (site / docs.place(step)).with_suffix(".html")
        assert "What it does not tell you" in words(page)
        assert re.search(r'href="\.\./command-line\.html#holdfast-\w+', page.read_text()), step


def test_the_reference_has_every_command_with_every_option(site):
    from typer.main import get_command

    from holdfast.cli import app

    page = (site / "command-line.html").read_text()
    found = list(cli_reference.commands(get_command(app), "holdfast", ""))
    assert {"holdfast attack", "holdfast rollout start", "holdfast quarantine show"} <= {name for name, _, _ in found}
    for name, _, command in found:
        start = page.index(f'id="{name.replace(" ", "-")}"')
        section = page[start : page.find("<h2", start + 1)]
        for parameter in (part for part in command.params if not part.hidden):
            options = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
            for option in options:
                assert f"<code>{option}</code>" in section, f"{name} {option}"


def test_search_finds_words_of_the_pages_without_a_server(site):
    index = (site / "search.js").read_text()  # what a page loads when it is opened from the file system
    items = json.loads(index.removeprefix("var __index = ").rstrip().removesuffix(";"))["items"]
    texts = {item["location"].partition("#")[0]: "" for item in items}
    for item in items:
        texts[item["location"].partition("#")[0]] += item["title"] + item["text"]
    assert "Clopper-Pearson" in texts["steps/certify.html"]
    assert "--enforce" in texts["command-line.html"]


def test_a_browser_loads_nothing_from_another_host(site):
    assert list(docs.loaded_from_elsewhere(site)) == []


@pytest.mark.parametrize(
    "element",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img srcset="http://pictures.example/x.png 2x">',
        '<p style="background: url(https://pictures.example/x.png)">',
        "<style>@import 'https://fonts.example/css';</style>",
    ],
)
def test_what_a_browser_would_load_from_another_host_is_found(tmp_path, element):
    (tmp_path / "page.html").write_text(
        f"<html><body><a href='https://linked.example'>a link</a>{element}</body></html>"
    )
    (found,) = docs.loaded_from_elsewhere(tmp_path)
    assert re.search(r"//(cdn|fonts|pictures)\.example.* in page\.html$", found)


BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, "tools")
import build_docs
build_docs.build(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("link", "warning"),
    [
        ("[gone](gone.md)", "page does not exist"),
        ("[gone](threat-model.md#no-such-heading)", "anchor does not exist"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, link, warning):
    if not PYTHON.exists():
        pytest.skip("needs the documentation's environment: make .venv-docs/.done")
    docs.assemble(ROOT, tmp_path)
    with (tmp_path / "pages" / "index.md").open("a") as page:
        page.write(f"\n\n{link}\n")
    command = [str(PYTHON), "-c", BUILD, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert warning in done.stdout + done.stderr


def test_a_link_to_a_file_that_is_not_there_names_the_page(tmp_path):
    site = docs.Site(ROOT, tmp_path, ["README.md", "docs/index.md"])
    with pytest.raises(docs.DocsError, match=r"docs/index\.md: link to \.\./GONE\.md, found no such file"):
        site.target("docs/index.md", "../GONE.md")


def test_a_page_that_no_section_names_fails():
    with pytest.raises(docs.DocsError, match=r"docs/new\.md: expected a section in NAVIGATION"):
        docs.navigation([*docs.pages(ROOT), "docs/new.md"])


@pytest.mark.parametrize(
    ("page", "link", "target"),
    [
        ("README.md", "docs/workload.md#keys", "workload.md#keys"),
        ("docs/index.md", "../README.md", "index.md"),
        ("README.md", "components/holdfast/model/scan", "steps/scan.md"),
        ("docs/index.md", "https://example.org/x.md", "https://example.org/x.md"),
        ("components/holdfast/model/scan/README.md", "../../../../docs/scans.md", "../scans.md"),
        ("README.md", "LICENSE", "files/LICENSE.txt"),
        ("README.md", "docs/dag.svg", "files/docs/dag.svg"),
        ("docs/index.md", "../manifests/schemas", "manifests.md"),
    ],
)
def test_links_lead_to_the_sites_own_files(tmp_path, page, link, target):
    assert docs.Site(ROOT, tmp_path, docs.pages(ROOT)).target(page, link) == target


def test_code_keeps_its_brackets():
    text = "a [b](c)\n\n```python\nx[i](j)\n```\n\n    y[i](j)\n\nand `z[i](j)`\n"
    changed = docs.outside_code(text, lambda part: docs.LINK.sub("X", part))
    assert changed == text.replace("[b](c)", "[b](X)")


def test_a_list_gets_the_empty_line_that_python_markdown_needs():
    assert docs.spaced("Either:\n- a\n- b\n  more\n1. c") == "Either:\n\n- a\n- b\n  more\n1. c"
    assert docs.spaced("```\nx\n- y\n```") == "```\nx\n- y\n```"
