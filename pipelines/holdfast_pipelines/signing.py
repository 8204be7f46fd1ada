"""Signing what the steps of a local run made: one key for each role, in one folder, as `holdfast keys new` leaves it.

The runner signs after each step, also for one that was reused: the artifact is the same, the statement is of this run.
On a cluster a step signs itself (`--key`), in a pod that holds the key of its role and no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from holdfast.artifacts.documents import Baseline, GateDecision, Registration
from holdfast.artifacts.folder import Ref, load_any
from holdfast.attestation.keys import Signer
from holdfast.attestation.sign import TRUST, attest, read_keys, signer_for
from holdfast.attestation.store import ATTESTATIONS
from holdfast.errors import InputError
from holdfast.options import WAIVERS
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
    files: Mapping[Role, Path] = field(default_factory=dict)
    """Where the keys lie, for the step that signs more than its artifact."""
    waivers: Path = field(default_factory=WAIVERS.absolute)
    """Where people keep waivers for the gate."""

    @classmethod
    def of(cls, keys: Path | None, out: Path, trust: Path | None = None) -> "Signing":
        """With the keys in a folder, for the run in `out`; `trust` left out: its `trust.yaml`, where there is one.

        Raises:
            InputError: the folder has no keys, or one is none.
        """
        folder = out.resolve() / ATTESTATIONS
        if keys is None:
            return cls(out.name, folder, {}, trust and trust.resolve())
        if not keys.is_dir():
            raise InputError(f"{keys}: expected a folder of keys, found none; `holdfast keys new --all --out {keys}`")
        found, own = read_keys(keys), keys.resolve() / TRUST
        named = own if own.is_file() else None
        files = {role: keys.resolve() / f"{role}.pem" for role in found}
        return cls(out.name, folder, found, trust.resolve() if trust else named, files)

    def sign(self, place: Path, digest: str) -> None:
        """Signs the artifact in `place`, where the key of its step's role is here."""
        if not self.keys or not digest:
            return
        artifact = load_any(Ref(place, digest))
        signer = signer_for(artifact.document, self.keys)
        if signer is not None and not isinstance(artifact.document, Registration):
            attest(artifact, signer, self.folder, run=self.run, at=datetime.now(UTC))

    def words(self, step: str) -> list[str]:
        """What the command of a step has besides: those that take a model in are to find everything signed."""
        trust = [f"--trust={self.trust}"] if self.trust is not None and step in TAKES_A_MODEL else []
        if step == _DECIDES:
            return self._waived()
        if step != REGISTERS.name:
            return trust
        key = self.files.get(REGISTERS.signed_by)
        signs = [f"--key={key}"] if key is not None else []
        return [*trust, *signs, f"--attestations={self.folder}"] if trust or signs else []

    def _waived(self) -> list[str]:
        """What people signed about the model, where there is any, and where the gate hands it on."""
        if self.trust is None or not self.waivers.is_dir():
            return []
        return [f"--waivers={self.waivers}", f"--trust={self.trust}", f"--attestations={self.folder}"]


RELEASES: Role = "release"
"""Who signs that a version is the one to serve."""
REGISTERS = writer(Registration)
"""It signs the version's files, and its artifact itself."""
_DECIDES = writer(GateDecision).name
TAKES_A_MODEL = (writer(Baseline).name, *names()[names().index(writer(GateDecision).name) + 1 :])
"""They ask for the signatures behind a registered or passed model."""
