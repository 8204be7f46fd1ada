"""What people sign: an approval, without which a version may not serve where the policy asks for one.

An approval is about one model, as one decision judged it: after another decision the people are asked again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from holdfast.artifacts.documents import Requirements, Sha256
from holdfast.attestation.statement import APPROVAL, Predicate, Statement, SubjectDigest, about, stamp
from holdfast.attestation.trust import Signed, TrustPolicy
from holdfast.errors import InputError

MAX_NAME, MAX_REASON = 100, 1000
"""Characters of a person's name, and of why."""


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of text")
    return text


PersonName = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_one_line)]
ReasonLine = Annotated[str, Field(max_length=MAX_REASON), AfterValidator(_one_line)]


class SignedClaim(BaseModel):
    """A predicate of ours: closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DigestOf(SignedClaim):
    """Names something by its digest, as in-toto does."""

    digest: SubjectDigest
    """Of its bytes."""


class Approval(SignedClaim):
    """That a person wants this version to serve."""

    approver: PersonName
    """Who, in words; whose signature it is, shows the key."""
    reason: ReasonLine
    """What they looked at."""
    version: int = Field(ge=1)
    """Its number in MLflow."""
    decision: DigestOf
    """The gate's decision that they read."""
    timeCreated: str  # noqa: N815
    """UTC."""


@dataclass(frozen=True)
class CountedApproval:
    """An approval of a version, and whether it counts."""

    approval: Approval
    signer: str
    """Fingerprint of the key."""
    refused: str = ""
    """Why it does not count; empty: it does."""


@dataclass(frozen=True)
class JudgedVersion:
    """What is approved: a model as a decision judged it."""

    name: str
    model: Sha256
    decision: Sha256
    version: int | None = None
    """Its number in MLflow; None: not known here."""

    @property
    def command(self) -> str:
        """What a person types to approve it."""
        version = "VERSION" if self.version is None else self.version
        return f"holdfast approve {self.name}@{version} --by NAME --reason TEXT --key KEY --trust TRUST"


@dataclass(frozen=True)
class SignerWords:
    """Who signs, and why."""

    by: str
    reason: str


def approval_statement(one: JudgedVersion, words: SignerWords, at: datetime) -> Statement:
    """The approval of a version.

    Raises:
        InputError: a name or a reason that is empty, too long, or not one line.
    """
    predicate: Predicate = {
        "approver": words.by,
        "reason": words.reason,
        "version": one.version,
        "decision": {"digest": {"sha256": one.decision}},
        "timeCreated": stamp(at),
    }
    check_claim(Approval, predicate)
    return about(f"model/{one.name}", one.model, APPROVAL, predicate)


def approvals(
    signed: Iterable[Signed], one: JudgedVersion, require: Requirements, trust: TrustPolicy
) -> list[CountedApproval]:
    """The approvals of a model among statements that count, and which of them the policy lets count."""
    found = []
    for each in signed:
        approval = parse_approval(each.statement) if each.statement.digest == one.model else None
        if approval is not None:
            found.append(CountedApproval(approval, each.signer, _refused(approval, each, one, require, trust)))
    return found


def parse_approval(statement: Statement) -> Approval | None:
    """What an approval claims; None: the statement is none."""
    if statement.predicateType != APPROVAL:
        return None
    try:
        return Approval.model_validate(statement.predicate)
    except ValidationError:
        return None


def objection(
    bundles: Iterable[bytes], one: JudgedVersion, require: Requirements, trust: TrustPolicy, now: datetime
) -> str | None:
    """Why a model may not serve yet, as one line; None: enough people approved it, or none were asked."""
    if not require.approvals:
        return None
    signed, forged = trust.accepted(bundles, now)
    found = approvals(signed, one, require, trust)
    signers = {each.signer for each in found if not each.refused}
    wanted = max(require.approvals, threshold(trust))
    if len(signers) >= wanted:
        return None
    others = [*(each.refused for each in found if each.refused), *forged]
    why = f" ({others[0]})" if others else ""
    keys = "approval" if wanted == 1 else "approvals, each by another key"
    return f"expected {wanted} {keys} of model {one.model[:12]}…, found {len(signers)}{why}; `{one.command}`"


def threshold(trust: TrustPolicy) -> int:
    """How many different keys must sign what people sign."""
    role = trust.roles.get("approver")
    return 1 if role is None else role.threshold


def _refused(approval: Approval, signed: Signed, one: JudgedVersion, require: Requirements, trust: TrustPolicy) -> str:
    """Why an approval with a good signature does not count; empty: it does."""
    who = f"the approval by {approval.approver}"
    if signed.statement.subject[0].name != f"model/{one.name}":
        return f"{who} is about another name"
    if approval.decision.digest.sha256 != one.decision:
        return f"{who} is about another decision of the gate"
    close = too_close(signed, require, trust)
    return f"{who}: {close}" if close else ""


def too_close(signed: Signed, require: Requirements, trust: TrustPolicy) -> str:
    """Why a person may not judge this model, as the policy asks; empty: they may."""
    close = require.approver_not_trainer and "trainer" in trust.holders[signed.signer]
    return "its key also has the role trainer" if close else ""


def check_claim(kind: type[SignedClaim], predicate: Predicate) -> None:
    """Refuses what would be no claim of this kind.

    Raises:
        InputError: names the first value that is not valid.
    """
    try:
        kind.model_validate(predicate)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{first['loc'][0]}: expected another value, found {first['input']!r:.60}: {first['msg']}"
        ) from None
