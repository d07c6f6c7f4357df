"""Learning rates as a pure function of the iteration (§4.1; release: `steps_with_relative_lrs`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nlnet.engine.config import Config


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


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Iterations [start, stop) and the learning rate at their two ends."""

    start: int
    stop: int
    first_rate: float
    last_rate: float
    epochs: tuple[float, float] | None
    """None where nobody knows the number of videos."""


def phases(config: Config, videos: int | None) -> list[Phase]:
    """The schedule in pieces: warm-up, then a piece for each rate of the steps, or the whole cosine.

    `videos` is the number of them in an epoch, where it is known.
    """
    schedule = config.schedule
    peak = scaled_rate(config.optimizer.lr, config.training.batch, config.optimizer.reference_batch)

    def rate(iteration: int) -> float:
        return learning_rate(
            iteration,
            peak=peak,
            iterations=schedule.iterations,
            policy=schedule.policy,
            steps=schedule.steps,
            gamma=schedule.gamma,
            warmup=schedule.warmup,
            warmup_start=schedule.warmup_start,
        )

    steps = schedule.steps if schedule.policy == "step" else ()
    inner = {edge for edge in (schedule.warmup, *steps) if 0 < edge < schedule.iterations}
    edges = [0, *sorted(inner), schedule.iterations]
    epoch = None if videos is None else config.training.batch / videos
    return [
        Phase(
            start=start,
            stop=stop,
            first_rate=rate(start),
            last_rate=rate(stop - 1),
            epochs=None if epoch is None else (start * epoch, stop * epoch),
        )
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def rates(phase: Phase) -> str:
    """The rate, or the two that it goes between."""
    if phase.first_rate == phase.last_rate:
        return f"{phase.first_rate:.3g}"
    return f"{phase.first_rate:.3g} … {phase.last_rate:.3g}"
