"""Training: one loop from video files to checkpoints, the same on one process and under torchrun.

Every random choice of iteration i is a function of (seed, i, process), so that a run stopped and resumed ends
with the same weights as one that was never stopped (bit for bit on the CPU).
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from nlnet.engine.config import Config
from nlnet.engine.distributed import World
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.signals import stop_requests
from nlnet.engine.training.callbacks import NoCallback, RunLog, TrainingCallback
from nlnet.engine.training.loss import Meter
from nlnet.engine.training.schedule import scheduled_rate
from nlnet.engine.training.setup import TrainingSetup, prepare
from nlnet.errors import TrainingError

MAX_UNREADABLE = 8
"""Iterations in a row without a readable video that end a run: with one clip an iteration a few are bad luck."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    iteration: int
    """Iterations done."""
    interrupted: bool
    """Whether a signal stopped the run before its last iteration; `resume` continues it."""
    metrics: dict[str, float]
    """Metrics of the last validation."""


def train(
    config: Config,
    run: RunDir,
    world: World,
    *,
    resume: bool = False,
    until: int | None = None,
    callback: TrainingCallback | None = None,
) -> Outcome:
    """Train as configured, and write everything to the run directory.

    SIGINT and SIGTERM end the run after the current iteration, with a checkpoint.

    Args:
        resume: continue from the directory's training state instead of starting a new run.
        until: stop, with a checkpoint, after this many iterations (a part of a longer run).

    Raises:
        RunError: the directory holds a run already, or none to resume, or one of another configuration or of other
            videos, or another process trains in it.
        TrainingError: the loss or a weight is NaN or infinite, or no video could be read in several iterations.
        ProcessError: another process of the run failed.
    """
    callback = callback or NoCallback()
    with ExitStack() as stack:
        state = None
        if resume:
            run.require_state()
            # before the state is read: another process may be about to replace it
            stack.enter_context(locked(run, world))
            with world.together():
                state = run.load_state()
        with world.together():
            setup = prepare(config, run, world, RunLog(run, world, callback), state)
        if not resume:
            # after all checks: locking makes the directory, and a wrong configuration should leave nothing behind
            stack.enter_context(locked(run, world))
        return Trainer(setup, callback).run(until)


@contextmanager
def locked(run: RunDir, world: World) -> Iterator[None]:
    """Hold the directory's lock inside the `with`; the first process does it for all."""
    with ExitStack() as stack:
        with world.together():
            if world.first:
                stack.enter_context(run.lock())
        yield


class Trainer:
    """The training loop."""

    def __init__(self, setup: TrainingSetup, callback: TrainingCallback) -> None:
        self.setup, self.callback = setup, callback
        self.config, self.world, self.log = setup.config, setup.world, setup.log
        self.unreadable = 0
        """Iterations in a row, up to now, without a readable video."""
        self.reasons = deque[str](maxlen=3)
        """The newest reasons why videos could not be read."""

    def run(self, until: int | None) -> Outcome:
        """Train until the end of the schedule, iteration `until`, or a signal."""
        learner, saver, done = self.setup.learner, self.setup.saver, self.setup.start
        self._start_directory()
        learner.distribute()
        total = self.config.schedule.iterations
        last = total if until is None else min(until, total)
        self.callback.begin(done, total, self.setup.facts())
        stopped = False
        with stop_requests() as requests:
            if self.setup.resumed:
                saver.finish_interrupted_save(done)
            # inside stop_requests: the workers start with SIGTERM blocked
            batches = self.setup.batches.between(done, last)
            meter = Meter(self.world, multilabel=self.setup.videos.train.multilabel)
            while done < last and not stopped:
                note = partial(self._note, done + 1)
                stopped, clips = learner.step(done, batches, meter, stop=lambda: requests.stop, note=note)
                self._check_readable(clips)
                done += 1
                self.callback.step(done)
                save = stopped or done == last or saver.save_due(done)
                # before each save as well: this checks that the loss is finite
                if save or done % self.config.training.log_every == 0:
                    self._log_training(done, meter)
                if save:
                    saver.save(done, partial(self.setup.state, done))
        return Outcome(iteration=done, interrupted=stopped and done < last, metrics=saver.metrics)

    def _start_directory(self) -> None:
        """Create or rewind the run directory, and record the session in it."""
        setup = self.setup
        with self.world.together():
            if self.world.first and setup.resumed:
                setup.run.rewind(setup.start)
            elif self.world.first:
                setup.run.create(self.config, setup.videos.train.classes, setup.videos.missing)
            if self.world.first:
                setup.run.record_session(setup.start)

    def _check_readable(self, clips: int) -> None:
        """Raise TrainingError after several iterations in a row in which no process could read a video."""
        self.unreadable = 0 if clips > 0 else self.unreadable + 1
        if self.unreadable >= min(MAX_UNREADABLE, self.config.schedule.iterations):
            raise TrainingError(
                f"no video could be read in {self.unreadable} iterations in a row: {'; '.join(self.reasons)}"
            )

    def _note(self, iteration: int, record: Mapping[str, Any]) -> None:
        """Log a record of the learner; each process logs the videos that it could not read."""
        skipped = record["kind"] == "skipped"
        if skipped:
            self.reasons.append(record["reason"])
        self.log({"kind": record["kind"], "iteration": iteration, **record}, all_processes=skipped)

    def _log_training(self, done: int, meter: Meter) -> None:
        """Log the means since the last log line, and check the loss; log nothing if no clip was read."""
        values = meter.take(done)
        if values is not None:
            self.log(
                {
                    "kind": "train",
                    "iteration": done,
                    "lr": scheduled_rate(self.config, done - 1),
                    **values,
                }
            )
