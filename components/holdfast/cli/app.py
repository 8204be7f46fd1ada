"""The command line: every step's commands, and those for people."""

import errno
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer

from holdfast import __version__
from holdfast.cli import people, pipelines
from holdfast.cli.rollout import commands as rollout
from holdfast.errors import HoldfastError
from holdfast.quarantine import commands as quarantine
from holdfast.steps import STEPS

FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

app = typer.Typer(
    help="Holdfast keeps an ML model robust for as long as it serves: only models that hold fast ship.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


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


def _commands() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Panel of the help -> the commands in it."""
    yield "People", people.COMMANDS | quarantine.COMMANDS
    for step in STEPS:
        yield step.panel, import_module(f"{step.package}.command").COMMANDS
    yield "Serving", rollout.COMMANDS
    yield "Pipelines", pipelines.COMMANDS


for _panel, _found in _commands():
    for _name, _command in _found.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_command)
