"""Precise statistics are averages over batches; afterwards the earlier statistics are restored."""

import torch
from torch import nn

from nlnet.engine.distributed import World
from nlnet.engine.training.batch_norms import precise_statistics

ALONE = World(0, 1, torch.device("cpu"))


def test_mean_and_variance_are_those_of_the_batches_together():
    """Batches of equal size: E[var + mean²] − mean² over batches is the biased variance of all samples."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3).train()
    batches = [torch.randn(8, 3) * (i + 1) + i for i in range(4)]
    together = torch.cat(batches)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    with precise_statistics(norm, norm, batches, ALONE):
        torch.testing.assert_close(norm.running_mean, together.mean(dim=0))
        torch.testing.assert_close(norm.running_var, together.var(dim=0, correction=0))
        norm.eval()
        torch.testing.assert_close(norm(together).mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    assert all(torch.equal(before[name], buffer) for name, buffer in norm.named_buffers())


def test_frozen_norms_are_not_measured():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)).train()
    model[0].eval()
    with precise_statistics(model, model, [torch.randn(4, 2) + 5], ALONE):
        assert torch.equal(model[0].running_mean, torch.zeros(2))
        assert model[1].running_mean.abs().max() > 0


def test_statistics_come_back_after_an_error():
    norm = nn.BatchNorm1d(2).train()
    try:
        with precise_statistics(norm, norm, [torch.randn(4, 2)], ALONE):
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert not norm._forward_pre_hooks
