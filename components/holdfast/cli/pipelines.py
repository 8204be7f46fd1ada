"""The commands that run, compile and submit the pipelines."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.cluster import with_cluster_settings
from holdfast.options import (
    STATE,
    TRACKING,
    AsJson,
    Because,
    DeviceOption,
    Seed,
    Threads,
    Tracking,
    TrustFileOption,
    WorkloadFile,
    maybe_ref,
    print_paths,
    reviews_folder,
    same_command,
    shipped,
)
from holdfast.progress import say

if TYPE_CHECKING:
    from holdfast_pipelines.cluster import ClusterSettings
    from holdfast_pipelines.record import RunResult

DEMO = Path(STATE) / "demo"
Isolated = Annotated[
    bool,
    typer.Option(help="Run every step as a fresh process, not as a fork of one that has imported the libraries."),
]
NotifyUrl = Annotated[
    str | None, typer.Option(metavar="URL|env:NAME", help="Post how the run ended, as JSON that Slack reads, too.")
]
Retries = Annotated[
    int, typer.Option(help="Roll out again, so often, after a rollout without a verdict on a busy machine.", min=0)
]
DataPath = Annotated[Path | None, typer.Option(help="Data to use instead of the workload's source.")]


def run(
    workload: WorkloadFile,
    data: DataPath = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; .holdfast/runs/NAME when left out.")] = None,
    seed: Seed = 0,
    tracking: Tracking = TRACKING,
    from_step: Annotated[str | None, typer.Option("--from", help="Run this step and all after it again.")] = None,
    rollout: Annotated[bool, typer.Option(help="Roll the registered model out.")] = True,
    device: DeviceOption = "auto",
    threads: Threads = 1,
    game_day: Annotated[str | None, typer.Option(help="See `holdfast rollout start --help`.")] = None,
    retries: Retries = 0,
    isolated: Isolated = False,
    keys: Annotated[
        Path | None, typer.Option(help="Sign what the steps make: a folder as `holdfast keys new --all` makes it.")
    ] = None,
    trust: TrustFileOption = None,
    because: Because = "",
    notify: NotifyUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run's record on standard output.")] = False,
) -> None:
    """Run the whole pipeline on this machine, through the real kfp.local; ends with a report."""
    from holdfast_pipelines.ending import last_line, notified, shortfall_lines
    from holdfast_pipelines.parameters import read
    from holdfast_pipelines.report import write_report
    from holdfast_pipelines.run import run as run_pipeline
    from holdfast_pipelines.warm import servers

    path = shipped(workload)
    folder = out or Path(STATE) / "runs" / path.stem
    with notified(notify, read(path).name, folder) as ended, servers(isolated=isolated) as forks:
        result = ended.result = run_pipeline(
            path, data=data, out=folder, seed=seed, tracking=tracking, cache=Path(STATE) / "cache", device=device,
            from_step=from_step, rollout=rollout, threads=threads, game_day=game_day, retries=retries, trust=trust,
            forks=forks, reviews=reviews_folder(read(path).name), keys=keys, because=maybe_ref(because),
        )  # fmt: skip
    report = write_report(folder, folder / "report.html")
    last = last_line(result, folder, report, same_command(), planted=bool(game_day))
    _finish_run(result, report, as_json, "\n".join([*shortfall_lines(result, folder), last]))


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo; what an earlier one left is replaced.")] = DEMO,
    seed: Seed = 0,
    isolated: Isolated = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary on standard output.")] = False,
) -> None:
    """Run four deliveries of real digits: clean, poisoned, broken, and a rollback; then a client copies the model."""
    from holdfast_pipelines.demo import demo as play

    page = play(out, seed=seed, isolated=isolated)
    if as_json:
        typer.echo((page.parent / "summary.json").read_text().rstrip("\n"))
    else:
        ours = f"mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///{page.parent}/mlflow.db"
        typer.echo(f"report: {page}\nMLflow: {'make ui' if out == DEMO else ours}")
    say(f"all five acts ended as expected; open {page}")


@with_cluster_settings
def compile(
    settings: "ClusterSettings",
    out: Annotated[Path, typer.Option(help="Folder for the compiled pipelines.")] = Path("manifests/pipelines"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Compile the pipelines for Kubeflow."""
    from holdfast_pipelines.compiled import compile_pipelines

    print_paths(compile_pipelines(out, settings), as_json)


def schemas(
    out: Annotated[Path, typer.Option(help="Folder for the JSON schemas.")] = Path("manifests/schemas"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write the JSON schema of every document, of the workload and of the policy."""
    from holdfast_pipelines.compiled import write_schemas

    print_paths(write_schemas(out), as_json)


@with_cluster_settings
def submit(
    settings: "ClusterSettings",
    endpoint: Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API.")],
    workload: WorkloadFile,
    tracking: Annotated[str, typer.Option(help="MLflow tracking URI as the cluster sees it.")],
    data: Annotated[str | None, typer.Option(help="Data as the cluster sees it.")] = None,
    seed: Seed = 0,
    cron: Annotated[str | None, typer.Option(help="Retrain on this schedule, for example '0 3 * * *'.")] = None,
    experiment: Annotated[str, typer.Option(help="Under which name Kubeflow groups the runs.")] = "holdfast",
    trust: Annotated[str, typer.Option(help="Trust policy by which models are registered: a path in the pods.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait for the run's end; exit codes are those of `holdfast run`.")] = False,
    pipeline: Annotated[
        str, typer.Option(help="retrain, or monitor: watch the champion, on the schedule of the section `monitor`.")
    ] = "retrain",
    because: Because = "",
    every: Annotated[
        str | None, typer.Option(help="How often `monitor` runs, such as 1h; with --wait it runs once, now.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Upload the pipeline to Kubeflow and start a run, or make a recurring one."""
    if because and (cron is not None or pipeline == "monitor"):
        raise typer.BadParameter("expected a run of retrain, now", param_hint="--because")
    if sum((wait, cron is not None, every is not None)) > 1:
        raise typer.BadParameter("expected one of --cron, --every and --wait, found more", param_hint="--wait")
    if pipeline not in ("retrain", "monitor") or (every is not None and pipeline == "retrain"):
        raise typer.BadParameter("expected retrain (with --cron) or monitor (with --every or --cron)")
    from holdfast_pipelines.submit import submit as send
    from holdfast_pipelines.submit_monitor import submit_monitor as watch

    settings.require_registry()
    shared: dict[str, Any] = {"tracking": tracking, "cron": cron, "settings": settings, "trust": trust}
    shared["experiment"] = experiment
    if pipeline == "monitor":
        sent = watch(endpoint, shipped(workload), every=every, once=wait, **shared)
    else:
        sent = send(endpoint, shipped(workload), data=data, seed=seed, wait=wait, because=maybe_ref(because), **shared)
    typer.echo(json.dumps(sent, indent=2) if as_json else "\n".join(f"{key}: {value}" for key, value in sent.items()))


def _finish_run(result: "RunResult", report: Path, as_json: bool, last: str) -> None:
    if as_json:
        typer.echo(json.dumps(result.as_dict(), indent=2))
    else:
        typer.echo(f"{result.workload}: {result.outcome}\nreport: {report}")
    say(last)
    if result.outcome in ("refused", "stopped", "rolled-back"):
        raise typer.Exit(3)
    if result.outcome == "inconclusive":
        raise typer.Exit(4)


COMMANDS = {"run": run, "demo": demo, "compile": compile, "schemas": schemas, "submit": submit}
"""What `holdfast` runs by these names."""
