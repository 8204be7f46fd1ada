"""The table of cluster drivers: one row each, and nothing outside of a driver's own module that knows which it is."""

import ast
from pathlib import Path

import pytest

import holdfast.serving.rollout
from holdfast.errors import WorkloadError
from holdfast.serving.rollout.cluster.seldon_v1 import SeldonV1
from holdfast.serving.rollout.cluster.seldon_v2 import SeldonV2
from holdfast.serving.rollout.cluster.table import DRIVERS
from holdfast.serving.rollout.cluster.target import Target, section_names

ROOM = Path(holdfast.serving.rollout.__file__).parent
METRICS = {"prometheus": "http://p:9090", "champion": {"a": "1"}, "candidate": {"a": "2"}}
V1 = {"deployment": "fraud", "stable": "main", "candidate": {"name": "next", "graph": {"name": "m"}}}


def modules_of_drivers():
    return {driver.__module__ for driver in DRIVERS.values()}


def imports(path):
    found = ast.walk(ast.parse(path.read_text()))
    return {node.module for node in found if isinstance(node, ast.ImportFrom)}


def test_every_row_has_a_section_of_its_name_and_every_section_a_row():
    assert set(DRIVERS) == set(section_names())


def test_only_the_table_and_the_drivers_themselves_import_a_driver():
    own = {Path(*module.split(".")[3:]).with_suffix(".py") for module in modules_of_drivers()}
    knowing = {path.relative_to(ROOM) for path in ROOM.rglob("*.py") if imports(path) & modules_of_drivers()}
    assert knowing - own == {Path("cluster/table.py")}


def test_a_driver_gets_its_own_section_and_no_other():
    target = Target.model_validate({"namespace": "models", "metrics": METRICS, "seldon-v1": V1})
    assert target.driver == "seldon-v1"
    assert SeldonV1.home(target)[1] == "fraud"
    with pytest.raises(WorkloadError, match="expected a section of SeldonV2Target, found seldon-v1"):
        SeldonV2.home(target)
