"""Training and judging both commits of a pull request; nothing is registered or rolled out.

The head is judged as `retrain` would judge it after a merge, with the small tier of attacks. The base branch's model is
trained likewise, and attacked together with the head's: on the same examples, as the champion is.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast import containers
from holdfast.artifacts.documents import Baseline, GateDecision, Model, RobustnessReport, Snapshot
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load, seal, write_artifact
from holdfast.errors import HoldfastError, InputError, WorkloadError
from holdfast.progress import say
from holdfast.reuse import Cache, code_digest
from holdfast.steps import by_role, role_of, writer
from holdfast.workload.schema import AttackConfig, read_workload
from holdfast.workload.yaml import top_keys
from holdfast_pipelines.folder import ARTIFACTS, place_of, read_artifact
from holdfast_pipelines.local import ARTIFACT, Machine, asked_alone, pythons
from holdfast_pipelines.parameters import Settings, own_code
from holdfast_pipelines.pull_request.report import PullRequestReport
from holdfast_pipelines.pull_request.repository import Repository
from holdfast_pipelines.pull_request.requirements import (
    Placed,
    PolicyFrom,
    changed_data,
    changed_requirements,
    own_requirements,
    required_by,
)
from holdfast_pipelines.pull_request.results import clear_results
from holdfast_pipelines.pull_request.table import ModelComparison, Sides, compose
from holdfast_pipelines.record import RECORD
from holdfast_pipelines.run import judge
from holdfast_pipelines.warm import Servers

HEAD, BASE, CHAMPION = "head", "base", "champion"
_ALIAS = "@champion"
_PREFIX = "holdfast-pr-"
_OUR_FOLDER = re.compile(rf"[\w./~-]*/{_PREFIX}\w+/")
_REGISTERED = "models:/"


@dataclass(frozen=True)
class GateRequest:
    """What is compared, how and where."""

    base: str
    """A branch, a tag or a commit."""
    head: str
    """The same, of what is judged."""
    out: Path
    """The folder of the results, with the run of each commit."""
    settings: Settings
    """Seed, device, threads; and the registry, or nothing."""
    workload: Path | None = None
    """Below the current folder; None: the one at the top of the repository."""
    champion: str | None = None
    """`models:/NAME@champion`, or the folder of a model or of a run; None: the registry's champion of the workload."""
    policy_from: PolicyFrom = "base"
    """Which commit's requirements hold."""
    compare: bool = True
    """Whether the base branch's model is trained and compared."""
    data: Path | None = None
    """Data in place of the workload's source, for both commits."""


@dataclass(frozen=True)
class Workshop:
    """With what the steps run."""

    cache: Path | None
    """Where what steps made is kept for reuse."""
    interpreters: Mapping[str, Path] | None = None
    """Environment -> its interpreter, where it is not the usual one."""
    forks: Servers | None = None
    """Warm processes whose forks the steps are."""


def pr_gate(request: GateRequest, workshop: Workshop, around: Path) -> PullRequestReport:
    """Judges the head, compares it, and gives the report; the runs of both commits stay in `request.out`.

    Raises:
        WorkloadError: a name or a workload file that is not valid.
        InputError: no such commit, file or model.
        StepError: a step failed on the head.
    """
    _clear(request)
    repository = Repository.around(around)
    commits = {HEAD: repository.commit(request.head), BASE: repository.commit(request.base)}
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as place, _without_folders():
        folders = {side: Path(place) / side for side in commits}
        for side, commit in commits.items():
            repository.write_out(commit, folders[side])
        file = _workload_file(repository, request.workload, folders[HEAD])
        head = _read(folders[HEAD] / file)
        base = _read_base(folders[BASE] / _base_file(folders[BASE], folders[HEAD], file), request)
        sides = Sides(
            file=file,
            text=(folders[HEAD] / file).read_text(),
            head=commits[HEAD],
            base=commits[BASE],
            required=required_by(base, head, request.policy_from),
            policy_from="head" if base is None else request.policy_from,
            requirements_changed=() if base is None else changed_requirements(base, head),
            data_changed=() if base is None else changed_data(base, head),
            notes=tuple(_notes(request, base)),
        )
        return _measured(_Desk(request, workshop), sides, base)


def _clear(request: GateRequest) -> None:
    """Removes what an earlier gate left; a folder of other files is not touched."""
    out = request.out
    if request.champion is not None and out.resolve() in Path(request.champion).resolve().parents:
        raise WorkloadError(f"--champion {request.champion}: expected a folder outside {out}, which is replaced")
    clear_results(out)
    for whose in (BASE, CHAMPION):
        shutil.rmtree(out / f"against-{whose}", ignore_errors=True)
    if (out / BASE / RECORD).exists():
        shutil.rmtree(out / BASE)


def _notes(request: GateRequest, base: Placed | None) -> Iterator[str]:
    if base is None:
        yield "The base branch has no such workload file that can be read: the head was judged by its own rules, alone."
    elif not request.compare:
        yield "The base branch's model was not compared (--no-compare)."
    if not request.settings.tracking and request.champion is None:
        yield "No registry was given (--tracking): no champion was compared."


def _measured(desk: "_Desk", sides: Sides, base: Placed | None) -> PullRequestReport:
    say(f"pr-gate: judging the head {sides.head[:12]}")
    desk.judge(HEAD, sides.required)
    comparisons: list[ModelComparison] = []
    model = desk.champion_folder()
    if model is not None:
        comparisons.append(desk.compared(CHAMPION, model, sides.required))
    if base is not None and desk.request.compare:
        comparisons.append(desk.base(base, sides))
    judged = base is not None and desk.request.compare
    return compose(sides, desk.run(HEAD), comparisons, desk.base_decision() if judged else None)


@dataclass(frozen=True)
class _Desk:
    """Runs what a request asks for."""

    request: GateRequest
    workshop: Workshop

    def run(self, side: str) -> Path:
        """The run folder of a commit."""
        return self.request.out / side

    def judge(self, side: str, placed: Placed) -> None:
        """Runs `pr_gate` on one commit."""
        judge(
            placed.workload, folder=placed.folder, out=self.run(side), settings=self._settings(),
            cache=self.workshop.cache, data=self.request.data, champion=self._registered(),
            interpreters=self.workshop.interpreters, forks=self.workshop.forks,
        )  # fmt: skip

    def base(self, base: Placed, sides: Sides) -> ModelComparison:
        """Trains and judges the base branch's workload by its own rules, and compares the head with its model."""
        say(f"pr-gate: judging the base branch {sides.base[:12]}")
        try:
            self.judge(BASE, own_requirements(base))
        except HoldfastError as error:
            return ModelComparison(BASE, None, f"the base branch could not be judged: {_last_line(error)}")
        return self.compared(BASE, place_of(self.run(BASE), Model), sides.required)

    def base_decision(self) -> GateDecision | None:
        """How the base branch's own model was judged."""
        there = (place_of(self.run(BASE), GateDecision) / DOCUMENT).exists()
        return read_artifact(self.run(BASE), GateDecision).document if there else None

    def compared(self, whose: str, model: Path, required: Placed) -> ModelComparison:
        """Attacks the head's model and the one in `model` on the same examples."""
        run = self.run(HEAD)
        if not (place_of(run, Model) / DOCUMENT).exists():
            return ModelComparison(whose, None, "the head's delivery was stopped, and no model was trained")
        if not (model / DOCUMENT).exists():
            return ModelComparison(whose, None, "its delivery was stopped, and no model was trained")
        say(f"pr-gate: comparing with the {whose} on the same examples")
        try:
            return ModelComparison(whose, self._attacked_together(whose, load(model, Model), required))
        except HoldfastError as error:
            return ModelComparison(whose, None, f"it could not be compared: {_last_line(error)}")

    def champion_folder(self) -> Path | None:
        """The folder of the champion's model, where the request names one."""
        named = self.request.champion
        if named is None or named.startswith(_REGISTERED):
            return None
        found = next((one for one in (Path(named), place_of(Path(named), Model)) if (one / DOCUMENT).is_file()), None)
        if found is None:
            raise InputError(f"{named}: expected models:/NAME@champion, or the folder of a model or a run, found none")
        return load(found, Model).folder

    def _settings(self) -> Settings:
        if self._registered() is not None and not self.request.settings.tracking:
            raise WorkloadError(f"--champion {self.request.champion}: expected --tracking with it, the registry's URI")
        return replace(self.request.settings, tracking="") if self.champion_folder() else self.request.settings

    def _registered(self) -> str | None:
        named = self.request.champion
        if named is None or not named.startswith(_REGISTERED):
            return None
        name = named.removeprefix(_REGISTERED)
        if not name.endswith(_ALIAS):
            raise WorkloadError(f"--champion {named}: expected models:/NAME@champion, or a folder")
        return name.removesuffix(_ALIAS)

    def _attacked_together(self, whose: str, other: Artifact[Model], required: Placed) -> RobustnessReport:
        """The attack step on the head's model, with the other one in the champion's place."""
        snapshot, model = read_artifact(self.run(HEAD), Snapshot), read_artifact(self.run(HEAD), Model)
        out = self.request.out / f"against-{whose}"
        baseline = _as_baseline(other, snapshot, out / "compared")
        machine = self._machine(out, required, {str(one.folder): one.digest for one in (snapshot, model, baseline)})
        row, root = writer(RobustnessReport), out / ".kfp"
        asked = asked_alone(root / row.name)
        given = {role_of(type(one.document)): (_Place(one.folder), one.digest) for one in (model, snapshot, baseline)}
        config: AttackConfig = required.workload.attack
        settings = self.request.settings
        words = [
            *containers.inputs(**given),
            *containers.options(
                config=config.model_dump_json(by_alias=True), seed=settings.seed, device=settings.device,
                threads=settings.threads,
            ),
            *containers.outputs(_Place(root / row.name / ARTIFACT), *asked.parameters.values()),
        ]  # fmt: skip
        words = [word.replace(containers.MESSAGE, asked.message) for word in words]
        machine.execute(containers.MODEL, ["python", "-m", "holdfast", row.name, *words], {})
        shutil.rmtree(root, ignore_errors=True)
        return read_artifact(out, RobustnessReport).document

    def _machine(self, out: Path, required: Placed, pins: Mapping[str, str]) -> Machine:
        own, cache = own_code(required.workload, required.folder), self.workshop.cache
        (out / ARTIFACTS).mkdir(parents=True, exist_ok=True)
        return Machine(
            out=out.resolve(),
            pythons=pythons(self.workshop.interpreters),
            cache=Cache(cache) if cache is not None else None,
            pins=pins,
            code=code_digest(own),
            pythonpath=required.folder if own else None,
            forks=self.workshop.forks,
        )


@dataclass(frozen=True)
class _Place:
    path: Path


def _as_baseline(model: Artifact[Model], snapshot: Artifact[Snapshot], out: Path) -> Artifact[Baseline]:
    """The model in the place of a champion; version 0, which no registry gives."""
    with write_artifact(out) as work:
        shutil.copytree(model.folder, work / "model")
        document = Baseline(
            inputs=by_role(snapshot), name=model.document.name, present=True, model_version=0, model=model.digest
        )
        seal(work, document)
    return load(Ref(out), Baseline)


def _workload_file(repository: Repository, named: Path | None, head: Path) -> str:
    """The workload file from the top of the repository, after it was found in the head."""
    if named is not None:
        file = str(repository.path(named))
        if not (head / file).is_file():
            raise InputError(f"{file}: expected a workload file in the head, found none")
        return file
    found = _workload_files(head)
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise InputError(f"expected one workload file at the top of the repository, found {names}; give --workload")
    return found[0]


def _workload_files(folder: Path) -> list[str]:
    keys = {"name", "modality", "data", "network", "threat"}
    return [path.name for path in sorted(folder.glob("*.y*ml")) if path.is_file() and keys <= top_keys(path)]


def _base_file(base: Path, head: Path, file: str) -> str:
    """The workload's file in the base branch: a pull request that renames it does not get rid of its requirements.

    Raises:
        InputError: it could be one of several.
    """
    below = Path(file).parent
    if (base / file).is_file():
        return file
    gone = sorted(set(_workload_files(base / below)) - set(_workload_files(head / below)))
    if len(gone) > 1:
        names = ", ".join(gone)
        raise InputError(f"{file}: expected at most one workload file that the head no longer has, found {names}")
    return str(below / gone[0]) if gone else file


def _read(path: Path) -> Placed:
    return Placed(read_workload(path), path.parent)


def _read_base(path: Path, request: GateRequest) -> Placed | None:
    """The base branch's workload; None where it has none yet, or where the head's own rules hold and it cannot be read.

    Raises:
        WorkloadError: it cannot be read, and its requirements are asked for.
    """
    if not path.is_file():
        return None
    try:
        return _read(path)
    except WorkloadError as error:
        if request.policy_from == "head":
            return None
        raise WorkloadError(f"{error}; --policy-from head judges the head by its own rules") from None


@contextmanager
def _without_folders() -> Iterator[None]:
    """Names files in messages as `head/FILE` and `base/FILE`: the folder above them is gone when people read it."""
    try:
        yield
    except HoldfastError as error:
        error.args = tuple(_shortened(str(part)) for part in error.args)
        raise


def _shortened(text: str) -> str:
    return _OUR_FOLDER.sub("", text)


def _last_line(error: HoldfastError) -> str:
    return _shortened(str(error)).strip().rpartition("\n")[2][:600]
