"""`holdfast monitor`: judge a served model by its log, and draw rows to be labelled."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.options import (
    TRACKING,
    AsJson,
    Config,
    ModelRef,
    Out,
    Tracking,
    TrustFileOption,
    finish,
    read_section,
    ref,
    step_command,
    write,
)

if TYPE_CHECKING:
    from holdfast.artifacts.documents import MonitorReport
    from holdfast.artifacts.folder import Artifact

app = typer.Typer(
    help="Watch a served model: its inputs, its outputs, and its labels when they come.", no_args_is_help=True
)

LogFolder = Annotated[Path, typer.Option(help="Folder of the model server's sample_log.")]


def check(
    log: LogFolder,
    model: ModelRef,
    decision: Annotated[str, typer.Option(help="The gate's decision on it: FOLDER or FOLDER@DIGEST.")],
    out: Out,
    previous: Annotated[str | None, typer.Option(help="The report before, which this one goes on from.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV with request, row (0 when left out) and label.")] = None,
    request: Annotated[
        list[Path] | None, typer.Option(help="Request that the labels answer; without any they are selected labels.")
    ] = None,
    alarms: Annotated[float, typer.Option(help="Expected false alarms in 720 hours.", min=1e-6, max=0.5)] = 0.01,
    stable: Annotated[int, typer.Option(help="First hours that are known to be good.", min=24)] = 168,
    season: Annotated[int, typer.Option(help="24: compare each hour with the same hour of other days.", min=1)] = 1,
    enforce: Annotated[
        bool, typer.Option("--enforce", help="Exit code 3 for an alarm, 4 for too little data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge the hours of the log since the last report."""
    from holdfast.artifacts.folder import check_place
    from holdfast.monitor.step import LabelAnswers, monitor
    from holdfast.monitor.watching import MonitorSettings

    check_place(out)
    found = monitor(
        log,
        out,
        model=ref(model),
        decision=ref(decision),
        settings=MonitorSettings(alarms, stable, season),
        labels=LabelAnswers((labels,), tuple(request or ())) if labels else None,
        previous=ref(previous) if previous else None,
    )
    typer.echo(f"{found.document.verdict.value}: {found.document.reason}; next: {found.document.advice}", err=True)
    finish(found, None, None, as_json)
    if enforce and (code := {"pass": 0, "fail": 3, "inconclusive": 4}[found.document.verdict.value]):
        raise typer.Exit(code)


def labels(
    log: LogFolder,
    model: ModelRef,
    out: Annotated[Path, typer.Option(help="JSON file that names the rows.")],
    request: Annotated[int, typer.Option(help="How often a row is drawn; some may be drawn twice.", min=1)] = 200,
    hours: Annotated[int, typer.Option(help="Last complete hours of the log to draw from.", min=1)] = 24,
    seed: Annotated[int | None, typer.Option(help="Of the draw; left out: one that no one can know.", min=0)] = None,
) -> None:
    """Draw rows at random for people to label: half of the draws alike, half by the model's doubt."""
    import secrets

    from holdfast.monitor.step import draw_labels

    drawn = seed if seed is not None else secrets.randbits(64)
    rows = draw_labels(log, ref(model), out, draws=request, hours=hours, seed=drawn)
    typer.echo(f"{out}: {rows} rows to label; then `holdfast monitor check --labels FILE --request {out}`", err=True)


@step_command
def run(
    name: Annotated[str, typer.Option(help="Name of the registered model, whose champion is watched.")],
    out: Out,
    config: Config,
    tracking: Tracking = TRACKING,
    trust: TrustFileOption = None,
    asks_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> "Artifact[MonitorReport]":
    """Judge the champion by its log, from the newest report that was kept: what the pipeline runs."""
    from holdfast.monitor.request.step import asks
    from holdfast.monitor.step import watch
    from holdfast.workload.schema import MonitorConfig

    section = read_section(config, MonitorConfig, lambda workload: workload.monitor)
    found = watch(out, name=name, tracking=tracking, config=section, trust=trust)
    typer.echo(f"{found.document.verdict.value}: {found.document.reason}; next: {found.document.advice}", err=True)
    if asks_file is not None:
        kept = None if section.kept is None else Path(section.kept)
        wanted = "retrain" in section.on_drift and asks(found, kept, section.cooldown_days)
        write(asks_file, "yes" if wanted else "no")
    return found


def start(
    request: Annotated[str, typer.Option(help="The request: FOLDER or FOLDER@DIGEST.")],
    how: Annotated[str, typer.Option("--start", help="What `holdfast submit --pipeline monitor` made, as JSON.")],
) -> None:
    """Start the pipeline `retrain` because of a request: what the pipeline `monitor` runs."""
    from holdfast.artifacts.requests import read_request
    from holdfast.monitor import starting

    run = starting.start(starting.RetrainStart.parse(how), read_request(request))
    typer.echo(f"run: {run}")


app.command("start")(start)
app.command("check")(check)
app.command("run")(run)
app.command("labels")(labels)
COMMANDS = {"monitor": app}
"""What `holdfast` runs by these names."""
