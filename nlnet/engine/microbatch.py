"""The clips of one forward pass, on the device. There may be none: every video of it was unreadable."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nlnet.data import Batch, normalize
from nlnet.engine.config import DataConfig
from nlnet.norms import SyncBatchNorm

BatchNorm = nn.modules.batchnorm._BatchNorm


def clips_of(
    batch: Batch, data: DataConfig, *, frames: int, device: torch.device
) -> Float[Tensor, "B 3 T H W"]:
    """Normalised clips; B = 0 where no video could be read."""
    if batch.clips is None:
        clip = torch.empty(0, 3, frames, data.crop, data.crop, device=device)
    else:
        clip = normalize(batch.clips.to(device, non_blocking=True), data.mean, data.std)
    return clip.contiguous(memory_format=torch.channels_last_3d)


@contextmanager
def resting_norms(model: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training take nothing from what they see: no clip has no statistics.

    A process without clips still goes through the network, forward and backward, because the others wait for it
    there. The norms that span processes stay as they are: they weigh each process by its number of values, here 0.
    """
    resting = [
        m
        for m in model.modules()
        if isinstance(m, BatchNorm) and m.training and not isinstance(m, SyncBatchNorm)
    ]
    for module in resting:
        module.eval()
    try:
        yield
    finally:
        for module in resting:
            module.train()


def norms_for(model: nn.Module, clip: Tensor) -> AbstractContextManager[None]:
    """`resting_norms` where there is no clip."""
    return nullcontext() if len(clip) else resting_norms(model)
