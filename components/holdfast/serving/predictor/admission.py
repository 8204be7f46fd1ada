"""Whether a model may be served at all: its very bytes, and a gate decision that passed them. Light: no numpy."""

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.artifacts import admission
from holdfast.artifacts.admission import JudgedModel, NotPassed, Objection, OtherBytes, OtherPolicy
from holdfast.artifacts.documents import Model
from holdfast.artifacts.folder import DOCUMENT, Artifact, Ref, load_any
from holdfast.artifacts.policies import PolicyList
from holdfast.errors import ArtifactError, RefusedError

if TYPE_CHECKING:
    from holdfast.attestation.demands import Demands
    from holdfast.serving.predictor.settings import ModelParameters


def admit(model: Ref, decision: Ref, trust: Path | None = None, *, incumbent: bool = False) -> Artifact[Model]:
    """The model artifact, after all its bytes were checked and the decision was found to be a pass for them.

    The policy that decided must be one that ships, or that `trust` (a trust policy) names. With `trust`, or where the
    gate's policy requires signatures, those next to the decision's folder (`attestations/`), with the evidence
    (`evidence/`), must hold, too. How old the verdict on an `incumbent` is, which serves already and is only being
    replaced, is not asked.

    Raises:
        RefusedError: altered bytes, no decision, another model's decision, a verdict other than pass, a policy that
            does not count, or a signature that is demanded is missing.
        WorkloadError: `trust` is no trust policy.
    """
    try:
        judged = admission.read(model, decision)
    except ArtifactError as error:
        raise RefusedError(f"{error}; the model is not served") from error
    # What is signed is not read, and its libraries are not loaded, where nothing need be.
    demands = _demands(trust, incumbent) if trust is not None or judged.decision.document.require.attested else None
    unsigned = None if incumbent else PolicyList()
    wrong = judged.objection(unsigned if demands is None else demands.policies)
    if wrong is not None:
        raise RefusedError(f"{decision.folder}: {_text(wrong)}")
    if demands is not None:
        _meet(demands, judged)
    return judged.model


def admit_named(given: "ModelParameters") -> Artifact[Model]:
    """As `admit`, of what a server's parameters name."""
    return admit(given.model, given.decision, given.trust, incumbent=given.incumbent)


def _demands(trust: Path | None, incumbent: bool) -> "Demands":
    from holdfast.attestation.demands import Demands

    return Demands.of(trust, incumbent=incumbent)


def _meet(demands: "Demands", judged: JudgedModel) -> None:
    from holdfast.attestation.demands import bundles_of

    folder = judged.decision.folder.resolve().parent
    evidence = [load_any(path.parent) for path in sorted((folder / "evidence").glob(f"*/{DOCUMENT}"))]
    demands.meet(judged.decision, (judged.model, *evidence), bundles_of(folder))


def _text(wrong: Objection) -> str:
    match wrong:
        case OtherBytes(given=given, judged=judged):
            found = (judged or "no model")[:12]
            return f"expected a decision on model {given[:12]}…, found one on {found}…; the model is not served"
        case NotPassed(verdict=verdict):
            return f"expected verdict pass, found {verdict}; not served"
        case OtherPolicy():
            return f"{wrong}; not served"
