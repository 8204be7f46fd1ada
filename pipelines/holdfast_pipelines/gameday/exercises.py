"""The exercises: each makes a local deployment in a folder, attacks or breaks it, and notes what happens."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from holdfast.artifacts.documents import Registration, RolloutRecord, ScanReport
from holdfast.artifacts.folder import load_any
from holdfast.artifacts.inspect import artifacts_below
from holdfast.attestation.sign import TRUST, attest, read_keys, signer_for
from holdfast.attestation.store import ATTESTATIONS
from holdfast.errors import RunError
from holdfast.resources import workloads
from holdfast.steps import Role
from holdfast_pipelines.demo import deliveries
from holdfast_pipelines.demo.acts import attack_success
from holdfast_pipelines.demo.signed import ACCEPTED, copy_version, make_keys, served, tamper
from holdfast_pipelines.folder import ARTIFACTS, read_artifact
from holdfast_pipelines.gameday.score import Scoreboard
from holdfast_pipelines.run import run

NAME = "digits"
FAULT = "delay_ms=400,wrong=1.0,error=0.5,after=120"
FOUND, SUCCESS = 0.8, 0.15
"""The least share of planted rows that a scan finds, and the most success of the trigger after it."""
STOLEN: tuple[Role, ...] = ("trainer", "gate")


@dataclass(frozen=True)
class GameDaySetup:
    """The folder of one exercise, which is new."""

    folder: Path
    seed: int

    @property
    def tracking(self) -> str:
        """An MLflow of its own."""
        return f"sqlite:///{self.folder.resolve()}/mlflow.db"

    @property
    def keys(self) -> Path:
        """Keys of its own, with the trust policy over them."""
        return self.folder / "keys"

    @property
    def cache(self) -> Path:
        """What steps made, for later runs of the same exercise."""
        return self.folder / "cache"

    def deliver(self) -> tuple[Path, Path, frozenset[int]]:
        """Writes a clean and a poisoned delivery; the last is which training rows are planted."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
        good = deliveries.clean(images, labels, np.random.default_rng(0))
        bad, planted = deliveries.poisoned(good, np.random.default_rng(self.seed))
        paths = self.folder / "clean.npz", self.folder / "poisoned.npz"
        for path, one in zip(paths, (good, bad), strict=True):
            np.savez(path, allow_pickle=False, **one.arrays())
        return *paths, frozenset(planted.tolist())

    def run(self, name: str, data: Path, *, rollout: bool = False, game_day: str | None = None) -> Path:
        """A run of the workload that ships on a delivery, signed; its folder."""
        workload = next(path for path in workloads() if path.stem == NAME)
        out = self.folder / name
        run(
            workload, data=data, out=out, tracking=self.tracking, cache=self.cache, seed=self.seed, rollout=rollout,
            game_day=game_day, retries=1, reviews=self.folder / "reviews", keys=self.keys,
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class GameDayExercise:
    """What people can try."""

    about: str
    stated: float
    """The most seconds until clients are safe."""
    play: Callable[[GameDaySetup, Scoreboard], None]


def poisoned_vendor(setup: GameDaySetup, board: Scoreboard) -> None:
    """A vendor plants a backdoor, and sends the same rows once more."""
    clean, poisoned, planted = setup.deliver()
    make_keys(setup.keys)
    board.begin()
    first = setup.run("first", poisoned)
    aside = set(read_artifact(first, ScanReport).document.left_out)
    found = len(aside & planted)
    enough = found >= FOUND * len(planted)
    board.detect("the scan sets 80 % of the planted rows aside", f"{found} of {len(planted)}", held=enough)
    success = attack_success(first, clean)
    board.secure("the trigger works on at most 15 %", f"{success.k} of {success.n}", held=success.share <= SUCCESS)
    again = read_artifact(setup.run("second", poisoned), ScanReport).document
    left_in = len(aside - set(again.left_out))
    board.expect("no row that was set aside is trained on again", f"{left_in} of {len(aside)}", held=left_in == 0)
    board.expect("these rows are known as undecided", len(again.undecided), held=aside <= set(again.undecided))


def regression(setup: GameDaySetup, board: Scoreboard) -> None:
    """A version turns bad in production."""
    clean, _, _ = setup.deliver()
    make_keys(setup.keys)
    out = setup.run("regressed", clean, rollout=True, game_day=FAULT)
    record = read_artifact(out, RolloutRecord)
    document = record.document
    measured = [move.evidence.get("seconds_to_rollback") for move in document.transitions]
    seconds = next((float(one) for one in measured if one is not None), None)
    back = document.outcome == "rolled-back"
    board.detected = seconds
    board.expect("the candidate is rolled back", f"{document.outcome}: {document.reason}", held=back)
    page = record.folder / "incident.html"
    board.expect("there is an incident report", page.name, held=page.is_file())
    failed = f"{document.requests_failed} of {document.requests_sent}"
    board.expect("no request of a client failed", failed, held=document.requests_failed == 0)
    gone = seconds is not None
    board.secure("no live traffic reaches the candidate", f"after {seconds} s", held=gone, seconds=seconds)


def key_compromise(setup: GameDaySetup, board: Scoreboard) -> None:
    """The keys of the trainer and of the gate are stolen, and a model without weights is signed with them."""
    clean, _, _ = setup.deliver()
    make_keys(setup.keys)
    forge(setup, setup.run("honest", clean), board)


def forge(setup: GameDaySetup, honest: Path, board: Scoreboard) -> None:
    """The exercise on a run that was signed with the keys of `setup`."""
    trust = setup.keys / TRUST
    version = tamper(honest, setup.folder / "forged")
    board.begin()
    board.expect("an altered model is not served", served(version, trust), held=served(version, trust) != ACCEPTED)
    sign_again(version, version, setup.keys, ("trainer",))
    word = served(version, trust)
    board.detect("with the trainer's key alone it is not served", word, held=word != ACCEPTED)
    sign_again(version, version, setup.keys, STOLEN)
    # With both keys the chain holds: no check can know a thief from an owner until people revoke the keys. Were it
    # refused here for another reason, the refusals below would show nothing about revoking.
    word = served(version, trust)
    board.expect("with both keys it is served, until people revoke them", word, held=word == ACCEPTED)
    new = replace_keys(setup.keys, setup.folder / "new-keys", STOLEN)
    word = served(version, new / TRUST)
    board.expect("after the keys are revoked it is not served", word, held=word != ACCEPTED)
    good = copy_version(honest, setup.folder / "good")
    word = served(good, new / TRUST)
    board.expect("what the stolen keys had signed is not served either", word, held=word != ACCEPTED)
    sign_again(honest / ARTIFACTS, good, new, STOLEN)
    word = served(good, new / TRUST)
    still = served(version, new / TRUST)
    board.expect("the forged model is refused still", still, held=still != ACCEPTED)
    board.secure("the honest model serves, signed with new keys", word, held=word == ACCEPTED)


def sign_again(artifacts: Path, version: Path, keys: Path, roles: Sequence[Role]) -> None:
    """Signs every artifact below a folder that is of these roles, now, for a version."""
    signers = {role: key for role, key in read_keys(keys).items() if role in roles}
    for place in artifacts_below(artifacts):
        artifact = load_any(place)
        signer = signer_for(artifact.document, signers)
        if signer is not None and not isinstance(artifact.document, Registration):
            attest(artifact, signer, version / ATTESTATIONS, run="game day", at=datetime.now(UTC))


def replace_keys(keys: Path, new: Path, stolen: Sequence[Role]) -> Path:
    """New keys for the stolen roles, the old ones for the others, and a trust policy that revokes the stolen."""
    old = read_keys(keys)
    make_keys(new)
    for role in set(old) - set(stolen):
        for suffix in (".pem", ".pub"):
            shutil.copyfile(keys / f"{role}{suffix}", new / f"{role}{suffix}")
    lines = [f"  - fingerprint: {old[role].fingerprint}" for role in stolen]
    text = (new / TRUST).read_text() + "\n".join(["revoked:", *lines, ""])
    (new / TRUST).write_text(text)
    return new


EXERCISES: Mapping[str, GameDayExercise] = {
    "poisoned-vendor": GameDayExercise(
        "a vendor plants a backdoor in a delivery, and sends the same rows again", 600, poisoned_vendor
    ),
    "regression": GameDayExercise("a version answers late and wrongly in production", 60, regression),
    "key-compromise": GameDayExercise("the keys of trainer and gate are stolen", 60, key_compromise),
}
"""By name."""


def require_exercise(name: str) -> GameDayExercise:
    """The exercise of that name.

    Raises:
        RunError: there is none.
    """
    if name not in EXERCISES:
        raise RunError(f"game day: expected one of {', '.join(EXERCISES)}, found {name[:60]!r}")
    return EXERCISES[name]
