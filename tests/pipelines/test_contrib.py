"""`make contrib`: every step as kubeflow/pipelines-components asks for it."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler

from holdfast.steps import STEPS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = spec_from_file_location("contrib", ROOT / "tools" / "contrib.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["contrib"] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def attack() -> Any:
    return next(step for step in STEPS if step.name == "attack")


@pytest.fixture
def rendered(tool, attack, tmp_path):
    """A contribution with one step, its image hosted there and its owner named."""
    one = tool.render(attack, "ghcr.io/kubeflow")
    tool.write(one, tmp_path)
    for owners in tmp_path.rglob("OWNERS"):
        owners.write_text("approvers:\n  - ana\n")
    return tmp_path / one.folder


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_what_is_rendered_is_the_same_component_but_for_its_image(tool, step, tmp_path):
    tool.write(tool.render(step, "ghcr.io/kubeflow"), tmp_path)
    (place,) = (path.parent for path in tmp_path.rglob("component.py"))
    compiler.Compiler().compile(tool._component(step), str(tmp_path / "ours.yaml"))
    ours = next(yaml.safe_load_all((tmp_path / "ours.yaml").read_text()))
    theirs = tool.compiled(place)
    assert tool.images(theirs) == {f"ghcr.io/kubeflow/holdfast/{step.environment}:0.1.0"}
    assert without(theirs) == without(ours)


def without(spec: Any) -> Any:
    """A compiled component without its image and its descriptions."""
    if isinstance(spec, dict):
        return {key: without(value) for key, value in spec.items() if key not in ("image", "description")}
    return [without(one) for one in spec] if isinstance(spec, list) else spec


def test_a_contribution_with_an_owner_and_a_hosted_image_has_no_fault(tool, rendered, tmp_path):
    assert [*tool.faults(tmp_path)] == []


def test_ownership_and_the_image_host_are_what_is_left_to_do(tool, attack, tmp_path):
    tool.write(tool.render(attack, None), tmp_path)
    assert [*tool.faults(tmp_path)] == [
        "components/evaluation/holdfast/attack: image host: registry.invalid/holdfast/model:0.1.0",
        "ownership: OWNERS is a template",
    ]


@pytest.mark.parametrize(
    ("name", "before", "after", "found"),
    [
        ("component.py", "from kfp import dsl", "import numpy\nfrom kfp import dsl", "imports 'numpy' at its top"),
        ("component.py", "        seed: Seed", "        sead: Seed", "no description of seed"),
        ("component.py", "@component", "@dsl.container_component", "finds no @component"),
        ("component.py", "ghcr.io/kubeflow/", "docker.io/", "image host: docker.io/holdfast/model:0.1.0"),
        ("metadata.yaml", "stability: alpha", "stability: excellent", "stability 'excellent'"),
        ("metadata.yaml", ">=2.15.0", ">=2.15", "'version': '>=2.15'"),
        ("metadata.yaml", "name: attack\n", "", "expected name, stability, dependencies, lastVerified"),
        ("metadata.yaml", "lastVerified: 20", "lastVerified: 19", "expected less than a year ago"),
        ("README.md", "| `seed` |", "| `sead` |", "README.md: no row for seed"),
    ],
)
def test_each_check_finds_what_was_planted(tool, rendered, tmp_path, name, before, after, found):
    text = (rendered / name).read_text()
    assert before in text
    (rendered / name).write_text(text.replace(before, after, 1))
    faults = [*tool.faults(tmp_path)]
    assert any(found in fault for fault in faults), faults


def test_the_tests_that_come_along_pass_and_the_example_compiles(rendered, tmp_path):
    for folder in (rendered.parent, *rendered.parent.parents):
        if folder == tmp_path:
            break
        (folder / "__init__.py").touch()  # that repository has them
    example = "from components.evaluation.holdfast.attack.example_pipelines import example as e; print(e.name)"
    for words in (["-m", "pytest", "-q", "-p", "no:cacheprovider", "components"], ["-c", example]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
