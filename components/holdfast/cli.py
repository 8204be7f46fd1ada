"""One subcommand per step, and the commands for people.

Importing this module loads neither torch nor TensorFlow nor kfp: each subcommand imports its own step. Standard output
is for results (`--json`), standard error for people. Exit codes: 0 done, 1 the step failed, 2 wrong usage, 3 refused or
gate failed, 4 gate inconclusive (3 and 4 from `gate` only with `--enforce`).
"""

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast import __version__
from holdfast.errors import HoldfastError, WorkloadError
from holdfast.options import (
    STATE,
    TRACKING,
    AsJson,
    Config,
    DigestFile,
    Out,
    Seed,
    Tracking,
    VerdictFile,
)
from holdfast.options import finish as _finish
from holdfast.options import same_command as _same_command
from holdfast.options import section as _section
from holdfast.options import write as _write
from holdfast.progress import say
from holdfast.quarantine.commands import app as quarantine
from holdfast.serving.rollout.commands import app as rollout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.artifacts.folder import Ref
    from holdfast.model.compute import Compute
    from holdfast_pipelines.run import RunResult

app = typer.Typer(
    help="Holdfast keeps an ML model robust for as long as it serves: only models that hold fast ship.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
DEMO = Path(STATE) / "demo"
FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
PEOPLE, DATA, MODEL, GATE, SERVING, CLUSTER = "People", "Data", "Model", "Gate", "Serving", "Pipelines"
app.add_typer(quarantine, name="quarantine", rich_help_panel=PEOPLE)
app.add_typer(rollout, name="rollout", rich_help_panel=SERVING)

SnapshotRef = Annotated[str, typer.Option(help="Snapshot artifact: FOLDER or FOLDER@DIGEST.")]
BaselineRef = Annotated[str | None, typer.Option(help="Baseline artifact (the champion): FOLDER or FOLDER@DIGEST.")]
ModelRef = Annotated[str, typer.Option(help="Model artifact: FOLDER or FOLDER@DIGEST.")]
EvidenceRef = Annotated[str | None, typer.Option(help="Evidence artifact: FOLDER or FOLDER@DIGEST.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="CPU threads; part of the result, since sums depend on it.", min=1)]


def main() -> None:
    """Runs the command line; an expected failure is one line on standard error."""
    try:
        app()
    except HoldfastError as error:
        sys.stderr.write(f"holdfast: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        sys.stderr.write(f"holdfast: {error.filename or 'output'}: the disk is full ({error.strerror}); nothing kept\n")
        sys.exit(1)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the subcommand."""


# --- data -------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=DATA)
def snapshot(
    config: Config,
    out: Out,
    data: Annotated[str | None, typer.Option(help="File to read instead of the workload's source.")] = None,
    review: Annotated[
        str | None, typer.Option(help="Review of quarantined rows instead of the workload's: FOLDER or FOLDER@DIGEST.")
    ] = None,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Pin the exact data: digests per file, Merkle root, rows, classes."""
    from holdfast.data.snapshot.step import snapshot as step
    from holdfast.workload import SnapshotConfig

    section = _section(config, SnapshotConfig, lambda workload: workload.snapshot_config)
    artifact = step(section, out, data=Path(data) if data else None, review=review)
    _finish(artifact, digest_file, verdict_file, as_json)


@app.command(rich_help_panel=DATA)
def schema(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Hold the data against its schema (TensorFlow Data Validation)."""
    from holdfast.data.schema.step import schema as step
    from holdfast.workload import SchemaConfig

    section = _section(config, SchemaConfig, lambda workload: workload.schema_)
    _finish(step(_ref(snapshot), out, config=section, baseline=_maybe(baseline)), digest_file, verdict_file, as_json)


@app.command(rich_help_panel=DATA)
def drift(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
    seed: Seed = 0,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare the delivery with the champion's data, per column and by the champion's confidence."""
    from holdfast.data.drift.step import drift as step
    from holdfast.workload import DriftConfig

    section = _section(config, DriftConfig, lambda workload: workload.drift)
    artifact = step(_ref(snapshot), out, config=section, baseline=_maybe(baseline), seed=seed)
    _finish(artifact, digest_file, verdict_file, as_json)


# --- model ------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=MODEL)
def baseline(
    snapshot: SnapshotRef,
    name: Annotated[str, typer.Option(help="Registered model.")],
    out: Out,
    tracking: Tracking = TRACKING,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the champion and its scores, for comparison."""
    from holdfast.model.baseline.step import baseline as step

    settings = _compute(seed, device, threads)
    artifact = step(_ref(snapshot), out, name=name, tracking=tracking, settings=settings)
    _finish(artifact, digest_file, verdict_file, as_json)


@app.command(rich_help_panel=MODEL)
def scan(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Scan the training rows for poison and label errors; set suspects aside within the review budget."""
    from holdfast.model.scan.step import scan as step
    from holdfast.workload import ScanConfig

    section = _section(config, ScanConfig, lambda workload: workload.scan)
    artifact = step(_ref(snapshot), out, config=section, settings=_compute(seed, device, threads))
    _finish(artifact, digest_file, verdict_file, as_json)


@app.command(rich_help_panel=MODEL)
def train(
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    scan: EvidenceRef = None,
    checkpoint: Annotated[str, typer.Option(help="Folder for checkpoints; training resumes from it.")] = "",
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Train adversarially; keep the epoch with the best accuracy under attack."""
    from holdfast.model.train.step import train as step
    from holdfast.workload import TrainConfig

    section = _section(config, TrainConfig, lambda workload: workload.train_config)
    settings, place = _compute(seed, device, threads), Path(checkpoint) if checkpoint else None
    artifact = step(_ref(snapshot), out, scan=_maybe(scan), config=section, settings=settings, checkpoint=place)
    _finish(artifact, digest_file, verdict_file, as_json)


@app.command(rich_help_panel=MODEL)
def backdoor(
    model: ModelRef,
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Look for a planted trigger in the trained model."""
    from holdfast.model.backdoor.step import backdoor as step
    from holdfast.workload import BackdoorConfig

    section = _section(config, BackdoorConfig, lambda workload: workload.backdoor)
    settings = _compute(seed, device, threads)
    _finish(
        step(_ref(model), _ref(snapshot), out, config=section, settings=settings), digest_file, verdict_file, as_json
    )


@app.command(rich_help_panel=MODEL)
def mitigate(
    model: ModelRef,
    snapshot: SnapshotRef,
    backdoor: Annotated[str, typer.Option(help="Backdoor report that flags a class: FOLDER or FOLDER@DIGEST.")],
    out: Out,
    scan: EvidenceRef = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a model that unlearned the triggers which were found; it is a new candidate for the gate."""
    from holdfast.model.backdoor.mitigate import mitigate as step

    settings = _compute(seed, device, threads)
    artifact = step(_ref(model), _ref(snapshot), _ref(backdoor), out, scan=_maybe(scan), settings=settings)
    _finish(artifact, digest_file, None, as_json)


@app.command(rich_help_panel=MODEL)
def attack(
    model: ModelRef,
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    baseline: BaselineRef = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy under attack; the worst case per example is the headline."""
    from holdfast.model.attack.step import attack as step
    from holdfast.workload import AttackConfig

    section = _section(config, AttackConfig, lambda workload: workload.attack)
    settings = _compute(seed, device, threads)
    artifact = step(_ref(model), _ref(snapshot), out, config=section, baseline=_maybe(baseline), settings=settings)
    _finish(artifact, digest_file, verdict_file, as_json)


@app.command(rich_help_panel=MODEL)
def probe(
    url: Annotated[str, typer.Option(help="V2 address of a served model: http://HOST/v2/models/NAME.")],
    snapshot: SnapshotRef,
    workload: Annotated[Path, typer.Option(help="Workload file: its threat model, tier and number of examples.")],
    out: Out,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Attack a served model through its answers alone."""
    from holdfast.model.attack.probe import probe as step
    from holdfast.workload import read_workload

    settings = _compute(seed, "cpu", 1)
    _finish(step(url, _ref(snapshot), out, workload=read_workload(workload), settings=settings), None, None, as_json)


@app.command(rich_help_panel=MODEL)
def certify(
    model: ModelRef,
    snapshot: SnapshotRef,
    config: Config,
    out: Out,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Certify robustness by randomized smoothing (text: randomized ablation)."""
    from holdfast.model.certify.step import certify as step
    from holdfast.workload import CertifyConfig

    section = _section(config, CertifyConfig, lambda workload: workload.certify)
    settings = _compute(seed, device, threads)
    _finish(
        step(_ref(model), _ref(snapshot), out, config=section, settings=settings), digest_file, verdict_file, as_json
    )


# --- gate, registry, serving ------------------------------------------------------------------------------------------


@app.command(rich_help_panel=GATE)
def gate(
    model: ModelRef,
    snapshot: SnapshotRef,
    out: Out,
    policy: Annotated[str, typer.Option(help="Name in gates/policies, a file, or JSON.")] = "default",
    schema: EvidenceRef = None,
    drift: EvidenceRef = None,
    scan: EvidenceRef = None,
    backdoor: EvidenceRef = None,
    attack: EvidenceRef = None,
    certify: EvidenceRef = None,
    enforce: Annotated[bool, typer.Option(help="Exit with 3 (fail) or 4 (inconclusive).")] = False,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge a model by its evidence under a policy; missing or stale evidence is not a pass."""
    from holdfast_gates.policy import find
    from holdfast_gates.step import gate as step

    evidence = _evidence(schema=schema, drift=drift, scan=scan, backdoor=backdoor, attack=attack, certify=certify)
    artifact = step(find(policy), out, model=_ref(model), snapshot=_ref(snapshot), evidence=evidence)
    _finish(artifact, digest_file, verdict_file, as_json)
    if enforce and artifact.document.verdict != "pass":
        raise typer.Exit(3 if artifact.document.verdict == "fail" else 4)


@app.command(rich_help_panel=MODEL)
def register(
    model: ModelRef,
    decision: Annotated[str, typer.Option(help="Gate decision: FOLDER or FOLDER@DIGEST.")],
    snapshot: SnapshotRef,
    out: Out,
    tracking: Tracking = TRACKING,
    schema: EvidenceRef = None,
    drift: EvidenceRef = None,
    scan: EvidenceRef = None,
    backdoor: EvidenceRef = None,
    attack: EvidenceRef = None,
    certify: EvidenceRef = None,
    digest_file: DigestFile = None,
    verdict_file: VerdictFile = None,
    version_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Register a model that passed in MLflow, with its evidence; twice makes one version."""
    from holdfast.model.register.step import register as step

    evidence = _evidence(schema=schema, drift=drift, scan=scan, backdoor=backdoor, attack=attack, certify=certify)
    artifact = step(
        _ref(model), out, decision=_ref(decision), snapshot=_ref(snapshot), evidence=evidence, tracking=tracking
    )
    if version_file is not None:
        _write(version_file, str(artifact.document.model_version))
    _finish(artifact, digest_file, verdict_file, as_json)


@app.command(rich_help_panel=SERVING)
def replay(
    rows: Annotated[Path, typer.Option(help="NPZ file whose x are network inputs, for example a bundle's replay.npz.")],
    classes: Annotated[int, typer.Option(help="Probabilities that an answer must have.", min=2)],
    url: Annotated[str | None, typer.Option(help="V2 address: http://HOST:PORT/v2/models/NAME/infer.")] = None,
    arms: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --url, YAML file with champion and candidate, each url and headers: probes only."
        ),
    ] = None,
    attacks: Annotated[
        Path | None, typer.Option(help="NPZ file of adversarial rows (x, y, fooled) for the candidate's arm.")
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Client requests per second, all clients together; with --arms, probe pairs.")
    ] = 200.0,
    clients: Annotated[int, typer.Option(help="Connections that send them.", min=1, max=1024)] = 8,
    seconds: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    requests: Annotated[int | None, typer.Option(help="End after so many client requests.", min=1)] = None,
    probe_share: Annotated[
        float, typer.Option(help="Rows sent to both arms (header x-rollout) per client request; 0: none.", min=0)
    ] = 0.1,
    probes: Annotated[
        Path | None, typer.Option(help="Unix socket of a router that obeys x-rollout there and not at --url.")
    ] = None,
    warm: Annotated[int, typer.Option(help="Rows sent to both arms before anything is counted.", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds until an answer counts as lost.")] = 10.0,
    tally: Annotated[Path | None, typer.Option(help="File that always holds the counts so far.")] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the last counts on standard output.")] = False,
) -> None:
    """Send held-out rows to a served model at a rate; check and count every answer. SIGTERM ends it well."""
    from holdfast.serving.rollout.replay import rows as replayed
    from holdfast.serving.rollout.replay import traffic
    from holdfast.serving.rollout.replay.arms import Arms
    from holdfast.serving.rollout.replay.tally import as_json as written
    from holdfast.yamlfile import read_yaml

    if seconds is not None and requests is not None:
        raise typer.BadParameter("expected --seconds or --requests, found both", param_hint="--seconds")
    where = url if arms is None else read_yaml(arms, Arms)
    if where is None or (url is not None and arms is not None):
        raise typer.BadParameter(f"expected --url or --arms, found {'neither' if where is None else 'both'}")
    load = traffic.Load(
        where, rate=rate, clients=clients, seed=seed, seconds=seconds, requests=requests,
        probe_share=probe_share, warm=warm, timeout=timeout, probes=probes,
    )  # fmt: skip
    hostile = replayed.read_attacks(attacks, rows, classes) if attacks else replayed.NO_ATTACKS
    found = traffic.replay(load, replayed.read_rows(rows, classes), hostile, tally)
    if as_json:
        typer.echo(written(found).decode().rstrip("\n"))
    else:
        say(traffic.line(found))


# --- pipelines ------------------------------------------------------------------------------------------------------

WorkloadFile = Annotated[Path, typer.Option(help="Workload file, or the name of one that ships.")]
Isolated = Annotated[
    bool,
    typer.Option(help="Run every step as a fresh process, not as a fork of one that has imported the libraries."),
]
DataPath = Annotated[Path | None, typer.Option(help="Data to use instead of the workload's source.")]


@app.command(rich_help_panel=PEOPLE)
def run(
    workload: WorkloadFile,
    data: DataPath = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; .holdfast/runs/NAME when left out.")] = None,
    seed: Seed = 0,
    tracking: Tracking = TRACKING,
    from_step: Annotated[str | None, typer.Option("--from", help="Run this step and all after it anew.")] = None,
    rollout: Annotated[bool, typer.Option(help="Roll the registered model out.")] = True,
    device: Device = "auto",
    threads: Threads = 1,
    game_day: Annotated[str | None, typer.Option(help="See `holdfast rollout start --help`.")] = None,
    retries: Annotated[
        int,
        typer.Option(help="Roll out again, so often, after a rollout without a verdict on a busy machine.", min=0),
    ] = 0,
    isolated: Isolated = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run's record on standard output.")] = False,
) -> None:
    """Run the whole pipeline on this machine, through the real kfp.local; ends with a report."""
    from holdfast_pipelines.ending import last_line
    from holdfast_pipelines.report import write_report
    from holdfast_pipelines.run import run as run_pipeline
    from holdfast_pipelines.warm import servers

    path = _shipped(workload)
    folder = out or Path(STATE) / "runs" / path.stem
    with servers(isolated=isolated) as forks:
        result = run_pipeline(
            path, data=data, out=folder, seed=seed, tracking=tracking, cache=Path(STATE) / "cache",
            from_step=from_step, rollout=rollout, device=device, threads=threads, game_day=game_day, retries=retries,
            forks=forks,
        )  # fmt: skip
    report = write_report(folder, folder / "report.html")
    _tell_run(result, report, as_json, last_line(result, folder, report, _same_command(), planted=bool(game_day)))


@app.command(rich_help_panel=PEOPLE)
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo; what an earlier one left is replaced.")] = DEMO,
    seed: Seed = 0,
    isolated: Isolated = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary on standard output.")] = False,
) -> None:
    """Tell the story in four acts on real digits: clean, poisoned, broken, and a rollback."""
    from holdfast_pipelines.demo import demo as play

    page = play(out, seed=seed, isolated=isolated)
    if as_json:
        typer.echo((page.parent / "summary.json").read_text().rstrip("\n"))
    else:
        ours = f"mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///{page.parent}/mlflow.db"
        typer.echo(f"report: {page}\nMLflow: {'make ui' if out == DEMO else ours}")
    say(f"all four acts went as told; open {page}")


@app.command(rich_help_panel=CLUSTER)
def compile(
    out: Annotated[Path, typer.Option(help="Folder for the compiled pipelines.")] = Path("manifests/pipelines"),
    registry: Annotated[str | None, typer.Option(help="HOST/PATH that the images are pulled from.")] = None,
    tag: Annotated[str | None, typer.Option(help="Immutable image tag; the version when left out.")] = None,
    gpu: Annotated[bool, typer.Option(help="Ask for a GPU for training.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Compile the pipelines for Kubeflow."""
    from holdfast_pipelines.compiled import compile_pipelines

    _tell_paths(compile_pipelines(out, registry=registry, tag=tag, gpu=gpu), as_json)


@app.command(rich_help_panel=CLUSTER)
def schemas(
    out: Annotated[Path, typer.Option(help="Folder for the JSON schemas.")] = Path("manifests/schemas"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write the JSON schema of every document, of the workload and of the policy."""
    from holdfast_pipelines.compiled import write_schemas

    _tell_paths(write_schemas(out), as_json)


@app.command(rich_help_panel=CLUSTER)
def submit(
    endpoint: Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API.")],
    workload: WorkloadFile,
    tracking: Annotated[str, typer.Option(help="MLflow tracking URI as the cluster sees it.")],
    data: Annotated[str | None, typer.Option(help="Data as the cluster sees it.")] = None,
    seed: Seed = 0,
    cron: Annotated[str | None, typer.Option(help="Retrain on this schedule, for example '0 3 * * *'.")] = None,
    registry: Annotated[str | None, typer.Option(help="HOST/PATH that the images are pulled from.")] = None,
    tag: Annotated[str | None, typer.Option(help="Immutable image tag; the version when left out.")] = None,
    gpu: Annotated[bool, typer.Option(help="Ask for a GPU for training.")] = False,
    experiment: Annotated[str, typer.Option(help="Under which name Kubeflow groups the runs.")] = "holdfast",
    as_json: AsJson = False,
) -> None:
    """Upload the pipeline to Kubeflow and start a run, or make a recurring one."""
    from holdfast_pipelines.submit import submit as send

    sent = send(
        endpoint, _shipped(workload), tracking=tracking, data=data, seed=seed, cron=cron, registry=registry, tag=tag,
        gpu=gpu, experiment=experiment,
    )  # fmt: skip
    typer.echo(json.dumps(sent, indent=2) if as_json else "\n".join(f"{key}: {value}" for key, value in sent.items()))


# --- people ---------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=PEOPLE)
def init(
    data: Annotated[Path, typer.Option(help="Your data: CSV, TSV, Parquet or NPZ.")],
    label: Annotated[str | None, typer.Option(help="Column that holds the class.")] = None,
    text: Annotated[str | None, typer.Option(help="Column that holds the message, for text.")] = None,
    out: Annotated[Path, typer.Option(help="Workload file to write.")] = Path("workload.yaml"),
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write a commented workload file for your own data."""
    from holdfast.starter import starter

    if out.exists() and not force:
        raise WorkloadError(f"{out}: exists already; name another file with --out, or replace it with --force")
    out.write_text(starter(data, label=label, text=text, out=str(out)))
    if as_json:
        _tell_paths([out], as_json)
    else:
        typer.echo(f"{out}\nnext: holdfast run --workload {out}")


@app.command(rich_help_panel=PEOPLE)
def show(artifact: Annotated[Path, typer.Argument(help="Artifact folder.")], as_json: AsJson = False) -> None:
    """Show what an artifact says."""
    from holdfast.artifacts.folder import canonical_json, load_any
    from holdfast.artifacts.inspect import summary

    found = load_any(artifact)
    typer.echo(canonical_json(found.document).decode().rstrip("\n") if as_json else summary(found))


@app.command(rich_help_panel=PEOPLE)
def verify(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    search: Annotated[Path | None, typer.Option(help="Where the inputs lie; the folder around when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check every digest of an artifact and of everything it was made from, as far as found."""
    from holdfast.artifacts.inspect import verify_chain

    findings = verify_chain(artifact, search or artifact.resolve().parent)
    lines = [f"{finding.state:8} {finding.role:24} {finding.detail}" for finding in findings]
    typer.echo(json.dumps([vars(finding) for finding in findings]) if as_json else "\n".join(lines))
    if any(finding.state == "altered" for finding in findings):
        raise typer.Exit(1)


@app.command(rich_help_panel=PEOPLE)
def check_model(
    files: Annotated[list[Path], typer.Argument(help="Model files from elsewhere.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the judgements as JSON.")] = False,
) -> None:
    """Say whether model files are safe to read: safetensors, ONNX, or what weights_only=True loads."""
    from dataclasses import asdict

    from holdfast.model.files.judge import judge_file, lines

    judged = [judge_file(path) for path in files]
    typer.echo(json.dumps([asdict(one) for one in judged]) if as_json else "\n".join(map(lines, judged)))
    if any(one.verdict == "refused" for one in judged):
        raise typer.Exit(1)


@app.command(rich_help_panel=PEOPLE)
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path | None, typer.Option(help="HTML file; report.html in the run folder when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write the HTML report of a run."""
    from holdfast_pipelines.report import write_report

    _tell_paths([write_report(run, out or run / "report.html")], as_json)


@app.command(rich_help_panel=PEOPLE)
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, which step runs where, and what a GPU would add."""
    from holdfast.doctor import examine, table

    found = examine(Path.cwd())
    typer.echo(json.dumps(found.as_dict(), indent=2) if as_json else table(found))


# --- shared ---------------------------------------------------------------------------------------------------------


def _ref(text: str) -> "Ref":
    from holdfast.artifacts.folder import Ref

    return Ref.parse(text)


def _maybe(text: str | None) -> "Ref | None":
    return _ref(text) if text else None


def _evidence(**given: str | None) -> "dict[str, Ref]":
    return {role: _ref(text) for role, text in given.items() if text}


def _compute(seed: int, device: str, threads: int) -> "Compute":
    from holdfast.model.compute import Compute

    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"expected auto, cpu or cuda, found {device!r}", param_hint="--device")
    return Compute(seed=seed, device=device, threads=threads)  # type: ignore[arg-type]


def _tell_paths(paths: "Iterable[Path]", as_json: bool) -> None:
    written = [str(path) for path in paths]
    typer.echo(json.dumps(written) if as_json else "\n".join(written))


def _shipped(workload: Path) -> Path:
    """The workload file, or the one of that name that ships with Holdfast."""
    if workload.exists():
        return workload
    from holdfast.resources import workloads

    known = {path.stem: path for path in workloads()}
    if str(workload) in known:
        return known[str(workload)]
    raise WorkloadError(f"{workload}: expected a workload file or one of {', '.join(sorted(known))}, found neither")


def _tell_run(result: "RunResult", report: Path, as_json: bool, last: str) -> None:
    if as_json:
        typer.echo(json.dumps(result.as_dict(), indent=2))
    else:
        typer.echo(f"{result.workload}: {result.outcome}\nreport: {report}")
    say(last)
    if result.outcome in ("refused", "stopped", "rolled-back"):
        raise typer.Exit(3)
    if result.outcome == "inconclusive":
        raise typer.Exit(4)
