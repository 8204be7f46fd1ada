"""Waivers: a person accepts, for a while, that one model did not pass one check.

A waiver is about one check and one model, by its digest. It has an owner, a reason and an end, and is signed by the
role approver. The gate counts it where the policy lets it, and whoever takes the model in looks at it again: a waiver
that ended, or whose key was revoked, no longer carries the decision.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field, ValidationError

from holdfast.artifacts.documents import CountedWaiver, GateDecision, Requirements, Sha256, UtcSecond
from holdfast.attestation.envelope import read_bundle
from holdfast.attestation.people import PersonName, ReasonLine, SignedClaim, check_claim, threshold, too_close
from holdfast.attestation.statement import WAIVER, Statement, about, parse_statement, stamp
from holdfast.attestation.trust import Signed, TrustPolicy
from holdfast.errors import HoldfastError, InputError, RefusedError, WaiverEndedError

FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MAX_DAYS = 366
"""No policy counts a waiver that ends later after it was signed."""


class Waiver(SignedClaim):
    """What a waiver claims."""

    check: Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,62}$")]
    """Of the policy."""
    owner: PersonName
    """Who answers for it."""
    reason: ReasonLine
    """Why it is accepted."""
    until: UtcSecond
    """When it ends."""
    timeCreated: UtcSecond  # noqa: N815
    """When it was signed."""

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the waiver of {self.check} by {self.owner}"


@dataclass(frozen=True)
class WaiverTerms:
    """What a person signs."""

    check: str
    owner: str
    reason: str
    until: datetime


@dataclass(frozen=True)
class NotCounted:
    """A waiver that does not count, and why."""

    check: str
    why: str
    elsewhere: bool = False
    """It is a good one, about another model."""


@dataclass(frozen=True)
class ValidWaivers:
    """The waivers of a model that count now, one for each check, and why others do not."""

    counted: tuple[CountedWaiver, ...] = ()
    refused: tuple[NotCounted, ...] = ()


def waiver_statement(model: Sha256, terms: WaiverTerms, at: datetime) -> Statement:
    """The waiver of a check for the model of this digest, signed at `at`.

    Raises:
        InputError: a name or a reason that is empty, too long, or not one line; or an end in the past, or too late.
    """
    if not at < terms.until <= at + timedelta(days=MAX_DAYS):
        raise InputError(
            f"until: expected a time within {MAX_DAYS} days from now ({stamp(at)}), found {stamp(terms.until)}"
        )
    predicate = {
        "check": terms.check,
        "owner": terms.owner,
        "reason": terms.reason,
        "until": stamp(terms.until),
        "timeCreated": stamp(at),
    }
    check_claim(Waiver, predicate)
    return about("model", model, WAIVER, predicate)


def read_waivers(
    bundles: Iterable[bytes], model: Sha256, require: Requirements, trust: TrustPolicy, now: datetime
) -> ValidWaivers:
    """The waivers for a model among bundles that are not verified; of two for one check the one that ends last."""
    good, refused = _judged(bundles, model, require, trust, now)
    latest = {one.check: one for one, _ in sorted(good, key=lambda pair: (pair[0].until, pair[0].statement))}
    enough = {check: len({signer for one, signer in good if one.check == check}) for check in latest}
    wanted = threshold(trust)
    few = [
        NotCounted(check, f"the waiver of {check}: expected the signatures of {wanted} keys, found {count}")
        for check, count in enough.items()
        if count < wanted
    ]
    counted = tuple(one for check, one in sorted(latest.items()) if enough[check] >= wanted)
    return ValidWaivers(counted, tuple(sorted((*refused, *few), key=lambda one: (one.check, one.why))))


def require_waivers(
    decision: GateDecision, bundles: Mapping[str, Sequence[bytes]], trust: TrustPolicy, now: datetime, where: str
) -> None:
    """Looks again at the waivers that a decision rests on.

    Raises:
        WaiverEndedError: one of them ended.
        RefusedError: one is not there, or no longer counts.
    """
    model = decision.inputs.get("model", "")
    good, refused = _judged(bundles.get(model, ()), model, decision.require, trust, now)
    for one in decision.waivers:
        title = f"the waiver of {one.check} by {one.owner}"
        if now >= _time(one.until):
            raise WaiverEndedError(f"{where}: {title} ended at {one.until}; waive it again and run the gate again")
        signers = {signer for other, signer in good if other.check == one.check}
        if one not in [other for other, _ in good] or len(signers) < threshold(trust):
            why = next((other.why for other in refused if other.check == one.check), "none that counts")
            raise RefusedError(f"{where}: expected {title}, signed by a key of the role approver, found {why}")


def _judged(
    bundles: Iterable[bytes], model: Sha256, require: Requirements, trust: TrustPolicy, now: datetime
) -> tuple[list[tuple[CountedWaiver, str]], list[NotCounted]]:
    """Each waiver that counts, with its signer, and each that does not."""
    good, refused = [], []
    for text, claim, about_model in _claims(bundles):
        other = about_model != model
        try:
            signed = trust.accept(text, now, claim.title)
        except HoldfastError as error:
            refused += [] if other else [NotCounted(claim.check, str(error))]
            continue
        why = f"it is about model {about_model[:12]}…" if other else _refused(claim, signed, require, trust, now)
        if why:
            refused.append(NotCounted(claim.check, f"{claim.title}: {why}", other))
        else:
            good.append((_counted(claim, signed), signed.signer))
    return good, refused


def _refused(claim: Waiver, signed: Signed, require: Requirements, trust: TrustPolicy, now: datetime) -> str:
    """Why a waiver with a good signature does not count; empty: it does."""
    until = _time(claim.until)
    if now >= until:
        return f"it ended at {claim.until}"
    if until > signed.at + timedelta(days=require.waiver_days):
        return f"expected an end within {require.waiver_days} days after it was signed, found {claim.until}"
    return too_close(signed, require, trust)


def _counted(claim: Waiver, signed: Signed) -> CountedWaiver:
    return CountedWaiver(
        check=claim.check,
        owner=claim.owner,
        reason=claim.reason,
        until=claim.until,
        statement=signed.identity,
    )


def _claims(bundles: Iterable[bytes]) -> Iterator[tuple[bytes, Waiver, str]]:
    """The bundles that hold a waiver, what each claims, and about which model; not verified."""
    for text in bundles:
        try:
            statement = parse_statement(read_bundle(text, "a bundle").payload, "a bundle")
            if statement.predicateType == WAIVER:
                yield text, Waiver.model_validate(statement.predicate), statement.digest
        except (HoldfastError, ValidationError):
            continue


def _time(text: str) -> datetime:
    return datetime.strptime(text, FORMAT).replace(tzinfo=UTC)
