"""The network: inference and a training step, beside the same network as eager float32 code by channels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.apps.bench.side_by_side import Contest, Work
from nlnet.models.flops import count
from nlnet.models.folding import fold
from nlnet.models.resnet import VideoResNet
from nlnet.zoo import create_model

ROWS = torch.channels_last_3d
Clip = tuple[int, int, int, int]
"""B, T, H, W."""


def network_contests(
    device: str, *, name: str = "i3d_r50_nl5", clip: Clip = (1, 8, 224, 224), compiled: bool = True
) -> Iterator[Contest]:
    """Inference, then training, of one network; training also with twice the clips, among which the weights' part is half.

    Args:
        compiled: whether the compiled ways take part: compiling takes about half a minute each.
    """
    torch.manual_seed(0)
    batch, *grid = clip
    x = torch.randn(batch, 3, *grid, device=device)
    plain = create_model(name, num_classes=400, variant="8x8").to(device)
    rows = create_model(name, num_classes=400, variant="8x8").to(device, memory_format=ROWS)  # type: ignore[call-overload]
    rows.load_state_dict(plain.state_dict())
    flops = 2.0 * batch * count(plain, (grid[0], grid[1], grid[2])).macs
    ways = inference(plain, rows, x, compiled=compiled)
    yield Contest(
        name=f"inference, {_title(name, batch, grid)}",
        ways=ways,
        chosen="channels-last",
        work=_work(ways, flops),
    )
    for times in (1, 2):
        ways = training(plain, rows, x.repeat(times, 1, 1, 1, 1))
        yield Contest(
            name=f"training, {_title(name, times * batch, grid)}",
            ways=ways,
            memory=True,
            chosen="channels-last",
            work=_work(ways, 3 * times * flops),
        )


def _title(name: str, batch: int, grid: Sequence[int]) -> str:
    return f"{name}, {batch} × {' × '.join(map(str, grid))}"


def _work(ways: Iterable[str], flops: float) -> dict[str, Work]:
    """Products alone; what an inference passes through memory is little beside them."""
    return {
        way: Work(flops=flops, dtype=torch.bfloat16 if way.startswith("bf16") else torch.float32)
        for way in ways
    }


def inference(
    plain: VideoResNet, rows: VideoResNet, x: Tensor, *, compiled: bool
) -> dict[str, Callable[[], object]]:
    """`plain` by channels first, then what its users can have instead."""
    by_rows = x.contiguous(memory_format=ROWS)
    folded, half = fold(rows), fold(rows).to(torch.bfloat16)
    ways: dict[str, Callable[[], object]] = {
        "float32 by channels": forward(plain.eval(), x),
        "channels-last": forward(rows.eval(), by_rows),
        "folded": forward(folded, by_rows),
        "bf16 autocast": forward(rows.eval(), by_rows, autocast=True),
        "bf16 folded": forward(half, by_rows.bfloat16()),
    }
    if compiled:
        ways |= {
            "folded, compiled": forward(compile_for_inference(folded), by_rows),
            "bf16 folded, compiled": forward(compile_for_inference(half), by_rows.bfloat16()),
        }
    return ways


def compile_for_inference(model: nn.Module) -> nn.Module:
    """torch.compile with the weights frozen into the layout that its kernels want."""
    return torch.compile(model, options={"freezing": True})  # type: ignore[return-value]


def forward(model: nn.Module, x: Tensor, *, autocast: bool = False) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad(), _autocast(x, autocast):
            return model(x)

    return run


def training(plain: VideoResNet, rows: VideoResNet, x: Tensor) -> dict[str, Callable[[], object]]:
    by_rows = x.contiguous(memory_format=ROWS)
    return {
        "float32 by channels": step(plain, x),
        "channels-last": step(rows, by_rows),
        "bf16 autocast": step(rows, by_rows, autocast=True),
    }


def step(model: nn.Module, x: Tensor, *, autocast: bool = False) -> Callable[[], None]:
    """Forward and backward; gradients are dropped, as an optimiser would."""
    labels = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)

    def run() -> None:
        with _autocast(x, autocast):
            loss = F.cross_entropy(model.train()(x), labels)
        loss.backward()
        model.zero_grad(set_to_none=True)

    return run


def _autocast(x: Tensor, on: bool) -> AbstractContextManager[object]:
    return torch.autocast(x.device.type, torch.bfloat16) if on else nullcontext()
