"""Why a rollout ended without a promotion, and what a person does about it; light, so that everything may import it."""

import signal
from enum import StrEnum


class Cause(StrEnum):
    """Where the fault was.

    Only the model's own fault locks its digest. A candidate is taken out of traffic as soon as its server is gone, but
    a process that the kernel or a person killed is no evidence about the model: the same bytes may be tried again.
    """

    NONE = "none"
    """It goes on, or was promoted."""
    MODEL = "model"
    """Its answers failed, were broken, wrong or slow by a test, or its process crashed by itself."""
    SERVER = "server"
    """Its process was ended from outside, or its address did not answer; nothing is known about the model."""
    CHAMPION = "champion"
    """The champion was gone, or failed as well: there was nothing to compare with."""
    HOST = "host"
    """The machine was too busy, or its disk too full, to judge."""
    ROUTER = "router"
    """The traffic was not split as wanted."""
    GATE = "gate"
    """The gate's decision, on which the rollout rests, does not hold any more."""
    EVIDENCE = "evidence"
    """Too little was seen in the time that the plan gives."""
    OPERATOR = "operator"
    """A person or a stop signal ended it, or it was not approved in time."""

    @property
    def passes(self) -> bool:
        """Whether it may be gone a little later, so that the same rollout may be tried again without a person."""
        return self in (Cause.HOST, Cause.EVIDENCE)

    @property
    def locks(self) -> bool:
        """Whether a rollback for it refuses the same bytes under the same decision of the gate."""
        return self is Cause.MODEL

    @property
    def words(self) -> str:
        """The cause for people."""
        return _WORDS[self]

    @property
    def advice(self) -> str:
        """What a person does next, in one sentence."""
        return _ADVICE[self]


def of_exit(code: int | None) -> Cause:
    """Whose fault the end of a server's process was; `code` is its exit code, or minus the number of a signal.

    A process that raised a signal against itself (a segmentation fault, an abort), or that exited with an error while
    it was to serve, crashed by itself. Any other signal came from outside: the kernel short of memory, or a person. It
    is as unknown as an end that was not seen (None), and exit code 0 is what a server gives that was asked to stop.
    """
    if code is None or code == 0 or (code < 0 and -code not in _CRASHES):
        return Cause.SERVER
    return Cause.MODEL


_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
)
"""Signals that a process gets for what it does itself."""
_WORDS = {
    Cause.NONE: "no fault",
    Cause.MODEL: "the model's own fault",
    Cause.SERVER: "the candidate's server, not known to be the model's fault",
    Cause.CHAMPION: "the champion failed",
    Cause.HOST: "the machine was too busy or too full to judge",
    Cause.ROUTER: "the traffic was not split as wanted",
    Cause.GATE: "the gate's decision does not hold any more",
    Cause.EVIDENCE: "too little was seen",
    Cause.OPERATOR: "ended by a person or a signal",
}
_ADVICE = {
    Cause.NONE: "Nothing is to be done.",
    Cause.MODEL: (
        "Train or repair the model, let the gate judge it and register what passes; this version is refused until then."
    ),
    Cause.SERVER: "Read the end of the candidate's log, mend what ended its server, then start it again as it is.",
    Cause.CHAMPION: "Mend the champion or its server first, then start it again as it is.",
    Cause.HOST: "Start it again as it is when the machine is less busy and its disk has room.",
    Cause.ROUTER: "Look at the router and at who else changes its routes, then start it again as it is.",
    Cause.GATE: "Let the gate judge the model again, register what passes and start that version.",
    Cause.EVIDENCE: "Start it again as it is, with more traffic or more time for each step in the plan.",
    Cause.OPERATOR: "Start it again as it is when it is wanted.",
}
