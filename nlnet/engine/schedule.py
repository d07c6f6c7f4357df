"""Learning rates as a pure function of the iteration (§4.1; release: `steps_with_relative_lrs`)."""

import math
from collections.abc import Sequence


def learning_rate(
    iteration: int,
    *,
    peak: float,
    iterations: int,
    policy: str = "step",
    steps: Sequence[int] = (),
    gamma: float = 0.1,
    warmup: int = 0,
    warmup_start: float = 0.1,
) -> float:
    """The rate of the optimiser step number `iteration`, counted from 0.

    step: peak · gamma^(number of `steps` at or before the iteration).
    cosine: peak · (1 + cos(π·iteration/iterations)) / 2.
    Before `warmup` iterations that value is multiplied by a factor rising linearly from `warmup_start` to 1.
    """
    if policy == "step":
        rate = peak * gamma ** sum(iteration >= step for step in steps)
    elif policy == "cosine":
        rate = peak * (1 + math.cos(math.pi * iteration / iterations)) / 2
    else:
        raise ValueError(f"policy: got {policy!r}, expected 'step' or 'cosine'")
    if iteration < warmup:
        rate *= warmup_start + (1 - warmup_start) * iteration / warmup
    return rate


def scaled_rate(lr: float, batch: int, reference_batch: int) -> float:
    """The linear scaling rule: the rate grows with the batch (0.01 at 64 clips in the paper)."""
    return lr * batch / reference_batch
