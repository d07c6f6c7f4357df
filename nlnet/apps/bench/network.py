"""Benchmarks of a whole network: memory layout, folded norms, bf16 and compilation beside float32 in channels-first."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.apps.bench.side_by_side import Comparison, Work
from nlnet.layers.folding import fold
from nlnet.models.flops import count
from nlnet.models.resnet import VideoResNet
from nlnet.zoo import create_model

CHANNELS_LAST = torch.channels_last_3d
Clip = tuple[int, int, int, int]
"""B, T, H, W."""


def network_comparisons(
    device: str, *, name: str = "i3d_r50_nl5", clip: Clip = (1, 8, 224, 224), compiled: bool = True
) -> Iterator[Comparison]:
    """Compare the ways to run inference with one network, then the ways to train it.

    Training is measured with twice the clips too: costs that depend on the weights alone are then shared by more clips.

    Args:
        compiled: whether to time compiled networks too; each compilation takes about half a minute.
    """
    torch.manual_seed(0)
    batch, *grid = clip
    x = torch.randn(batch, 3, *grid, device=device)
    first = create_model(name, num_classes=400, variant="8x8").to(device)
    last = create_model(name, num_classes=400, variant="8x8").to(device, memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    last.load_state_dict(first.state_dict())  # equal weights: the tests compare the outputs of all ways
    # 2 operations for each multiply-add
    flops = 2.0 * batch * count(first, (grid[0], grid[1], grid[2])).macs
    ways = inference(first, last, x, compiled=compiled)
    yield Comparison(
        name=f"inference, {_title(name, batch, grid)}",
        ways=ways,
        chosen="channels-last",
        work=_work(ways, flops),
    )
    for times in (1, 2):
        ways = training(first, last, x.repeat(times, 1, 1, 1, 1))
        yield Comparison(
            name=f"training, {_title(name, times * batch, grid)}",
            ways=ways,
            memory=True,
            chosen="channels-last",
            # backward computes two products, for inputs and for weights, where forward computes one
            work=_work(ways, 3 * times * flops),
        )


def _title(name: str, batch: int, grid: Sequence[int]) -> str:
    return f"{name}, {batch} × {' × '.join(map(str, grid))}"


def _work(ways: Iterable[str], flops: float) -> dict[str, Work]:
    """The floating-point operations of each way; memory traffic is left out, as it takes much less time."""
    return {
        way: Work(flops=flops, dtype=torch.bfloat16 if way.startswith("bf16") else torch.float32)
        for way in ways
    }


def inference(
    first: VideoResNet, last: VideoResNet, x: Tensor, *, compiled: bool
) -> dict[str, Callable[[], object]]:
    """Ways to run inference: plain, with `first`, then the faster ways, with `last`.

    Args:
        first, last: the same network in channels-first and in channels-last memory layout.
    """
    channels_last = x.contiguous(memory_format=CHANNELS_LAST)
    folded, half = fold(last), fold(last).to(torch.bfloat16)
    ways: dict[str, Callable[[], object]] = {
        "float32, channels-first": forward(first.eval(), x),
        "channels-last": forward(last.eval(), channels_last),
        "folded": forward(folded, channels_last),
        "bf16 autocast": forward(last.eval(), channels_last, autocast=True),
        "bf16 folded": forward(half, channels_last.bfloat16()),
    }
    if compiled:
        ways |= {
            "folded, compiled": forward(compile_for_inference(folded), channels_last),
            "bf16 folded, compiled": forward(compile_for_inference(half), channels_last.bfloat16()),
        }
    return ways


def compile_for_inference(model: nn.Module) -> nn.Module:
    """Compile a model for inference only: its weights are frozen in the memory layout that the kernels prefer."""
    return torch.compile(model, options={"freezing": True})  # type: ignore[return-value]


def forward(model: nn.Module, x: Tensor, *, autocast: bool = False) -> Callable[[], Tensor]:
    """Return a function that runs the model once without gradient."""

    def run() -> Tensor:
        with torch.no_grad(), _autocast(x, autocast):
            return model(x)

    return run


def training(first: VideoResNet, last: VideoResNet, x: Tensor) -> dict[str, Callable[[], object]]:
    """Ways to run a training step; arguments as in `inference`."""
    channels_last = x.contiguous(memory_format=CHANNELS_LAST)
    return {
        "float32, channels-first": step(first, x),
        "channels-last": step(last, channels_last),
        "bf16 autocast": step(last, channels_last, autocast=True),
    }


def step(model: nn.Module, x: Tensor, *, autocast: bool = False) -> Callable[[], None]:
    """Return a function that runs forward and backward and drops the gradients, as an optimiser does."""
    labels = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)

    def run() -> None:
        with _autocast(x, autocast):
            loss = F.cross_entropy(model.train()(x), labels)
        loss.backward()
        model.zero_grad(set_to_none=True)

    return run


def _autocast(x: Tensor, on: bool) -> AbstractContextManager[object]:
    return torch.autocast(x.device.type, torch.bfloat16) if on else nullcontext()
