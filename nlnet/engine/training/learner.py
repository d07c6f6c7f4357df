"""Network and optimiser of a run: forward, backward and update on the batches of all processes."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nlnet.block_stats import BlockStats, measure
from nlnet.data import Batch, normalize
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.distributed import World
from nlnet.engine.network import PRECISIONS
from nlnet.engine.runs.directory import BLOCK_STATS
from nlnet.engine.training.batch_norms import frozen_statistics, precise_statistics
from nlnet.engine.training.loss import Meter, training_loss
from nlnet.engine.training.optimizer import create_optimizer, freeze_norms, set_rate
from nlnet.engine.training.sampler import mix_seeds
from nlnet.engine.training.schedule import scheduled_rate
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet


class Learner:
    """A network in training, its optimiser and its gradient scaler.

    Args:
        transferred: names of the weights that came from `init.weights`.
    """

    def __init__(
        self, model: VideoResNet, config: Config, world: World, transferred: Collection[str]
    ) -> None:
        self.model, self.config, self.world = model, config, world
        model.checkpointing = config.training.checkpointing
        # before the optimiser: it must hold the parameters on the device
        model.to(world.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.frozen = freeze_norms(model, transferred) if config.training.frozen_norm else []
        self.optimizer = create_optimizer(model, config.optimizer, transferred)
        # float16 gradients underflow without a scale; bfloat16 has the range of float32
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.training.precision == "fp16")
        self.frames, _ = sampling(config)
        self.network: nn.Module = torch.compile(model) if config.training.compile else model  # type: ignore[assignment]
        self.parallel: DistributedDataParallel | None = None

    def distribute(self) -> None:
        """Synchronise the network with those of the other processes; all processes call it at the same time."""
        if self.world.size > 1:
            devices = [self.world.device.index] if self.world.device.type == "cuda" else None
            self.network = self.parallel = DistributedDataParallel(self.network, device_ids=devices)

    def state(self) -> dict[str, Any]:
        """The state of network, optimiser and gradient scaler, to resume from."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Load optimiser and gradient scaler from `state`; the network is loaded before the learner is made."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def step(
        self,
        iteration: int,
        batches: Iterator[Batch],
        meter: Meter,
        *,
        stop: Callable[[], bool],
        note: Callable[[dict[str, Any]], None],
    ) -> tuple[bool, int]:
        """Run one iteration: forward and backward over its micro-batches, clip the gradient, update the weights.

        A video that cannot be read makes its micro-batch smaller. A micro-batch without videos adds nothing to the
        gradient, and an iteration without videos changes no weight.

        Args:
            stop: whether this process has been asked to stop.
            note: called with a record for each unreadable video, and for each block when its statistics are due.

        Returns:
            Whether any process has been asked to stop, and the number of clips read by all processes.
        """
        config = self.config.training
        self._set_training_mode()
        # dropout depends on iteration and process alone, so that a resumed run draws the same numbers
        torch.manual_seed(mix_seeds(config.seed, iteration, self.world.rank, 3))
        set_rate(self.optimizer, scheduled_rate(self.config, iteration))
        clips = 0
        for part in range(config.accumulate):
            waited = time.perf_counter()
            batch = next(batches)
            meter.waited += time.perf_counter() - waited
            meter.unread += len(batch.failures)
            clips += len(batch.indices)
            for failure in batch.failures:
                note({"kind": "skipped", "rank": self.world.rank, "reason": failure.reason})
            # the processes exchange gradients once an iteration, in the backward pass of the last micro-batch
            last = part == config.accumulate - 1
            with nullcontext() if last or self.parallel is None else self.parallel.no_sync():
                for statistics in self._add_gradient(iteration, part, batch, meter):
                    note(statistics)
        # one exchange for both: all processes must agree on whether to stop and whether to update
        asked, clips = self.world.count(int(stop()), clips)
        if clips > 0:
            self._update()
        self.optimizer.zero_grad(set_to_none=True)
        return asked > 0, clips

    def precise_statistics(self, batches: Iterable[Batch]) -> AbstractContextManager[None]:
        """Give the batch norms statistics measured on `batches` with the current weights, inside the `with`."""
        self._set_training_mode()
        # one process skips empty batches; among several it runs them, because the others wait in synchronised norms
        clips = (self._clips(batch) for batch in batches if batch.clips is not None or self.world.size > 1)

        def run(clip: Tensor) -> object:
            with self._autocast():
                return self.model.features(clip)

        return precise_statistics(self.model, run, clips, self.world)

    def _add_gradient(
        self, iteration: int, part: int, batch: Batch, meter: Meter
    ) -> Iterator[dict[str, Any]]:
        """Run forward and backward of one micro-batch; yield the records of its blocks' statistics."""
        config = self.config.training
        # without clips: nothing to do alone; among several processes the others wait for this backward pass
        if batch.clips is None and self.world.size == 1:
            return
        clip = self._clips(batch)
        with frozen_statistics(self.model, when=len(clip) == 0):
            with self._autocast():
                with self._measure_blocks(iteration, part, batch) as measured:
                    logits = self.network(clip)
                if batch.clips is None:
                    loss = logits.sum()  # over zero clips: 0, with a gradient of zeros for every parameter
                else:
                    assert batch.labels is not None, "read_training_videos rejects lists without labels"
                    labels = batch.labels.to(self.world.device, non_blocking=True)
                    loss = training_loss(logits, labels, label_smoothing=config.label_smoothing)
                    meter.add(loss.detach(), logits.detach(), labels)
            self.scaler.scale(loss / config.accumulate).backward()
        for path, statistics in measured.read().items():
            yield {"kind": BLOCK_STATS, "block": path, **statistics}

    def _update(self) -> None:
        """Clip the gradient if configured, and update the weights."""
        if self.config.optimizer.clip_norm is not None:
            # the limit is for the true gradient, not the scaled one of float16
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _clips(self, batch: Batch) -> Float[Tensor, "B 3 T H W"]:
        """The normalised clips of a batch on the device; B = 0 if no video could be read."""
        data, device = self.config.data, self.world.device
        if batch.clips is None:
            clip = torch.empty(0, 3, self.frames, data.crop, data.crop, device=device)
        else:
            clip = normalize(batch.clips.to(device, non_blocking=True), data.mean, data.std)
        return clip.contiguous(memory_format=torch.channels_last_3d)

    def _autocast(self) -> torch.autocast:
        precision = self.config.training.precision
        return torch.autocast(self.world.device.type, PRECISIONS[precision], enabled=precision != "float32")

    def _set_training_mode(self) -> None:
        """Put the network into training mode, and frozen norms back into evaluation mode."""
        self.network.train()
        for module in self.frozen:
            module.eval()

    @contextmanager
    def _measure_blocks(self, iteration: int, part: int, batch: Batch) -> Iterator[BlockStats]:
        """Measure the blocks inside the `with` if due: on the first process, in the first micro-batch.

        A compiled network then runs without compilation, because compiled code calls no hooks.
        """
        every, done = self.config.training.block_stats_every, iteration + 1
        due = every > 0 and (done % every == 0 or done in (1, self.config.schedule.iterations))
        due = due and part == 0 and self.world.first and batch.clips is not None
        uncompiled = torch.compiler.set_stance("force_eager") if due else nullcontext()
        with uncompiled, measure(nonlocal_blocks(self.model) if due else {}) as measured:
            yield measured
