"""The command line: every step's commands, and those for people."""

import errno
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast import __version__
from holdfast.cli import (
    approvals,
    environments,
    gamedays,
    missing,
    notifying,
    people,
    pipelines,
    pull_requests,
    readiness,
    serving,
    signing,
    verify,
)
from holdfast.cli.rollout import commands as rollout
from holdfast.errors import HoldfastError
from holdfast.incident import command as incident
from holdfast.quarantine import commands as quarantine
from holdfast.steps import every
from holdfast.wording import printable_lines

UNUSABLE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)
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
        with _without_others(sys.argv[1:2]):
            app()
    except HoldfastError as error:
        sys.stderr.write(f"holdfast: {printable_lines(str(error))}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        line = _explained(error)
        if line is None:
            raise
        sys.stderr.write(f"holdfast: {printable_lines(line)}\n")
        sys.exit(1)


def _explained(error: OSError) -> str | None:
    """One line for a full disk and for a path of the command line that cannot be used; None for what is a bug."""
    if error.errno in FULL_DISK:
        return f"{error.filename or 'output'}: the disk is full ({error.strerror}); nothing kept"
    if error.errno in UNUSABLE and _was_named(error.filename):
        return f"{error.filename}: cannot be used ({error.strerror}); name another path"
    return None


def _was_named(filename: object) -> bool:
    """Whether a path is one of the command line's, or below or above one."""
    if not isinstance(filename, str):
        return False
    found = Path(filename).absolute()
    words = [word.partition("=")[2] or word for word in sys.argv[1:] if not word.startswith("--") or "=" in word]
    given = [Path(word).absolute() for word in words]
    return any(found == one or found in one.parents or one in found.parents for one in given)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@contextmanager
def _without_others(words: list[str]) -> Iterator[None]:
    """Leaves the one command that is called: options of others are not made, so that what runs for days stays small."""
    every_command = app.registered_commands, app.registered_groups
    commands = [one for one in app.registered_commands if one.name in words]
    groups = [one for one in app.registered_groups if one.name in words]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups
    try:
        yield
    finally:
        app.registered_commands, app.registered_groups = every_command


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the subcommand."""


def in_environment(name: str, environment: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a missing library of a command one line that names what brings it; a module of Holdfast stays a bug."""

    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*args: Any, **options: Any) -> Any:
            try:
                return command(*args, **options)
            except ModuleNotFoundError as error:
                raise missing.explained(name, environment, error) from None

        return run

    return wrap


def _add(name: str, command: Any, panel: str, environment: str | None = None) -> None:
    if isinstance(command, typer.Typer):
        for one in command.registered_commands:
            if one.callback is not None:
                one.callback = in_environment(f"{name} {one.name or one.callback.__name__}", environment)(one.callback)
        app.add_typer(command, name=name, rich_help_panel=panel)
    else:
        app.command(name, rich_help_panel=panel)(in_environment(name, environment)(command))


def _commands() -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    """Panel of the help, the commands in it, and the environment that those need, where it is one."""
    yield "People", people.COMMANDS | verify.COMMANDS | signing.COMMANDS | approvals.COMMANDS, None
    yield "People", quarantine.COMMANDS | environments.COMMANDS | readiness.COMMANDS | incident.COMMANDS, None
    for step in every():
        yield step.panel, import_module(f"{step.package}.command").COMMANDS, step.environment
    yield "Serving", serving.COMMANDS | rollout.COMMANDS, "serving"
    yield "Pipelines", pipelines.COMMANDS | pull_requests.COMMANDS | gamedays.COMMANDS, "pipelines"
    yield "Pipelines", pull_requests.LIGHT_COMMANDS | notifying.COMMANDS, None


for _panel, _found, _environment in _commands():
    for _name, _command in _found.items():
        _add(_name, _command, _panel, _environment)
