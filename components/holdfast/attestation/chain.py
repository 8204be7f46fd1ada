"""Whether everything that led to an artifact was signed by those who may: the whole chain, offline.

From the artifact in question every input is followed to the data. For each artifact the trusted statement about its
digest must claim exactly what its document holds, or, where the document is not at hand, is followed itself. For each
model that a decision is about, the gate's verdict must be there, young enough and by a policy that counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from holdfast.artifacts.documents import Document, GateDecision, Snapshot
from holdfast.attestation.predicates import Occasion, made_of, statement_of, verdict_statement
from holdfast.attestation.statement import VERDICT, Statement, stamp
from holdfast.attestation.trust import Signed, TrustPolicy
from holdfast.steps import Role, Step, every, writer

Bundles = Mapping[str, Sequence[bytes]]
"""Digest of the subject -> bundles."""
_STEPS = {step.role: step for step in every()}


@dataclass(frozen=True)
class Link:
    """One statement that the chain needs, and whether it is there."""

    state: Literal["ok", "refused", "missing"]
    subject: str
    """KIND digest…"""
    role: Role
    """Who must have signed."""
    detail: str


@dataclass(frozen=True)
class SignedChain:
    """Everything that was asked of the statements about an artifact and its inputs."""

    links: tuple[Link, ...]
    signed: tuple[Signed, ...]
    """The statements that count, each once."""

    @property
    def holds(self) -> bool:
        """Whether every statement that is needed is there."""
        return all(link.state == "ok" for link in self.links)

    def objection(self) -> str | None:
        """The first thing that is wrong, as one line; None: nothing is."""
        wrong = next((link for link in self.links if link.state != "ok"), None)
        return None if wrong is None else f"{wrong.subject}: {wrong.detail}"


def check_chain(
    top: str,
    documents: Mapping[str, Document],
    bundles: Bundles,
    trust: TrustPolicy,
    now: datetime,
    *,
    ages: bool = True,
) -> SignedChain:
    """Follows the artifact of digest `top` to the data.

    Args:
        top: Digest of an artifact.
        documents: Digest -> document, of every artifact at hand, each read from bytes of that digest.
        bundles: Bundles about them, not verified.
        trust: Whose signature counts for what.
        now: The time to judge ages by.
        ages: Whether a verdict may be too old: by the trust policy, or by the gate's.
    """
    walk = _Walk(documents, bundles, trust, now, ages)
    walk.follow(top)
    return SignedChain(tuple(walk.links), tuple(walk.counted))


class _Walk:
    """From an artifact to the data, each artifact once."""

    def __init__(
        self,
        documents: Mapping[str, Document],
        bundles: Bundles,
        trust: TrustPolicy,
        now: datetime,
        ages: bool,
    ) -> None:
        self.documents, self.bundles, self.trust, self.now, self.ages = documents, bundles, trust, now, ages
        self.links: list[Link] = []
        self.counted: list[Signed] = []

    def follow(self, top: str) -> None:
        """Fills `links` and `counted`.

        A snapshot is where a chain begins: what its owner looked at is named in their statement.
        """
        seen, queue = {top}, [(top, "")]
        while queue:
            digest, role = queue.pop(0)
            for name, needed in sorted(self._look(digest, role).items()):
                if name in _STEPS and needed not in seen:
                    seen.add(needed)
                    queue.append((needed, name))

    def _look(self, digest: str, role: str) -> Mapping[str, str]:
        """Judges what was signed about one artifact; returns what it was made from."""
        document = self.documents.get(digest)
        signed, refused = self.trust.accepted(self.bundles.get(digest, ()), self.now)
        self.counted += signed
        if document is None:
            return self._unseen(digest, role, signed, refused)
        self.links.append(_about(document, digest, signed, refused, self.trust))
        if isinstance(document, GateDecision):
            self._verdict(document, digest)
        return {} if isinstance(document, Snapshot) else document.inputs

    def _unseen(self, digest: str, role: str, signed: Sequence[Signed], refused: Sequence[str]) -> Mapping[str, str]:
        """An artifact whose document is not at hand: its signer's word about this very digest is followed."""
        step = _STEPS.get(role)
        if step is None or step.document is GateDecision:
            self.links.append(
                Link("missing", f"{role or 'artifact'} {digest[:12]}…", "gate", "its document is missing")
            )
            return {}
        fitting = [one for one in signed if one.role == step.signed_by and _kind(one) == _kind_of(step)]
        subject = f"{_kind_of(step)} {digest[:12]}…"
        self.links.append(_enough(subject, step.signed_by, fitting, signed, refused, self.trust))
        if step.document is Snapshot:
            return {}
        return {name: needed for one in fitting for name, needed in made_of(one.statement).items()}

    def _verdict(self, decision: GateDecision, digest: str) -> None:
        """Whether the gate's verdict on the model is there, by a policy that counts and young enough."""
        model = decision.inputs.get("model", "")
        signed, refused = self.trust.accepted(self.bundles.get(model, ()), self.now)
        self.counted += signed
        found = [one for one in signed if one.statement.predicateType == VERDICT]
        same = [one for one in found if one.statement == _verdict_again(decision, digest, one)]
        days = self._oldest(decision)
        young = [one for one in same if days is None or self.now - one.at <= timedelta(days=days)]
        subject = f"verdict on model {model[:12]}…"
        wrong = _other_policy(decision, self.trust) or (None if young else _too_old(same, days))
        if same and wrong is not None:
            self.links.append(Link("refused", subject, "gate", wrong))
        else:
            self.links.append(_enough(subject, "gate", young, found, refused, self.trust))

    def _oldest(self, decision: GateDecision) -> float | None:
        """The age in days at which the verdict no longer counts; None: it always does."""
        limits = (decision.require.max_age_days, self.trust.file.max_age_days) if self.ages else ()
        return min((limit for limit in limits if limit is not None), default=None)


def _about(
    document: Document, digest: str, signed: Sequence[Signed], refused: Sequence[str], trust: TrustPolicy
) -> Link:
    """Whether enough keys of the right role signed what the document holds."""
    role, subject = writer(type(document)).signed_by, _subject(document, digest)
    same = [one for one in signed if one.role == role and _claims(one, document, digest)]
    return _enough(subject, role, same, signed, refused, trust)


def _other_policy(decision: GateDecision, trust: TrustPolicy) -> str | None:
    """Why the verdict does not count: its policy is not on the list of digests.

    With those that ship on it, the decision's folder is needed to know: whoever reads that, asks.
    """
    counted = trust.file.counted
    if counted.shipped or decision.policy in counted.digests:
        return None
    return f"expected a verdict by a policy that counts, found one by {decision.policy_name} ({decision.policy[:12]}…)"


def _too_old(verdicts: Sequence[Signed], days: float | None) -> str | None:
    if days is None or not verdicts:
        return None
    newest = stamp(max(one.at for one in verdicts))
    return f"expected a verdict of the last {days:g} days, found one of {newest}"


def _enough(
    subject: str,
    role: Role,
    same: Sequence[Signed],
    signed: Sequence[Signed],
    refused: Sequence[str],
    trust: TrustPolicy,
) -> Link:
    """Whether as many keys as the role asks for made statements that fit."""
    config = trust.roles.get(role)
    if config is None:
        return Link("refused", subject, role, f"expected a role {role} in the trust policy, found none")
    signers = {one.signer for one in same}
    if len(signers) >= config.threshold:
        by = ", ".join(f"{signer[:12]}…" for signer in sorted(signers))
        return Link("ok", subject, role, f"signed by {by} at {stamp(max(one.at for one in same))}")
    if same:
        wanted = (
            f"expected the signatures of {config.threshold} keys or identities of the role {role}, found {len(signers)}"
        )
        return Link("missing", subject, role, wanted)
    if signed:
        return Link("refused", subject, role, f"expected a statement by {role} of what it holds, found another claim")
    if refused:
        return Link("refused", subject, role, refused[0])
    return Link("missing", subject, role, f"expected a statement by {role}, found none")


def _claims(one: Signed, document: Document, digest: str) -> bool:
    """Whether the statement is the one that a step would write about this document."""
    return one.statement == statement_of(document, digest, _occasion(one))


def _verdict_again(decision: GateDecision, digest: str, one: Signed) -> Statement | None:
    return verdict_statement(decision, digest, _occasion(one)) if decision.verdict == "pass" else None


def _occasion(one: Signed) -> Occasion:
    predicate = one.statement.predicate
    details = predicate.get("runDetails")
    metadata = details.get("metadata") if isinstance(details, dict) else None
    run = (metadata if isinstance(metadata, dict) else predicate).get("invocationId", "")
    return Occasion(run if isinstance(run, str) else "", one.at)


def _kind(one: Signed) -> str:
    return one.statement.subject[0].name.partition("/")[0]


def _kind_of(step: Step) -> str:
    return str(step.document.model_fields["kind"].default)


def _subject(document: Document, digest: str) -> str:
    return f"{type(document).model_fields['kind'].default} {digest[:12]}…"
