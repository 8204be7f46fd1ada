"""The measures of tools/house.py, each on a small tree that a person can count."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def load_house() -> ModuleType:
    spec = spec_from_file_location("house", ROOT / "tools" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


house = load_house()
PROJECT = '[tool.hatch.build.targets.wheel]\npackages = ["src/{}"]\n'


def product(folder: Path, files: dict[str, str], packages: tuple[str, ...] = ("app",)):
    """A product of the given files, each room with its `__init__.py`."""
    (folder / "pyproject.toml").write_text(PROJECT.format('", "src/'.join(packages)))
    for name, text in files.items():
        path = folder / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for room in {parent for path in folder.rglob("*.py") for parent in path.relative_to(folder / "src").parents}:
        if room.parts:
            (folder / "src" / room / "__init__.py").touch()
    return house.read_product(folder)


COMPONENT = "import dsl\n\n@dsl.component\ndef scan():\n    pass\n"


def test_a_step_is_named_by_a_literal_or_an_import_outside_its_folder(tmp_path):
    files = {
        "app/scan/component.py": COMPONENT,
        "app/scan/step.py": 'NAME = "scan"\n',  # its own folder is free
        "app/list.py": 'STEPS = ["scan", "scan"]\n',  # one file, named twice
        "app/run.py": "def run():\n    from app.scan.step import NAME\n",
        "app/other.py": '"""A scan."""\nscan = "scans"\n',  # neither the literal nor an import
    }
    found = house.step_files(product(tmp_path, files))
    assert found.values == (2,)
    assert {place.path for place in found.places} == {"src/app/list.py", "src/app/run.py"}


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ('__all__ = ["scan", "other"]\n', False),
        ('class W:\n    scan_: int = Field(1, alias="scan")\n', False),
        ('class W:\n    other: str = Field("scan", alias="other")\n', True),
        ('names = ["scan"]\n', True),
    ],
)
def test_what_only_repeats_the_name_of_a_definition_names_no_step(tmp_path, text, counts):
    tree = product(tmp_path, {"app/scan/component.py": COMPONENT, "app/other.py": text})
    assert house.step_files(tree).values == (int(counts),)


def test_the_value_is_the_median_over_steps(tmp_path):
    files = {f"app/{step}/component.py": COMPONENT.replace("scan", step) for step in ("one", "two", "three")}
    files |= {"app/a.py": 'X = ["two", "three"]\n', "app/b.py": 'X = "three"\n', "app/c.py": 'X = "three"\n'}
    assert house.step_files(product(tmp_path, files)).values == (1,)


NORMS = 'from typing import Literal\nNorm = Literal["linf", "l2"]\nModality = Literal["image", "text"]\n'


@pytest.mark.parametrize(
    "condition",
    [
        'norm == "linf"',
        '"image" != spec.modality',
        'norm in ("l2", "l1")',
        'modality not in {"text"}',
        "x.dim() == 4",
        "x.ndim != 4",
    ],
)
def test_a_comparison_on_norm_or_modality_counts(tmp_path, condition):
    tree = product(tmp_path, {"app/values.py": NORMS, "app/method.py": f"def f(x, norm):\n    return {condition}\n"})
    (place,) = house.conditions(tree).places
    assert (place.path, place.line) == ("src/app/method.py", 2)


@pytest.mark.parametrize(
    "condition", ['name == "l3"', 'column.kind == "text"', "x.dim() == 3", "count == 4", 'norms["linf"]']
)
def test_another_comparison_does_not(tmp_path, condition):
    tree = product(tmp_path, {"app/values.py": NORMS, "app/method.py": f"def f(x):\n    return {condition}\n"})
    assert house.conditions(tree).values == (0,)


def test_a_case_of_a_match_counts_and_the_room_of_modalities_is_free(tmp_path):
    case = 'def f(norm):\n    match norm:\n        case "linf":\n            return 1\n'
    tree = product(tmp_path, {"app/values.py": NORMS, "app/method.py": case, "app/modality/image.py": case})
    assert [place.path for place in house.conditions(tree).places] == ["src/app/method.py"]


def test_a_tree_without_norms_cannot_be_measured(tmp_path):
    with pytest.raises(house.HouseError, match="Norm and Modality"):
        house.conditions(product(tmp_path, {"app/a.py": ""}))


def circles(folder: Path, files: dict[str, str], packages: tuple[str, ...] = ("app",)) -> list[str]:
    return [place.what for place in house.circles(product(folder, files, packages)).places]


def test_two_rooms_that_import_each_other_are_a_circle(tmp_path):
    files = {"app/a/x.py": "import app.b.y\n", "app/b/y.py": "def f():\n    from app.a import x\n"}
    assert circles(tmp_path, files) == ["app.a <-> app.b (in app)"]


def test_three_rooms_in_a_ring_are_one_circle(tmp_path):
    files = {f"app/{a}/x.py": f"from app.{b} import x\n" for a, b in ("ab", "bc", "ca")}
    assert circles(tmp_path, files) == ["app.a <-> app.b <-> app.c (in app)"]


def test_arrows_that_only_go_down_are_none(tmp_path):
    files = {"app/a/x.py": "import app.b.y\nimport app.c.z\n", "app/b/y.py": "import app.c.z\n", "app/c/z.py": ""}
    assert circles(tmp_path, files) == []


def test_modules_of_one_room_may_know_each_other(tmp_path):
    assert circles(tmp_path, {"app/x.py": "import app.y\n", "app/y.py": "import app.x\n"}) == []


def test_a_command_line_may_import_the_packages_above_its_own(tmp_path):
    files = {"app/cli.py": "import pipes.run\n", "app/core.py": "", "pipes/run.py": "import app.core\n"}
    assert circles(tmp_path, files, ("app", "pipes")) == []
    (tmp_path / "src" / "app" / "core.py").write_text("import pipes.run\n")
    assert circles(tmp_path, {}, ("app", "pipes")) == ["app <-> pipes (in the product)"]


def test_names_with_two_definitions_are_counted_once(tmp_path):
    files = {
        "app/a.py": "class Plan: ...\nKind = str\nclass _Own: ...\nLIMIT = 1\n",
        "app/b.py": "class Plan: ...\nclass _Own: ...\nLIMIT = 2\nimport app.a\nKind = app.a.Kind\n",  # handed on
    }
    found = house.names(product(tmp_path, files))
    assert found.values == (1,)
    assert found.counted == "of 2 public classes and type aliases"
    assert [place.what for place in found.places] == ["Plan", "Plan"]


def test_words_are_counted_in_code_and_prose_per_thousand_lines_of_source(tmp_path):
    text = '"""It says so."""\n\n# Nobody stands there.\nwhatever_says = 1\nx = "tell, stand, besides"\n'
    found = house.words(product(tmp_path, {"app/a.py": text}))
    assert [place.what.split(":")[0] for place in found.places] == ["says", "Nobody", "stands", "whatever", "says"]
    assert found.values == (1000 * 5 / 2,)  # two lines hold code


def test_a_function_is_measured_without_decorators_and_docstring(tmp_path):
    text = '@property\ndef f():\n    """One.\n\n    Two.\n    """\n    x = 1\n\n    return x\n'
    assert house.functions(product(tmp_path, {"app/a.py": text})).values == (4, 4, 4)


def test_the_90th_percentile_is_the_nearest_rank(tmp_path):
    text = "".join(f"def f{n}():\n" + "    pass\n" * (n - 1) for n in range(2, 12))
    # Ten functions of 2 to 11 lines: the ninth is 10 lines long.
    assert house.functions(product(tmp_path, {"app/a.py": text})).values == (6.5, 10, 11)


RUN = "".join(f"x{n} = f({n})\n" for n in range(6))


def test_six_equal_lines_are_a_repeated_run_however_they_are_indented(tmp_path):
    inside = "def g():\n" + "".join(f"    {line}  # here\n\n" for line in RUN.splitlines())
    found = house.repeated(product(tmp_path, {"app/a.py": RUN, "app/b.py": inside}))
    assert found.values == (1,)
    assert [str(place) for place in found.places] == ["src/app/a.py:1: x0 = f(0)", "src/app/b.py:2: x0 = f(0)"]


def test_five_equal_lines_and_equal_imports_are_none(tmp_path):
    five = "".join(RUN.splitlines(keepends=True)[:5])
    imports = "".join(f"import m{n}\n" for n in range(9))
    assert house.repeated(product(tmp_path, {"app/a.py": imports + five, "app/b.py": imports + five})).values == (0,)


def test_the_lines_of_the_rollout_are_all_lines_of_its_room(tmp_path):
    files = {"app/serving/rollout/judge/a.py": "# one\n\nx = 1\n", "app/serving/other.py": "x = 1\n"}
    assert house.rollout(product(tmp_path, files)).values == (3,)


def measured(*values: float) -> dict[str, object]:
    return {"functions": house.Measured(values, "")}


def bound(limit: tuple[float, ...], target: tuple[float, ...]) -> dict[str, object]:
    return {"functions": house.Bound(limit, target)}


def test_worse_than_the_bound_fails_and_says_where_to_look():
    (line,) = house.breaches(measured(6, 15, 53), bound((6, 15, 52), (6, 16, 40)))
    assert line == ("functions: expected at most 6 / 15 / 52, found 6 / 15 / 53; see tools/house.py --list functions")


def test_equal_or_better_passes_and_so_does_what_is_within_the_target():
    assert house.breaches(measured(6, 16, 51), bound((6, 15, 52), (6, 16, 40))) == []


def test_a_broken_bound_is_the_exit_code(tmp_path, monkeypatch, capsys):
    tree = {
        "app/values.py": NORMS + 'def f(norm):\n    return norm == "l2"\n',
        "app/scan/component.py": COMPONENT,
    }
    product(tmp_path, tree)
    assert house.main(["--root", str(tmp_path)]) == 0
    monkeypatch.setitem(house.BOUNDS, "conditions", house.Bound((0,), (0,)))
    assert house.main(["--root", str(tmp_path)]) == 1
    assert "conditions: expected at most 0, found 1" in capsys.readouterr().err


def test_every_row_has_a_bound_and_keeps_it():
    assert list(house.BOUNDS) == list(house.ROWS)
    done = subprocess.run([sys.executable, ROOT / "tools" / "house.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(house.ROWS)
