"""Batch norms in training: precise statistics, and statistics that a batch of zero clips leaves unchanged.

precise_statistics    running statistics measured anew with the current weights (release: `precise BN`, 200 iterations)
frozen_statistics     a context in which running statistics stay unchanged, for batches of zero clips
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nlnet.engine.distributed import World
from nlnet.errors import TrainingError
from nlnet.layers.sync_batch_norm import SyncBatchNorm

BatchNorm = nn.modules.batchnorm._BatchNorm


@contextmanager
def precise_statistics(
    model: nn.Module, run: Callable[[Tensor], object], clips: Iterable[Tensor], world: World
) -> Iterator[None]:
    """Give the batch norms in training mode running statistics measured with the current weights, inside the `with`.

    The running mean becomes the mean of the batch means, the running variance E[var + mean²] − mean² (biased),
    averaged over the batches of all processes that hold clips. Afterwards the moving averages of training are
    restored, so that measuring does not change training.

    Args:
        run: puts a batch of clips through the network in training mode.
        clips: the batches of this process, some of which may hold zero clips.

    Raises:
        TrainingError: no batch of any process holds a clip.
    """
    # frozen norms are in evaluation mode, so they are left out
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.training and m.track_running_stats]
    saved = [{name: buffer.clone() for name, buffer in m.named_buffers()} for m in norms]
    # float64: the variance below is a difference of two averages over hundreds of batches
    sums = [torch.zeros(2, m.num_features, device=world.device, dtype=torch.float64) for m in norms]

    def adding_to(total: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().float()
            if len(x) == 0:
                return
            # biased: over equal batches E[var + mean²] − mean² then is the variance of all values
            variance, mean = torch.var_mean(x, dim=[d for d in range(x.ndim) if d != 1], correction=0)
            total[0] += mean
            total[1] += variance.double() + mean.double().square()

        return hook

    def restore() -> None:
        for module, buffers in zip(norms, saved, strict=True):
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])

    hooks = [m.register_forward_pre_hook(adding_to(total)) for m, total in zip(norms, sums, strict=True)]
    batches = 0
    try:
        with torch.no_grad():
            for clip in clips:
                with frozen_statistics(model, when=len(clip) == 0):
                    run(clip)
                batches += len(clip) > 0
        # now, not at the end: a validation inside the `with` must not add to the sums
        for handle in hooks:
            handle.remove()
        (count,) = world.count(batches)
        # the passes above moved the running averages and num_batches_tracked: start from the saved ones
        restore()
        if count == 0:
            raise TrainingError(
                "training.precise_norm: no video for its statistics could be read; run `nlnet data check`"
            )
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


@contextmanager
def frozen_statistics(model: nn.Module, *, when: bool = True) -> Iterator[None]:
    """Keep the running statistics of batch norms unchanged inside the `with`; do nothing unless `when`.

    For batches of zero clips, which have no mean and no variance. A process without clips still runs the network
    forward and backward, because the other processes wait there for its gradients. Norms that span processes are left
    alone: they weight each process by its number of values, here 0.
    """
    norms = [
        m
        for m in model.modules()
        if when and isinstance(m, BatchNorm) and m.training and not isinstance(m, SyncBatchNorm)
    ]
    for module in norms:
        module.eval()
    try:
        yield
    finally:
        for module in norms:
            module.train()
