"""Runs commands of `holdfast`, each in a fork of this interpreter; argument: JSON, lists of words; none: all.

Standard output: JSON, words, exit code and output of each. Where words are left out, what is required has some value.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from typing import Any

import typer

from holdfast.cli import app, main

ARGUMENTS = {"environment": "data", "check": "champion_clean"}
OPTIONS = {
    "version": "1",
    "until": "2030-01-01",
    "model": "0" * 64,
    "config": "digits",
    "workload": "digits",
    "row": "0",
}
BUG = 99


def commands(found: Any, words: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Every command, below every group, with what it requires."""
    if not hasattr(found, "commands"):
        yield [*words, *required(found)]
        return
    for name, one in found.commands.items():
        yield from commands(one, (*words, name))


def required(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.required:
            if parameter.param_type_name == "argument":
                yield ARGUMENTS.get(parameter.name, "a@1")
            else:
                yield from (parameter.opts[0], OPTIONS.get(parameter.name, "nothing"))


def run(words: list[str]) -> tuple[list[str], int, str]:
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            os._exit(exit_code(words))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        return words, code, out.read().decode()


def exit_code(words: list[str]) -> int:
    sys.argv[:] = ["holdfast", *words]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 what a person would see
        traceback.print_exc()
        return BUG
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    json.dump([run(words) for words in asked or commands(typer.main.get_command(app))], sys.stdout)
