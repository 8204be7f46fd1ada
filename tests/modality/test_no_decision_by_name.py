"""Outside `holdfast.modality` nothing compares the name of a modality or of a norm."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from holdfast.artifacts.documents import Modality, Norm

ROOT = Path(__file__).parents[2]
NAMES = {*get_args(Modality), *get_args(Norm)}
OTHER_WORDS = {"kind"}
"""Attributes and variables whose values include a word of NAMES that means something else there: a column's kind."""


def named(node: ast.AST) -> set[str]:
    """Names in a constant, or in a tuple, list, set, or in the keys of a dictionary."""
    match node:
        case ast.Constant(value=str(value)):
            return {value} & NAMES
        case ast.Tuple() | ast.List() | ast.Set():
            return set().union(*map(named, node.elts))
        case ast.Dict():
            return set().union(*(named(key) for key in node.keys if key is not None))
    return set()


def decides(node: ast.AST) -> bool:
    """Whether a comparison, a case, a table or a look-up decides by such a name."""
    match node:
        case ast.Compare():
            sides = [node.left, *node.comparators]
            words = {getattr(side, "attr", getattr(side, "id", "")) for side in sides}
            return bool(set().union(*map(named, sides))) and not words & OTHER_WORDS
        case ast.MatchValue():
            return bool(named(node.value))
        case ast.Dict():
            return len(node.keys) > 1 and all(key is not None and named(key) for key in node.keys)
    return False


def decisions(source: str) -> list[int]:
    """The lines that decide."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if decides(node)]


@pytest.mark.parametrize(
    "line",
    [
        'x = 1 if ball.norm == "linf" else 2',
        'if norm in ("l2", "edits"): pass',
        'a = {"image": 1, "text": 2}[modality]',
        'match modality:\n    case "tabular": pass',
        'if "text" != spec.modality: pass',
    ],
)
def test_each_way_to_decide_is_found(line: str) -> None:
    assert decisions(line)


def test_a_columns_kind_and_a_type_are_no_decision() -> None:
    assert not decisions('a = column.kind == "text"\nb: Literal["linf", "l2"] = "l2"\ncall(modality="image")')


def test_nothing_outside_the_modalities_decides_by_name() -> None:
    files = [path for top in ("components", "gates", "pipelines") for path in (ROOT / top).rglob("*.py")]
    outside = [path for path in files if "modality" not in path.parts]
    found = {f"{path.relative_to(ROOT)}:{line}" for path in outside for line in decisions(path.read_text())}
    assert found == set()
