"""Ending with the process that one was started by, however that ends."""

import ctypes
import signal
import sys

_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
"""Looked up before any fork: a forked process does next to nothing before it becomes another program."""
_SET_SIGNAL_ON_PARENTS_DEATH = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process the signal when its parent dies, by SIGKILL too (Linux; elsewhere nothing)."""
    if _PRCTL is not None:
        _PRCTL(_SET_SIGNAL_ON_PARENTS_DEATH, number)
