"""The endless stream of training samples: which video, and with which random draws, stands at each position.

A pure function of (seed, number of videos, position). Epoch e is a permutation of all videos; sample p of the
run is video `permutation_e[p mod n]` with draws seeded by (seed, p). A resumed run, another number of workers
or of processes therefore sees exactly the same samples.
"""

import hashlib
from collections.abc import Iterator

import torch

SampleKey = tuple[int, int]
"""(video index, seed of the sample's draws)"""


def mix(*numbers: int) -> int:
    """A 63-bit seed that depends on every one of `numbers`."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Stream:
    """Samples by position."""

    def __init__(self, num_videos: int, seed: int) -> None:
        if num_videos < 1:
            raise ValueError(f"a training stream needs at least one video, got {num_videos}")
        self.num_videos, self.seed = num_videos, seed
        self._epoch, self._order = -1, [0]

    def __getitem__(self, position: int) -> SampleKey:
        epoch, place = divmod(position, self.num_videos)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, epoch))
            self._order = torch.randperm(self.num_videos, generator=generator).tolist()
            self._epoch = epoch
        return self._order[place], mix(self.seed, position, 1)


class BatchSampler:
    """Micro-batches of one process, from iteration `start` to `stop`.

    Iteration i owns positions [i·batch, (i+1)·batch). They are cut into `accumulate` equal runs, and each run
    into `world` equal parts, one per process.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        start: int,
        stop: int,
        batch: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch % (accumulate * world):
            raise ValueError(
                f"training.batch: {batch} clips do not divide into {accumulate} accumulation steps × {world} "
                "processes; choose a multiple"
            )
        self.stream, self.start, self.stop = stream, start, stop
        self.batch, self.accumulate, self.rank, self.world = batch, accumulate, rank, world

    @property
    def size(self) -> int:
        """Clips of one micro-batch."""
        return self.batch // (self.accumulate * self.world)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for iteration in range(self.start, self.stop):
            for step in range(self.accumulate):
                first = iteration * self.batch + (step * self.world + self.rank) * self.size
                yield [self.stream[position] for position in range(first, first + self.size)]
