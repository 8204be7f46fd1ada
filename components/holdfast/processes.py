"""Child processes that never outlive their parent, not even a parent that is killed."""

import ctypes
import signal

PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Asks the kernel to send `with_signal` to this process when its parent is gone (Linux, prctl(2)).

    Made to be a `preexec_fn`: it allocates nothing after the fork.
    """
    _PRCTL(PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)
