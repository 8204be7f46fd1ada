"""The commands of the pull-request gate."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from holdfast.errors import WorkloadError
from holdfast.options import STATE, DeviceOption, Seed, Threads
from holdfast.progress import say

if TYPE_CHECKING:
    from holdfast_pipelines.pull_request.comment import CodeHost
    from holdfast_pipelines.pull_request.report import PullRequestReport

RESULTS = Path(STATE) / "pr-gate"
CODES = {"pass": 0, "fail": 3, "inconclusive": 4}
"""Exit code by verdict."""


def pr_gate(
    base: Annotated[str, typer.Option(help="Branch, tag or commit that the pull request would be merged into.")],
    head: Annotated[str, typer.Option(help="Branch, tag or commit to judge: what merging would give.")],
    workload: Annotated[
        Path | None, typer.Option(help="Workload file; the one at the repository's top when left out.")
    ] = None,
    champion: Annotated[
        str | None, typer.Option(help="models:/NAME@champion (with --tracking), or the folder of a model or a run.")
    ] = None,
    tracking: Annotated[str, typer.Option(help="MLflow tracking URI; no champion when left out.")] = "",
    policy_from: Annotated[
        Literal["base", "head"], typer.Option(help="Whose thresholds, threat model and measurements are required.")
    ] = "base",
    compare: Annotated[bool, typer.Option(help="Train the base branch's model, too, and compare.")] = True,
    data: Annotated[Path | None, typer.Option(help="Data to use instead of the workload's source.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; what an earlier gate left is replaced.")] = RESULTS,
    seed: Seed = 0,
    device: DeviceOption = "auto",
    threads: Threads = 1,
    isolated: Annotated[bool, typer.Option(help="Run every step as a fresh process.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report on standard output.")] = False,
) -> None:
    """Judge a pull request of the current git repository: exit code 0 pass, 3 fail, 4 inconclusive.

    Trains and judges what HEAD holds, compares it with the champion and with BASE's model on the same examples, and
    registers nothing. The work tree is not touched.
    """
    from holdfast_pipelines.parameters import Settings
    from holdfast_pipelines.pull_request.measuring import GateRequest, Workshop
    from holdfast_pipelines.pull_request.measuring import pr_gate as judge
    from holdfast_pipelines.pull_request.results import write_results
    from holdfast_pipelines.warm import servers

    settings = Settings(tracking=tracking, seed=seed, device=device, threads=threads)
    request = GateRequest(base, head, out, settings, workload, champion, policy_from, compare, data)
    with servers(isolated=isolated) as forks:
        report = judge(request, Workshop(Path(STATE) / "cache", forks=forks), Path.cwd())
    write_results(report, out)
    _finish(report, out, as_json)


def _finish(report: "PullRequestReport", out: Path, as_json: bool) -> None:
    from holdfast_pipelines.pull_request.results import SUMMARY

    if as_json:
        typer.echo(json.dumps(report.model_dump(mode="json"), indent=2))
    short = [check.name for check in report.checks if check.verdict != "pass"]
    what = f"not passed: {', '.join(short)}" if short else f"all {len(report.checks)} checks passed"
    say(f"pr-gate: {report.workload}: {report.verdict}: {what}; nothing was registered. Read {out / SUMMARY}")
    if CODES[report.verdict]:
        raise typer.Exit(CODES[report.verdict])


def pr_comment(
    artifact: Annotated[Path, typer.Option(help="Folder with the pr-gate.json of a gate; nothing in it is trusted.")],
    sha: Annotated[str, typer.Option(help="Head of the pull request, as the event has it.")],
    repository: Annotated[
        str | None, typer.Option(help="OWNER/NAME, or GitLab's project; left out: only print the comment.")
    ] = None,
    host: Annotated[Literal["github", "gitlab"], typer.Option(help="Which REST API.")] = "github",
    api: Annotated[str | None, typer.Option(help="Address of the API; that of github.com or gitlab.com.")] = None,
    author: Annotated[
        str | None, typer.Option(help="Login whose comment is replaced; the token's own when left out.")
    ] = None,
) -> None:
    """Write the result of a gate as one comment on the pull request, or replace the one of before.

    The pull request is the open one whose head is SHA. The token is read from GITHUB_TOKEN or GITLAB_TOKEN.
    """
    from holdfast_pipelines.pull_request.comment import checked_sha, post
    from holdfast_pipelines.pull_request.markdown import render
    from holdfast_pipelines.pull_request.results import read_report

    report = read_report(artifact)
    if repository is None:
        typer.echo(render(report, commit=checked_sha(sha)), nl=False)
        return
    done = post(_code_host(host, api, repository, author), report, sha)
    for one in done:
        say(f"pr-comment: {repository}: the comment on {one.request} was {one.what}")
    if not done:
        say(f"pr-comment: {repository}: no open pull request has the head {sha[:12]} any more; nothing was written")


def _code_host(host: str, api: str | None, repository: str, author: str | None) -> "CodeHost":
    from holdfast_pipelines.pull_request import github, gitlab
    from holdfast_pipelines.pull_request.comment import checked_api

    variable = f"{host.upper()}_TOKEN"
    token = os.environ.get(variable)
    if not token:
        raise WorkloadError(f"{variable}: expected the token of the API in this variable, found none")
    if host == "github":
        return github.GitHub(checked_api(api or github.API), repository, token, author or github.AUTHOR)
    return gitlab.GitLab(checked_api(api or gitlab.API), repository, token, author)


COMMANDS = {"pr-gate": pr_gate}
"""What `holdfast` runs by these names, in the environment of the pipelines."""
LIGHT_COMMANDS = {"pr-comment": pr_comment}
"""And in every environment."""
