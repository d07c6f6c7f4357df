"""Batches of training clips from worker processes, at the rate of the decoders."""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor, UntypedStorage
from torch.utils.data import DataLoader, get_worker_info

from nlnet.data import Batch, Sample, TrainClips, collate
from nlnet.engine.signals import ignore_interrupts
from nlnet.engine.training.sampler import SampleKey

AHEAD = 2
"""Batches that a worker is given before they are asked for."""


class TrainLoader:
    """A batch of clips for each of `batches`, good until the next one is asked for.

    Making a page of shared memory takes a worker longer than filling it, and a copy costs this process a tenth of what
    decoding does. So a worker has AHEAD + 1 pieces of it for all its batches in turn, and those are what the caller
    sees (with `pin` a copy of its own in pinned memory). A worker begins its batch m when this process has taken its
    batch m − AHEAD, that is, done with m − AHEAD − 1, which had the same piece as m. With `persistent` the workers stay
    from one iteration to the next.
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
            collate_fn=InPieces(num_classes),
            pin_memory=pin,
            worker_init_fn=ignore_interrupts,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=persistent and workers > 0,
        )

    def __iter__(self) -> Iterator[Batch]:
        return self._mapped(iter(self.loader))  # the workers begin now, not when the first batch is asked for

    @staticmethod
    def _mapped(batches: Iterator[Batch]) -> Iterator[Batch]:
        pieces: dict[int, UntypedStorage] = {}  # held, so that each is mapped into this process once
        for batch in batches:
            if batch.clips is not None and batch.clips.is_shared():
                piece = batch.clips.untyped_storage()
                pieces[piece.data_ptr()] = piece
            yield batch


class InPieces:
    """`collate` into the pieces of a worker in turn; into new memory where this is no worker."""

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes
        self.turn = 0
        self.pieces = [torch.empty(0, dtype=torch.uint8)] * (AHEAD + 1)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        if get_worker_info() is None:
            return collate(samples, num_classes=self.num_classes)
        return collate(samples, num_classes=self.num_classes, room=self._room)

    def _room(self, shape: tuple[int, ...]) -> Tensor:
        self.turn = (self.turn + 1) % len(self.pieces)
        size = prod(shape)
        if self.pieces[self.turn].numel() < size:
            self.pieces[self.turn] = torch.empty(size, dtype=torch.uint8).share_memory_()
        return self.pieces[self.turn][:size].view(shape)
