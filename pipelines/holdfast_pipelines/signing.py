"""Signing what the steps of a local run made: one key for each role, in one folder, as `holdfast keys new` leaves it.

The runner signs after each step, also for one that was reused: the artifact is the same, the statement is of this run.
On a cluster a step signs itself (`--key`), in a pod that holds the key of its role and no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from holdfast.artifacts.documents import GateDecision, Registration
from holdfast.artifacts.folder import Ref, load_any
from holdfast.attestation.keys import Signer
from holdfast.attestation.sign import TRUST, attest, read_keys, signer_for
from holdfast.attestation.store import ATTESTATIONS
from holdfast.errors import InputError
from holdfast.steps import Role, names, writer


@dataclass(frozen=True)
class Signing:
    """The keys and the trust policy of a run; with neither, nothing is signed and nothing is demanded."""

    run: str
    """The run's name in its statements."""
    folder: Path
    """Where its bundles are kept."""
    keys: Mapping[Role, Signer]
    trust: Path | None = None

    @classmethod
    def of(cls, keys: Path | None, out: Path) -> "Signing":
        """With the keys in a folder, and its `trust.yaml`, where there is one; for the run in `out`.

        Raises:
            InputError: the folder has no keys, or one is none.
        """
        folder = out.resolve() / ATTESTATIONS
        if keys is None:
            return cls(out.name, folder, {})
        if not keys.is_dir():
            raise InputError(f"{keys}: expected a folder of keys, found none; `holdfast keys new --all --out {keys}`")
        trust = keys.resolve() / TRUST
        return cls(out.name, folder, read_keys(keys), trust if trust.is_file() else None)

    def sign(self, place: Path, digest: str) -> None:
        """Signs the artifact in `place`, where the key of its step's role is here."""
        if not self.keys or not digest:
            return
        artifact = load_any(Ref(place, digest))
        signer = signer_for(artifact.document, self.keys)
        if signer is not None:
            attest(artifact, signer, self.folder, run=self.run, at=datetime.now(UTC))

    def words(self, step: str) -> list[str]:
        """What the command of a step has besides: the steps after the gate are to find everything signed."""
        if self.trust is None or step not in _AFTER_THE_GATE:
            return []
        return [f"--trust={self.trust}", f"--attestations={self.folder}"][: 2 if step == _REGISTERS else 1]


_REGISTERS = writer(Registration).name
_AFTER_THE_GATE = names()[names().index(writer(GateDecision).name) + 1 :]
