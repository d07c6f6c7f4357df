"""Normalisation layers by name, with batch norm that spans processes and the frozen affine of long clips.

Letters: B batch, C channels.
"""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = ("batch", "sync", "group", "layer", "affine", "none")
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_GROUPS = 32
EPS = 1e-5
"""Of batch norm: torch's default; the release's 1.0000001e-5 is the next float32."""


def create_norm(kind: str, channels: int, *, ndim: int, zero_init: bool = False) -> nn.Module:
    """The norm `kind` over `channels` channels of maps with `ndim` axes (time and space).

    "batch"   BatchNorm{ndim}d, eps 1e-5, momentum 0.1 (Caffe2's 0.9)
    "sync"    the same over the joined batch of all processes (`SyncBatchNorm`)
    "group"   GroupNorm with 32 groups, or the largest divisor of `channels` below 32
    "layer"   GroupNorm with one group: all channels and positions of a sample together
    "affine"  y = w x + b, both frozen (`FrozenAffine`); the release's long clips
    "none"    identity

    `zero_init` sets the trainable γ to 0, so that a residual branch that ends here starts at zero; "affine"
    and "none" have no trainable γ and ignore it.

    Raises:
        ValueError: unknown `kind`, `ndim` not 1, 2 or 3, or fewer than one channel.
    """
    if ndim not in BATCH_NORMS:
        raise ValueError(f"ndim: got {ndim}, expected 1, 2 or 3")
    if channels < 1:
        raise ValueError(f"channels: got {channels}, expected at least 1")
    norm: nn.Module
    if kind == "batch":
        norm = BATCH_NORMS[ndim](channels)
    elif kind == "sync":
        norm = SyncBatchNorm(channels)
    elif kind == "group":
        norm = nn.GroupNorm(max(k for k in range(1, MAX_GROUPS + 1) if channels % k == 0), channels)
    elif kind == "layer":
        norm = nn.GroupNorm(1, channels)
    elif kind == "affine":
        norm = FrozenAffine(channels)
    elif kind == "none":
        norm = nn.Identity()
    else:
        near = difflib.get_close_matches(kind, NORMS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"norm: got {kind!r}, expected one of {', '.join(NORMS)}{hint}")
    if zero_init and has_trainable_scale(norm):
        nn.init.zeros_(norm.get_parameter("weight"))
    return norm


def has_trainable_scale(norm: nn.Module) -> bool:
    """Whether `norm` carries a γ that training moves (batch, sync, group, layer)."""
    return isinstance(norm._parameters.get("weight"), nn.Parameter)


class FrozenAffine(nn.Module):
    """y_c = w_c x_c + b_c with w and b as buffers: no gradient, no batch statistics, starts as the identity.

    The release trains long clips with batch norm turned into this (`AffineNd`), a few clips per device being
    too few for statistics.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Float[Tensor, "B C *grid"]) -> Float[Tensor, "B C *grid"]:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return x * self.weight.to(x.dtype).view(shape) + self.bias.to(x.dtype).view(shape)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}"


def folded(
    weight: Float[Tensor, "D C *kernel"], bias: Float[Tensor, "D"] | None, norm: "_BatchNorm | FrozenAffine"
) -> tuple[Float[Tensor, "D C *kernel"], Float[Tensor, "D"]]:
    """The convolution that does what `norm` in evaluation does after the given one: w' = s w, b' = s (b − m) + β.

    For batch norm s = γ/√(v + eps) with the running mean m and variance v; for the frozen affine s is its weight, β
    its bias, m = 0. s and b' are computed in float64 and rounded once.
    """
    if isinstance(norm, FrozenAffine):
        scale, shift = norm.weight.double(), norm.bias.double()
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.double()
        shift = -norm.running_mean.double() * scale
        shift = shift if norm.bias is None else shift + norm.bias.double()
    if bias is not None:
        shift = shift + bias.double() * scale
    shape = (-1,) + (1,) * (weight.ndim - 1)
    return weight * scale.view(shape).to(weight.dtype), shift.to(weight.dtype)


def fold_batch_norms(
    model: nn.Module, weights: Mapping[str, Tensor], *, eps: float = EPS
) -> dict[str, Tensor]:
    """`weights` with batch norms turned into what `model`'s frozen affine layers of the same names compute.

    With running mean m and variance v: w' = w/√(v + eps), b' = b − m·w'. In evaluation the folded network's
    outputs are the batch-normed one's (release: `modify_caffe2_ftvideo.py`). Weights without statistics under
    such a name, folded already, stay as they are.

    Raises:
        ValueError: a norm of the weights has a running mean but not all of variance, weight and bias.
    """
    folded = dict(weights)
    for path, module in model.named_modules():
        if not isinstance(module, FrozenAffine) or f"{path}.running_mean" not in weights:
            continue
        names = {name: f"{path}.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
        absent = [key for key in names.values() if key not in weights]
        if absent:
            raise ValueError(f"weights: {path}.running_mean comes without {', '.join(absent)}")
        weight, bias, mean, variance = (weights[key].double() for key in names.values())
        scale = weight / (variance + eps).sqrt()
        dtype = weights[names["weight"]].dtype
        folded[names["weight"]] = scale.to(dtype)
        folded[names["bias"]] = (bias - mean * scale).to(dtype)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            folded.pop(f"{path}.{name}", None)
    return folded


@contextmanager
def untracked_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training normalise as ever but leave their running statistics alone.

    They run with momentum 0 (r ← (1 − 0)·r + 0·batch, exactly r): without statistics they would save fewer
    tensors for the backward pass, which a recomputation may not.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    kept = [(module, module.momentum, module.num_batches_tracked) for module in norms]
    for module in norms:
        module.momentum, module.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for module, momentum, batches in kept:
            module.momentum, module.num_batches_tracked = momentum, batches


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of the joined batch of all processes.

    y = γ (x − μ) / √(σ² + eps) + β, with μ and σ² over every sample and position of every process of the
    default group. Batches may differ in size: processes exchange (count, mean, sum of squared deviations) and
    join them by counts, which loses no precision to the difference of two large sums. Runs on CPU (gloo) and on
    CUDA (nccl). With one process, with no process group, or in evaluation it is plain batch norm. All processes
    must call it the same number of times, in forward and in backward. The gradients of γ and β are this process's
    own part, as DistributedDataParallel expects. Half precision is reduced in float32.

    Shapes: (B, C, *grid) → the same, any number of axes.

    Raises:
        ValueError: an input without channels axis, or training on one value per channel in the joined batch.
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
            self._update(mean, variance * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _update(self, mean: Tensor, unbiased_variance: Tensor) -> None:
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

    With x̂ = (x − μ)/√(σ² + eps) and n the joined count, dx = γ/√(σ² + eps) · (dy − Σdy/n − x̂ Σ(dy·x̂)/n), both
    sums over all processes.
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
        normalised = (value - _shaped(mean, x)) * _shaped(inverse, x)
        axes = [a for a in range(x.ndim) if a != 1]
        sum_dy, sum_dy_x = dy.sum(axes), (dy * normalised).sum(axes)
        joined = torch.stack([sum_dy, sum_dy_x])
        dist.all_reduce(joined)
        mean_dy, mean_dy_x = joined / count
        factor = inverse if weight is None else inverse * weight.to(mean.dtype)
        dx = (dy - _shaped(mean_dy, x) - normalised * _shaped(mean_dy_x, x)) * _shaped(factor, x)
        if weight is None:
            return dx.to(x.dtype), None, None, None
        return dx.to(x.dtype), sum_dy_x.to(weight.dtype), sum_dy.to(weight.dtype), None


def _joined_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(count, mean, biased variance) per channel over all processes, by Chan's rule for joining moments."""
    axes = [a for a in range(x.ndim) if a != 1]
    count = x.numel() // x.shape[1]
    mean = x.sum(axes) / max(count, 1)
    squares = (x - _shaped(mean, x)).square().sum(axes)
    mine = torch.cat([mean, squares, mean.new_tensor([count])])
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    all_of_them = torch.stack(gathered)
    counts = all_of_them[:, -1:]
    means, squares = all_of_them[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    if count < 2 and total < 2:  # in this order: a look at `total` makes the host wait for the device
        raise ValueError(
            "SyncBatchNorm: got at most one value per channel in the joined batch, expected more"
        )
    joined = (counts * means).sum(0) / total
    variance = (squares + counts * (means - joined).square()).sum(0) / total
    return total, joined, variance


def _shaped(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.view((1, -1) + (1,) * (x.ndim - 2))


def _like(parameter: Tensor | None, statistic: Tensor) -> Tensor | None:
    return None if parameter is None else parameter.to(statistic.dtype)
