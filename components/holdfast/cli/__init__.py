"""One subcommand per step, and the commands for people.

Importing this loads neither torch nor TensorFlow nor kfp: each subcommand imports its own step. Standard output is for
results (`--json`), standard error for people. Exit codes: 0 done, 1 the step failed, 2 wrong usage, 3 refused or gate
failed, 4 gate inconclusive (3 and 4 from `gate` only with `--enforce`).
"""

from holdfast.cli.app import app, main

__all__ = ["app", "main"]
