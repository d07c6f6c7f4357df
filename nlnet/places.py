"""Where the cells of a network's maps lie in its input: every map's geometry, followed through the forward pass.

Every convolution and pool turns the places of its input's cells into those of its output's, place(i) = first +
step·i along each axis, in clip coordinates. So an unpadded pool or an uneven stride is mapped exactly, which the ratio
of the sizes does not do.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Places(NamedTuple):
    """Where the cells of a map lie along one axis of the clip: cell i is centred on `first` + `step`·i."""

    first: float
    step: float


Frame = tuple[Places, ...]

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")
POOLS = (*MAX_POOLS, "avg_pool1d", "avg_pool2d", "avg_pool3d")


def nearest_cell(position: float, places: Places, cells: int) -> int:
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
