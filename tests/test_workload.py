import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast.errors import WorkloadError
from holdfast.resources import workloads
from holdfast.workload.schema import RecipeConfig, RolloutPlan, Workload, read_plan, read_workload
from holdfast.workload.yaml import line_of, parse_yaml

GOOD = """\
name: digits
modality: image
data:
  source: sklearn:digits
  range: [0, 16]
network:
  architecture: cnn
threat:
  norm: linf
  epsilon: 8/255
"""


def test_a_line_is_that_of_the_deepest_key_that_a_file_has() -> None:
    text = "# first\nname: x\ngate:\n  override:\n    robust_accuracy: {at_least: 0.1}\n"
    assert line_of(text, ("gate", "override", "robust_accuracy")) == 5
    assert line_of(text, ("gate", "override", "clean_accuracy")) == 4
    assert line_of(text, ("attack", "tier")) == 1
    assert line_of("", ("gate",)) == 1


def parse(text: str) -> Workload:
    return parse_yaml(text, Workload, name="w.yaml")


def test_epsilon_is_exact() -> None:
    assert parse(GOOD).threat.epsilon == Fraction(8, 255)


def test_the_threat_model_says_its_unit() -> None:
    assert parse(GOOD).threat_model.unit == "input units [0, 1]"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in pairwise("abcdefghi")
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 9)}]}}\n" for old, new in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LAUGHS, "expected at most 100000 values, found more"),
        (MERGED, "expected at most 100000 values, found more"),
        ("name: &a [*a]", "found more; aliases repeat theirs"),
        ("data: &a {b: *a}", "found more; aliases repeat theirs"),
        ("name: [" * 4000, "expected YAML, found nesting without end"),
        (GOOD + f"seed: {'9' * 6000}\n", "expected YAML, found a value that is none"),
        (GOOD + "when: 2026-99-99\n", "expected YAML, found a value that is none"),
        (GOOD + f"seed: 0x{'f' * 6000}\n", r"w.yaml:\d+: expected YAML, found a value that is none .a number of 6002"),
        (GOOD + f"seed: 1{':59' * 300_000}\n", "expected YAML, found a value that is none .a number of 900001 char"),
        (GOOD + 'seed: "a\\0b"\n', r"w.yaml:\d+: expected text, found a NUL"),
        (GOOD + "seed: !!int ''\n", "expected YAML, found a value that is none"),
        (GOOD + "seed: !!bool abc\n", "expected YAML, found a value that is none"),
        (GOOD + "seed: !!timestamp abc\n", "expected YAML, found a value that is none"),
        ("[" + "1," * 400_000 + "1]", "w.yaml:1: expected at most 50000 lines and commas, found 400000"),
        ("{" + "? a " * 110_000, "expected at most 100000 values, found more|expected YAML"),
        ("name: a\x07", "w.yaml:1: expected YAML, found unacceptable character #x0007: special characters"),
        ("? [a, b]\n: 1", "w.yaml:1: expected a name as a key, found a list or a mapping"),
        ("? {a: b}\n: 1", "w.yaml:1: expected a name as a key, found a list or a mapping"),
    ],
)
def test_a_small_file_that_becomes_large_is_refused_at_once(text: str, found: str) -> None:
    began = time.process_time()
    with pytest.raises(WorkloadError, match=found):
        parse(text)
    assert time.process_time() - began < 10  # the first one took more than a minute


def test_an_alias_can_be_used_for_a_value_that_is_written_twice() -> None:
    assert parse(GOOD.replace("name: digits", "name: &name digits")).name == "digits"


@pytest.mark.parametrize("path", workloads(), ids=lambda path: path.stem)
def test_every_workload_that_ships_is_valid(path: Path) -> None:
    assert read_workload(path).name == path.stem


def test_the_four_workloads_ship() -> None:
    assert {path.stem for path in workloads()} >= {"digits", "breast-cancer", "sms-spam", "fashion-mnist"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "architecture: cnn",
            "archtecture: cnn",
            r"w.yaml:7: unknown key 'network.archtecture'; did you mean 'architecture'",
        ),
        ("range:", "rnage:", r"w.yaml:5: unknown key 'data.rnage'; did you mean 'range'"),
        ("modality: image", "modality: picture", r"w.yaml:2: modality: input should be 'image', 'tabular' or 'text'"),
        ("epsilon: 8/255", "epsilon: 8/0", r"w.yaml:10"),
        ("epsilon: 8/255", "epsilon: -1/255", r"epsilon must be above 0"),
        ("norm: linf", "norm: edits", r"norm 'edits' does not fit"),
        ("name: digits", "name: ../digits", r"w.yaml:1: name: string should match pattern"),
        ("name: digits", "name: a\nname: b", r"w.yaml:2: the key 'name' is given twice"),
        ("modality: image\n", "", r"w.yaml:1: expected a key 'modality', found none"),
        ("source: sklearn:digits", "source: [", r"w.yaml:\d+: expected YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        parse(GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys and values, found NoneType"),
        (b"- 1\n", "expected keys and values, found list"),
        (b"name: \xff\n", "expected UTF-8, found byte 0xff at 6"),
        (b"a: " + b"[" * 5000, "expected YAML"),
        (b"x" * (2**20 + 1), "expected at most 1048576 bytes"),
        (b"name: !!python/object/apply:os.system ['true']\n", "expected YAML"),
    ],
)
def test_a_file_that_is_no_workload_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.yaml"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=message):
        read_workload(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="none.yaml: expected a YAML file"):
        read_workload(tmp_path / "none.yaml")


def test_a_plan_is_a_file_of_its_own_or_a_section_of_a_workload(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("steps: [5, 100]\nmax_decision_days: 30\n")
    (tmp_path / "empty.yaml").write_text("{}\n")
    (tmp_path / "w.yaml").write_text(GOOD + "rollout: {steps: [5, 100]}\n")
    assert read_plan(tmp_path / "plan.yaml").max_decision_days == 30
    assert read_plan(tmp_path / "empty.yaml") == RolloutPlan()
    assert read_plan(tmp_path / "w.yaml").steps == (5, 100)


def test_a_plan_names_by_address_who_may_choose_an_arm() -> None:
    assert RolloutPlan().arm_header_from == ()
    named = RolloutPlan(arm_header_from=("127.0.0.1", "10.0.0.0/8"))
    assert named.arm_header_from == ("127.0.0.1/32", "10.0.0.0/8")
    for wrong in ("gateway", "10.0.0.1/8", ""):
        with pytest.raises(ValidationError, match=r"expected addresses such as 127\.0\.0\.1 or 10\.0\.0\.0/8, found"):
            RolloutPlan(arm_header_from=(wrong,))


def test_a_mistake_in_a_plan_names_its_line_and_the_key_meant(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("steps: [5, 100]\nmax_decision_day: 30\n")
    with pytest.raises(WorkloadError, match=r"plan.yaml:2: unknown key 'max_decision_day'; .*'max_decision_days'"):
        read_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{positive: '1'}", "expected one of costs and false_positive_rate, found none"),
        (
            "{positive: '1', costs: {miss: 5, false_alarm: 1}, false_positive_rate: 0.1}",
            "expected one of costs and false_positive_rate, found both",
        ),
        ("{costs: {miss: 5, false_alarm: 1}}", "w.yaml:12: expected a key 'decision.positive', found none"),
        ("{positive: '1', costs: {miss: 5}}", "expected a key 'decision.costs.false_alarm', found none"),
        ("{positive: '1', costs: {miss: 0, false_alarm: 1}}", "decision.costs.miss: input should be greater than 0"),
        ("{positive: '1', costs: {miss: -5, false_alarm: 1}}", "decision.costs.miss: input should be greater than 0"),
        (
            "{positive: '1', costs: {miss: .inf, false_alarm: 1}}",
            "decision.costs.miss: input should be a finite number",
        ),
        ("{positive: '1', costs: {miss: .nan, false_alarm: 1}}", "decision.costs.miss: input should be"),
        (
            "{positive: '1', costs: {miss: true, false_alarm: 1}}",
            "decision.costs.miss: expected a number, found 'True'",
        ),
        ("{positive: '1', costs: {mis: 5, false_alarm: 1}}", "unknown key 'decision.costs.mis'; did you mean 'miss'"),
        ("{positive: '1', false_positive_rate: 0}", "decision.false_positive_rate: input should be greater than 0"),
        ("{positive: '1', false_positive_rate: 1}", "decision.false_positive_rate: input should be less than 1"),
        ("{positive: '2', false_positive_rate: 0.1}", "decision.positive: expected one of '0', '1', found '2'"),
    ],
)
def test_a_mistake_in_the_operating_point_is_named(section: str, message: str) -> None:
    text = GOOD.replace("  range:", "  classes: ['0', '1']\n  range:")
    assert parse(f"{text}decision: {{positive: '1', costs: {{miss: 5, false_alarm: 1}}}}\n").decision is not None
    with pytest.raises(WorkloadError, match=message) as found:
        parse(f"{text}decision: {section}\n")
    assert "\n" not in str(found.value)


def test_an_operating_point_for_more_than_two_named_classes_is_refused_in_the_file() -> None:
    text = GOOD.replace("  range:", "  classes: [a, b, c]\n  range:")
    with pytest.raises(WorkloadError, match="decision: expected data of two classes, found 3: 'a', 'b', 'c'"):
        parse(text + "decision: {positive: a, false_positive_rate: 0.1}\n")


def test_the_positive_class_is_read_in_composed_unicode() -> None:
    # As class names are read from files.
    found = parse(GOOD + 'decision: {positive: "caf\\u0065\\u0301", false_positive_rate: 0.1}\n').decision
    assert found is not None
    assert found.positive == "caf\u00e9"


NAMES = """classes: [no, yes, 0, 1.0, null]
  drop: [on, 2026-01-01]
  immutable: [y]
  columns_as: {off: category}
  missing: {no: off, a: 3}"""


def test_names_need_no_quotes() -> None:
    # YAML 1.1 reads these words as bools, numbers and dates.
    data = parse(GOOD.replace("range: [0, 16]", NAMES)).data
    assert data.classes == ("no", "yes", "0", "1.0", "null")
    assert (data.drop, data.immutable, data.columns_as) == (("on", "2026-01-01"), ("y",), {"off": "category"})
    assert data.missing == {"no": "off", "a": 3.0}


def test_bools_and_nothing_stay_what_they_are() -> None:
    workload = parse(GOOD.replace("range: [0, 16]", "review: ~") + "rollout: {approval: yes}\n")
    assert workload.rollout.approval is True
    assert workload.data.review is None


def test_the_positive_class_needs_no_quotes_either() -> None:
    for written in ("1", "0", "true", "no", "1.0"):
        found = parse(GOOD + f"decision: {{positive: {written}, false_positive_rate: 0.1}}\n").decision
        assert found is not None
        assert found.positive == written


def test_a_rate_in_exponents_is_a_number() -> None:
    # YAML 1.1 reads 1e-2 as text.
    found = parse(GOOD + "decision: {positive: a, false_positive_rate: 1e-2}\n").decision
    assert found is not None
    assert found.false_positive_rate == 0.01


@pytest.mark.parametrize(
    "recipe",
    [
        RecipeConfig(),
        RecipeConfig(class_weights="balanced", noise=0.25),
        RecipeConfig(class_weights={"fraud": 20.0, "a.b": 1.5}),
        RecipeConfig(recipe="multi-norm", second_norm="l2", second_epsilon=Fraction(1, 2)),
    ],
)
def test_a_recipe_comes_back_from_what_a_model_records_of_it(recipe: RecipeConfig) -> None:
    assert all(isinstance(value, str | int | float) for value in recipe.scalars.values())
    assert RecipeConfig.from_scalars(recipe.scalars) == recipe
