"""Where does this position look: one affinity row of every block in a network, without the N×M map.

The clip's position is followed to each block's grid by the network's own geometry: every convolution and pool turns
the places of its input's cells into those of its output's, place(i) = first + step·i along each axis, in clip
coordinates. So an unpadded pool or an uneven stride is mapped exactly, which the ratio of the sizes does not do.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nlnet.block import NonLocalBlock
from nlnet.hosts import evaluating


class Places(NamedTuple):
    """Where the cells of a map lie along one axis of the clip: cell i is centred on `first` + `step`·i."""

    first: float
    step: float


Frame = tuple[Places, ...]

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")
POOLS = (*MAX_POOLS, "avg_pool1d", "avg_pool2d", "avg_pool3d")


def attention_row(
    model: nn.Module, clip: Float[Tensor, "*batch_channels_and_grid"], position: Sequence[int]
) -> dict[str, Tensor]:
    """f(x_i, x_j)/C(x) of the position i for all j, from every non-local block: {path: map over the block's keys}.

    Args:
        model: any network with non-local blocks, on any device, in any mode (which is restored).
        clip: one input as the network takes it, normalised: (3, T, H, W) or (1, 3, T, H, W); an image (3, H, W) or a
            sequence (C, T) for networks that take those.
        position: (t, y, x) in the clip's own frames, rows and columns; (y, x) of an image, (t,) of a sequence.

    Returns:
        Maps (T', H', W') on each block's grid of keys, which has half the rows and columns of the block's input where
        it pools them. Softmax rows sum to 1; the others are f/M, signed for the dot product.

    One forward pass in evaluation mode without gradient, then O(M) a block. A block that works on the whole clip gets
    the cell whose centre is nearest to the position (`nearest_cell`).

    Raises:
        ValueError: a model without blocks or whose blocks did not each run once on this clip, a clip of more than
            one sample or of other axes than the position, a position outside the clip.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps: a compiled graph calls no hooks
    blocks = {path: module for path, module in model.named_modules() if isinstance(module, NonLocalBlock)}
    if not blocks:
        raise ValueError("the model has no non-local block: put some in with insert_nonlocal")
    ndim = len(position)
    if clip.ndim == ndim + 1:
        clip = clip[None]
    if clip.ndim != ndim + 2 or clip.shape[0] != 1:
        raise ValueError(
            f"got a clip of shape {tuple(clip.shape)} with position {tuple(position)}, expected one clip: (C, T, H, W) "
            "with (t, y, x), (C, H, W) with (y, x) or (C, T) with (t,), or the same with a batch of one"
        )
    size = tuple(clip.shape[2:])
    if not all(0 <= p < n for p, n in zip(position, size, strict=True)):
        raise ValueError(f"position: got {tuple(position)}, expected inside the clip's grid {size}")
    parameter = next(iter(blocks.values())).W_z.weight
    inputs, frames = _block_inputs(model, blocks, clip.to(parameter.device, parameter.dtype))
    rows = {}
    with torch.no_grad():
        for path, block in blocks.items():
            x = inputs[path]
            grid = tuple(x.shape[2:])
            frame = frames[path] or proportional(size, grid)
            query = tuple(
                nearest_cell(p, places, n) for p, places, n in zip(position, frame, grid, strict=True)
            )
            rows[path] = block.affinity_rows(x, query)[0]
    return rows


def nearest_cell(position: int, places: Places, cells: int) -> int:
    """Index of the cell whose centre is nearest to `position`; the earlier of two, and inside the grid.

    Border cells thus answer for what lies beyond their centres, such as the rows that an unpadded pool drops.
    """
    return min(max(math.ceil((position - places.first) / places.step - 0.5), 0), cells - 1)


def proportional(size: Sequence[int], grid: Sequence[int]) -> Frame:
    """Places of a grid whose cells share the clip out evenly: what is assumed where the geometry is lost.

    That is after an operation that changes the grid and is none of those that `Geometry` knows.
    """
    return tuple(Places((n / cells - 1) / 2, n / cells) for n, cells in zip(size, grid, strict=True))


class Geometry(TorchFunctionMode):
    """Follows the places of a clip's cells through every torch function that runs inside the context.

    A window of k cells, stride s, padding p and dilation d puts output cell o at input cell s·o − p + d(k − 1)/2,
    its centre; adaptive pools and resizing share the grid out evenly. Functions that keep the grid keep the places.
    Others (slices, transposed convolutions, reshapes) lose them. Places travel as an attribute of the tensors, so
    that no activation is kept alive.
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
        for output in _tensors([result]) if sources else ():
            if places_of(output) is None:
                frame = _moved(getattr(func, "__name__", ""), sources, output, args, kwargs)
                if frame is not None:
                    mark(output, frame)
        return result


def mark(x: Tensor, frame: Frame) -> None:
    """Say where the cells of `x` lie."""
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
    frame, grid, cells = places_of(x), x.shape[2:], output.shape[2:]
    if frame is None or len(cells) != len(frame):
        return None

    def argument(index: int, key: str, default: Any) -> Any:
        value = args[index] if len(args) > index else kwargs.get(key, default)
        return default if value is None else value

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
        windows = (_each(value, len(frame)) for value in (kernel, stride, padding, dilation))
        return tuple(_window(places, *window) for places, *window in zip(frame, *windows, strict=True))
    if name == "pad":
        before = list(argument(1, "pad", ()))[
            : 2 * len(frame) : 2
        ]  # (left, right) pairs, the last axis first
        before += [0] * (len(frame) - len(before))
        return tuple(
            Places(p.first - n * p.step, p.step) for p, n in zip(frame, reversed(before), strict=True)
        )
    if name.startswith("adaptive_") or name == "interpolate":
        shares = [n / m for n, m in zip(grid, cells, strict=True)]
        return tuple(
            Places(p.first + p.step * (share - 1) / 2, p.step * share)
            for p, share in zip(frame, shares, strict=True)
        )
    same = [
        places_of(source) for source in sources if source.ndim == output.ndim and source.shape[2:] == cells
    ]
    return same[0] if same else None


def _each(value: Any, axes: int) -> Sequence[Any]:
    """One value per axis; "same" and "valid" padding, and a number for all axes, are repeated."""
    if isinstance(value, list | tuple):
        return value if len(value) == axes else [*value] * axes
    return [value] * axes


def _window(places: Places, kernel: int, stride: int, padding: int | str, dilation: int) -> Places:
    span = dilation * (kernel - 1)
    if isinstance(padding, str):
        padding = span // 2 if padding == "same" else 0
    return Places(places.first + places.step * (span / 2 - padding), places.step * stride)


def _block_inputs(
    model: nn.Module, blocks: Mapping[str, NonLocalBlock], clip: Tensor
) -> tuple[dict[str, Tensor], dict[str, Frame | None]]:
    """What each block is given in one evaluation forward pass, and where its cells lie."""
    found: dict[str, list[Tensor]] = {path: [] for path in blocks}

    def keep(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: found[path].append(inputs[0])

    handles = [block.register_forward_pre_hook(keep(path)) for path, block in blocks.items()]
    clip = clip.detach()  # a tensor of our own to mark
    mark(clip, (Places(0.0, 1.0),) * (clip.ndim - 2))
    try:
        with evaluating(model), torch.no_grad(), Geometry():
            model(clip)
    finally:
        for handle in handles:
            handle.remove()
    for path, inputs in found.items():
        if len(inputs) != 1:
            raise ValueError(f"block {path!r} ran {len(inputs)} times on this clip, expected once")
        if inputs[0].ndim != clip.ndim or inputs[0].shape[0] != 1:
            raise ValueError(
                f"block {path!r} was given maps of shape {tuple(inputs[0].shape)} for a clip of shape "
                f"{tuple(clip.shape)}, expected one map with the clip's axes"
            )
    maps = {path: inputs[0] for path, inputs in found.items()}
    return maps, {path: places_of(x) for path, x in maps.items()}
