"""Batches of training clips from worker processes, through shared memory that is reused."""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor, UntypedStorage
from torch.utils.data import DataLoader, get_worker_info

from nlnet.data import Batch, Sample, TrainClips, collate
from nlnet.engine.signals import ignore_interrupts, wait_for_threads
from nlnet.engine.training.sampler import SampleKey

AHEAD = 2
"""Batches that a worker prepares in advance."""


class TrainLoader:
    """An iterable of batches of clips; a batch is valid until the next one is requested.

    Allocating a page of shared memory takes a worker longer than filling it, so each worker reuses AHEAD + 1 buffers
    in turn. The caller sees these buffers, without a copy (with `pin` a copy in pinned memory). Reuse is safe: a worker
    starts its batch m when this process has taken its batch m − AHEAD, and so is done with m − AHEAD − 1, the batch
    that was in the same buffer.

    Args:
        batches: the samples of each batch.
        workers: decoding processes; 0 decodes in this process.
        num_classes: width of multi-hot labels.
        pin: copy batches to pinned memory, for CUDA.
        persistent: keep the workers from one iteration over the loader to the next.
    """

    def __init__(
        self,
        dataset: TrainClips,
        batches: Iterable[Sequence[SampleKey]],
        *,
        workers: int,
        num_classes: int | None = None,
        pin: bool = False,
        persistent: bool = False,
    ) -> None:
        self.loader = DataLoader(
            dataset,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=CollateIntoBuffers(num_classes),
            pin_memory=pin,  # copies to a GPU then overlap with computation
            worker_init_fn=ignore_interrupts,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=persistent and workers > 0,
        )

    def __iter__(self) -> Iterator[Batch]:
        wait_for_threads()
        # iter() here starts the workers now; inside the generator they would start at the first `next`
        return self._keep_mapped(iter(self.loader))

    @staticmethod
    def _keep_mapped(batches: Iterator[Batch]) -> Iterator[Batch]:
        """Keep a reference to every buffer, so that it is mapped into this process once, not for every batch."""
        buffers: dict[int, UntypedStorage] = {}
        for batch in batches:
            if batch.clips is not None and batch.clips.is_shared():
                buffer = batch.clips.untyped_storage()
                buffers[buffer.data_ptr()] = buffer
            yield batch


class CollateIntoBuffers:
    """A `collate` function that writes into a worker's shared buffers by turns; outside a worker, into new memory."""

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes
        self.turn = 0
        self.buffers = [torch.empty(0, dtype=torch.uint8)] * (AHEAD + 1)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        if get_worker_info() is None:
            return collate(samples, num_classes=self.num_classes)
        return collate(samples, num_classes=self.num_classes, allocate=self._next_buffer)

    def _next_buffer(self, shape: tuple[int, ...]) -> Tensor:
        # always the next one: the AHEAD batches before may still be in use
        self.turn = (self.turn + 1) % len(self.buffers)
        size = prod(shape)
        # a batch with unreadable videos is smaller: it takes the front of a buffer, which never shrinks
        if self.buffers[self.turn].numel() < size:
            self.buffers[self.turn] = torch.empty(size, dtype=torch.uint8).share_memory_()
        return self.buffers[self.turn][:size].view(shape)
