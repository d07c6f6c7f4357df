"""Training: one loop from video files to checkpoints, the same on one process and under torchrun.

Every random choice of iteration i is a function of (seed, i, process), so that a run stopped and resumed ends
with the same weights as one that was never stopped (bit for bit on the CPU).
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nlnet.data import Batch, TrainClips, TrainTransform
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.distributed import World
from nlnet.engine.network import build_model
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.signals import stop_requests
from nlnet.engine.training.callbacks import Listener, Silent
from nlnet.engine.training.initial_weights import load_initial
from nlnet.engine.training.loader import TrainLoader
from nlnet.engine.training.meter import Meter
from nlnet.engine.training.sampler import BatchSampler, Stream, mix
from nlnet.engine.training.saving import Saver
from nlnet.engine.training.step import Learner
from nlnet.engine.training.videos import change, identity, read_training_videos
from nlnet.errors import RunError, TrainingError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet

__all__ = ["Listener", "Outcome", "Silent", "read_training_videos", "train"]

GIB = 2**30
BARREN_IN_A_ROW = 8
"""Iterations without a readable video that end a run: with one clip an iteration a few are bad luck."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    iteration: int
    """Iterations done."""
    interrupted: bool
    """Stopped by a signal before its time; `resume` continues."""
    metrics: dict[str, float]
    """The last validation."""


def train(
    config: Config,
    run: RunDir,
    world: World,
    *,
    resume: bool = False,
    until: int | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Train as configured, into the run directory.

    Args:
        resume: go on from the directory's last checkpoint instead of starting.
        until: stop, with a checkpoint, once this many iterations are done (a part of a longer run).

    SIGINT and SIGTERM end the run after the current iteration, with a checkpoint.

    Raises:
        RunError: the directory holds a run already, or none to resume, or one of another configuration or other
            videos, or another process is at work there. TrainingError: the loss or a weight is no number, or no
            video could be read for several iterations. ProcessError: another process of the run failed.
    """
    with ExitStack() as held:
        state = None
        if resume:
            run.require_state()
            held.enter_context(sole(run, world))
            with world.together():
                state = run.load_state()
        with world.together():
            trainer = Trainer(config, run, world, listener or Silent(), state)
        if not resume:
            held.enter_context(sole(run, world))
        return trainer.run(until)


@contextmanager
def sole(run: RunDir, world: World) -> Iterator[None]:
    """Inside, the first process holds the directory's lock for all."""
    with ExitStack() as held:
        with world.together():
            if world.first:
                held.enter_context(run.lock())
        yield


class Trainer:
    """The state of one training run."""

    def __init__(
        self, config: Config, run: RunDir, world: World, listener: Listener, state: dict[str, Any] | None
    ) -> None:
        if state is not None and state["config"] != config.model_dump_json():
            raise RunError(f"{run.path}: its checkpoint was made with another configuration")
        self.config, self.rundir, self.world, self.listener = config, run, world, listener
        self.resumes = state is not None
        if not self.resumes:
            run.refuse_if_used()
        self.videos, self.validation = read_training_videos(config)
        lists = [videos for videos in (self.videos, self.validation) if videos is not None]
        self.missing = {str(v.source): [str(path) for path in v.missing] for v in lists if v.missing}
        """Videos left out because the disk lacks them, by the list that names them."""
        self.identities = {str(v.source): identity(v, config.data.root) for v in lists}
        if state is not None:
            run.check_missing(self.missing)
            self._refuse_other_videos(state.get("videos", {}))
        frames, stride = sampling(config)
        self.dataset = TrainClips(
            self.videos,
            length=frames,
            stride=stride,
            transform=TrainTransform(config.data.crop, config.data.scales, config.data.flip),
            cache_bytes=int(config.data.cache_gib * GIB),
        )
        self.stream = Stream(len(self.videos.items), config.training.seed)
        self._sampler(0, 0)  # a batch that does not divide is told before any work
        torch.manual_seed(mix(config.training.seed, 0, 2))
        model = build_model(config, len(self.videos.classes))
        self.origin, self.transferred = self._initialise(model, state)
        self.learner = Learner(model, config, world, self.transferred)
        self.saver = Saver(
            config,
            run,
            world,
            model=model,
            videos=self.videos,
            validation=self.validation,
            statistics=self._statistics,
            log=self._log,
        )
        self.barren, self.reasons, self.start = 0, deque[str](maxlen=3), 0
        if state is not None:
            self.learner.load(state)
            self.start = state["iteration"]

    def _refuse_other_videos(self, before: Mapping[str, Any]) -> None:
        """Raise where a list is not the one that the run began with: the stream of samples would be another."""
        for source, known in before.items():
            changed = change(known, self.identities[source])
            if changed is not None:
                raise RunError(
                    f"{self.rundir.path}: {source} has changed since the run began: {changed}; a run goes on with "
                    "the videos that it began with"
                )

    def _initialise(
        self, model: VideoResNet, state: Mapping[str, Any] | None
    ) -> tuple[str | None, tuple[str, ...]]:
        """Load the checkpoint or `init.weights`; where the weights came from, and the names that came."""
        if state is not None:
            model.load_state_dict(state["model"])
            return f"the checkpoint at iteration {state['iteration']}", tuple(state["transferred"])
        origin, report = load_initial(model, self.config.init)
        return origin, report.transferred if report else ()

    def _state(self, done: int) -> dict[str, Any]:
        return self.learner.state() | {
            "config": self.config.model_dump_json(),
            "videos": self.identities,
            "iteration": done,
            "transferred": list(self.transferred),
        }

    def run(self, until: int | None) -> Outcome:
        """Train until the schedule's end, `until`, or a signal."""
        done = self.start
        self._prepare_directory()
        self.learner.distribute()
        total = self.config.schedule.iterations
        stop = total if until is None else min(until, total)
        self.listener.begin(done, total, self.facts())
        asked = False
        with stop_requests() as requests:
            if self.resumes:
                self.saver.catch_up(done)
            batches = self._batches(done, stop)
            meter = Meter(self.world, multilabel=self.videos.multilabel)
            while done < stop and not asked:
                note = partial(self._note, done + 1)
                asked, clips = self.learner.step(done, batches, meter, stop=lambda: requests.stop, note=note)
                self._refuse_barren(clips)
                done += 1
                self.listener.step(done)
                saves = asked or done == stop or self.saver.saves(done)
                if saves or done % self.config.training.log_every == 0:
                    self._log_training(done, meter)
                if saves:
                    self.saver.save(done, partial(self._state, done))
        return Outcome(iteration=done, interrupted=asked and done < stop, metrics=self.saver.metrics)

    def _refuse_barren(self, clips: int) -> None:
        """Raise after several iterations in a row in which no process could read a video."""
        self.barren = 0 if clips > 0 else self.barren + 1
        if self.barren >= min(BARREN_IN_A_ROW, self.config.schedule.iterations):
            raise TrainingError(
                f"no video of a whole batch could be read: {'; '.join(self.reasons)} (batch {self.barren} in a row)"
            )

    def _note(self, iteration: int, record: Mapping[str, Any]) -> None:
        """Log what the learner met. Every process tells what it could not read."""
        if record["kind"] == "skipped":
            self.reasons.append(record["reason"])
        self._log({"kind": record["kind"], "iteration": iteration, **record}, all=record["kind"] == "skipped")

    def _log_training(self, done: int, meter: Meter) -> None:
        """A line of the means since the last one, which checks the loss; none where no clip was read since."""
        values = meter.take(done)
        if values is not None:
            self._log({"kind": "train", "iteration": done, "lr": self.learner.rate(done - 1), **values})

    def facts(self) -> dict[str, str]:
        """What a newcomer wants to know before the bar moves."""
        config, frames_stride = self.config, sampling(self.config)
        model, schedule = self.learner.model, config.schedule
        facts = {
            "model": f"{config.model.name} ({sum(p.numel() for p in model.parameters()) / 1e6:.3f} M parameters, "
            f"{len(nonlocal_blocks(model))} non-local blocks)",
            "videos": f"{len(self.videos.items)} in {len(self.videos.classes)} classes ({self.videos.layout})"
            + (
                f", {len(self.validation.items)} for validation" if self.validation else ", no validation set"
            ),
            "clip": f"{frames_stride[0]} frames, every {frames_stride[1]}, {config.data.crop}×{config.data.crop}",
            "batch": f"{config.training.batch} clips = {self.world.size} × {config.training.accumulate} × "
            f"{config.training.batch // self.world.size // config.training.accumulate}",
            "rate": f"{self.learner.peak:g}, {schedule.policy}, {schedule.iterations} iterations"
            f" = {schedule.iterations * config.training.batch / len(self.videos.items):.1f} epochs",
            "device": f"{self.world.device}, {config.training.precision}",
        }
        if self.origin is not None:
            facts["from"] = self.origin
        if self.missing:
            left_out = ", ".join(f"{len(paths)} of {source}" for source, paths in self.missing.items())
            facts["left out"] = (
                f"videos that the disk lacks: {left_out}; listed in {self.rundir.missing_path}"
            )
        return facts

    def _prepare_directory(self) -> None:
        with self.world.together():
            if self.world.first and self.resumes:
                self.rundir.rewind(self.start)
            elif self.world.first:
                self.rundir.create(self.config, self.videos.classes, self.missing)
            if self.world.first:
                self.rundir.sign(self.start)

    def _sampler(self, start: int, stop: int) -> BatchSampler:
        return BatchSampler(
            self.stream,
            start=start,
            stop=stop,
            batch=self.config.training.batch,
            accumulate=self.config.training.accumulate,
            rank=self.world.rank,
            world=self.world.size,
        )

    def _batches(self, start: int, stop: int) -> Iterator[Batch]:
        loader = TrainLoader(
            self.dataset,
            self._sampler(start, stop),
            workers=self.config.data.workers,
            num_classes=len(self.videos.classes),
            pin=self.world.device.type == "cuda",
        )
        return iter(loader)

    def _log(self, record: dict[str, Any], *, all: bool = False) -> None:
        if self.world.first or all:
            self.rundir.log(record)
            self.listener.record(record)

    def _statistics(self, done: int) -> AbstractContextManager[None]:
        """Inside, the batch norms are precise: measured on the batches that come after `done` iterations."""
        count = self.config.training.precise_norm
        return self.learner.statistics(self._batches(done, done + count)) if count else nullcontext()
