"""The pages tell the truth, as far as a machine can know."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command

from holdfast.attestation.trust import TrustFile
from holdfast.cli import app
from holdfast.serving.rollout.cluster.target import read_target
from holdfast.steps import names
from holdfast.workload.schema import Workload, read_workload
from holdfast.workload.yaml import read_yaml, top_keys
from holdfast_pipelines.cluster import ClusterSettings

ROOT = Path(__file__).parents[2]
HEADINGS = ("What it answers", "Reads and writes", "Method", "What it does not tell you", "Run it alone")
MACHINE = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work|workspace|private|mnt)/\w|\b[A-Z]:\\")


def pages() -> list[Path]:
    """Every Markdown page that git knows or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\n") if listed.stdout else _walked()
    return [ROOT / name for name in sorted(filter(None, names)) if (ROOT / name).is_file()]


def _walked() -> list[str]:
    """For a source archive, which git does not know."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return [str(path) for path in found if path.parts[0] == ".github" or not path.parts[0].startswith(".")]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def every_page(test):
    return pytest.mark.parametrize("page", pages(), ids=page_id)(test)


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"(?ms)^```.*?^```|^ {4}.*?$|`[^`\n]*`", "", page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", page.read_text())


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every `holdfast ...` and `make ...` in the page's code, as words; comments and placeholders stay words."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    code = [*re.findall(r"(?ms)^```\w*\n(.*?)^```", text), *re.findall(r"(?m)^ {4,}(.*)$", text)]
    lines = [line for piece in code for line in piece.splitlines()] + re.findall(r"`([^`\n]+)`", prose_with_code(text))
    for line in lines:
        found = re.match(r"(?:\$ |python -m |\.venv/bin/|\.venv/bin/python -m )?((?:holdfast|make) .*)", line.strip())
        if found:
            yield _words(found[1])


def prose_with_code(text: str) -> str:
    """The text outside code blocks, with what is between backticks on one line."""
    outside = re.sub(r"(?ms)^```.*?^```|^ {4,}.*?$", "", text)
    return re.sub(r"`([^`]+)`", lambda found: f"`{' '.join(found[1].split())}`", outside)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.split()


@every_page
def test_links_between_pages_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page_id(page)}: link to {target}, found no such file"
        if anchor:
            assert anchor in anchors(place), f"{page_id(page)}: link to {target}, found no such heading"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the page's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    commands = get_command(app).commands
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    for program, name, *rest in (line for line in command_lines(page) if len(line) > 1):
        if program == "make":
            assert name in targets or not name.isalpha(), f"{page_id(page)}: make {name}"
        elif name.islower() and name.isalpha():
            assert name in commands, f"{page_id(page)}: holdfast {name}"
            command = commands[name]
            if rest and hasattr(command, "commands"):
                assert rest[0] in command.commands, f"{page_id(page)}: holdfast {name} {rest[0]}"
                command = command.commands[rest[0]]
            known = {option for part in command.params for option in (*part.opts, *part.secondary_opts)}
            said = {word.strip("[]").partition("=")[0] for word in rest if word.strip("[").startswith("--")}
            assert said <= known | {"--help"}, f"{page_id(page)}: holdfast {name} {said - known}"


def test_the_commands_are_looked_for_where_pages_have_them() -> None:
    found = {" ".join(line[:2]) for page in pages() for line in command_lines(page)}
    assert {"make demo", "make test", "holdfast run", "holdfast submit", "holdfast verify", "holdfast train"} <= found


@every_page
def test_no_page_names_a_place_on_somebodys_machine(page: Path) -> None:
    assert not MACHINE.findall(page.read_text())


def test_the_map_names_only_what_is_there() -> None:
    map_ = prose_with_code((ROOT / "docs" / "architecture.md").read_text())
    rows = "\n".join(re.findall(r"(?m)^\|.*\|$", map_))
    paths = {path for path in re.findall(r"`([^`\s]+)`", rows) if "/" in path or path.endswith((".py", ".md"))}
    assert len(paths) > 30
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "components" / "holdfast" / path).exists(), f"architecture.md: {path}"


def step_pages() -> list[Path]:
    rows = re.findall(r"(?m)^\| \w+ \|.*\]\(([^)]+)\) \|$", (ROOT / "components" / "README.md").read_text())
    folders = [(ROOT / "components" / row).resolve() for row in rows]
    # The gate's page is next to the policies, where people look for it.
    return [(folder if folder.name != "holdfast_gates" else folder.parent) / "README.md" for folder in folders]


@pytest.mark.parametrize("page", step_pages(), ids=page_id)
def test_every_step_has_a_page_with_the_five_headings(page: Path) -> None:
    headings = re.findall(r"(?m)^## (.*)$", page.read_text())
    assert [heading for heading in headings if heading in HEADINGS] == list(HEADINGS)


def test_there_is_a_page_for_each_step() -> None:
    assert len(step_pages()) == len(names())


def workload_keys() -> dict[str, object]:
    """Key of the workload file -> its default."""
    found: dict[str, object] = {}
    for name, field in Workload.model_fields.items():
        section, key = field.annotation, field.alias or name
        if isinstance(section, type) and issubclass(section, BaseModel):
            inner = section.model_fields.items()
            found |= {f"{key}.{part.alias or name}": part.default for name, part in inner}
        else:
            found[key] = field.default
    return found


def test_the_page_on_the_workload_has_every_key_and_its_default() -> None:
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| (.*?) \| (.+) \|$", (ROOT / "docs" / "workload.md").read_text())
    assert [key for key, _, _ in rows] == list(workload_keys())
    for key, said, _ in rows:
        default = workload_keys()[key]
        if default is PydanticUndefined:
            assert said == "required", key
        elif default is None:
            assert said == "none", key
        else:
            read = yaml.safe_load(said.strip("`"))
            assert (tuple(read) if isinstance(read, list) else read) == default, key


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page, "yaml")], ids=page_id)
def test_files_on_pages_are_valid(page: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    for text in blocks(page, "yaml"):
        path.write_text(text)
        if "registry" in top_keys(path):
            assert read_yaml(path, ClusterSettings).registry
        elif "namespace" in top_keys(path):
            assert read_target(path).namespace
        elif {"roles", "policies"} & top_keys(path):
            assert read_yaml(path, TrustFile).policies
        else:
            assert read_workload(path).name


def test_the_readme_brings_a_model_in_under_twenty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = pytest.importorskip("holdfast.model.networks")
    from holdfast.artifacts.documents import Feature, InputSpec

    readme = ROOT / "README.md"
    (code,), (text,) = blocks(readme, "python"), blocks(readme, "yaml")
    assert len((code + text).splitlines()) < 20
    (tmp_path / "nets.py").write_text(code)
    (tmp_path / "payments.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    features = tuple(Feature(name=name, lower=0, upper=1, scale=1) for name in "abc")
    spec = InputSpec(modality="tabular", shape=(3,), dtype="float32", features=features)
    workload = read_workload(tmp_path / "payments.yaml")
    net = networks.build(workload.network, spec, 2, seed=0)
    assert networks.parameters(net) == 2 * 3 + 4 * 64 + 65 * 2  # batch norm, hidden layer, logits


def test_the_picture_of_the_pipeline_shows_every_step() -> None:
    drawing = ElementTree.fromstring((ROOT / "docs" / "dag.svg").read_text())
    words = {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert set(names()) <= words
    line = re.search(r"(?m)^ {4}snapshot -> .*$", (ROOT / "README.md").read_text())
    assert line is not None
    assert sorted(re.findall(r"\w+", line[0])) == sorted(names())


def test_the_readme_names_what_the_demo_writes() -> None:
    text = (ROOT / "README.md").read_text()
    runs = (ROOT / "pipelines" / "holdfast_pipelines" / "demo" / "runs.py").read_text()
    for name in ("report.html", "summary.json"):
        assert name in text
        assert f'"{name}"' in runs


def test_the_readme_shows_a_picture_of_a_report() -> None:
    assert (ROOT / "docs" / "report.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert re.search(r"!\[[^]]{30,}\]\(docs/report\.png\)", (ROOT / "README.md").read_text()), (
        "with words for the blind"
    )
