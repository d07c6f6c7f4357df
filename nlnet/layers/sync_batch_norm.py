"""Synchronised batch norm: its training statistics are those of the joined batch of all processes.

Letters: B batch, C channels, n values per channel in the joined batch.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the joined batch of all processes, on CPU (gloo) and CUDA (nccl).

    y = γ (x − μ) / √(σ² + eps) + β, with μ and σ² over every sample and position of every process of the default
    group. The batches of the processes may differ in size. With one process, without a process group, or in
    evaluation it is plain batch norm. All processes must call it the same number of times, in forward and in
    backward. The gradients of γ and β are the part of this process alone, because DistributedDataParallel adds up the
    parts. Half precision is reduced in float32.

    Shapes: (B, C, *grid) → the same, any number of axes. (torch's own `SyncBatchNorm` runs on CUDA only.)

    Raises:
        ValueError: an input without a channel axis, or training on one value per channel in the joined batch.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"SyncBatchNorm: got an input of {input.ndim} axes, expected (B, C, ...)")

    def forward(self, input: Float[Tensor, "B C *grid"]) -> Float[Tensor, "B C *grid"]:
        self._check_input_dim(input)
        uses_batch = self.training or self.running_mean is None
        if (
            not uses_batch
            or not dist.is_available()
            or not dist.is_initialized()
            or dist.get_world_size() == 1
        ):
            return super().forward(input)
        output, mean, variance, count = _JoinedBatchNorm.apply(input, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None:
            # running statistics keep the unbiased variance, as torch's batch norm does
            self._update(mean, variance * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Move the running statistics towards those of the batch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        # momentum None is PyTorch's cumulative average over all batches seen
        factor = 1.0 / float(self.num_batches_tracked or 1) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), factor)


class _JoinedBatchNorm(torch.autograd.Function):
    """The normalisation over the joined batch, and its gradient.

    With x̂ = (x − μ)/√(σ² + eps), dx = γ/√(σ² + eps) · (dy − Σdy/n − x̂ Σ(dy·x̂)/n), both sums over all processes.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        value = x if x.dtype == torch.float64 else x.float()
        count, mean, variance = _joined_moments(value)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, inverse, count)  # type: ignore[arg-type]
        # F.batch_norm with given statistics is one fused pass: γ (x − μ)/√(σ² + eps) + β
        output = F.batch_norm(value, mean, variance, _like(weight, mean), _like(bias, mean), False, 0.0, eps)
        ctx.mark_non_differentiable(mean, variance, count)
        return output.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad: Tensor, *unused: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors  # type: ignore[attr-defined]
        value, dy = x.to(mean.dtype), grad.to(mean.dtype)
        normalised = (value - _per_channel(mean, x)) * _per_channel(inverse, x)
        axes = [a for a in range(x.ndim) if a != 1]
        sum_dy, sum_dy_x = dy.sum(axes), (dy * normalised).sum(axes)
        # dx needs the sums of all processes; those of γ and β below stay this process's own
        joined = torch.stack([sum_dy, sum_dy_x])
        dist.all_reduce(joined)
        mean_dy, mean_dy_x = joined / count
        factor = inverse if weight is None else inverse * weight.to(mean.dtype)
        dx = (dy - _per_channel(mean_dy, x) - normalised * _per_channel(mean_dy_x, x)) * _per_channel(
            factor, x
        )
        if weight is None:
            return dx.to(x.dtype), None, None, None
        return dx.to(x.dtype), sum_dy_x.to(weight.dtype), sum_dy.to(weight.dtype), None


def _joined_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(count, mean, biased variance) per channel over all processes, by Chan's rule for joining moments.

    Processes exchange (mean, sum of squared deviations, count). The usual Σx² − n μ² would subtract two large
    numbers and lose the variance of maps whose mean is large.
    """
    axes = [a for a in range(x.ndim) if a != 1]
    count = x.numel() // x.shape[1]
    mean = x.sum(axes) / max(count, 1)
    squares = (x - _per_channel(mean, x)).square().sum(axes)
    # one vector, so that one exchange is enough
    mine = torch.cat([mean, squares, mean.new_tensor([count])])
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    all_of_them = torch.stack(gathered)
    counts = all_of_them[:, -1:]
    means, squares = all_of_them[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    if count < 2 and total < 2:  # `count` first: to read `total` the CPU has to wait for the device
        raise ValueError(
            "SyncBatchNorm: got at most one value per channel in the joined batch, expected two or more: "
            "take a larger batch"
        )
    joined = (counts * means).sum(0) / total
    # deviations inside each process, plus those of the processes' means from the joined mean
    variance = (squares + counts * (means - joined).square()).sum(0) / total
    return total, joined, variance


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """One value per channel, shaped to broadcast over the map x."""
    return values.view((1, -1) + (1,) * (x.ndim - 2))


def _like(parameter: Tensor | None, statistic: Tensor) -> Tensor | None:
    """The parameter in the dtype of the statistics."""
    return None if parameter is None else parameter.to(statistic.dtype)
