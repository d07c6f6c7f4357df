"""The learning rate of every iteration (§4.1; release: `steps_with_relative_lrs`).

learning_rate   the formula
scheduled_rate  the formula with the numbers of a configuration
phases          the whole schedule in pieces, for tables
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nlnet.engine.config import Config
from nlnet.errors import ConfigError


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
    """The learning rate of an iteration, counted from 0.

    step: peak · gamma^(number of `steps` at or before the iteration).
    cosine: peak · (1 + cos(π·iteration/iterations)) / 2.
    Before `warmup` iterations that value is multiplied by a factor rising linearly from `warmup_start` to 1.

    Raises:
        ConfigError: an unknown policy.
    """
    if policy == "step":
        rate = peak * gamma ** sum(iteration >= step for step in steps)
    elif policy == "cosine":
        rate = peak * (1 + math.cos(math.pi * iteration / iterations)) / 2
    else:
        raise ConfigError(f"schedule.policy: got {policy!r}, expected 'step' or 'cosine'")
    if iteration < warmup:
        rate *= warmup_start + (1 - warmup_start) * iteration / warmup
    return rate


def scaled_rate(lr: float, batch: int, reference_batch: int) -> float:
    """The linear scaling rule, lr · batch / reference_batch (0.01 at 64 clips in the paper)."""
    return lr * batch / reference_batch


def peak_rate(config: Config) -> float:
    """The highest learning rate of a run, scaled to its batch."""
    return scaled_rate(config.optimizer.lr, config.training.batch, config.optimizer.reference_batch)


def scheduled_rate(config: Config, iteration: int) -> float:
    """The learning rate of an iteration of a configured run, counted from 0."""
    schedule = config.schedule
    return learning_rate(
        iteration,
        peak=peak_rate(config),
        iterations=schedule.iterations,
        policy=schedule.policy,
        steps=schedule.steps,
        gamma=schedule.gamma,
        warmup=schedule.warmup,
        warmup_start=schedule.warmup_start,
    )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Iterations [start, stop) and the learning rate of the first and the last of them."""

    start: int
    stop: int
    first_rate: float
    last_rate: float
    epochs: tuple[float, float] | None
    """Start and stop in epochs; None if the number of videos is unknown."""


def phases(config: Config, videos: int | None) -> list[Phase]:
    """The schedule in pieces: the warm-up, then one piece for each constant rate, or the whole cosine.

    `videos` is the number of training videos, an epoch; None if it is unknown.
    """
    schedule = config.schedule
    steps = schedule.steps if schedule.policy == "step" else ()
    # steps beyond the last iteration never come
    inner = {edge for edge in (schedule.warmup, *steps) if 0 < edge < schedule.iterations}
    edges = [0, *sorted(inner), schedule.iterations]
    epoch = None if videos is None else config.training.batch / videos
    return [
        Phase(
            start=start,
            stop=stop,
            first_rate=scheduled_rate(config, start),
            last_rate=scheduled_rate(config, stop - 1),
            epochs=None if epoch is None else (start * epoch, stop * epoch),
        )
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def rates(phase: Phase) -> str:
    """The learning rate of a phase as text: one number, or first … last."""
    if phase.first_rate == phase.last_rate:
        return f"{phase.first_rate:.3g}"
    return f"{phase.first_rate:.3g} … {phase.last_rate:.3g}"
