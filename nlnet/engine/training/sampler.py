"""Sample order: which video, with which random seed, stands at each position of training.

It is a pure function of (seed, number of videos, position). Epoch e is a permutation of all videos; position p of the
run is video `permutation_e[p mod n]` with augmentation seeded by (seed, p). So a resumed run, and any number of workers
or processes, sees exactly the same samples.
"""

import hashlib
from collections.abc import Iterator

import torch

from nlnet.errors import ConfigError

SampleKey = tuple[int, int]
"""(video index, seed of the sample's augmentation)"""


def mix_seeds(*numbers: int) -> int:
    """Return a 63-bit seed that depends on every one of the numbers."""
    # a hash, not a sum: seeds 0, 1, 2 … at positions 0, 1, 2 … must not give the same random numbers
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes signed 64-bit seeds


class SampleOrder:
    """The endless sequence of samples, by position."""

    def __init__(self, num_videos: int, seed: int) -> None:
        if num_videos < 1:
            raise ConfigError(f"data.train: training needs at least one video, got {num_videos}")
        self.num_videos, self.seed = num_videos, seed
        self._epoch, self._order = -1, [0]  # the permutation of the newest epoch, kept for its next positions

    def __getitem__(self, position: int) -> SampleKey:
        epoch, place = divmod(position, self.num_videos)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix_seeds(self.seed, epoch))
            self._order = torch.randperm(self.num_videos, generator=generator).tolist()
            self._epoch = epoch
        return self._order[place], mix_seeds(self.seed, position, 1)


class BatchSampler:
    """The micro-batches of one process, from iteration `start` to `stop`.

    Iteration i has positions [i·batch, (i+1)·batch). They are cut into `accumulate` equal runs, and each run into
    `world` equal parts, one for each process.

    Raises:
        ConfigError: the batch does not divide into accumulate × world parts.
    """

    def __init__(
        self,
        order: SampleOrder,
        *,
        start: int,
        stop: int,
        batch: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch % (accumulate * world):
            raise ConfigError(
                f"training.batch: {batch} clips do not divide into {accumulate} accumulation steps × {world} "
                f"processes; choose a multiple of {accumulate * world}"
            )
        self.order, self.start, self.stop = order, start, stop
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
                yield [self.order[position] for position in range(first, first + self.size)]
