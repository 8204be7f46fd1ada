"""Commits of the current git repository, written out into folders of their own; the user's work tree is not touched.

Nothing of a commit is run for that: no hook, no shell. What a pull request names reaches git as one word.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from holdfast.errors import InputError, WorkloadError

_REF = re.compile(r"(?!-)[A-Za-z0-9][A-Za-z0-9_./@^~{}+-]{0,254}")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.sparseCheckout=false")
_SECONDS = 300.0


@dataclass(frozen=True)
class Repository:
    """A git repository."""

    git_folder: Path
    """Its `.git`."""
    prefix: str = ""
    """Where below its top the command was started: `models/` or nothing."""

    @classmethod
    def around(cls, folder: Path) -> "Repository":
        """The repository that `folder` is in.

        Raises:
            InputError: there is none, or no git.
        """
        found = _git(["rev-parse", "--absolute-git-dir", "--show-prefix"], folder)
        git_folder, _, prefix = found.partition("\n")
        return cls(Path(git_folder), prefix.strip())

    def commit(self, ref: str) -> str:
        """The commit that a branch, tag or revision names.

        Raises:
            WorkloadError: not the name of a commit.
            InputError: the repository has no such commit.
        """
        if not _REF.fullmatch(ref) or ".." in ref:
            raise WorkloadError(f"expected a branch, a tag or a commit, found {ref[:80]!r}")
        try:
            found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", ref + "^{commit}")
        except InputError:
            found = ""
        if not _COMMIT.fullmatch(found):
            raise InputError(f"{ref}: expected a commit of this repository, found none; fetch it (CI: fetch-depth: 0)")
        return found

    def write_out(self, commit: str, folder: Path) -> None:
        """Writes the files of a commit into the empty `folder`; submodules are left out."""
        folder.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="holdfast-") as place:
            index = {"GIT_INDEX_FILE": str(Path(place) / "index")}
            self._run("read-tree", commit, env=index)
            self._run("checkout-index", "--all", "--force", work_tree=folder, env=index)

    def path(self, named: Path) -> PurePosixPath:
        """A file named on the command line, from the top of the repository.

        Raises:
            WorkloadError: outside the repository.
        """
        text = os.path.normpath(self.prefix + named.as_posix())
        if named.is_absolute() or text.startswith(".."):
            raise WorkloadError(f"{named}: expected a file of the repository, as a path below it")
        return PurePosixPath(text)

    def _run(self, *words: str, work_tree: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        where = [f"--git-dir={self.git_folder}", *([f"--work-tree={work_tree}"] if work_tree else [])]
        return _git([*where, *words], work_tree or self.git_folder, env)


def _git(words: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> str:
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    given = clean | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"} | dict(env or {})
    try:
        done = subprocess.run(
            ["git", *settings, *words], cwd=folder, env=given, capture_output=True, stdin=subprocess.DEVNULL,
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{folder}: expected an answer of git, found none ({error})") from None
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"{folder}: git {words[-1][:80]}: {reason[:300]}")
    return done.stdout.decode(errors="surrogateescape").strip("\n")
