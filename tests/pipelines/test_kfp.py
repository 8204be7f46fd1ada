"""What holdfast_pipelines.local takes from kfp without being promised it: these fail when kfp changes it."""

import inspect
import json
import sys
from pathlib import Path

import kfp
import pytest
from kfp import dsl, local
from kfp.local import executor_output_utils, subprocess_task_handler, task_dispatcher
from kfp.local.config import LocalExecutionConfig
from kfp.local.io import IOStore
from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator

from holdfast import containers
from holdfast.errors import RunError
from holdfast_pipelines import local as ours

HINT = f"kfp {kfp.__version__} changed what holdfast_pipelines/local.py replaces"


def test_the_handler_is_looked_up_by_name_and_called_with_these_arguments():
    source = inspect.getsource(task_dispatcher.run_single_task_implementation)
    assert "subprocess_task_handler.SubprocessTaskHandler" in source, HINT
    signature = inspect.signature(subprocess_task_handler.SubprocessTaskHandler.__init__)
    assert list(signature.parameters) == ["self", "image", "full_command", "pipeline_root", "runner", "env_vars"], HINT


def test_only_two_of_kfp_s_names_are_replaced(machine):
    owners = [subprocess_task_handler, executor_output_utils, task_dispatcher, ConditionEvaluator]
    before = [dict(vars(owner)) for owner in owners]
    with ours._patched(machine()):
        changed = [
            name
            for owner, names in zip(owners, before, strict=True)
            for name, value in vars(owner).items()
            if names.get(name) is not value
        ]
    assert changed == ["SubprocessTaskHandler", "evaluate_condition"]


def test_conditions_are_evaluated_through_this_name_and_these_arguments():
    assert isinstance(vars(ConditionEvaluator)["evaluate_condition"], staticmethod), HINT
    assert list(inspect.signature(ConditionEvaluator.evaluate_condition).parameters) == ["condition", "io_store"], HINT


def test_kfp_alone_still_takes_an_unresolved_condition_for_not_taken():
    # When this fails, kfp has mended it and the replacement can go.
    condition = "inputs.parameter_values['pipelinechannel--gate-verdict'] == 'pass'"
    assert ConditionEvaluator.evaluate_condition(condition, IOStore()) is False


def test_an_unresolved_condition_is_an_error_with_the_replacement(machine):
    condition = "inputs.parameter_values['pipelinechannel--gate-verdict'] == 'pass'"
    with ours._patched(machine()), pytest.raises(RunError, match="cannot resolve pipelinechannel--gate-verdict"):
        ConditionEvaluator.evaluate_condition(condition, IOStore())


def test_a_store_gives_the_output_of_a_task_whose_name_has_dashes():
    store = IOStore()
    store.put_task_output("the-gate-2", "the-verdict", "pass")
    assert ours._resolve(store, "pipelinechannel--the-gate-2-the-verdict") == "pass"


def test_every_replacement_is_taken_back_even_after_a_failure(machine, pipeline):
    def names():
        return (
            subprocess_task_handler.SubprocessTaskHandler,
            executor_output_utils.get_outputs_for_task,
            vars(ConditionEvaluator)["evaluate_condition"],
            LocalExecutionConfig.instance,
            sys.stdout,
        )

    before = names()
    with pytest.raises(RunError):
        machine().run(pipeline, {"one": json.dumps({"name": "a", "exit": 1}), "two": "{}"})
    assert names() == before


def test_without_the_replacements_kfp_refuses_container_components(tmp_path, pipeline):
    # The control: what passes in test_local.py passes because of the handler.
    with (
        ours._quiet(),
        ours._configured(tmp_path),
        pytest.raises(RuntimeError, match="only supports running Lightweight"),
    ):
        pipeline(one='{"name": "a"}', two='{"name": "b"}')


def test_kfp_finds_the_artifact_where_the_run_folder_has_it_by_the_executor_output_alone(machine, pipeline):
    here, seen = machine(), {}
    collect = executor_output_utils.get_outputs_for_task

    def spy(executor_input, component_spec):
        outputs = collect(executor_input, component_spec)
        seen[outputs["digest"]] = outputs["artifact"]
        return outputs

    with ours._replaced(executor_output_utils, "get_outputs_for_task", spy):
        here.run(pipeline, {"one": '{"name": "a"}', "two": '{"name": "b"}'})
    assert [(type(one), one.path) for one in seen.values()] == [
        (dsl.Model, str(here.out / "steps" / name)) for name in ("first", "second")
    ]


def test_without_an_executor_output_kfp_forgets_the_artifacts_of_container_components(machine, pipeline, monkeypatch):
    # The control for the one above. When this fails, kfp has mended it.
    monkeypatch.setattr(ours, "write_executor_output", lambda given, metadata: None)
    with pytest.raises(ValueError, match="has no output named 'artifact'"):
        machine().run(pipeline, {"one": '{"name": "a"}', "two": '{"name": "b"}'})


def test_only_a_runner_of_exactly_this_type_finds_a_handler():
    assert type(local.SubprocessRunner(use_venv=False)) is local.SubprocessRunner
    assert containers.MODEL in ours.pythons({name: Path(sys.executable) for name in containers.ENVIRONMENTS})
