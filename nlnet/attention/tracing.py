"""Trace the centres of cells through a network's forward pass; `nlnet.attention.cell_centers` has the arithmetic.

Every torch function of the pass is intercepted. A tensor whose centres are known carries them as an attribute, and the
function's result gets centres computed from them, or none if the function moves or mixes cells in an unknown way.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nlnet.attention.cell_centers import AxisCenters, CellCenters, adaptive_pool, composed, resized, window

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")
POOLS = (*MAX_POOLS, "avg_pool1d", "avg_pool2d", "avg_pool3d")
ELEMENTWISE = """
abs add addcdiv addcmul clamp clamp_max clamp_min clip cos div divide erf exp expm1 iadd idiv imul ipow isub itruediv
lerp log log1p masked_fill maximum minimum mul multiply nan_to_num neg negative pos pow radd rdiv reciprocal rmul rpow
rsqrt rsub rtruediv sign sin sqrt square sub subtract true_divide truediv where
celu elu gelu glu gumbel_softmax hardshrink hardsigmoid hardswish hardtanh leaky_relu log_softmax logsigmoid mish prelu
relu relu6 rrelu selu sigmoid silu softmax softmin softplus softshrink softsign tanh tanhshrink threshold
batch_norm group_norm instance_norm layer_norm local_response_norm normalize rms_norm
alpha_dropout dropout dropout1d dropout2d dropout3d feature_alpha_dropout feature_dropout
"""
"""Functions that compute each cell from the same cell of their inputs: arithmetic, activations, norms (whose statistics
are common to all cells), dropout."""
RESHAPING = """
alias bfloat16 broadcast_to cat chunk clone concat concatenate contiguous cpu cuda detach double expand expand_as float
half split split_with_sizes tensor_split to type type_as
flatten reshape reshape_as unflatten view view_as
"""
"""Functions that return the same cells in other memory, dtype or channels, or with other axes before those of the grid."""
CENTER_KEEPING = frozenset((ELEMENTWISE + RESHAPING).split())
"""Functions whose output cells have the centres of their input cells, if the last axes keep their lengths."""


@contextmanager
def tracing(model: nn.Module) -> Iterator[None]:
    """Trace cell centres inside the context, starting from the tensors that `set_centers` marks (`CenterTracer`).

    A convolution of `model` that is computed by other functions than torch's convolutions is traced by its settings
    (kernel, stride, padding, dilation), if its output has the size that these give.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    handles = [module.register_forward_hook(_trace_by_settings) for module in convolutions]
    try:
        with CenterTracer():
            yield
    finally:
        for handle in handles:
            handle.remove()


class CenterTracer(TorchFunctionMode):
    """A torch function mode that computes the cell centres of the result of every torch function.

    A window of k cells, stride s, padding p and dilation d centres output cell o on input cell s·o − p + d(k − 1)/2.
    Resizing has its own rules (`resized`); adaptive pools are traced where all their windows have one length.
    `CENTER_KEEPING` names the functions that keep centres. A sum has the centres of its terms if these agree; terms
    without centres do not count. Every other function (slices, rolls, flips, transposed convolutions, unknown ones)
    loses them. Centres are those of a tensor's last axes. They are an attribute of the tensor itself, so that the
    tracer keeps no activation in memory.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        sources = [value for value in _tensors((*args, *kwargs.values())) if centers_of(value) is not None]
        if sources:
            # `relu_` and `__add__` are traced as `relu` and `add`
            name = getattr(func, "__name__", "").strip("_").removesuffix("_with_indices")
            found = [_output_centers(name, sources, output, args, kwargs) for output in _tensors([result])]
            # set after all are computed: the output of an in-place function is its input, whose centres are still needed
            for output, centers in zip(_tensors([result]), found, strict=True):
                set_centers(output, centers)
        return result


def set_centers(x: Tensor, centers: CellCenters | None) -> None:
    """Record where the cells of `x` are centred in the clip; None if that is unknown."""
    setattr(x, "_nlnet_cell_centers", centers)  # noqa: B010  (a plain assignment is an error to the type checker)


def centers_of(x: Tensor) -> CellCenters | None:
    """Return where the cells of `x` are centred in the clip, or None if that is unknown."""
    return getattr(x, "_nlnet_cell_centers", None)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among `values` and inside its lists and tuples."""
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list | tuple) else [value]
    return [value for value in flat if isinstance(value, Tensor)]


def _output_centers(
    name: str, sources: list[Tensor], output: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> CellCenters | None:
    """The centres of `output`, which the function `name` computed from `sources` (inputs whose centres are known)."""
    x = sources[0]
    centers = centers_of(x)
    assert centers is not None
    axes = len(centers)
    grid, cells = x.shape[-axes:], output.shape[-axes:]
    if output.ndim < axes:
        return None

    def argument(index: int, key: str, default: Any) -> Any:
        """An argument by its position or its keyword."""
        value = args[index] if len(args) > index else kwargs.get(key, default)
        return default if value is None else value

    if name in CENTER_KEEPING or _keeps_last_axes(name, x, args, kwargs, axes):
        # an input of another size is broadcast (a bias, a gate per channel) and says nothing about cells
        known = {centers_of(source) for source in sources if source.shape[-axes:] == cells}
        return known.pop() if len(known) == 1 else None
    # the layers below take (B, C, *grid); without the batch axis the channels could be taken for cells
    if x.ndim != axes + 2 or output.ndim != x.ndim:
        return None
    if name in CONVOLUTIONS or name in POOLS:
        if name in CONVOLUTIONS:
            kernel = tuple(argument(1, "weight", None).shape[2:])
            stride, padding, dilation = (
                argument(3, "stride", 1),
                argument(4, "padding", 0),
                argument(5, "dilation", 1),
            )
        else:
            kernel = argument(1, "kernel_size", None)
            stride, padding = argument(2, "stride", None) or kernel, argument(3, "padding", 0)
            dilation = argument(4, "dilation", 1) if name in MAX_POOLS else 1
        settings = (_per_axis(value, axes) for value in (kernel, stride, padding, dilation))
        return tuple(window(along, *each) for along, *each in zip(centers, *settings, strict=True))
    if name == "pad":
        before = list(argument(1, "pad", ()))[: 2 * axes : 2]  # (left, right) pairs, the last axis first
        before += [0] * (axes - len(before))
        return tuple(
            AxisCenters(along.first - n * along.step, along.step)
            for along, n in zip(centers, reversed(before), strict=True)
        )
    if name.startswith("adaptive_"):
        return composed(centers, [adaptive_pool(n, m) for n, m in zip(grid, cells, strict=True)])
    if name == "interpolate":
        mode, corners = argument(3, "mode", "nearest"), bool(argument(4, "align_corners", False))
        # with recompute_scale_factor torch uses the ratio of the sizes instead of the factor that was given
        factor = None if argument(5, "recompute_scale_factor", False) else argument(2, "scale_factor", None)
        factors = _per_axis(factor, axes)
        inner = [
            resized(n, m, mode, corners=corners, factor=f)
            for n, m, f in zip(grid, cells, factors, strict=True)
        ]
        return composed(centers, inner)
    return None


def _keeps_last_axes(name: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], axes: int) -> bool:
    """Whether an index, transpose or permutation, by its arguments, leaves the last axes as they are."""
    front = x.ndim - axes
    if name == "getitem":
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        if any(part is Ellipsis for part in parts):  # spelled out as full slices
            at = next(i for i, part in enumerate(parts) if part is Ellipsis)
            parts = (*parts[:at], *[slice(None)] * (x.ndim - len(parts) + 1), *parts[at + 1 :])
        # an integer among the front axes would remove an axis, None would add one: neither is traced
        cut = [isinstance(part, slice | list | Tensor) for part in parts[:front]]
        return all(cut) and all(isinstance(part, slice) and part == slice(None) for part in parts[front:])
    if name in ("transpose", "swapaxes", "swapdims", "permute"):
        given = [*args[1:], *kwargs.values()]
        dims = [int(dim) % x.ndim for dim in (given[0] if isinstance(given[0], list | tuple) else given)]
        last = list(range(front, x.ndim))
        return dims[front:] == last if name == "permute" else not set(dims) & set(last)
    return False


def _trace_by_settings(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Forward hook: take centres from a convolution's settings if tracing its functions found none."""
    x = inputs[0]
    centers = centers_of(x)
    if centers is None or centers_of(output) is not None or not x.ndim == output.ndim == len(centers) + 2:
        return
    axes = len(centers)
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    windows = list(zip(*(_per_axis(value, axes) for value in settings), strict=True))
    sizes = [
        (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 if isinstance(padding, int) else n
        for n, (kernel, stride, padding, dilation) in zip(x.shape[2:], windows, strict=True)
    ]
    # a module that overrides forward may do more than its settings say; another size shows that
    if tuple(output.shape[2:]) == tuple(sizes):
        set_centers(output, tuple(window(along, *each) for along, each in zip(centers, windows, strict=True)))


def _per_axis(value: Any, axes: int) -> Sequence[Any]:
    """A setting as one value per axis; a number, "same" and "valid" apply to all axes."""
    if isinstance(value, list | tuple):
        return value if len(value) == axes else [*value] * axes
    return [value] * axes
