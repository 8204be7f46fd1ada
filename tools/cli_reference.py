"""The page about the command line, made from the commands themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

OPENING = """# Command line

Every command with its options, as `holdfast COMMAND --help` prints them. [Exit codes](../README.md#exit-codes) are the
same for all.
"""
PANELS = ("People", "Data", "Model", "Gate", "Serving", "Pipelines")
"""In the order of `holdfast --help`; panels that are not named here come after them."""


class Command(NamedTuple):
    """One command of the command line."""

    words: str
    """As it is typed: `holdfast rollout start`."""
    panel: str
    command: Any
    """The command object that typer made; typer carries its own copy of click, whose classes have no public types."""


def reference() -> str:
    """The page, in Markdown."""
    from typer.main import get_command

    from holdfast.cli import app

    return page(list(commands(get_command(app), "holdfast", "")))


def commands(group: Any, words: str, panel: str) -> Iterator[Command]:
    """Every command that can be run, those of sub-groups under the panel of their group."""
    for name, command in group.commands.items():
        own = panel or _words_of(getattr(command, "rich_help_panel", None)) or "Other"
        if hasattr(command, "commands"):
            yield from commands(command, f"{words} {name}", own)
        elif not command.hidden:
            yield Command(f"{words} {name}", own, command)


def page(found: list[Command]) -> str:
    """All commands by panel, after one table that leads to each."""
    panels: dict[str, list[Command]] = defaultdict(list)
    for command in found:
        panels[command.panel].append(command)
    names = sorted(panels, key=lambda name: PANELS.index(name) if name in PANELS else len(PANELS))
    table = [f"| {name} | {_links(panels[name])} |" for name in names]
    sections = [section(command) for name in names for command in panels[name]]
    return "\n".join([OPENING, "| group | commands |", "|---|---|", *table, "", *sections])


def _links(found: list[Command]) -> str:
    return " · ".join(f"[{words.removeprefix('holdfast ')}](#{anchor(words)})" for words, _, _ in found)


def anchor(words: str) -> str:
    """The anchor of a command's heading."""
    return words.replace(" ", "-")


def section(found: Command) -> str:
    """A command's heading, its help and its options."""
    lines = [f"## {found.words}", "", escaped(_words_of(found.command.help)), ""]
    options = [parameter for parameter in found.command.params if not getattr(parameter, "hidden", False)]
    if options:
        lines += ["| option | default | meaning |", "|---|---|---|", *map(row, options), ""]
    return "\n".join(lines)


def row(parameter: Any) -> str:
    """A parameter's row: its names, what holds when it is left out, its help."""
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.name.upper()]
    shown = ", ".join(f"`{name}`" for name in names)
    return f"| {shown} | {default(parameter)} | {escaped(_words_of(getattr(parameter, 'help', '')))} |"


def default(parameter: Any) -> str:
    """What holds when the parameter is left out."""
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or value in ("", [], ()):
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(getattr(value, "value", value))
    return f"`{text}`"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table."""
    for character in "\\`*_<>|[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _words_of(value: object) -> str:
    """A text, or nothing where typer keeps a placeholder."""
    return value if isinstance(value, str) else ""
