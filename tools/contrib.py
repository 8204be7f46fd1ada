"""Renders every step as kubeflow/pipelines-components asks for it, and checks what was rendered.

    .venv/bin/python tools/contrib.py build/contrib                              # what `make contrib` runs
    .venv/bin/python tools/contrib.py build/contrib --registry ghcr.io/kubeflow  # images as they would be hosted there

The layout is that of its docs/CONTRIBUTING.md: a folder per step below `components/CATEGORY/holdfast` with
component.py, metadata.yaml, README.md, OWNERS, example_pipelines.py and tests. A component there may import nothing but
kfp, so what ours take from `holdfast.containers` is written out. The checks are those of its CI (imports, metadata,
images, compilation, descriptions of all parameters). OWNERS is a template, and no image is hosted there yet: the last
line counts these; everything else that is wrong ends with exit code 1.
"""

import argparse
import ast
import datetime
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler

from holdfast import __version__, containers
from holdfast.steps import STEPS, Step

ROOT = Path(__file__).parents[1]
CATEGORIES = {
    "snapshot": "data_processing", "schema": "data_processing", "drift": "data_processing", "scan": "data_processing",
    "train": "training", "register": "deployment", "rollout": "deployment",
}  # fmt: skip
"""Step -> its category there; all others evaluate."""
DESCRIPTIONS = {
    "config": "The step's section of the workload, as JSON.",
    "policy": "The policy: the name of one that ships, or JSON.",
    "seed": "Seed of everything random.",
    "device": "auto, cpu or cuda.",
    "threads": "CPU threads; with more than one, equal inputs give other bytes.",
    "tracking": "MLflow tracking URI.",
    "trust": "Trust policy by its path in the pod; empty: none.",
    "name": "Name of the registered model.",
    "version": "Registered version to roll out.",
    "checkpoint": "Folder that keeps the state of a training that is stopped.",
    "artifact": "What the step writes; its document is artifact.json.",
    "digest": "SHA-256 of that document.",
    "verdict": "pass, inconclusive or fail; pass where the step judges nothing.",
    "metrics": "Numbers for the comparison of runs.",
    "page": "The step's page for people.",
    "part": "Which part of the work this is, counted from 0.",
    "parts": "How many parts there are.",
}
"""Parameter -> what the docstring says about it, where its name does not say all."""
OUR_OWN = ("ownership: OWNERS is a template", "image host: ")
IMPORTED = {"kfp", "pytest"}
IMAGES = re.compile(r"ghcr\.io/kubeflow/|python:\d+\.\d+")
SEMANTIC = re.compile(r"(==|>=|<=|~=)?\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Rendered:
    """A step as a contribution."""

    step: Step
    source: str
    """Of component.py."""

    @property
    def folder(self) -> Path:
        """Below the root of the repository there."""
        return Path("components") / CATEGORIES.get(self.step.name, "evaluation") / "holdfast" / self.step.name


def render(step: Step, registry: str | None) -> Rendered:
    """The step's component.py, with nothing of ours imported."""
    module = import_module(f"{step.package}.component")
    tree = ast.parse(inspect.getsource(module))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    function.decorator_list = [ast.Name("component")]
    image = containers.image(step.environment, registry=registry)
    function.body = [ast.Expr(ast.Constant(_docstring(function))), _returned(function, image)]
    head = f'"""The step {step.name} of Holdfast {__version__} ({_project()})."""\n\n'
    imports = "from kfp import dsl\nfrom kfp.dsl import container_component as component\n\n\n"
    return Rendered(step, _formatted(head + imports + ast.unparse(ast.fix_missing_locations(function)) + "\n"))


def _docstring(function: ast.FunctionDef) -> str:
    lines = [ast.get_docstring(function) or "", "", "Args:"]
    lines += [f"    {one.arg}: {describe(one.arg)}" for one in function.args.args]
    return "\n    ".join([*lines, ""])


def describe(parameter: str) -> str:
    """A line about a parameter of a component."""
    if parameter in DESCRIPTIONS:
        return DESCRIPTIONS[parameter]
    words = parameter.replace("_", " ")
    if parameter.endswith("_digest"):
        return f"Digest that the {words.removesuffix(' digest')} must have."
    return f"The {words}."


def _returned(function: ast.FunctionDef, image: str) -> ast.Return:
    """The container's description, with the image and every argument written out."""
    (found,) = (node for node in function.body if isinstance(node, ast.Return))
    assert isinstance(found.value, ast.Call)
    for keyword in found.value.keywords:
        if keyword.arg == "image":
            keyword.value = ast.Constant(image)
        if keyword.arg == "args":
            assert isinstance(keyword.value, ast.List)
            keyword.value = ast.List([word for one in keyword.value.elts for word in _written_out(one)])
    return found


def _written_out(argument: ast.expr) -> Iterator[ast.expr]:
    """What `*containers.inputs(...)` and its like stand for, one string each."""
    if not (isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Call)):
        yield argument
        return
    call = argument.value
    kind, given = ast.unparse(call.func), {keyword.arg or "": keyword.value for keyword in call.keywords}
    if kind == "containers.inputs":
        for role, pair in given.items():
            assert isinstance(pair, ast.Tuple)
            yield _text(f"--{role}={{{ast.unparse(pair.elts[0])}.path}}@{{{ast.unparse(pair.elts[1])}}}")
    elif kind == "containers.options":
        for name, value in given.items():
            yield _text(f"--{name.replace('_', '-')}={{{ast.unparse(value)}}}")
    elif kind == "containers.outputs":
        artifact, digest, verdict, *page = map(ast.unparse, [*call.args, *given.values()])
        yield _text(f"--out={{{artifact}.path}}")
        yield _text(f"--digest-file={{{digest}}}")
        yield _text(f"--verdict-file={{{verdict}}}")
        yield ast.Constant(containers.EXECUTOR_INPUT + containers.MESSAGE)
        yield from (_text(f"--page-file={{{name}.path}}") for name in page)
    else:
        raise SystemExit(f"contrib: {kind}: expected inputs, options or outputs of holdfast.containers")


def _text(template: str) -> ast.expr:
    return ast.parse(f"f{template!r}", mode="eval").body


# --- the other files --------------------------------------------------------------------------------------------------


def write(one: Rendered, root: Path) -> None:
    """Writes the folder of a step."""
    place, name = root / one.folder, one.step.name
    (place / "tests").mkdir(parents=True)
    metadata, example = _metadata(one.step), _example(one)
    files = {
        "__init__.py": f'"""The step {name} of Holdfast."""\n\nfrom .component import {name}\n\n__all__ = ["{name}"]\n',
        "component.py": one.source,
        "metadata.yaml": metadata,
        "OWNERS": _owners(),
        "example_pipelines.py": example,
        "README.md": _readme(one, metadata, example),
        "tests/__init__.py": "",
        "tests/test_component_unit.py": _test(name),
    }
    for path, text in files.items():
        (place / path).write_text(text)


def write_family(folder: Path) -> None:
    """The files of the subcategory that holds the steps."""
    (folder / "__init__.py").write_text('"""Steps of Holdfast."""\n')
    (folder / "OWNERS").write_text(_owners())
    steps = "".join(f"- [{path.name}](./{path.name}/README.md)\n" for path in sorted(folder.iterdir()) if path.is_dir())
    (folder / "README.md").write_text(f"# Holdfast\n\nSteps of a pipeline whose models must hold fast.\n\n{steps}")


def _metadata(step: Step) -> str:
    date = subprocess.run(["git", "log", "-1", "--format=%cs"], cwd=ROOT, capture_output=True, text=True, check=False)
    day = date.stdout.strip() or datetime.datetime.now(datetime.UTC).date().isoformat()
    mlflow = '  external_services:\n    - name: MLflow\n      version: ">=3.0.0"\n' if _asks_mlflow(step) else ""
    return (
        f"name: {step.name}\nstability: alpha\ndependencies:\n  kubeflow:\n    - name: Pipelines\n"
        f'      version: ">=2.15.0"\n{mlflow}tags:\n  - robustness\n  - {step.environment}\n'
        f"lastVerified: {day}T00:00:00Z\nlinks:\n  documentation: {_page(step)}\n  issue_tracker: {_project()}/issues\n"
    )


def _asks_mlflow(step: Step) -> bool:
    return "tracking" in (_component(step).component_spec.inputs or {})


def _component(step: Step) -> Any:
    return getattr(import_module(f"{step.package}.component"), step.name)


def _owners() -> str:
    person = "REPLACE-WITH-A-MEMBER-OF-THE-KUBEFLOW-ORGANISATION"
    return f"approvers:\n  - {person}\nreviewers:\n  - {person}\n"


def _example(one: Rendered) -> str:
    """A pipeline that takes the step's artifacts by their address."""
    function = _function(one.source)
    artifacts, values = {}, []
    for argument in function.args.args:
        kind = ast.unparse(argument.annotation) if argument.annotation is not None else ""
        if found := re.fullmatch(r"dsl\.Input\[(dsl\.\w+)\]", kind):
            artifacts[argument.arg] = found[1]
        elif "Output" not in kind:
            values.append(f"{argument.arg}: {kind}")
    given = [f"{name}_uri: str" for name in artifacts] + values
    lines = [
        f"    {name} = dsl.importer(artifact_uri={name}_uri, artifact_class={kind})" for name, kind in artifacts.items()
    ]
    words = [f"{name}={name}.output" for name in artifacts] + [
        f"{one.partition(':')[0]}={one.partition(':')[0]}" for one in values
    ]
    return _formatted(
        f'"""A pipeline with the step {one.step.name} alone."""\n\nfrom kfp import dsl\n\n'
        f"from .component import {one.step.name}\n\n\n"
        f'@dsl.pipeline(name="holdfast-{one.step.name}-example")\ndef example({", ".join(given)}):\n'
        f'    """Takes artifacts that earlier runs wrote, by their address."""\n'
        + "\n".join([*lines, f"    {one.step.name}({', '.join(words)})"]) + "\n"
    )  # fmt: skip


def _readme(one: Rendered, metadata: str, example: str) -> str:
    """In the format of the generator there, which may be run again over it."""
    function = _function(one.source)
    about = {argument.arg: describe(argument.arg) for argument in function.args.args}
    kinds = {argument.arg: ast.unparse(argument.annotation) for argument in function.args.args if argument.annotation}
    rows = "".join(f"| `{name}` | `{kinds[name]}` | `None` | {text} |\n" for name, text in about.items())
    facts = yaml.safe_load(metadata)
    overview = (ast.get_docstring(function) or "").partition("\n\nArgs:")[0]
    return (
        f"# {one.step.name.capitalize()} ✨\n\n## Overview 🧾\n\n{overview}\n\n## Inputs 📥\n\n"
        f"| Parameter | Type | Default | Description |\n|-----------|------|---------|-------------|\n{rows}\n"
        f"## Outputs 📤\n\n| Name | Type | Description |\n|------|------|-------------|\n"
        f"| Output | `dsl.ContainerSpec` |  |\n\n"
        f"## Usage Examples 🧪\n\n```python\n{example}\n```\n\n## Metadata 🗂️\n\n- **Name**: {facts['name']}\n"
        f"- **Stability**: {facts['stability']}\n- **Last Verified**: {facts['lastVerified']}\n\n"
        f"## Additional Resources 📚\n\n- **Documentation**: [{_page(one.step)}]({_page(one.step)})\n"
    )


def _test(name: str) -> str:
    return _formatted(
        f'"""The component {name} calls its command with every input."""\n\nfrom ..component import {name}\n\n\n'
        f"def test_it_calls_its_command():\n"
        f'    """The container runs the step and writes an artifact, its digest and its verdict."""\n'
        f"    container = {name}.component_spec.implementation.container\n"
        f'    assert container.command == ["python", "-m", "holdfast", "{name}"]\n'
        f'    words = [str(word).partition("=")[0] for word in container.args]\n'
        f'    assert {{"--out", "--digest-file", "--verdict-file"}} <= set(words)\n'
    )


def _function(source: str) -> ast.FunctionDef:
    (found,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return found


def _project() -> str:
    from holdfast.attestation.statement import PROJECT

    return PROJECT


def _page(step: Step) -> str:
    folder = "gates" if step.package.startswith("holdfast_gates") else "components"
    return f"{_project()}/tree/main/{folder}/{step.package.replace('.', '/')}"


def _formatted(source: str) -> str:
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "--config", str(ROOT / "pyproject.toml"), "-"]
    return subprocess.run(ruff, input=source, capture_output=True, text=True, check=True).stdout


# --- the checks -------------------------------------------------------------------------------------------------------


def faults(root: Path) -> Iterator[str]:
    """What the checks there would refuse in what was rendered; lines that begin as `OUR_OWN` are known."""
    for place in sorted(path.parent for path in root.rglob("component.py")):
        name = place.relative_to(root).as_posix()
        yield from (f"{name}: {fault}" for fault in (*_imports(place), *_wrong_metadata(place), *_undescribed(place)))
        yield from (f"{name}: {fault}" for fault in _not_compiled(place))
    if "REPLACE-WITH" in "".join(path.read_text() for path in root.rglob("OWNERS")):
        yield OUR_OWN[0]


def _imports(place: Path) -> Iterator[str]:
    for path in sorted(place.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in (one.partition(".")[0] for one in names):
                if name not in sys.stdlib_module_names | IMPORTED:
                    yield f"{path.name} imports {name!r} at its top"


def _wrong_metadata(place: Path) -> Iterator[str]:
    found = yaml.safe_load((place / "metadata.yaml").read_text())
    required = [name for name in found if name not in ("tags", "ci", "links")]
    if required != ["name", "stability", "dependencies", "lastVerified"]:
        yield f"metadata.yaml: expected name, stability, dependencies, lastVerified in this order, found {required}"
        return
    if found["stability"] not in ("alpha", "beta", "stable"):
        yield f"metadata.yaml: stability {found['stability']!r}"
    needs = found["dependencies"]["kubeflow"] + found["dependencies"].get("external_services", [])
    yield from (f"metadata.yaml: {one}" for one in needs if not SEMANTIC.fullmatch(one["version"]))
    if not isinstance(found["lastVerified"], datetime.datetime):
        yield f"metadata.yaml: lastVerified: expected a time, found {found['lastVerified']!r}"
    elif abs((datetime.datetime.now(datetime.UTC) - found["lastVerified"]).days) >= 365:
        yield "metadata.yaml: lastVerified: expected less than a year ago"


def _undescribed(place: Path) -> Iterator[str]:
    function = _function((place / "component.py").read_text())
    if ast.unparse(function.decorator_list[0]) not in ("component", "dsl.component"):
        yield "component.py: the generator of READMEs there finds no @component"
    text = ast.get_docstring(function) or ""
    missing = [one.arg for one in function.args.args if f"    {one.arg}: " not in text]
    if missing:
        yield f"component.py: no description of {', '.join(missing)}"
    readme = (place / "README.md").read_text()
    yield from (f"README.md: no row for {one.arg}" for one in function.args.args if f"| `{one.arg}` |" not in readme)


def _not_compiled(place: Path) -> Iterator[str]:
    for image in sorted(images(compiled(place))):
        if not IMAGES.match(image):
            yield f"{OUR_OWN[1]}{image}"


def compiled(place: Path) -> dict[str, Any]:
    """The component in a folder as KFP's compiler writes it."""
    spec = importlib.util.spec_from_file_location(f"contrib_{place.name}", place / "component.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "component.yaml"
        compiler.Compiler().compile(getattr(module, place.name), str(path))
        found: dict[str, Any] = next(yaml.safe_load_all(path.read_text()))
    return found


def images(spec: dict[str, Any]) -> set[str]:
    """The images of a compiled component."""
    return {one["container"]["image"] for one in spec["deploymentSpec"]["executors"].values()}


def main(out: Path, registry: str | None) -> int:
    """Renders and checks; 1 when something is wrong that is not known to be."""
    shutil.rmtree(out, ignore_errors=True)
    for step in STEPS:
        write(render(step, registry), out)
    for family in {path.parents[1] for path in out.rglob("component.py")}:
        write_family(family)
    found = [*faults(out)]
    unknown = [one for one in found if not any(known in one for known in OUR_OWN)]
    sys.stderr.write("".join(f"{one}\n" for one in unknown))
    known = len(found) - len(unknown)
    sys.stdout.write(f"{out}: {len(STEPS)} components, {len(unknown)} faults, {known} known (OWNERS, image host)\n")
    return int(bool(unknown))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--registry", help="HOST/PATH of the images")
    given = parser.parse_args()
    sys.exit(main(given.out, given.registry))
