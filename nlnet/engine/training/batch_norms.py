"""Precise batch-norm statistics (release: `precise BN`, 200 iterations)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nlnet.data import Batch, normalize
from nlnet.engine.config import DataConfig
from nlnet.engine.distributed import World
from nlnet.errors import TrainingError
from nlnet.layers.norms import SyncBatchNorm


@contextmanager
def precise_statistics(
    model: nn.Module, run: Callable[[Tensor], object], clips: Iterable[Tensor], world: World
) -> Iterator[None]:
    """Inside, the training-mode batch norms of `model` hold statistics measured with the current weights.

    `run` puts each batch of `clips` through the network in training mode. The running mean becomes the mean of
    the batch means, the running variance E[var + mean²] − mean² (biased), averaged over the batches that hold clips,
    of all processes. On leaving, the moving averages of training come back, so that measuring does not disturb
    training.

    Raises:
        TrainingError: no batch of any process holds a clip.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.training and m.track_running_stats]
    kept = [{name: buffer.clone() for name, buffer in m.named_buffers()} for m in norms]
    sums = [torch.zeros(2, m.num_features, device=world.device, dtype=torch.float64) for m in norms]

    def watch(total: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().float()
            if len(x) == 0:
                return
            variance, mean = torch.var_mean(x, dim=[d for d in range(x.ndim) if d != 1], correction=0)
            total[0] += mean
            total[1] += variance.double() + mean.double().square()

        return hook

    def restore() -> None:
        for module, buffers in zip(norms, kept, strict=True):
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])

    hooks = [m.register_forward_pre_hook(watch(total)) for m, total in zip(norms, sums, strict=True)]
    batches = 0
    try:
        with torch.no_grad():
            for clip in clips:
                with norms_for(model, clip):
                    run(clip)
                batches += len(clip) > 0
        for handle in hooks:
            handle.remove()
        (count,) = world.count(batches)
        restore()
        if count == 0:
            raise TrainingError("training.precise_norm: no video of all its batches could be read")
        for module, total in zip(norms, sums, strict=True):
            mean, square = world.sum(total) / count
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(mean)
            module.running_var.copy_(square - mean.square())
        yield
    finally:
        for handle in hooks:
            handle.remove()
        restore()


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
