"""The rule of trust: a model goes on only with a gate decision whose verdict is pass, about these very bytes.

And by a policy that counts (`policies`).

Whoever takes a model in (the register step, the registry, the predictor) asks here and words its
own refusal. Light: no numpy.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from holdfast.artifacts.documents import GateDecision, Model, Snapshot, Verdict
from holdfast.artifacts.folder import Artifact, Ref, load
from holdfast.artifacts.policies import PolicyList
from holdfast.wording import printable

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class JudgedModel:
    """A model, every byte of it hashed, and the decision that was handed in with it."""

    model: Artifact[Model]
    decision: Artifact[GateDecision]

    def objection(self, policies: PolicyList | None) -> "Objection | None":
        """Why the model may not go on; None: the verdict is pass, about these very bytes, by one of `policies`.

        Where there is no list, it may be any policy's.
        """
        return objection(self.decision.document, self.model.digest) or foreign(self.decision, policies)


@dataclass(frozen=True)
class OtherBytes:
    """The gate judged something else in this role."""

    role: str
    given: str
    """Digest."""
    judged: str | None
    """Digest; None: nothing in this role."""


@dataclass(frozen=True)
class NotPassed:
    """The gate's verdict on these very bytes is not pass."""

    verdict: Verdict


@dataclass(frozen=True)
class OtherPolicy:
    """The policy that decided is not on the list of those that count."""

    name: str
    digest: str

    def __str__(self) -> str:
        return (
            f"expected a verdict by a policy that counts, found one by {printable(self.name)} ({self.digest}); "
            "to accept it, add this digest to `policies` of a trust policy, which --trust names"
        )


Objection = OtherBytes | NotPassed | OtherPolicy


class Confirm(Protocol):
    """The gate's `confirm`: judges again, and refuses a decision that its policy and its evidence do not lead to."""

    def __call__(
        self,
        decision: Artifact[GateDecision],
        model: Artifact[Model],
        snapshot: Artifact[Snapshot],
        evidence: Mapping[str, Artifact[Any]],
        asked: str | None = None,
    ) -> None:
        """Raises RefusedError."""


def read(model: Ref, decision: Ref) -> JudgedModel:
    """Both artifacts, after every file of the model was hashed.

    Raises:
        ArtifactError: one of them is not there, or is another kind.
        IntegrityError: bytes are altered.
    """
    found, judged = load(model, Model), load(decision, GateDecision)
    for name in found.document.files:
        found.path(name)
    return JudgedModel(found, judged)


def objection(
    decision: GateDecision, model: str, others: Mapping[str, str] = _NOTHING
) -> OtherBytes | NotPassed | None:
    """What speaks against this model (digest), with `others` that go with it (role -> digest); None: nothing does.

    A decision about other bytes is no verdict on these, so bytes come first.
    """
    for role, digest in {"model": model, **others}.items():
        if decision.inputs.get(role) != digest:
            return OtherBytes(role, digest, decision.inputs.get(role))
    return None if decision.verdict is Verdict.PASS else NotPassed(decision.verdict)


def foreign(decision: Artifact[GateDecision], policies: PolicyList | None) -> OtherPolicy | None:
    """Why the policy that decided does not count; None: it does, or there is no list."""
    if policies is None or policies.has_that_of(decision):
        return None
    return OtherPolicy(decision.document.policy_name, decision.document.policy)


def left_out(decision: GateDecision, given: Collection[str]) -> str | None:
    """The first role that the gate read and that is not among those `given`."""
    return min(set(decision.inputs) - set(given), default=None)
