"""Precise batch-norm statistics (release: `precise BN`, 200 iterations)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nlnet.engine.distributed import World
from nlnet.engine.meter import TrainingError
from nlnet.engine.microbatch import BatchNorm, norms_for


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
