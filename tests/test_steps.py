"""Each step's folder agrees with its row, and a step is added as docs/architecture.md has it."""

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from holdfast import containers
from holdfast.artifacts import documents
from holdfast.measured import MATRICES, PAGES
from holdfast.steps import STEPS, columns, every, evidence, names
from holdfast.workload.schema import Workload
from holdfast_pipelines.compiled import documents as kinds

ROOT = Path(__file__).parents[1]
ROLES = {"snapshot": "system.Dataset", "model": "system.Model"}


def component(step):
    return getattr(importlib.import_module(f"{step.package}.component"), step.name)


def container(step):
    found = component(step).pipeline_spec.deployment_spec["executors"][f"exec-{step.name}"]["container"]
    return {"image": found["image"], "command": list(found["command"]), "args": list(found["args"])}


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_a_folder_has_what_a_step_is_made_of(step):
    folder = Path(importlib.import_module(step.package).__file__).parent
    page = folder.parent / "README.md" if step.name == "gate" else folder / "README.md"
    assert [one for one in ("step.py", "component.py", "command.py") if not (folder / one).exists()] == []
    assert page.exists()


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_a_component_reads_what_its_row_reads_each_with_its_digest(step):
    inputs = component(step).component_spec.inputs
    artifacts = {name: found.type for name, found in inputs.items() if found.type.startswith("system.")}
    assert set(artifacts) == set(step.reads)
    assert {f"{role}_digest" for role in step.reads} <= set(inputs)
    assert {role: kind.partition("@")[0] for role, kind in artifacts.items() if role in ROLES} == {
        role: kind for role, kind in ROLES.items() if role in step.reads
    }


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_a_component_takes_a_section_a_device_and_threads_as_its_row_has_them(step):
    inputs = set(component(step).component_spec.inputs)
    assert ("config" in inputs) == bool(step.config)
    assert ({"seed", "device", "threads"} <= inputs) == step.computes


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_a_component_runs_its_own_command_in_the_image_of_its_environment(step):
    found = container(step)
    assert found["image"] == containers.image(step.environment)
    assert found["command"][:4] == ["python", "-m", "holdfast", step.name]
    assert {"artifact", "digest", "verdict"} <= set(component(step).component_spec.outputs)


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_the_words_of_a_component_are_options_of_its_command(step):
    assert words(step) <= {flag for option in options(step) for flag in option.opts}


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_a_component_has_a_word_for_each_input_and_for_all_that_its_command_requires(step):
    required = {option.opts[0] for option in options(step) if option.required}
    handed_on = {"--digest-file", "--verdict-file", "--executor-input"}
    assert required | {f"--{role}" for role in step.reads} | handed_on <= words(step)


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_a_component_shows_its_numbers_and_the_page_and_matrices_that_its_document_has(step):
    shown = {name: one.type.partition("@")[0] for name, one in component(step).component_spec.outputs.items()}
    assert shown["metrics"] == "system.Metrics"
    page = PAGES.get(step.document)
    kinds = {".html": "system.HTML", ".md": "system.Markdown"}
    assert shown.get("page") == (kinds[Path(page).suffix] if page else None)
    assert ("--page-file" in words(step)) == (page is not None)
    matrices = {name for name, kind in shown.items() if kind == "system.ClassificationMetrics"}
    assert matrices == (set(MATRICES) if step.document is documents.RobustnessReport else set())


def words(step):
    return {word.partition("=")[0] for word in container(step)["args"]}


def options(step):
    group = importlib.import_module(f"{step.package}.command").COMMANDS[step.name]
    command = typer.main.get_command(group) if isinstance(group, typer.Typer) else _alone(group)
    for word in container(step)["command"][4:]:
        command = command.commands[word]
    return command.params


def _alone(function):
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app)


@pytest.mark.parametrize("step", every(), ids=names(every()))
def test_a_row_names_a_document_a_section_and_steps_that_exist(step):
    assert issubclass(getattr(documents, step.writes), documents.Document)
    assert step.document in kinds(), "AnyDocument, by which every reader reads"
    assert hasattr(Workload, step.config) or step.config in Workload.model_fields or not step.config
    earlier = every()[: every().index(step)]
    assert set(step.reads) <= {before.role for before in earlier}
    assert set(step.follows) <= set(names(earlier))


def test_each_step_writes_a_document_of_its_own_under_a_role_of_its_own():
    assert len({step.writes for step in every()}) == len({step.role for step in every()}) == len(every())


def test_the_gate_reads_all_evidence_and_registers_what_it_read():
    reads = {step.name: {*step.reads, *step.may_read} for step in STEPS}
    assert reads["gate"] == {"model", "snapshot", *evidence()}
    assert reads["register"] == reads["gate"] | {"decision"}


def test_columns_hold_every_step_once_after_what_it_needs():
    seen: list[str] = []
    for column in columns():
        for step in column:
            needed = {before.name for before in STEPS if before.role in step.reads} | set(step.follows)
            assert needed <= set(seen)
        seen += names(column)
    assert sorted(seen) == sorted(names())


# --- a step of one's own, as docs/architecture.md has it --------------------------------------------------------------

ROW = """
import holdfast.steps as steps
toy = steps.Step("count", "toys.count", "data", "Data", "SchemaReport", reads=("snapshot",))
steps.STEPS = (*steps.STEPS[:4], toy, *steps.STEPS[4:])
"""
STEP = """
from holdfast.artifacts.documents import SchemaReport, Snapshot, Verdict
from holdfast.artifacts.folder import load, save

def count(snapshot, out):
    data = load(snapshot, Snapshot)
    rows = data.document.train_rows + data.document.test_rows
    report = SchemaReport(inputs={"snapshot": data.digest}, source="given", columns=1, rows=rows, verdict=Verdict.PASS)
    return save(out, report)
"""
COMMAND = '''
from holdfast.options import Out, SnapshotRef, ref, step_command

@step_command
def count(snapshot: SnapshotRef, out: Out):
    """Count the rows."""
    from toys.count.step import count as step

    return step(ref(snapshot), out)

COMMANDS = {"count": count}
'''
COMPONENT = '''
from kfp import dsl
from holdfast import containers

@dsl.container_component
def count(snapshot: dsl.Input[dsl.Dataset], snapshot_digest: str, artifact: dsl.Output[dsl.Artifact],
          digest: dsl.OutputPath(str), verdict: dsl.OutputPath(str)) -> dsl.ContainerSpec:
    """Counts the rows."""
    return dsl.ContainerSpec(
        image=containers.DATA, command=["python", "-m", "holdfast", "count"],
        args=[f"--snapshot={snapshot.path}@{snapshot_digest}", *containers.outputs(artifact, digest, verdict)])
'''
RUN = """
import sys
from pathlib import Path
from kfp import dsl
from holdfast import containers
from holdfast.cli import app
from holdfast.cli.doctor import examine
from holdfast.data.snapshot.component import snapshot
from holdfast_pipelines.local import Machine
from holdfast.reuse import Cache
from holdfast_pipelines.report.dag import draw
from holdfast_pipelines.report.evidence import KINDS
from holdfast_pipelines.wiring import inputs
from toys.count.component import count

@dsl.pipeline(name="toy")
def pipeline(config: str) -> None:
    count(**inputs(snapshot=snapshot(config=config)))

out, records = Path(sys.argv[1]), []
for _ in range(2):
    machine = Machine(out=out, pythons={containers.DATA: Path(sys.executable)}, cache=Cache(out / "cache"),
                      pythonpath=Path(__file__).parent)
    machine.on_step = records.append
    machine.run(pipeline, {"config": sys.argv[2]})
for record in records:
    print(record.step, record.verdict, record.reused)
print("count" in {command.name for command in app.registered_commands}, "count" in KINDS, ">count<" in draw({}),
      "count" in examine(out).environments[0].steps)
"""


def test_a_step_of_ones_own_is_a_folder_a_row_and_a_line_in_a_pipeline(tmp_path):
    folder = tmp_path / "toys" / "count"
    folder.mkdir(parents=True)
    for name, code in {"__init__": "", "step": STEP, "command": COMMAND, "component": COMPONENT}.items():
        (folder / f"{name}.py").write_text(code)
    (tmp_path / "sitecustomize.py").write_text(ROW)
    (tmp_path / "run.py").write_text(RUN)
    config = Workload.model_validate(_breast_cancer()).snapshot_config.model_dump_json(by_alias=True)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path / "out", config], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *_sources()])}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "snapshot pass False", "count pass False", "snapshot pass True", "count pass True", "True True True True",
    ]  # fmt: skip


def _breast_cancer():
    from holdfast.workload.yaml import parse_yaml

    text = (ROOT / "pipelines" / "workloads" / "breast-cancer.yaml").read_text()
    return parse_yaml(text, Workload, name="breast-cancer.yaml").model_dump(mode="json", by_alias=True)


def _sources():
    """Where this test's own Holdfast is imported from."""
    modules = ("holdfast", "holdfast_gates", "holdfast_pipelines")
    return [str(Path(inspect.getfile(importlib.import_module(module))).parents[1]) for module in modules]
