"""Training: one loop from video files to checkpoints, the same on one process and under torchrun.

Every random choice of iteration i is a function of (seed, i, process), so that a run stopped and resumed ends
with the same weights as one that was never stopped (bit for bit on the CPU).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from nlnet.data import Batch, TrainClips, TrainTransform, VideoList, collate, normalize
from nlnet.engine.config import Config, ConfigError, TestConfig
from nlnet.engine.distributed import World
from nlnet.engine.evaluate import PRECISIONS, build_model, evaluate
from nlnet.engine.initial import load_initial
from nlnet.engine.interrupt import stop_requests
from nlnet.engine.loading import configured_videos, ignore_interrupts, sampling
from nlnet.engine.loss import check_labels, training_loss
from nlnet.engine.meter import Meter, TrainingError
from nlnet.engine.optimizer import create_optimizer, freeze_norms, set_rate
from nlnet.engine.precise import precise_statistics
from nlnet.engine.rundir import Checkpoint, RunDir, RunError
from nlnet.engine.schedule import learning_rate, scaled_rate
from nlnet.engine.stream import BatchSampler, Stream, mix
from nlnet.surgery import nonlocal_blocks
from nlnet.vitals import Watch, watch

GIB = 2**30


class Listener(Protocol):
    """Who watches a run: a progress bar, or nobody."""

    def begin(self, start: int, total: int, facts: Mapping[str, str]) -> None:
        """Training starts at iteration `start` of `total`."""

    def step(self, iteration: int) -> None:
        """`iteration` steps are done."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A line went to metrics.jsonl."""


class Silent:
    """A listener that does nothing."""

    def begin(self, start: int, total: int, facts: Mapping[str, str]) -> None:
        pass

    def step(self, iteration: int) -> None:
        pass

    def record(self, record: Mapping[str, Any]) -> None:
        pass


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
    """
    state = run.load_state() if resume else None
    return Trainer(config, run, world, listener or Silent(), state).run(until)


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
        self.judge = "video_map" if self.videos.multilabel else "clip_top1"
        """The validation's figure that says which checkpoint is the best; each video has one view there."""
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
        self.model = build_model(config, len(self.videos.classes))
        self.origin, self.transferred = self._initialise(state)
        self.model.checkpointing = config.training.checkpointing
        self.model.to(world.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.frozen = freeze_norms(self.model, self.transferred) if config.training.frozen_norm else []
        self.optimizer = create_optimizer(self.model, config.optimizer, self.transferred)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.training.precision == "fp16")
        self.network: nn.Module = self.model
        if world.size > 1:
            self.network = DistributedDataParallel(
                self.model, device_ids=[world.device.index] if world.device.type == "cuda" else None
            )
        self.peak = scaled_rate(config.optimizer.lr, config.training.batch, config.optimizer.reference_batch)
        self.best, self.metrics, self.start = float("-inf"), dict[str, float](), 0
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.best, self.start = state["best"], state["iteration"]

    def _initialise(self, state: dict[str, Any] | None) -> tuple[str | None, tuple[str, ...]]:
        """Load the checkpoint or `init.weights`; where the weights came from, and the names that came."""
        if state is not None:
            self.model.load_state_dict(state["model"])
            return f"the checkpoint at iteration {state['iteration']}", tuple(state["transferred"])
        origin, report = load_initial(self.model, self.config.init)
        return origin, report.transferred if report else ()

    def run(self, until: int | None) -> Outcome:
        start = self.start
        self._prepare_directory()
        total = self.config.schedule.iterations
        stop = total if until is None else min(until, total)
        self.listener.begin(start, total, self.facts())
        iteration = start
        with stop_requests() as requests:
            batches = self._batches(start, stop)
            meter = Meter(self.world)
            for iteration in range(start, stop):
                self._iterate(iteration, batches, meter)
                done = iteration + 1
                self.listener.step(done)
                if done % self.config.training.log_every == 0 or done == stop:
                    self._log(
                        {"kind": "train", "iteration": done, "lr": self._rate(iteration), **meter.take(done)}
                    )
                stopping = self.world.any(requests.stop) or done == stop
                self._save_and_validate(done, stopping)
                if stopping:
                    break
        done = max(start, iteration + 1) if stop > start else start
        return Outcome(iteration=done, interrupted=requests.stop and done < stop, metrics=self.metrics)

    def facts(self) -> dict[str, str]:
        """What a newcomer wants to know before the bar moves."""
        config, frames_stride = self.config, sampling(self.config)
        schedule = config.schedule
        facts = {
            "model": f"{config.model.name} ({sum(p.numel() for p in self.model.parameters()) / 1e6:.3f} M parameters, "
            f"{len(nonlocal_blocks(self.model))} non-local blocks)",
            "videos": f"{len(self.videos.items)} in {len(self.videos.classes)} classes ({self.videos.layout})"
            + (
                f", {len(self.validation.items)} for validation" if self.validation else ", no validation set"
            ),
            "clip": f"{frames_stride[0]} frames, every {frames_stride[1]}, {config.data.crop}×{config.data.crop}",
            "batch": f"{config.training.batch} clips = {self.world.size} × {config.training.accumulate} × "
            f"{config.training.batch // self.world.size // config.training.accumulate}",
            "rate": f"{self.peak:g}, {schedule.policy}, {schedule.iterations} iterations"
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
        if self.world.first and self.resumes:
            self.rundir.check_missing(self.missing)
            self.rundir.rewind(self.start)
        elif self.world.first:
            self.rundir.create(self.config, self.videos.classes, self.missing)
        self.world.barrier()

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
        loader = DataLoader(
            self.dataset,
            batch_sampler=self._sampler(start, stop),
            num_workers=self.config.data.workers,
            collate_fn=partial(collate, num_classes=len(self.videos.classes)),
            pin_memory=self.world.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
        )
        return iter(loader)

    def _clip(self, batch: Batch) -> Tensor:
        if batch.clips is None:
            raise TrainingError(
                f"no video of a whole batch could be read: {'; '.join(f.reason for f in batch.failures[:3])}"
            )
        clip = batch.clips.to(self.world.device, non_blocking=True)
        data = self.config.data
        return normalize(clip, data.mean, data.std).contiguous(memory_format=torch.channels_last_3d)

    def _autocast(self) -> torch.autocast:
        precision = self.config.training.precision
        return torch.autocast(self.world.device.type, PRECISIONS[precision], enabled=precision != "float32")

    def _rate(self, iteration: int) -> float:
        schedule = self.config.schedule
        return learning_rate(
            iteration,
            peak=self.peak,
            iterations=schedule.iterations,
            policy=schedule.policy,
            steps=schedule.steps,
            gamma=schedule.gamma,
            warmup=schedule.warmup,
            warmup_start=schedule.warmup_start,
        )

    def _training_mode(self) -> None:
        self.network.train()
        for module in self.frozen:
            module.eval()

    def _iterate(self, iteration: int, batches: Iterator[Batch], meter: Meter) -> None:
        """One optimiser step: forward and backward over the micro-batches, clip, update."""
        config = self.config.training
        self._training_mode()
        torch.manual_seed(mix(config.seed, iteration, self.world.rank, 3))
        set_rate(self.optimizer, self._rate(iteration))
        for step in range(config.accumulate):
            waited = time.perf_counter()
            batch = next(batches)
            meter.waited += time.perf_counter() - waited
            self._note_failures(iteration, batch)
            clip = self._clip(batch)
            assert batch.labels is not None, "read_training_videos refuses lists without labels"
            labels = batch.labels.to(self.world.device)
            last = step == config.accumulate - 1
            ddp = self.network if isinstance(self.network, DistributedDataParallel) else None
            with nullcontext() if last or ddp is None else ddp.no_sync():
                with self._autocast():
                    with self._watch(iteration, step) as watched:
                        logits = self.network(clip)
                    loss = training_loss(logits, labels, label_smoothing=config.label_smoothing)
                self.scaler.scale(loss / config.accumulate).backward()
            meter.add(loss.detach(), logits.detach(), labels)
            for path, signs in watched.read().items():
                self._log({"kind": "vitals", "iteration": iteration + 1, "block": path, **signs})
        if self.config.optimizer.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _watch(self, iteration: int, step: int) -> AbstractContextManager[Watch]:
        """Watch the blocks where it is due: the first process, in the iteration's first micro-batch."""
        every, done = self.config.training.vitals_every, iteration + 1
        due = every > 0 and (done % every == 0 or done in (1, self.config.schedule.iterations))
        return watch(nonlocal_blocks(self.model) if due and step == 0 and self.world.first else {})

    def _note_failures(self, iteration: int, batch: Batch) -> None:
        for failure in batch.failures:
            self._log(
                {
                    "kind": "skipped",
                    "iteration": iteration + 1,
                    "rank": self.world.rank,
                    "reason": failure.reason,
                },
                all=True,
            )

    def _log(self, record: dict[str, Any], *, all: bool = False) -> None:
        if self.world.first or all:
            self.rundir.log(record)
            self.listener.record(record)

    def _save_and_validate(self, done: int, stopping: bool) -> None:
        """Validate and write checkpoints where the schedule says so, and at the end."""
        config = self.config.training
        ends = done == self.config.schedule.iterations
        validates = self.validation is not None and (done % config.validate_every == 0 or ends)
        saves = validates or stopping or done % config.checkpoint_every == 0
        if not saves:
            return
        with self._statistics(done):
            if validates:
                self._validate(done)
            if self.world.first:
                self._write_weights(done, validates)
        if self.world.first:
            self.rundir.save_state(
                {
                    "config": self.config.model_dump_json(),
                    "iteration": done,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "transferred": list(self.transferred),
                    "best": self.best,
                }
            )
        self.world.barrier()

    def _statistics(self, done: int) -> AbstractContextManager[None]:
        count = self.config.training.precise_norm
        if count == 0:
            return nullcontext()
        self._training_mode()
        clips = (self._clip(batch) for batch in self._batches(done, done + count))

        def run(clip: Tensor) -> object:
            with self._autocast():
                return self.model.features(clip)

        return precise_statistics(self.model, run, clips, self.world)

    def _validate(self, done: int) -> None:
        assert self.validation is not None
        crop = self.config.data.crop
        single = TestConfig(
            clips=1, crops=1, protocol="single", crop=crop, short_side=max(crop, self.config.data.scales[0])
        )
        evaluation = evaluate(self.model, self.validation, self.config, world=self.world, test=single)
        scores = evaluation.metrics()
        self.metrics = {
            name: scores[name] for name in scores if name.startswith("clip_") or name == self.judge
        }
        record = {
            "kind": "validation",
            "iteration": done,
            **self.metrics,
            "failures": len(evaluation.failures),
        }
        self._log(record)

    def _write_weights(self, done: int, validated: bool) -> None:
        checkpoint = Checkpoint(
            weights=self.model.state_dict(),
            config=self.config,
            classes=self.videos.classes,
            iteration=done,
            metrics=self.metrics if validated else {},
        )
        self.rundir.save("last", checkpoint)
        if validated and self.metrics[self.judge] > self.best:
            self.best = self.metrics[self.judge]
            self.rundir.save("best", checkpoint)


def read_training_videos(config: Config) -> tuple[VideoList, VideoList | None]:
    """The training list and, if configured, the validation list with the same classes."""
    data = config.data
    if data.train is None:
        raise ConfigError(
            "data.train: not set; give a folder of class folders or a list file, as data.train=PATH"
        )
    train = configured_videos(data, data.train)
    check_labels(train, config.training.loss, data.train)
    if data.val is None:
        return train, None
    validation = configured_videos(data, data.val, train.classes)
    check_labels(validation, config.training.loss, data.val)
    return train, validation
