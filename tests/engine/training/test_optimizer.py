"""Weight decay and learning rate of each parameter, and frozen norms."""

import pytest
import torch
from torch import nn

from nlnet.engine.config import OptimizerConfig
from nlnet.engine.training.optimizer import create_optimizer, freeze_norms, parameter_groups, set_rate
from nlnet.errors import ConfigError
from nlnet.zoo import create_model


def network(**options):
    return create_model("c2d_mini_nl1", num_classes=3, variant="8x8", **options)


def decay_by_name(model, config):
    groups = parameter_groups(model, config)
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    return {name: decay[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize("norm", ["batch", "sync", "group", "layer"])
def test_norms_do_not_decay_and_everything_else_does(norm):
    """The release: WEIGHT_DECAY_BN 0 for γ and β, 1e-4 for all others, biases of the block and classifier too."""
    decays = decay_by_name(network(norm=norm, nonlocal_norm=norm), OptimizerConfig())
    for name, decay in decays.items():
        is_norm = ".bn" in name or name.startswith("bn") or "downsample.1" in name or ".norm." in name
        assert decay == (0.0 if is_norm else 1e-4), name
    assert decays["layer2.1.nonlocal_block.theta.bias"] == decays["fc.bias"] == 1e-4


def test_transferred_weights_have_their_own_rate():
    model = network()
    names = {"conv1.weight", "bn1.weight"}
    optimizer = create_optimizer(model, OptimizerConfig(transferred_lr=0.1), names)
    set_rate(optimizer, 2.0)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.2 if name in names else 2.0)


def test_every_parameter_is_in_one_group():
    model = network()
    grouped = [
        id(p) for g in parameter_groups(model, OptimizerConfig(), {"conv1.weight"}) for p in g["params"]
    ]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_rate_zero_freezes():
    model = network()
    groups = parameter_groups(model, OptimizerConfig(transferred_lr=0), {"conv1.weight"})
    assert not model.conv1.weight.requires_grad
    assert all(p is not model.conv1.weight for g in groups for p in g["params"])
    with pytest.raises(ConfigError, match=r"optimizer\.transferred_lr: 0 freezes every weight"):
        parameter_groups(model, OptimizerConfig(transferred_lr=0), {n for n, _ in model.named_parameters()})


def test_sgd_is_nesterov_and_one_step_is_by_hand():
    """v = 0.9·0 + g; the Nesterov step is lr·(g + 0.9·v) = 1.9·lr·g."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = create_optimizer(model, OptimizerConfig(weight_decay=0.0))
    set_rate(optimizer, 0.1)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 1.9 * 0.1)


def test_adamw_takes_its_place():
    assert isinstance(create_optimizer(network(), OptimizerConfig(kind="adamw")), torch.optim.AdamW)


def test_only_transferred_norms_freeze():
    model = network()
    transferred = {k for k in model.state_dict() if "nonlocal" not in k}
    frozen = freeze_norms(model, transferred)
    assert not model.bn1.training
    assert not model.bn1.weight.requires_grad
    block = model.get_submodule("layer2.1.nonlocal_block.norm")
    assert block.training
    assert block.weight.requires_grad
    assert len(frozen) == sum(isinstance(m, nn.BatchNorm3d) for m in model.modules()) - 1


def test_caffe2s_rescaled_momentum_is_torchs_plain_one():
    """Caffe2 keeps the rate inside: V ← μV + lr·g, w ← w − ((1 + μ)V' − μV), V·(lr'/lr) where the rate changes.

    Torch keeps it outside: v ← μv + g, w ← w − lr·(g + μv'). With V = lr·v the two are one update, whatever the rates.
    """
    gradients, rates, momentum = (0.7, -1.1, 0.4, 0.9, -0.3, 0.2), (0.1, 0.1, 0.1, 0.01, 0.01, 0.001), 0.9
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    optimizer = create_optimizer(model, OptimizerConfig(weight_decay=0.0, momentum=momentum))
    weight, kept, before = 1.0, 0.0, rates[0]
    for gradient, rate in zip(gradients, rates, strict=True):
        kept *= rate / before
        moved = momentum * kept + rate * gradient
        weight -= (1 + momentum) * moved - momentum * kept
        kept, before = moved, rate
        set_rate(optimizer, rate)
        model.weight.grad = torch.full_like(model.weight, gradient)
        optimizer.step()
        assert model.weight.item() == pytest.approx(weight, rel=1e-12)
