"""components/README.md is true about the steps."""

from pathlib import Path

from holdfast.artifacts import documents
from holdfast_pipelines.retrain import retrain
from holdfast_pipelines.rollout import rollout

COMPONENTS = Path(__file__).parents[2] / "components"


def table():
    lines = (COMPONENTS / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    header, *rows = rows
    assert header == ["step", "reads", "writes", "environment", "source"]
    return {row[0]: row[1:] for row in rows}


def test_the_table_has_the_inputs_and_the_environment_of_every_step():
    found = {}
    for pipeline in (retrain(), rollout()):
        spec = pipeline.pipeline_spec
        for name, component in spec.components.items():
            if component.executor_label:
                image = spec.deployment_spec["executors"][component.executor_label]["container"]["image"]
                reads = set(component.input_definitions.artifacts)
                found[name.removeprefix("comp-")] = (reads, image.rpartition("/")[2].partition(":")[0])
    said = {step: (set(row[0].split(", ")) - {""}, row[2]) for step, row in table().items()}
    assert said == found


def test_the_table_names_a_document_for_every_step_and_its_folder():
    written = {step: row[1] for step, row in table().items()}
    assert len(set(written.values())) == len(written)
    for step, (_, document, _, source) in table().items():
        assert issubclass(getattr(documents, document), documents.Document)
        folder = COMPONENTS / source.partition("(")[2].rstrip(")")
        assert f"def {step}(" in (folder / "component.py").read_text()
