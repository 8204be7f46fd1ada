"""The commands for people: look at what a run left, check a machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from holdfast.options import AsJson, print_paths, ref
from holdfast.wording import printable_lines


def show(artifact: Annotated[Path, typer.Argument(help="Artifact folder.")], as_json: AsJson = False) -> None:
    """Show an artifact's document: its counts, inputs and files."""
    from holdfast.artifacts.folder import canonical_json, load_any
    from holdfast.artifacts.inspect import summary

    found = load_any(artifact)
    typer.echo(canonical_json(found.document).decode().rstrip("\n") if as_json else printable_lines(summary(found)))


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


def report(
    run: Annotated[Path | None, typer.Argument(help="Run folder.")] = None,
    artifact: Annotated[
        list[str], typer.Option(help="Instead of a run folder, one artifact of each step: FOLDER or FOLDER@DIGEST.")
    ] = [],  # noqa: B006  # typer reads it
    seed: Annotated[int, typer.Option(help="Of the run, with --artifact.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="HTML file; report.html in the run folder when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write the HTML report of a run."""
    if (run is None) == (not artifact) or (artifact and out is None):
        raise typer.BadParameter("expected a run folder, or --artifact for each step with --out", param_hint="RUN")
    if run is not None:
        from holdfast_pipelines.report import write_report

        print_paths([write_report(run, out or run / "report.html")], as_json)
        return
    from holdfast_pipelines.report.gathered import write_gathered

    print_paths([write_gathered([ref(one) for one in artifact], out or Path(), seed=seed)], as_json)


def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, which step runs where, what a run would use, and what a GPU would add."""
    from holdfast.cli.doctor import examine, table

    found = examine(Path.cwd())
    typer.echo(json.dumps(found.as_dict(), indent=2) if as_json else table(found))


COMMANDS = {
    "show": show,
    "check-model": check_model,
    "report": report,
    "doctor": doctor,
}
"""What `holdfast` runs by these names."""
