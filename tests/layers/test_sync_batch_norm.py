"""Synchronised batch norm: plain batch norm in one process, that of the joined batch in two."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.layers.sync_batch_norm import SyncBatchNorm

SHAPE = (2, 6, 3, 2, 4)


@pytest.mark.parametrize("training", [True, False])
def test_sync_in_one_process_is_batch_norm_bit_for_bit(training: bool) -> None:
    sync, batch = SyncBatchNorm(6).train(training), nn.BatchNorm3d(6).train(training)
    x = torch.randn(SHAPE)
    assert torch.equal(sync(x), batch(x))
    for name, value in batch.state_dict().items():
        assert torch.equal(sync.state_dict()[name], value)


def test_an_input_without_channels() -> None:
    with pytest.raises(ValueError, match="got an input of 1 axes"):
        SyncBatchNorm(6)._check_input_dim(torch.zeros(6))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def joined_batch() -> tuple[Tensor, Tensor]:
    """Seven samples and the gradient that reaches their normalised values; a large mean hurts naive variances."""
    generator = torch.Generator().manual_seed(0)
    x = 1e3 + torch.randn(7, 5, 2, 3, 2, generator=generator, dtype=torch.float64)
    return x, torch.randn(x.shape, generator=generator, dtype=torch.float64)


def part(x: Tensor, rank: int) -> Tensor:
    """Batches of different size: five samples and two."""
    return x[:5] if rank == 0 else x[5:]


def make(cls: type[_BatchNorm], momentum: float | None) -> _BatchNorm:
    norm = cls(5, momentum=momentum).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, 5))
        norm.bias.copy_(torch.linspace(3, 4, 5))
    return norm


def step(norm: _BatchNorm, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(dy)
    assert x.grad is not None
    return {"y": y.detach(), "dx": x.grad}


def sync_worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    x, dy = (part(t, rank) for t in joined_batch())
    results: dict[str, object] = {}
    for momentum in (0.1, None):
        norm = make(SyncBatchNorm, momentum)
        for _ in range(2):
            results[f"{momentum}"] = step(norm, x, dy) | {"weight": norm.weight.grad, "bias": norm.bias.grad}
            results[f"{momentum} state"] = {k: v.clone() for k, v in norm.state_dict().items()}
            x = x * 0.5 + 1
        norm.eval()
        results[f"{momentum} eval"] = norm(x).detach()
        x, _ = (part(t, rank) for t in joined_batch())
    no_affine = SyncBatchNorm(5, affine=False, track_running_stats=False).double()
    results["no affine"] = step(no_affine, x, dy)
    results["no affine eval"] = step(no_affine.eval(), x, dy)
    results["empty"] = SyncBatchNorm(5).double()(x if rank == 0 else x[:0]).detach()
    results["bfloat16"] = SyncBatchNorm(5)((x - 1e3).bfloat16()).detach()
    try:
        SyncBatchNorm(5)(torch.zeros(1 - rank, 5, 1))
    except ValueError as error:
        results["error"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    # torch's clean-up with gloo aborts a process now and then (docs/log.md, "Leaving under torchrun"): all is written
    os._exit(0)


def test_sync_over_two_processes_is_batch_norm_of_the_joined_batch(tmp_path: Path) -> None:
    mp.spawn(sync_worker, args=(free_port(), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))

    def check(actual: Tensor, expected: Tensor, rank: int) -> None:
        torch.testing.assert_close(actual, part(expected, rank), atol=1e-10, rtol=1e-10)

    for momentum in (0.1, None):
        x, dy = joined_batch()
        batch = make(nn.BatchNorm3d, momentum)
        for _ in range(2):
            expected = step(batch, x, dy)
            x = x * 0.5 + 1
        for rank, results in enumerate((first, second)):
            check(results[f"{momentum}"]["y"], expected["y"], rank)
            check(results[f"{momentum}"]["dx"], expected["dx"], rank)
            for name, value in batch.state_dict().items():
                torch.testing.assert_close(results[f"{momentum} state"][name], value, atol=1e-10, rtol=1e-10)
            check(results[f"{momentum} eval"], batch.eval()(x).detach(), rank)
            batch.train()
        for name, value in (("weight", batch.weight.grad), ("bias", batch.bias.grad)):
            both = first[f"{momentum}"][name] + second[f"{momentum}"][name]
            torch.testing.assert_close(both, value, atol=1e-9, rtol=1e-10)

    x, dy = joined_batch()
    plain = step(nn.BatchNorm3d(5, affine=False, track_running_stats=False).double(), x, dy)
    for rank, results in enumerate((first, second)):
        for mode in ("no affine", "no affine eval"):
            check(results[mode]["y"], plain["y"], rank)
            check(results[mode]["dx"], plain["dx"], rank)
        half = nn.BatchNorm3d(5)((x - 1e3).bfloat16().float()).bfloat16()
        torch.testing.assert_close(results["bfloat16"], part(half, rank), atol=0.02, rtol=0.02)
        assert "at most one value per channel in the joined batch, expected two or more" in results["error"]
    # if one process has no samples, the batch of the other is the joined batch
    alone = nn.BatchNorm3d(5).double()(x[:5])
    torch.testing.assert_close(first["empty"], alone.detach(), atol=1e-10, rtol=0)
    assert second["empty"].shape == (0, 5, 2, 3, 2)
