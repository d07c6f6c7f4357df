"""Folded networks give the logits of the networks that they were made of."""

import copy

import pytest
import torch
from torch import nn

from nlnet.layers.folding import fold, folded
from nlnet.layers.norms import FrozenAffine, create_norm
from nlnet.zoo import create_model


def trained(model: nn.Module) -> nn.Module:
    """The model with statistics, scales and shifts that differ from those of a fresh network."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.modules.batchnorm._BatchNorm | FrozenAffine):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("name", ["c2d_mini", "i3d_mini_nl1", "i3d333_mini_rb1"])
@pytest.mark.parametrize("norm", ["batch", "sync", "affine"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_logits_are_the_networks_own(name, norm, layout):
    model = trained(create_model(name, num_classes=5, variant="8x8", norm=norm)).double().eval()
    x = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64).contiguous(memory_format=layout)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected, got = model(x), fold(model)(x)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_no_batch_norm_is_left():
    model = trained(create_model("i3d_mini_nl1", num_classes=5, variant="8x8")).train()
    small = fold(model)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in small.modules())
    assert not small.training
    assert model.training
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_other_norms_stay():
    model = trained(create_model("c2d_mini", num_classes=5, variant="8x8", norm="group")).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(fold(model)(x), model(x))


@pytest.mark.parametrize("kind", ["batch", "affine"])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_by_hand(kind, bias):
    """w' = s w, b' = s (b − m) + β for one channel of each: s = γ/√(v + 1e-5), or the affine's weight."""
    norm = create_norm(kind, 2, ndim=3)
    norm.weight.data[:], norm.bias.data[:] = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    mean, scale = torch.zeros(2), torch.tensor([2.0, -1.0])
    if kind == "batch":
        norm.running_mean[:], norm.running_var[:] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 8.0]) - 1e-5
        mean, scale = torch.tensor([1.0, 2.0]), torch.tensor([2 / 3**0.5, -1 / 8**0.5])
    weight, own = torch.randn(2, 3, 1, 1, 1), torch.tensor([4.0, 5.0])
    got, shift = folded(weight, own if bias else None, norm.eval())
    torch.testing.assert_close(got, weight * scale.view(2, 1, 1, 1, 1))
    torch.testing.assert_close(shift, scale * ((own if bias else 0) - mean) + torch.tensor([0.5, 3.0]))
