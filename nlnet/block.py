"""The non-local block: embed, apply the operation, project, normalise, add (§3.3 of the paper).

    z_i = norm(W_z y_i) + x_i,   y_i = 1/C(x) Σ_j f(x_i, x_j) g(x_j)          (eq. 6 and 1)

Letters: B batch, C channels of the map, d inner channels, D channels compared (d, or C for the Gaussian),
N query and M key positions of one problem.
"""

import math
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.axes import AXES, GRIDS, Axes, KeyPool, Positions
from nlnet.block_options import CONVENTIONS, DEFAULTS, BlockOptions, check_name, spelled_out, with_defaults
from nlnet.errors import NlnetError
from nlnet.layers.contexts import without_autocast
from nlnet.layers.folding import folded
from nlnet.layers.norms import NORMS, FrozenAffine, create_norm, has_trainable_scale
from nlnet.layers.pointwise import is_channels_last, pointwise
from nlnet.ops import nonlocal_operation
from nlnet.ops.algorithms import ALGORITHMS
from nlnet.ops.reference import OPERATORS, PAIRWISE, Operator, affinity

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL_POSITIONS = ("before", "after")
INITS = ("he", "normal")
NORMAL_STD = 0.01


class NonLocalBlock(nn.Module):
    """The non-local block, z = norm(W_z y) + x, for maps (B, C, T), (B, C, H, W) or (B, C, T, H, W).

        block = nlnet.NonLocalBlock(64, pairwise="dot_product")
        z = block(torch.randn(2, 64, 4, 14, 14))        # (2, 64, 4, 14, 14)

    There is no activation after the sum. θ, φ, g and W_z are 1×1×1 convolutions; y_i = 1/C(x) Σ_j f(x_i, x_j) g(x_j), with the four f of §3.2:

        gaussian            exp(s·x_iᵀx_j)          softmax over keys; no θ, φ: all C channels are compared
        embedded_gaussian   exp(s·θ_iᵀφ_j)          softmax over keys
        dot_product         s·θ_iᵀφ_j               divided by the number of keys M
        concatenation       ReLU(w_fᵀ[θ_i, φ_j])    divided by M; takes no scale

    A fresh block is the identity: γ of the norm is 0, or W_z is 0 where the norm has no trainable γ.

    Args:
        in_channels: C.
        inner_channels: d; default C/2, at least 1.
        ndim: axes of the map: 1 (T), 2 (H, W), 3 (T, H, W).
        options: see `nlnet.block_options.BlockOptions`: pairwise, axis, subsample, groups, norm, convention,
            pool_position, scale, init, out_bias, algorithm.

    Raises:
        NlnetError: a ValueError for an unknown name, a size below 1, an axis or groups that `ndim` does not have; in
            forward, for frames that `groups` do not divide. ValueError: in forward, a map of other axes or channels.
    """

    def __init__(
        self,
        in_channels: int,
        inner_channels: int | None = None,
        *,
        ndim: int = 3,
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__()
        given = with_defaults(options, type(self).__name__)
        inner_channels = max(1, in_channels // 2) if inner_channels is None else inner_channels
        _check_size("in_channels", in_channels)
        _check_size("inner_channels", inner_channels)
        _check_size("groups", given["groups"])
        if ndim not in AXES:
            raise NlnetError(f"ndim: got {ndim}, expected 1 (T), 2 (H, W) or 3 (T, H, W)")
        check_name("pairwise", given["pairwise"], PAIRWISE)
        check_name("axis", given["axis"], AXES[3])
        check_name("norm", given["norm"], NORMS)
        check_name("convention", given["convention"], CONVENTIONS)
        function = PAIRWISE[given["pairwise"]]
        formula = OPERATORS[function.operator]
        check_name("algorithm", given["algorithm"], ("auto", *ALGORITHMS[function.operator]))
        convention = CONVENTIONS[given["convention"]]
        # only None is "not given": an empty name is a wrong one
        pool_position = (
            given["pool_position"] if given["pool_position"] is not None else convention.pool_position
        )
        init = given["init"] if given["init"] is not None else convention.init
        check_name("pool_position", pool_position, POOL_POSITIONS)
        check_name("init", init, INITS)
        scale, out_bias, norm = given["scale"], given["out_bias"], given["norm"]
        if scale is None:
            scale = inner_channels**-0.5 if convention.scaled and function.scaled else 1.0
        if not math.isfinite(scale):
            raise NlnetError(f"scale: got {scale}, expected a finite number")
        if scale != 1.0 and not formula.takes_scale:
            raise NlnetError(
                f"scale: got {scale} with {given['pairwise']}, which has no scale: leave it out, or scale w_f"
            )

        self.in_channels, self.inner_channels, self.ndim = in_channels, inner_channels, ndim
        self.pairwise, self.axis, self.groups = given["pairwise"], given["axis"], given["groups"]
        self.subsample, self.pool_position = given["subsample"], pool_position
        self.norm_kind, self.convention, self.init = norm, given["convention"], init
        self.scale, self.algorithm = float(scale), given["algorithm"]
        self.out_bias = (norm == "none" or convention.bias_before_norm) if out_bias is None else out_bias
        self.axes = Axes(ndim=ndim, axis=self.axis, groups=self.groups)

        convolution = CONVOLUTIONS[ndim]
        self.theta = convolution(in_channels, inner_channels, 1) if function.embeds else None
        self.phi = convolution(in_channels, inner_channels, 1) if function.embeds else None
        self.g = convolution(in_channels, inner_channels, 1)
        self.w_f = nn.Parameter(torch.empty(2 * inner_channels)) if formula.takes_weight else None
        self.pool = KeyPool(ndim) if self.subsample and not self.axes.by_location else None
        self.W_z = convolution(inner_channels, in_channels, 1, bias=self.out_bias)
        self.norm = create_norm(norm, in_channels, ndim=ndim, zero_init=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights (`init`) from torch's global generator; the block is the identity again."""
        for layer in (self.theta, self.phi, self.g, self.W_z):
            if layer is not None:
                self._fill(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if self.w_f is not None:
            self._fill(self.w_f)
        if has_trainable_scale(self.norm):
            nn.init.zeros_(self.norm.get_parameter("weight"))
            nn.init.zeros_(self.norm.get_parameter("bias"))
        else:
            nn.init.zeros_(self.W_z.weight)

    def _fill(self, weight: Tensor) -> None:
        fan_in = weight.shape[1] if weight.ndim > 1 else weight.shape[0]
        nn.init.normal_(weight, std=(2 / fan_in) ** 0.5 if self.init == "he" else NORMAL_STD)

    def forward(self, x: Float[Tensor, "B C *grid"]) -> Float[Tensor, "B C *grid"]:
        """z, in the shape, dtype and memory layout of x."""
        self._check_shape(tuple(x.shape))
        grid = tuple(x.shape[2:])
        problems = self.axes.problems(grid)
        theta, phi, g = (self.axes.to_problems(e, problems) for e in self._embed(x))
        y = nonlocal_operation(
            theta,
            phi,
            g,
            pairwise=self.pairwise,
            weight=self.w_f,
            scale=self.scale,
            algorithm=self.algorithm,
        )
        channels_last = is_channels_last(
            x
        )  # W_z writes its output in the layout of x, so that the sum below copies nothing
        y = self.axes.to_map(y, grid)
        fixed = self._fixed_norm()
        if fixed is not None:  # folded into W_z: one pass over the map less
            z = pointwise(y, *folded(self.W_z.weight, self.W_z.bias, fixed), channels_last=channels_last)
        else:
            z = self.norm(pointwise(y, self.W_z.weight, self.W_z.bias, channels_last=channels_last))
        # Under autocast a norm returns float32. x comes first because a sum takes the layout of its first operand.
        return x + z.to(x.dtype)

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """θ, φ and g of the map, with the keys pooled; projections of the same input are one matrix product."""
        before = self.pool is not None and self.pool_position == "before"
        keys = self.pool(x, self.groups) if self.pool is not None and before else x
        if self.theta is None or self.phi is None:
            theta, phi, g = x, keys, _together(keys, self.g)[0]
        elif before:
            theta, (phi, g) = _together(x, self.theta)[0], _together(keys, self.phi, self.g)
        else:
            theta, phi, g = _together(x, self.theta, self.phi, self.g)
        if self.pool is not None and not before:
            phi, g = self.pool(phi, self.groups), self.pool(g, self.groups)
        return theta, phi, g

    def _fixed_norm(self) -> _BatchNorm | FrozenAffine | None:
        """The norm if it is a constant factor and shift per channel; None in training, with gradients or hooks."""
        norm = self.norm
        if norm._forward_hooks or norm._forward_pre_hooks or torch.is_grad_enabled():
            return None
        if isinstance(norm, _BatchNorm):
            return None if norm.training or norm.running_mean is None else norm
        return norm if isinstance(norm, FrozenAffine) else None

    def _compare(self, x: Tensor, keys: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """θ(x), and φ of the keys with pooling; calls the layers as modules, so that their hooks run."""
        if self.pool is not None and self.pool_position == "before":
            keys = self.pool(keys, groups)
        theta = x if self.theta is None else self.theta(x)
        phi = keys if self.phi is None else self.phi(keys)
        if self.pool is not None and self.pool_position == "after":
            phi = self.pool(phi, groups)
        return theta, phi

    def embeddings(
        self, x: Float[Tensor, "B C *grid"]
    ) -> tuple[Float[Tensor, "B D *grid"], Float[Tensor, "B D *keys"]]:
        """θ on the grid of the map and φ on the pooled grid of keys; x itself in both places for the Gaussian."""
        self._check_shape(tuple(x.shape))
        return self._compare(x, x, self.groups)

    def affinity(self, theta: Float[Tensor, "B N D"], phi: Float[Tensor, "B M D"]) -> Float[Tensor, "B N M"]:
        """f(x_i, x_j)/C(x) of embeddings, in float32 or wider; `phi` must hold all keys that the queries see."""
        dtype = torch.promote_types(theta.dtype, torch.float32)
        with without_autocast(theta.device):
            return affinity(
                theta.to(dtype),
                phi.to(dtype),
                pairwise=self.pairwise,
                weight=self.w_f,
                scale=self.scale,
            )

    def affinity_rows(
        self, x: Float[Tensor, "B C *grid"], query: tuple[int, ...]
    ) -> Float[Tensor, "B *keys"]:
        """f(x_i, x_j)/C(x) of one query position i against every key, on the grid of keys: O(M), not N×M.

        `query` is (t, y, x) on the map's grid ((y, x) in 2-D, (t,) in 1-D). Keys that i does not see (another
        frame, location or group) have 0. A softmax row is non-negative and sums to 1; the others are f/M, signed
        for the dot product. Half-precision embeddings are compared in float32.

        Raises:
            ValueError: a map that does not fit, a query of another length or outside the grid.
        """
        self._check_shape(tuple(x.shape))
        grid = tuple(x.shape[2:])
        if len(query) != self.ndim or not all(0 <= q < size for q, size in zip(query, grid, strict=True)):
            raise ValueError(f"query: got {query}, expected indices ({GRIDS[self.ndim]}) inside {grid}")
        here: tuple[Any, ...] = (..., *(slice(q, q + 1) for q in query))
        seen: tuple[Any, ...] = (..., *self.axes.seen(query, grid))
        theta, phi = self._compare(x[here], x[seen], 1)
        row = self.affinity(theta.flatten(2).mT, phi.flatten(2).mT)
        keys = self._key_grid(grid)
        part: tuple[Any, ...] = (..., *self.axes.seen_keys(query, grid, keys))
        rows = row.new_zeros(x.shape[0], *keys)
        rows[part] = row.reshape(x.shape[0], *phi.shape[2:])
        return rows

    def positions(self, grid: tuple[int, ...]) -> Positions:
        """N and M of one problem, and the number of independent problems, for a map of `grid` positions.

        Raises:
            ValueError: a grid of another length than `ndim`, or whose T is not divisible by `groups`.
        """
        self._check_shape((1, self.in_channels, *grid))
        problems = self.axes.problems(grid)
        return Positions(math.prod(grid) // problems, math.prod(self._key_grid(grid)) // problems, problems)

    def _key_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return grid if self.pool is None else self.pool.pooled(grid, self.groups)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Multiply-adds of one sample of (C, *grid), by the quadratic definition whatever `algorithm` runs.

        Counted: the four projections and, in each problem, N·M·D for f (2d a pair for w_fᵀ[θ, φ]) and N·M·d for
        the sum over keys. Pooling, norm, biases and the softmax itself are not.

        Raises:
            ValueError: a shape that the block does not take.
        """
        self._check_shape((1, *shape))
        queries, keys, problems = self.positions(tuple(shape[1:]))
        everywhere, pooled = queries * problems, keys * problems
        projected = pooled if self.pool_position == "before" else everywhere
        weights = self.in_channels * self.inner_channels
        function = PAIRWISE[self.pairwise]
        pairs = 2 if function.embeds else 1  # g and W_z; θ and φ
        compared = self.compared_channels * OPERATORS[function.operator].compared_per_pair
        per_pair = compared + self.inner_channels
        return pairs * weights * (projected + everywhere) + queries * pooled * per_pair

    @property
    def compared_channels(self) -> int:
        """D, the channels of θ and φ: `inner_channels`, or `in_channels` for the Gaussian (x itself)."""
        return self.inner_channels if PAIRWISE[self.pairwise].embeds else self.in_channels

    @property
    def operator(self) -> Operator:
        """The formula of f/C."""
        return OPERATORS[PAIRWISE[self.pairwise].operator]

    def settings(self) -> dict[str, Any]:
        """Every argument with its resolved value: `NonLocalBlock(**settings)` builds the same block afresh."""
        sizes = {"in_channels": self.in_channels, "inner_channels": self.inner_channels, "ndim": self.ndim}
        return sizes | {name: self.norm_kind if name == "norm" else getattr(self, name) for name in DEFAULTS}

    def extra_repr(self) -> str:
        options = [f"{name}={value}" for name, value in self.settings().items() if "channels" not in name]
        return f"{self.in_channels}→{self.inner_channels}, " + ", ".join(options)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != self.ndim + 2 or shape[1] != self.in_channels:
            expected = f"(B, {self.in_channels}, {GRIDS[self.ndim]})"
            raise ValueError(f"got a map of shape {shape}, expected {expected}")
        if self.groups > 1 and shape[2] % self.groups != 0:
            raise NlnetError(f"got {shape[2]} frames, expected a multiple of groups = {self.groups}")


def _together(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """The outputs of several 1×1×1 convolutions of one input, computed as one product with their stacked weights."""
    weights: list[Tensor] = [layer.get_parameter("weight") for layer in layers]
    biases: list[Tensor] = [layer.get_parameter("bias") for layer in layers]
    if len(layers) == 1:
        return [pointwise(x, weights[0], biases[0], channels_last=True)]
    joined = pointwise(x, torch.cat(weights), torch.cat(biases), channels_last=True)
    return list(joined.split([weight.shape[0] for weight in weights], dim=1))


def _check_size(argument: str, value: int) -> None:
    if value < 1:
        raise NlnetError(f"{argument}: got {value}, expected at least 1")


spelled_out(NonLocalBlock.__init__)
