"""`holdfast init` and `holdfast check-data`."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.errors import WorkloadError
from holdfast.options import print_paths
from holdfast.progress import say

if TYPE_CHECKING:
    from holdfast.data.snapshot.inspection.opening import OpenedDelivery


def init(
    data: Annotated[Path, typer.Option(help="Your data: CSV, TSV, Parquet or NPZ, also in a gzip or zip.")],
    label: Annotated[str | None, typer.Option(help="Column that holds the class.")] = None,
    text: Annotated[str | None, typer.Option(help="Column that holds the message, for text.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of the columns of a file without a header row: NAME,NAME,... or auto.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Workload file to write.")] = Path("workload.yaml"),
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write a commented workload file for your own data, and say what is in the data."""
    from holdfast.data.snapshot.inspection.page import page
    from holdfast.data.snapshot.inspection.starter import starter

    if out.exists() and not force:
        raise WorkloadError(f"{out}: exists already; name another file with --out, or replace it with --force")
    started = starter(data, label=label, text=text, columns=columns, out=str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(started.text)
    say(page(started.seen) + "\n")
    if as_json:
        print_paths([out], as_json)
        return
    first = f"settle in {out} what is refused above, then: " if started.seen.refused else ""
    typer.echo(f"{out}\nnext: {first}holdfast run --workload {shlex.quote(str(out))}")


def check_data(
    file: Annotated[Path, typer.Argument(help="A CSV, TSV, Parquet or NPZ file, or a workload file.")],
    label: Annotated[str | None, typer.Option(help="Column that holds the class.")] = None,
    text: Annotated[str | None, typer.Option(help="Column that holds the message, for text.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of the columns of a file without a header row: NAME,NAME,... or auto.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Say what is in a data file and what a run would refuse, without training; exit code 1 when it would."""
    from holdfast.data.snapshot.inspection.inspect import inspect
    from holdfast.data.snapshot.inspection.page import page

    found = inspect(_opened(file, label, text, columns))
    typer.echo(json.dumps(found.as_dict()) if as_json else page(found))
    if found.refused:
        raise typer.Exit(1)


def _opened(file: Path, label: str | None, text: str | None, columns: str | None) -> "OpenedDelivery":
    """The data of a workload file (or of one that ships), or a data file."""
    from holdfast.data.snapshot.inspection.opening import open_delivery, open_file
    from holdfast.options import placed_workload

    if file.suffix.lower() in (".yaml", ".yml") or not (file.suffix or file.exists()):
        if any(option is not None for option in (label, text, columns)):
            raise WorkloadError(f"{file}: a workload names its columns itself; leave --label, --text and --columns out")
        return open_delivery(placed_workload(file).snapshot_config)
    return open_file(file, label=label, text=text, columns=columns)


COMMANDS = {"init": init, "check-data": check_data}
"""What `holdfast` runs by these names."""
