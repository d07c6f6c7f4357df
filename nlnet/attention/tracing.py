"""Follows the places of a clip's cells through a network's forward pass (`nlnet.attention.cell_centers` has the arithmetic)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nlnet.attention.cell_centers import Frame, Places, along, resized, shared, window

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")
POOLS = (*MAX_POOLS, "avg_pool1d", "avg_pool2d", "avg_pool3d")
SINGLY = """
abs add addcdiv addcmul clamp clamp_max clamp_min clip cos div divide erf exp expm1 iadd idiv imul ipow isub itruediv
lerp log log1p masked_fill maximum minimum mul multiply nan_to_num neg negative pos pow radd rdiv reciprocal rmul rpow
rsqrt rsub rtruediv sign sin sqrt square sub subtract true_divide truediv where
celu elu gelu glu gumbel_softmax hardshrink hardsigmoid hardswish hardtanh leaky_relu log_softmax logsigmoid mish prelu
relu relu6 rrelu selu sigmoid silu softmax softmin softplus softshrink softsign tanh tanhshrink threshold
batch_norm group_norm instance_norm layer_norm local_response_norm normalize rms_norm
alpha_dropout dropout dropout1d dropout2d dropout3d feature_alpha_dropout feature_dropout
"""
"""Functions of a cell, a factor from all of them at most: arithmetic, activations, norms, dropout."""
STORED = """
alias bfloat16 broadcast_to cat chunk clone concat concatenate contiguous cpu cuda detach double expand expand_as float
half split split_with_sizes tensor_split to type type_as
flatten reshape reshape_as unflatten view view_as
"""
"""Functions that give the same cells elsewhere, in another type, with other channels or other axes before theirs."""
KEEPING = frozenset((SINGLY + STORED).split())
"""Functions that leave every cell of the last axes at its place, if these stay as long as they are."""


@contextmanager
def following(model: nn.Module) -> Iterator[None]:
    """Within, what is computed from a marked clip is marked with the places of its cells (`Geometry`).

    A convolution of `model` that computes by other functions than torch's convolutions is followed by its settings,
    where its map has the size that these give.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    handles = [module.register_forward_hook(_by_settings) for module in convolutions]
    try:
        with Geometry():
            yield
    finally:
        for handle in handles:
            handle.remove()


class Geometry(TorchFunctionMode):
    """Follows the places of a clip's cells through every torch function that runs inside the context.

    A window of k cells, stride s, padding p and dilation d puts output cell o at input cell s·o − p + d(k − 1)/2,
    its centre; resizing is followed by its own rule (`resized`), adaptive pools where their windows are alike.
    `KEEPING` names the functions that keep places. A sum has the places of its terms, where these agree; terms
    without places do not count. All other functions (slices, rolls, flips, transposed convolutions, whatever is not
    known here) lose them. Places are those of a tensor's last axes, and travel as an attribute of the tensors, so that
    no activation is kept alive.
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
        sources = [value for value in _tensors((*args, *kwargs.values())) if places_of(value) is not None]
        if sources:
            name = getattr(func, "__name__", "").strip("_").removesuffix("_with_indices")
            frames = [_moved(name, sources, output, args, kwargs) for output in _tensors([result])]
            # afterwards, since a function that works in place gives out what it was given
            for output, frame in zip(_tensors([result]), frames, strict=True):
                mark(output, frame)
        return result


def mark(x: Tensor, frame: Frame | None) -> None:
    """Say where the cells of `x` lie; None where that is unknown."""
    setattr(x, "_nlnet_places", frame)  # noqa: B010  (a plain assignment is an error to the type checker)


def places_of(x: Tensor) -> Frame | None:
    """Where the cells of `x` lie in the clip, or None where that is unknown."""
    return getattr(x, "_nlnet_places", None)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among `values` and inside its lists and tuples."""
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list | tuple) else [value]
    return [value for value in flat if isinstance(value, Tensor)]


def _moved(
    name: str, sources: list[Tensor], output: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Frame | None:
    """The places of `output`, which the function `name` made from `sources`."""
    x = sources[0]
    frame = places_of(x)
    assert frame is not None
    axes = len(frame)
    grid, cells = x.shape[-axes:], output.shape[-axes:]
    if output.ndim < axes:
        return None

    def argument(index: int, key: str, default: Any) -> Any:
        value = args[index] if len(args) > index else kwargs.get(key, default)
        return default if value is None else value

    if name in KEEPING or _keeps(name, x, args, kwargs, axes):
        known = {places_of(source) for source in sources if source.shape[-axes:] == cells}
        return known.pop() if len(known) == 1 else None
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
        settings = (_each(value, axes) for value in (kernel, stride, padding, dilation))
        return tuple(window(places, *each) for places, *each in zip(frame, *settings, strict=True))
    if name == "pad":
        before = list(argument(1, "pad", ()))[: 2 * axes : 2]  # (left, right) pairs, the last axis first
        before += [0] * (axes - len(before))
        return tuple(
            Places(p.first - n * p.step, p.step) for p, n in zip(frame, reversed(before), strict=True)
        )
    if name.startswith("adaptive_"):
        return along(frame, [shared(n, m) for n, m in zip(grid, cells, strict=True)])
    if name == "interpolate":
        mode, corners = argument(3, "mode", "nearest"), bool(argument(4, "align_corners", False))
        factor = None if argument(5, "recompute_scale_factor", False) else argument(2, "scale_factor", None)
        factors = _each(factor, axes)
        steps = [
            resized(n, m, mode, corners=corners, factor=f)
            for n, m, f in zip(grid, cells, factors, strict=True)
        ]
        return along(frame, steps)
    return None


def _keeps(name: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], axes: int) -> bool:
    """Whether a function that reorders or cuts axes leaves the last ones alone, by its arguments."""
    front = x.ndim - axes
    if name == "getitem":
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        if any(part is Ellipsis for part in parts):
            at = next(i for i, part in enumerate(parts) if part is Ellipsis)
            parts = (*parts[:at], *[slice(None)] * (x.ndim - len(parts) + 1), *parts[at + 1 :])
        cut = [isinstance(part, slice | list | Tensor) for part in parts[:front]]
        return all(cut) and all(isinstance(part, slice) and part == slice(None) for part in parts[front:])
    if name in ("transpose", "swapaxes", "swapdims", "permute"):
        given = [*args[1:], *kwargs.values()]
        dims = [int(dim) % x.ndim for dim in (given[0] if isinstance(given[0], list | tuple) else given)]
        last = list(range(front, x.ndim))
        return dims[front:] == last if name == "permute" else not set(dims) & set(last)
    return False


def _by_settings(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    x = inputs[0]
    frame = places_of(x)
    if frame is None or places_of(output) is not None or not x.ndim == output.ndim == len(frame) + 2:
        return
    axes = len(frame)
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    windows = list(zip(*(_each(value, axes) for value in settings), strict=True))
    sizes = [
        (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 if isinstance(padding, int) else n
        for n, (kernel, stride, padding, dilation) in zip(x.shape[2:], windows, strict=True)
    ]
    if tuple(output.shape[2:]) == tuple(sizes):
        mark(output, tuple(window(places, *each) for places, each in zip(frame, windows, strict=True)))


def _each(value: Any, axes: int) -> Sequence[Any]:
    """One value per axis; "same" and "valid" padding, and a number for all axes, are repeated."""
    if isinstance(value, list | tuple):
        return value if len(value) == axes else [*value] * axes
    return [value] * axes
