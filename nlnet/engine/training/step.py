"""What learns: a network, its optimiser, and one step of the two on the batches of all processes."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nlnet.block_stats import Watch, watch
from nlnet.data import Batch
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.distributed import World
from nlnet.engine.network import PRECISIONS
from nlnet.engine.training.batch_norms import clips_of, norms_for, precise_statistics
from nlnet.engine.training.loss import training_loss
from nlnet.engine.training.meter import Meter
from nlnet.engine.training.optimizer import create_optimizer, freeze_norms, set_rate
from nlnet.engine.training.sampler import mix
from nlnet.engine.training.schedule import learning_rate, scaled_rate
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet


class Learner:
    """A network in training. `transferred` are the names of its weights that came from elsewhere."""

    def __init__(
        self, model: VideoResNet, config: Config, world: World, transferred: Collection[str]
    ) -> None:
        self.model, self.config, self.world = model, config, world
        model.checkpointing = config.training.checkpointing
        model.to(world.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.frozen = freeze_norms(model, transferred) if config.training.frozen_norm else []
        self.optimizer = create_optimizer(model, config.optimizer, transferred)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.training.precision == "fp16")
        self.frames, _ = sampling(config)
        self.peak = scaled_rate(config.optimizer.lr, config.training.batch, config.optimizer.reference_batch)
        self.network: nn.Module = torch.compile(model) if config.training.compile else model  # type: ignore[assignment]
        self.parallel: DistributedDataParallel | None = None

    def distribute(self) -> None:
        """Join the other processes' networks; all do it at the same time."""
        if self.world.size > 1:
            devices = [self.world.device.index] if self.world.device.type == "cuda" else None
            self.network = self.parallel = DistributedDataParallel(self.network, device_ids=devices)

    def state(self) -> dict[str, Any]:
        """What learning goes on from."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the optimiser's part of `state`; the network's is loaded before there is an optimiser."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def rate(self, iteration: int) -> float:
        """The learning rate of a step."""
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

    def step(
        self,
        iteration: int,
        batches: Iterator[Batch],
        meter: Meter,
        *,
        stop: Callable[[], bool],
        note: Callable[[dict[str, Any]], None],
    ) -> tuple[bool, int]:
        """Forward and backward over the micro-batches of an iteration, clip, update.

        A video that cannot be read leaves its micro-batch smaller; a micro-batch without any adds nothing to the
        gradient, and an iteration without any changes no weight. `note` is given the vital signs of the blocks
        where they are due, and what could not be read.

        Returns whether some process is to `stop`, and the clips that were read, of all processes.
        """
        config = self.config.training
        self._training_mode()
        torch.manual_seed(mix(config.seed, iteration, self.world.rank, 3))
        set_rate(self.optimizer, self.rate(iteration))
        clips = 0
        for part in range(config.accumulate):
            waited = time.perf_counter()
            batch = next(batches)
            meter.waited += time.perf_counter() - waited
            meter.unread += len(batch.failures)
            clips += len(batch.indices)
            for failure in batch.failures:
                note({"kind": "skipped", "rank": self.world.rank, "reason": failure.reason})
            last = part == config.accumulate - 1
            with nullcontext() if last or self.parallel is None else self.parallel.no_sync():
                for signs in self._add_gradient(iteration, part, batch, meter):
                    note(signs)
        asked, clips = self.world.count(int(stop()), clips)
        if clips > 0:
            self._update()
        self.optimizer.zero_grad(set_to_none=True)
        return asked > 0, clips

    def statistics(self, batches: Iterable[Batch]) -> AbstractContextManager[None]:
        """Inside, the batch norms hold statistics measured on `batches` with the weights of now."""
        self._training_mode()
        clips = (self._clips(batch) for batch in batches if batch.clips is not None or self.world.size > 1)

        def run(clip: Tensor) -> object:
            with self._autocast():
                return self.model.features(clip)

        return precise_statistics(self.model, run, clips, self.world)

    def _add_gradient(
        self, iteration: int, part: int, batch: Batch, meter: Meter
    ) -> Iterator[dict[str, Any]]:
        """Forward and backward of one micro-batch, and the vital signs of its blocks.

        One without clips is gone through only where other processes wait for it.
        """
        config = self.config.training
        if batch.clips is None and self.world.size == 1:
            return
        clip = self._clips(batch)
        with norms_for(self.model, clip):
            with self._autocast():
                with self._watch(iteration, part, batch) as watched:
                    logits = self.network(clip)
                if batch.clips is None:
                    loss = logits.sum()  # of nothing: zero, and so is its gradient
                else:
                    assert batch.labels is not None, "read_training_videos refuses lists without labels"
                    labels = batch.labels.to(self.world.device, non_blocking=True)
                    loss = training_loss(logits, labels, label_smoothing=config.label_smoothing)
                    meter.add(loss.detach(), logits.detach(), labels)
            self.scaler.scale(loss / config.accumulate).backward()
        for path, signs in watched.read().items():
            yield {"kind": "vitals", "block": path, **signs}

    def _update(self) -> None:
        if self.config.optimizer.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _clips(self, batch: Batch) -> Tensor:
        return clips_of(batch, self.config.data, frames=self.frames, device=self.world.device)

    def _autocast(self) -> torch.autocast:
        precision = self.config.training.precision
        return torch.autocast(self.world.device.type, PRECISIONS[precision], enabled=precision != "float32")

    def _training_mode(self) -> None:
        self.network.train()
        for module in self.frozen:
            module.eval()

    @contextmanager
    def _watch(self, iteration: int, part: int, batch: Batch) -> Iterator[Watch]:
        """Watch the blocks where it is due: the first process, in the iteration's first micro-batch.

        There a compiled network runs as it was written: what is compiled calls no hooks.
        """
        every, done = self.config.training.vitals_every, iteration + 1
        due = every > 0 and (done % every == 0 or done in (1, self.config.schedule.iterations))
        due = due and part == 0 and self.world.first and batch.clips is not None
        as_written = torch.compiler.set_stance("force_eager") if due else nullcontext()
        with as_written, watch(nonlocal_blocks(self.model) if due else {}) as watched:
            yield watched
