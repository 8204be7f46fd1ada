"""What is demanded of a model with a passing decision before it is taken in: the signatures behind it.

Whoever takes a model in (register, rollout, the servers, `holdfast verify`) asks here. A decision whose policy requires
signatures is refused without a trust policy: whoever can write to the store could take the statements away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from holdfast.artifacts.documents import Document, GateDecision
from holdfast.artifacts.folder import Artifact, read_bounded
from holdfast.artifacts.policies import PolicyList
from holdfast.attestation import people, store
from holdfast.attestation.chain import SignedChain, check_chain
from holdfast.attestation.envelope import MAX_BUNDLE_BYTES
from holdfast.attestation.model_files import SIGNATURE, fits
from holdfast.attestation.people import JudgedVersion
from holdfast.attestation.statement import VERDICT
from holdfast.attestation.trust import TrustPolicy, read_trust
from holdfast.attestation.waivers import require_waivers
from holdfast.errors import RefusedError

IGNORED = ("bundle.json",)
"""The list of a version's files pins the signature too, so it cannot be signed itself."""
TAG = "holdfast.attestation."
"""A version's tag with a bundle begins so: what was signed after the version was registered."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Demands:
    """Whose signatures must be there, and when it is asked."""

    trust: TrustPolicy | None = None
    now: datetime = field(default_factory=_now)
    incumbent: bool = False
    """It serves already, and is only compared with or replaced: that its verdict is old, or that an approval no longer
    counts, is no reason against it."""
    approvals: bool = True
    """Whether the approvals that the policy asks for must be there; people approve what is registered already."""

    @classmethod
    def of(cls, trust: Path | None, *, incumbent: bool = False) -> "Demands":
        """Those of a file `trust.yaml`; None: no signatures, unless the decision's policy requires them.

        Raises:
            WorkloadError: not a trust policy.
            InputError: a key that it names is none.
        """
        return cls(None if trust is None else read_trust(trust), incumbent=incumbent)

    @property
    def policies(self) -> PolicyList | None:
        """The policies whose verdicts count: of the trust policy, or those that ship; None: any.

        What serves already was let in by a list of its time: the one that ships now is no reason against it.
        """
        if self.trust is not None and self.trust.file.counted != PolicyList():
            return self.trust.file.counted
        return None if self.incumbent else PolicyList()

    @property
    def signatures(self) -> TrustPolicy | None:
        """Whose signatures are asked for; None: no one's."""
        return self.trust if self.trust is not None and self.trust.file.signs else None

    def before_approval(self) -> "Demands":
        """The same without approvals."""
        return replace(self, approvals=False)

    def meet(
        self,
        decision: Artifact[GateDecision],
        documents: Iterable[Artifact[Any]],
        bundles: Mapping[str, Sequence[bytes]],
        *,
        version: int | None = None,
    ) -> SignedChain | None:
        """The chain behind a decision, after it was found to hold; None where none is asked for.

        Args:
            decision: A decision that passed.
            documents: The model, the evidence, and what else is at hand; each read from bytes of its digest.
            bundles: Digest -> bundles about it, not verified.
            version: Its number in MLflow, where that is known, for messages.

        Raises:
            RefusedError: a statement or an approval is missing or does not count, or signatures are required and no
                one's are trusted.
            WaiverEndedError: the decision rests on a waiver that ended.
        """
        where = decision.folder if version is None else f"{decision.document.name} version {version}"
        trust = self.signatures
        if trust is None:
            if decision.document.require.attested:
                there = "none" if self.trust is None else "one without roles"
                raise RefusedError(
                    f"{where}: expected a trust policy, because the gate's policy requires signatures, found {there}; "
                    "name one with --trust"
                )
            return None
        known: dict[str, Document] = {one.digest: one.document for one in (*documents, decision)}
        found = check_chain(decision.digest, known, bundles, trust, self.now, ages=not self.incumbent)
        wrong = found.objection()
        if wrong is None and self.approvals and not self.incumbent:
            one, require = candidate(decision, version), decision.document.require
            wrong = people.objection(bundles.get(one.model, ()), one, require, trust, self.now)
        if wrong is not None:
            raise RefusedError(f"{where}: {wrong}")
        if not self.incumbent:
            require_waivers(decision.document, bundles, trust, self.now, str(where))
        return found

    def meet_files(self, place: Path, name: str, files: Mapping[str, str]) -> None:
        """Checks the signature of a version's files, where signatures are asked for.

        Args:
            place: The folder with `model.sig`.
            name: Of the model.
            files: Path -> SHA-256 of every file that is pinned there.

        Raises:
            RefusedError: it is not there, does not count, or is about other files.
            IntegrityError: it is no bundle.
        """
        trust = self.signatures
        if trust is None:
            return
        path = place / SIGNATURE
        if SIGNATURE not in files:
            raise RefusedError(f"{path}: expected the signature of the version's files, found none; register it again")
        signed = trust.accept(read_bounded(path, MAX_BUNDLE_BYTES), self.now, str(path))
        rest = {file: digest for file, digest in files.items() if file != SIGNATURE}
        if not fits(signed, name, rest, IGNORED):
            raise RefusedError(f"{path}: expected a signature of exactly the version's files, found another one")

    def passed_at(self, model: str, bundles: Mapping[str, Sequence[bytes]]) -> datetime | None:
        """When the gate last signed that the model of this digest passed; None: no such statement counts."""
        trust = self.signatures
        signed = [] if trust is None else trust.accepted(bundles.get(model, ()), self.now)[0]
        return max((one.at for one in signed if one.statement.predicateType == VERDICT), default=None)


def bundles_of(folder: Path, tags: Mapping[str, str] | None = None) -> dict[str, list[bytes]]:
    """The bundles about a version, by the digest of their subject; not verified.

    Those in `folder/attestations`, in the version's tags, and in the copy of these that `keep_tags` made.

    Raises:
        ArtifactError, IntegrityError: a file that cannot be read, or is too large.
    """
    found = store.read_all(folder / store.ATTESTATIONS), store.read_all(_kept(folder)), _in_tags(tags or {})
    return {
        key: list(dict.fromkeys(chain.from_iterable(one.get(key, ()) for one in found))) for key in {*chain(*found)}
    }


def keep_tags(folder: Path, tags: Mapping[str, str]) -> None:
    """Keeps the bundles in a version's tags next to its `folder`, for servers, which do not ask MLflow.

    They were signed after the version was registered, so they are not among the files that it pins.
    """
    store.replace_all(_in_tags(tags), _kept(folder))


def candidate(decision: Artifact[GateDecision], version: int | None = None) -> JudgedVersion:
    """What people approve: the model that a decision is about."""
    return JudgedVersion(decision.document.name, decision.document.inputs.get("model", ""), decision.digest, version)


def _kept(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.{store.ATTESTATIONS}")


def _in_tags(tags: Mapping[str, str]) -> dict[str, list[bytes]]:
    values = (value.encode() for key, value in sorted(tags.items()) if key.startswith(TAG))
    return store.by_subject(value for value in values if len(value) <= MAX_BUNDLE_BYTES)
