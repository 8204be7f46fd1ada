"""`holdfast rollout start`; importing this loads nothing heavy. The other commands are in `holdfast.cli.rollout`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import (
    TRACKING,
    AsJson,
    DigestFile,
    ForKubeflow,
    PageFile,
    Seed,
    Tracking,
    TrustFileOption,
    VerdictFile,
    finish,
    same_command,
)  # fmt: skip
from holdfast.progress import say

if TYPE_CHECKING:
    from holdfast.serving.rollout.cluster.target import Target
    from holdfast.serving.rollout.stage import Place
    from holdfast.workload.schema import RolloutPlan

app = typer.Typer(
    help="Roll out a registered version; look at it, step in, and ask what served when.", no_args_is_help=True
)
LOCAL = "envoy"
"""The driver of this machine; the others are those of `cluster/table.py`."""
RECORD_FOLDER = "Folder that the record becomes; it names the rollout for all commands."

ModelName = Annotated[str, typer.Option(help="Registered model.")]
RecordFolder = Annotated[Path, typer.Option(help=RECORD_FOLDER)]
CandidateVersion = Annotated[int, typer.Option(help="Version to roll out.", min=1)]
PlanOption = Annotated[str, typer.Option(help="The plan: JSON, a YAML file of its own, or a workload file.")]
DriverName = Annotated[
    str, typer.Option(help=f"What moves the traffic: {LOCAL} on this machine; on a cluster the target's, as seldon-v1.")
]
TargetText = Annotated[
    str, typer.Option(help="Where on a cluster: a YAML file, or its text; see docs/rollout-on-*.md.")
]
GameDayText = Annotated[
    str | None, typer.Option(help="Break the candidate on purpose, for example delay_ms=400,wrong=1.0,after=150.")
]
Supersede = Annotated[
    bool, typer.Option(help="End the rollout that runs for this --out first, with the candidate out of traffic.")
]
MetricsPort = Annotated[
    int | None, typer.Option(help="Serve the controller's metrics at 127.0.0.1:PORT/metrics.", min=1, max=65535)
]


@app.callback()
def _is_a_group() -> None:
    """Keeps `start` a subcommand, also before the operators' commands are added."""


@app.command()
def start(
    name: ModelName,
    version: CandidateVersion,
    out: RecordFolder,
    config: PlanOption = "{}",
    driver: DriverName = LOCAL,
    target: TargetText = "",
    tracking: Tracking = TRACKING,
    seed: Seed = 0,
    game_day: GameDayText = None,
    supersede: Supersede = False,
    metrics_port: MetricsPort = None,
    trust: TrustFileOption = None,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
    executor_input: ForKubeflow = "",
    page_file: PageFile = None,
) -> None:
    """Shadow, canary, then promotion or rollback, by itself; after a crash the same command goes on."""
    from holdfast.serving.rollout.reporting.ending import last_line
    from holdfast.serving.rollout.step import rollout

    plan = _plan(config)
    place = _place(driver, target, game_day)
    if supersede:
        _end_first(out, f"superseded by version {version}")
    artifact = rollout(
        name, out, version=version, tracking=tracking, config=plan, seed=seed,
        game_day=game_day or None, metrics_port=metrics_port, at=place, trust=trust,
    )  # fmt: skip
    finish(artifact, digest_file, verdict_file, as_json, executor_input, page_file)
    say(f"rollout: {last_line(artifact, same_command(), planted=bool(game_day))}")


def _end_first(out: Path, reason: str) -> None:
    from holdfast.serving.rollout.local.supersede import supersede

    kept = supersede(out, reason)
    if kept is not None:
        say(f"rollout: the one before was ended: {reason}; see {kept}")


def _place(driver: str, target: str, game_day: str | None) -> "Place":
    from holdfast.serving.rollout.step import THIS_MACHINE

    if driver == LOCAL and not target:
        return THIS_MACHINE
    from holdfast.serving.rollout.cluster.table import DRIVERS

    if driver not in (LOCAL, *DRIVERS):
        raise typer.BadParameter(f"expected {' or '.join((LOCAL, *DRIVERS))}, found {driver!r}", param_hint="--driver")
    if driver == LOCAL or not target:
        raise typer.BadParameter(f"expected with {' and '.join(DRIVERS)}, and only there", param_hint="--target")
    if game_day:
        raise typer.BadParameter(f"expected only with {LOCAL}, on this machine", param_hint="--game-day")
    from holdfast.serving.rollout.cluster.run import TargetCluster

    read = _target(target)
    if read.driver != driver:
        raise typer.BadParameter(f"expected {read.driver} as the target has, found {driver}", param_hint="--driver")
    return TargetCluster.of(read).place()


def _target(given: str) -> "Target":
    """The target of a file, or of the text of one: a pod has no such file."""
    from holdfast.serving.rollout.cluster.target import Target, read_target
    from holdfast.workload.yaml import parse_yaml

    if "\n" in given or given.lstrip().startswith("{"):
        return parse_yaml(given, Target, name="--target")
    return read_target(Path(given))


def _plan(text: str) -> "RolloutPlan":
    from holdfast.workload.schema import RolloutPlan, read_plan
    from holdfast.workload.yaml import parse_yaml

    if text.lstrip().startswith("{"):
        return parse_yaml(text, RolloutPlan, name="--config")
    return read_plan(Path(text))


COMMANDS = {"rollout": app}
"""What `holdfast` runs by these names."""
