"""Pipelines on one machine: the real kfp.local, each image standing for the virtual environment of the same lock.

kfp.local orchestrates; two of its private names are replaced while a pipeline runs (tests/pipelines/test_kfp.py fails
when kfp changes them):

* the handler of tasks, which runs a container's command in the interpreter of its image's environment;
* the evaluation of conditions, because kfp.local takes one that it cannot resolve for "not taken". Here it is an error.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import containers
from holdfast.environments import interpreter
from holdfast.errors import RefusedError, RunError
from holdfast.executor import (
    ExecutorInput,
    OutputArtifact,
    read_executor_input,
    read_metadata,
    write_executor_output,
)
from holdfast.processes import CALM
from holdfast.progress import say
from holdfast.reuse import Cache, CachedStep, copy_artifact, environment_digest, pinned, step_key
from holdfast.steps import STEPS, find, of
from holdfast_pipelines.folder import ARTIFACTS, LOGS
from holdfast_pipelines.process import Ended, StepProcess, ends_on_sigterm, fresh, run_child
from holdfast_pipelines.record import StepRecord
from holdfast_pipelines.signing import RELEASES, Signing
from holdfast_pipelines.warm import Servers

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

_REFERENCE = r"/[\w.-]+@([0-9a-f]{64})"
ARTIFACT = "artifact"
"""What every component calls the artifact that its step writes."""
_UNRELEASED = "the version serves, and no statement names it as the one to serve: `holdfast release` makes it"
_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] (==|!=) '([^']*)'")


class StepError(RunError):
    """A step ended badly: its name, how it ended, and its last words."""

    def __init__(self, step: str, how: str, log: Path, tail: Sequence[str] = (), code: int = 1) -> None:
        self.step = step
        if code == RefusedError.exit_code:
            self.exit_code = code
        words = "".join(f"\n  | {line}" for line in tail)
        super().__init__(f"step {step} {how} (log: {log}){words}{self._last(how, log, tail)}")

    def _last(self, how: str, log: Path, tail: Sequence[str]) -> str:
        """The line under a step's last words: the reason once more, and what to do; without any words, nothing."""
        reason = next((line.strip().removeprefix("holdfast: ") for line in reversed(tail) if line.strip()), None)
        if reason is None:
            return ""
        again = "; when that is mended, run the same command again" if self.exit_code == 1 else ""
        return f"\nstep {self.step} {how}: {reason} (log: {log}){again}"


@dataclass
class Machine:
    """Where and how the steps of one run are executed."""

    out: Path
    """The run folder: artifacts in `steps/`, output in `logs/`."""
    pythons: Mapping[str, Path]
    """Image -> interpreter."""
    cache: Cache | None = None
    rerun: frozenset[str] = frozenset()
    """Steps that are run even if nothing changed."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Path in a command -> what replaces it in the key: the digest of a file, or a fixed name for scratch folders."""
    code: str = ""
    """Digest of the code that the steps run."""
    pythonpath: Path | None = None
    """The folder of the user's own network code."""
    forks: Servers | None = None
    """Warm processes whose forks the steps are; None: every step is a fresh process."""
    signing: Signing | None = None
    """Keys that sign what the steps make; None: nothing is signed."""
    on_step: Callable[[StepRecord], None] = lambda record: None

    def run(self, pipeline: "GraphComponent", arguments: Mapping[str, Any]) -> None:
        """Runs `pipeline` to its end, or to its first failing step.

        Raises:
            StepError: a step ended with another exit code than 0, or without its outputs.
            RunError: an image without an environment, or a condition that cannot be resolved.
        """
        self.out = self.out.resolve()
        (self.out / ARTIFACTS).mkdir(parents=True, exist_ok=True)
        try:
            with ends_on_sigterm(), _quiet(), _patched(self), _configured(self.out / ".kfp"):
                pipeline(**arguments)
        finally:
            shutil.rmtree(self.out / ".kfp", ignore_errors=True)

    def execute(self, image: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Runs, or reuses, one step; its artifact then lies in `steps/STEP`, where its ExecutorOutput has it."""
        asked = asked_of(command)
        step = _step_of(asked)
        python = self._python(image, step)
        key = self._key(step, image, command, asked, python)
        entry = self.cache.find(key) if self.cache and key and step not in self.rerun else None
        if entry is not None:
            copy_artifact(entry.artifact, self._place(step))
            for name, value in entry.outputs.items():
                asked.parameters[name].write_text(value)
            self._hand_on(asked, step)
            self._report(step, entry.outputs, 0.0, reused=True)
            return
        words = [] if self.signing is None else self.signing.words(step)
        ended = self._run(step, [str(python), *command[1:], *words], python, env)
        self._take(step, asked, key, ended)

    def check(self, words: Sequence[str], image: str, otherwise: str = "nothing was trained") -> None:
        """Runs a command of the environment of `image` that writes no artifact; `otherwise`: what a failure means.

        Raises:
            RunError: it failed; its last words.
        """
        name = words[0]
        python = self._python(image, name)
        log = self.out / LOGS / f"{name}.log"
        start = fresh if self.forks is None else self.forks.start
        command = [str(python), "-m", "holdfast", *words]
        ended = run_child(command, env=_environment(python, self.pythonpath), log=log, start=start)
        if ended.code != 0:
            reason = (ended.tail[-1:] or (f"ended with code {ended.code}",))[0].removeprefix("holdfast: ")
            raise RunError(f"{name}: {reason} (log: {log}); {otherwise}")

    def release(self, name: str, version: int, tracking: str) -> None:
        """Signs that a promoted version is the one to serve, where the key of that role is here."""
        key = self.signing.files.get(RELEASES) if self.signing is not None else None
        if key is not None:
            words = ["release", f"{name}@{version}", f"--key={key}", f"--tracking={tracking}"]
            self.check(words, containers.MODEL, _UNRELEASED)

    def _python(self, image: str, step: str) -> Path:
        if image not in self.pythons:
            raise RunError(f"step {step}: expected an image of {sorted(self.pythons)}, found {image}")
        return self.pythons[image]

    def _key(self, step: str, image: str, command: Sequence[str], asked: ExecutorInput, python: Path) -> str | None:
        """The key of the step, or None when it must not be reused."""
        folder = str(self.out / ARTIFACTS)
        outputs = {one.uri: name for name, one in asked.artifacts.items()}
        outputs |= {str(path): name for name, path in asked.parameters.items()}
        pins = {**self.pins, **{path: f"<{name}>" for path, name in outputs.items()}}
        kept = [word for word in command if not word.startswith(containers.EXECUTOR_INPUT)]
        words = [re.sub(re.escape(folder) + _REFERENCE, r"\1", pinned(word, pins)) for word in kept]
        if not self._reusable(step) or self.cache is None or any(folder in word for word in words):
            return None
        return step_key(image, words, code=self.code, environment=environment_digest(python))

    def _reusable(self, step: str) -> bool:
        row = find(step)
        return row is None or row.reusable

    def _run(self, step: str, command: Sequence[str], python: Path, env: Mapping[str, str]) -> Ended:
        log = self.out / LOGS / f"{step}.log"
        live = partial(_live, step) if sys.stderr.isatty() else None
        given = _environment(python, self.pythonpath) | dict(env)
        ended = run_child(command, env=given, log=log, on_line=live, start=partial(self._start, step))
        if ended.code != 0:
            how = f"was ended by {signal.Signals(-ended.code).name}" if ended.code < 0 else f"exit code {ended.code}"
            _say(f"{step:<10} failed       {ended.seconds:7.1f} s")
            raise StepError(step, how if ended.code < 0 else f"failed with {how}", log, ended.tail, ended.code)
        return ended

    def _start(self, step: str, command: Sequence[str], env: Mapping[str, str], output: int) -> StepProcess:
        """While a step runs, what the steps after it need is imported; in its own environment once it has begun."""
        if self.forks is None:
            return fresh(command, env, output)
        mine, row = Path(command[0]), find(step)
        ahead = (
            [] if row is None else [(containers.image(environment), of(environment)) for environment in row.prepares]
        )
        pythons = [(self._python(image, step), steps) for image, steps in ahead]
        for python, steps in pythons:
            if python != mine:
                self.forks.prepare(python, _environment(python, None), steps)
        child = self.forks.start(command, env, output)
        for python, steps in pythons:
            if python == mine:
                self.forks.prepare(python, _environment(python, None), steps)
        return child

    def _take(self, step: str, asked: ExecutorInput, key: str | None, ended: Ended) -> None:
        made = Path(asked.artifacts[ARTIFACT].uri)
        wanted = {ARTIFACT: made, **asked.parameters}
        missing = sorted(name for name, path in wanted.items() if not path.exists())
        if missing:
            log = self.out / LOGS / f"{step}.log"
            raise StepError(step, f"ended without writing {', '.join(missing)}", log, ended.tail)
        place = self._place(step)
        values = {name: path.read_text() for name, path in asked.parameters.items()}
        made.rename(place)
        self._hand_on(asked, step)
        if self.cache and key and "digest" in values:
            self.cache.keep(key, CachedStep(place, values))
        self._report(step, values, ended.seconds, reused=False)

    def _place(self, step: str) -> Path:
        """The empty place of the step's artifact in the run folder; what an earlier run left there is removed."""
        place = self.out / ARTIFACTS / step
        shutil.rmtree(place, ignore_errors=True)
        return place

    def _hand_on(self, asked: ExecutorInput, step: str) -> None:
        """Names the artifact's place to kfp, next to what the step wrote about it."""
        moved = OutputArtifact(asked.artifacts[ARTIFACT].name, str(self.out / ARTIFACTS / step))
        given = replace(asked, artifacts={**asked.artifacts, ARTIFACT: moved})
        write_executor_output(given, read_metadata(asked))

    def _report(self, step: str, values: Mapping[str, str], seconds: float, *, reused: bool) -> None:
        if self.signing is not None:
            self.signing.sign(self.out / ARTIFACTS / step, values.get("digest", ""))
        verdict = values.get("verdict", "pass")
        _say(f"{step:<10} {verdict:<12} " + ("reused" if reused else f"{seconds:7.1f} s"))
        self.on_step(
            StepRecord(step, f"{ARTIFACTS}/{step}", values.get("digest", ""), verdict, round(seconds, 3), reused)
        )


def pythons(overrides: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """Image -> its interpreter on this machine: as in `overrides`, or as holdfast.environments finds it.

    Raises:
        RunError: an interpreter that is not there.
    """
    return {containers.image(name): interpreter(name, overrides or {}) for name in containers.ENVIRONMENTS}


def start(forks: Servers) -> None:
    """Starts the warm process of every environment, to be handed on, and has it import what a new delivery needs."""
    found = pythons()
    for environment in STEPS[0].prepares:
        python = found[containers.image(environment)]
        forks.prepare(python, _environment(python, None), of(environment))


def lent(forks: Servers) -> AbstractContextManager[None]:
    """Inside, what `holdfast.warm.children` starts here are forks of the model environment's warm process."""
    python = pythons()[containers.MODEL]
    return forks.lent(python, _environment(python, None))


def holds(condition: str, resolve: Callable[[str], object]) -> bool:
    """Whether a compiled condition on fixed tokens holds, such as `inputs.parameter_values['x'] == 'pass'`.

    Raises:
        RunError: a condition of another form, or one on something that is not text.
    """
    return all(_part_holds(part.strip(), resolve) for part in condition.split(" && "))


def _part_holds(part: str, resolve: Callable[[str], object]) -> bool:
    if part.startswith("!(") and part.endswith(")"):
        return not _part_holds(part[2:-1].strip(), resolve)
    found = _CONDITION.fullmatch(part)
    if found is None:
        raise RunError(f"expected a condition that compares an output with a fixed word, found {part}")
    name, operator, word = found.groups()
    value = resolve(name)
    if not isinstance(value, str):
        raise RunError(f"expected text in {name} to decide {part}, found {value!r}")
    return (value == word) == (operator == "==")


def _resolve(store: Any, name: str) -> object:
    """The value of a pipeline channel: an input of this part of the pipeline, or the output of one of its tasks."""
    try:
        return store.get_parent_input(name)
    except ValueError:
        parts = name.removeprefix("pipelinechannel--").split("-")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            return store.get_task_output("-".join(parts[:cut]), "-".join(parts[cut:]))
        except ValueError:
            continue
    raise RunError(f"cannot resolve {name}: no such input and no such output of a task that ran")


def asked_of(command: Sequence[str]) -> ExecutorInput:
    """What kfp asks of the step whose command this is; the folder of its outputs is there.

    Raises:
        RunError: the command has no message of kfp, or it asks for no artifact.
    """
    found = [word for word in command if word.startswith(containers.EXECUTOR_INPUT)]
    asked = read_executor_input(found[0].removeprefix(containers.EXECUTOR_INPUT)) if found else None
    if asked is None or ARTIFACT not in asked.artifacts:
        raise RunError(f"expected a step that writes something, found {' '.join(command[:4])} without an output")
    Path(asked.artifacts[ARTIFACT].uri).parent.mkdir(parents=True, exist_ok=True)
    return asked


def asked_alone(folder: Path) -> ExecutorInput:
    """What a step is asked that is no part of a pipeline: an artifact, its digest and verdict, in the step's folder."""
    parameters = {name: folder / name for name in ("digest", "verdict")}
    artifact = OutputArtifact(ARTIFACT, str(folder / ARTIFACT))
    return ExecutorInput(folder / "executor_output.json", {ARTIFACT: artifact}, parameters)


def _step_of(asked: ExecutorInput) -> str:
    """The step's name: that of the folder of its outputs."""
    return Path(asked.artifacts[ARTIFACT].uri).parent.name


def _environment(python: Path, pythonpath: Path | None) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PATH": f"{python.parent}:{env.get('PATH', '')}", "VIRTUAL_ENV": str(python.parent.parent)}
    # Unbuffered: the last words before a kill reach the log. Telemetry: steps connect only to what they are given.
    env |= {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return env | CALM | ({"PYTHONPATH": str(pythonpath)} if pythonpath is not None else {})


def _say(line: str) -> None:
    say(f"\r\x1b[K{line}" if sys.stderr.isatty() else line)


def _live(step: str, line: str) -> None:
    """Shows the running step's newest line on a terminal, over the one before."""
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write(f"\r\x1b[K{f'{step:<10} {line}'[:width]}\r")
    sys.stderr.flush()


# --- the seams to kfp -----------------------------------------------------------------------------------------------


@contextmanager
def _patched(machine: Machine) -> Iterator[None]:
    from kfp.local import subprocess_task_handler
    from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator

    def evaluate(condition: str, io_store: Any) -> bool:
        return holds(condition, partial(_resolve, io_store))

    with (
        _replaced(subprocess_task_handler, "SubprocessTaskHandler", partial(_Handler, machine)),
        _replaced(ConditionEvaluator, "evaluate_condition", staticmethod(evaluate)),
    ):
        yield


class _Handler:
    """What kfp.local makes for every task; a failing step raises at once, so no other step runs after it."""

    def __init__(
        self,
        machine: Machine,
        image: str,
        full_command: list[str],
        pipeline_root: str,
        runner: object,
        env_vars: dict[str, str] | None = None,
    ) -> None:
        self.run_step = partial(machine.execute, image, full_command, env_vars or {})

    def run(self) -> object:
        from kfp.local.status import Status

        self.run_step()
        return Status.SUCCESS


@contextmanager
def _configured(root: Path) -> Iterator[None]:
    """kfp.local's session: outputs below `root`; its workspace, which it deletes at the end, is a folder of ours."""
    from kfp import local
    from kfp.local.config import LocalExecutionConfig

    before = LocalExecutionConfig.instance
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner, pipeline_root=str(root), workspace_root=str(root / "workspace"), raise_on_error=True)
    try:
        yield
    finally:
        LocalExecutionConfig.instance = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences kfp's own talk on standard output, its logging and its warnings; all of it is restored."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
