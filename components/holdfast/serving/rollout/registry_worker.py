"""What needs MLflow, done by a child process: the controller itself stays small and quick.

`python -m holdfast.serving.rollout.registry_worker` reads one task per line, a JSON list of texts: `fetch` TRACKING
NAME VERSION FOLDER TRUST, `promote` TRACKING NAME VERSION, `note` FOLDER, `history` TRACKING NAME; it answers.
"""

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from holdfast import errors
from holdfast.artifacts.folder import replace_file
from holdfast.errors import HoldfastError, RefusedError, RegistryError, RolloutError
from holdfast.processes import Process
from holdfast.progress import say
from holdfast.registry.history import Ledger, read_ledger
from holdfast.registry.notes import Note, as_json, notes_of, parse, rolled_back
from holdfast.warm import children

if TYPE_CHECKING:
    from holdfast.registry import Bundle, Version

CANDIDATE, CHAMPION, FETCHED = "candidate-bundle", "champion-bundle", "fetched.json"
SECONDS = 300.0
_WAITING = ".*.rollout-note-*.json"
_MAX_NOTE = 2**15
_MAX_ANSWER = 2**24
_LAST_WORDS = 2000
_KINDS: dict[str, type[HoldfastError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HoldfastError)
}


@dataclass(frozen=True)
class Fetched:
    """Verified bundles on this machine."""

    candidate: Path
    champion: Path | None
    champion_version: int | None
    decided: float
    """Unix seconds: when the candidate was registered with its gate decision."""
    serving: bool = False
    """The candidate is the champion already."""
    trust: Path | None = None
    """The trust policy by which both were admitted."""


def fetch(tracking: str, name: str, version: int, folder: Path, trust: Path | None = None) -> Fetched:
    """Brings version `version` and the champion into `folder`; what is there already is not fetched again.

    Raises:
        RolloutError: the version does not exist.
        RefusedError: a version without a passing verdict for its very bytes, or one whose model was rolled back under
            the same verdict.
        RegistryError: MLflow cannot be reached.
    """
    kept = folder / FETCHED
    if not kept.exists():
        _run(["fetch", tracking, name, str(version), str(folder), str(trust or "")])
    found = json.loads(kept.read_bytes())
    if (found["tracking"], found["name"], found["version"]) != (tracking, name, version):
        raise RolloutError(
            f"{folder}: cannot go on: this is a rollout of {found['name']} version {found['version']}, "
            f"not of {name} version {version}; choose another --out"
        )
    champion = found["champion"]
    where = folder / CANDIDATE, folder / CHAMPION if champion else None
    return Fetched(*where, champion, float(found["decided"]), bool(found.get("serving", False)), trust)


def promote(tracking: str, name: str, version: int) -> None:
    """Moves the aliases `champion` and `previous`; the second time it changes nothing.

    Raises:
        RegistryError: MLflow cannot be reached or refuses.
    """
    _run(["promote", tracking, name, str(version)])


def leave_note(out: Path, tracking: str, name: str, note: Note) -> None:
    """Keeps a note about the rollout of `out` on disk until MLflow has taken it (`hand_in`)."""
    kept = {"tracking": tracking, "name": name, "note": as_json(note)}
    path = out.absolute().parent / f".{out.name}.rollout-note-{note.began * 1000:.0f}.json"
    replace_file(path, json.dumps(kept).encode(), private=True)  # the address may have a password


def hand_in(folder: Path) -> None:
    """Writes the notes that wait in `folder` to MLflow, each once; what cannot be written waits on.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    if any(folder.glob(_WAITING)):
        _run(["note", str(folder.absolute())])


def history(tracking: str, name: str) -> Ledger:
    """What MLflow has noted about model `name`.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    found = json.loads(_run(["history", tracking, name]))
    return Ledger(tuple(parse(json.dumps(note)) for note in found["notes"]), found["champion"])


@dataclass
class RegistryWorker:
    """A child process that does one task after the other; it is gone with us."""

    words: IO[bytes]
    """The child's standard error: only read when it dies."""
    child: Process | None = None
    line: socket.socket | None = None
    """To the child's standard input and from its standard output."""

    def ask(self, arguments: Sequence[str]) -> str:
        """The result of one task.

        Raises:
            HoldfastError: what the task raised; RegistryError when there is no answer.
        """
        line = self._open()
        try:
            line.sendall(json.dumps(list(arguments)).encode() + b"\n")
            with line.makefile("rb") as answers:
                said, missing = answers.readline(_MAX_ANSWER), "the registry worker died"
        except TimeoutError:
            said, missing = b"", f"expected an answer within {SECONDS:g} s, found none"
        except ConnectionError:
            said, missing = b"", "the registry worker died"
        if not said.endswith(b"\n"):
            self.close()
            raise RegistryError(f"{arguments[1]}: {self._last_words() or missing}")
        answer = json.loads(said)
        if "kind" in answer:
            raise _KINDS.get(answer["kind"], RegistryError)(answer["message"])
        return str(answer["gives"])

    def close(self) -> None:
        """Ends the child; the next task starts another."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()
        if self.line is not None:
            self.line.close()
        self.child = self.line = None

    def _open(self) -> socket.socket:
        if self.line is None or self.child is None or self.child.poll() is not None:
            self.close()
            self.line, theirs = socket.socketpair()
            self.line.settimeout(SECONDS)
            with theirs:
                self.child = children.start(
                    "holdfast.serving.rollout.registry_worker",
                    (),
                    stdin=theirs.fileno(),
                    out=theirs.fileno(),
                    errors=self.words.fileno(),
                    told=signal.SIGKILL,
                )
        return self.line

    def _last_words(self) -> str:
        self.words.seek(0)
        return self.words.read()[-_LAST_WORDS:].decode(errors="replace").strip()


_workers: list[RegistryWorker] = []


@contextmanager
def shared_worker() -> Iterator[None]:
    """One child for all tasks inside: MLflow costs seconds of CPU to import."""
    if _workers:
        yield
        return
    with tempfile.TemporaryFile() as words:
        _workers.append(RegistryWorker(words))
        try:
            yield
        finally:
            _workers.pop().close()


def _run(arguments: Sequence[str]) -> str:
    """The result of a task."""
    with shared_worker():
        return _workers[-1].ask(arguments)


def _fetch(tracking: str, name: str, version: str, folder: str, trust: str) -> None:
    from holdfast import registry
    from holdfast.attestation.demands import Demands

    into, demands = Path(folder), Demands.of(Path(trust) if trust else None)
    _hand_in(into.parent, tracking)
    bundle = registry.fetch(tracking, name, int(version), into / CANDIDATE, demands)
    if bundle is None:
        raise RolloutError(f"{tracking}: expected version {version} of model {name}, found none")
    versions = registry.versions(tracking, name)
    _require_not_rolled_back(bundle, versions)
    current = registry.fetch(tracking, name, "champion", into / CHAMPION, replace(demands, incumbent=True))
    registry.require_in_turn(tracking, bundle, current, demands)
    champion = None if current is None or current.version == bundle.version else current.version
    decided = next((one.decided for one in versions if one.number == bundle.version), 0.0)
    found = {
        "tracking": tracking,
        "name": name,
        "version": bundle.version,
        "champion": champion,
        "serving": current is not None and current.version == bundle.version,
        "decided": decided,
        "decision": bundle.decision.digest,
    }
    replace_file(into / FETCHED, json.dumps(found).encode())


def _require_not_rolled_back(bundle: "Bundle", versions: "Sequence[Version]") -> None:
    """A rolled-back model does not come back, under any version number, before the gate has decided again."""
    notes = [note for version in versions for note in notes_of(version.number, version.tags)]
    found = rolled_back(notes, bundle.model.digest, bundle.decision.digest)
    if found is not None:
        day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.ended))
        raise RefusedError(
            f"{bundle.name} version {bundle.version}: cannot start: under the same decision of the gate, version "
            f"{found.version}, this very model, was rolled back for its own fault on {day} ({found.reason}); "
            "retrain or repair it, or let the gate judge new evidence, and register that"
        )


def _note(folder: str) -> None:
    kept = [_waiting(path) for path in Path(folder).glob(_WAITING)]
    for tracking in sorted({note["tracking"] for note in kept if note}):
        _hand_in(Path(folder), tracking)


def _hand_in(folder: Path, tracking: str) -> None:
    """Setting a tag twice changes nothing, so a crash between the tag and the end of the file does no harm."""
    from holdfast import registry

    for path in sorted(folder.glob(_WAITING)):
        kept = _waiting(path)
        if kept.get("tracking") != tracking:
            continue
        note = parse(kept["note"])
        if not registry.tag(tracking, kept["name"], note.version, note.key, note.value):
            say(f"{path}: version {note.version} of {kept['name']} is not in {tracking} any more; the note is dropped")
        path.unlink(missing_ok=True)


def _waiting(path: Path) -> Mapping[str, str]:
    """A note that waits; one that is none of ours has no tracking URI and stays where it is."""
    try:
        with path.open("rb") as stream:
            kept = json.loads(stream.read(_MAX_NOTE))
        parse(str(kept["note"]))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {"tracking": str(kept["tracking"]), "name": str(kept["name"]), "note": str(kept["note"])}


def _history(tracking: str, name: str) -> str:
    return json.dumps(asdict(read_ledger(tracking, name)))


def _promote(tracking: str, name: str, version: str) -> None:
    from holdfast import registry

    registry.promote(tracking, name, int(version))


_TASKS: dict[str, Callable[..., str | None]] = {
    "fetch": _fetch,
    "promote": _promote,
    "note": _note,
    "history": _history,
}


def _serve() -> None:
    """Answers each line of standard input with one line; what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        os.dup2(2, 1)
        for line in sys.stdin:
            task, *arguments = json.loads(line)
            try:
                answer = {"gives": _TASKS[task](*arguments) or ""}
            except HoldfastError as error:
                answer = {"kind": type(error).__name__, "message": " ".join(str(error).splitlines())}
            out.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve()
