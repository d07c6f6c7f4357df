"""Activation checkpointing changes memory and time only: losses, gradients and statistics are the same bit for bit."""

import copy

import pytest
import torch
import torch.distributed as dist
from support.training import run, settings, weights
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from nlnet.engine.runs.directory import RunDir
from nlnet.layers.norms import untracked_statistics
from nlnet.zoo import create_model


def pair(name, **options):
    """A network and a copy with checkpointing; no γ or W_z is zero, so that every branch adds something."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, variant="8x8", **options).train()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    model.to(memory_format=torch.channels_last_3d)
    other = copy.deepcopy(model)
    other.checkpointing = True
    return model, other


def losses(network, steps=2):
    """Losses of forward and backward passes with seeded clips and dropout; gradients accumulate."""
    values = []
    for step in range(steps):
        torch.manual_seed(step)
        clip = torch.randn(2, 3, 8, 32, 32).contiguous(memory_format=torch.channels_last_3d)
        loss = network(clip).square().mean()
        loss.backward()
        values.append(loss.detach())
    return values


def assert_equal(model, other):
    gradients, others = ([p.grad for p in m.parameters()] for m in (model, other))
    assert all(g is not None and torch.equal(g, h) for g, h in zip(gradients, others, strict=True))
    states = model.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("i3d_mini_nl1", {"dropout": 0.5}),
        ("c2d_mini_rb1", {}),
        ("i3d_mini_nl1", {"norm": "sync", "nonlocal_norm": "sync"}),
        ("c2d_mini_nl1", {"norm": "affine", "nonlocal_norm": "none"}),
        ("c2d_mini_nl1", {"pairwise": "concatenation", "algorithm": "sorted", "norm": "group"}),
    ],
)
def test_losses_gradients_and_statistics_are_the_same_bit_for_bit(name, options):
    model, other = pair(name, **options)
    expected, got = losses(model), losses(other)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert_equal(model, other)
    if options.get("norm", "batch") in ("batch", "sync"):
        assert other.bn1.num_batches_tracked == 2
        assert other.layer1[0].bn1.num_batches_tracked == 2
        assert not torch.equal(other.layer2[1].bn2.running_mean, torch.zeros(32))


def test_frozen_norms_stay_frozen():
    model, other = pair("i3d_mini_nl1")
    for network in (model, other):
        network.layer1[0].bn2.eval()
        losses(network)
        assert torch.equal(network.layer1[0].bn2.running_mean, torch.zeros(16))
    assert_equal(model, other)


def test_bfloat16_too():
    model, other = pair("c2d_mini_nl1")
    for network in (model, other):
        with torch.autocast("cpu", torch.bfloat16):
            losses(network, steps=1)
    assert_equal(model, other)


def test_autograd_saves_less():
    """With checkpointing it saves less than half as many bytes in the forward pass."""
    kept = []
    for network in pair("i3d_mini_nl1"):
        saved = {}

        def keep(tensor, saved=saved):
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.randn(1, 3, 8, 32, 32))
        kept.append(sum(t.untyped_storage().nbytes() for t in saved.values()))
    assert kept[1] < 0.5 * kept[0]


def test_evaluation_recomputes_nothing():
    _, other = pair("c2d_mini_nl1")
    seen = []
    other.layer2[1].register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        other(torch.randn(1, 3, 8, 32, 32))
    assert len(seen) == 1


def test_statistics_come_back_after_an_error():
    norm = nn.BatchNorm1d(2)

    with pytest.raises(KeyError), untracked_statistics(norm):
        raise KeyError
    assert (norm.momentum, norm.num_batches_tracked) == (0.1, 0)
    assert torch.equal(norm.running_mean, torch.zeros(2))


def test_untracked_batches_normalise_like_tracked_ones():
    norm, x = nn.BatchNorm1d(2), torch.randn(8, 2) + 3
    with untracked_statistics(norm):
        y = norm(x)
    assert torch.equal(norm.running_var, torch.ones(2))
    assert torch.equal(y, norm(x))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("more", [(), ("training.accumulate=2", "model.dropout=0.5")])
def test_a_run_with_checkpointing_ends_with_the_same_weights(color_videos, tmp_path, more):
    for value in ("false", "true"):
        run(
            settings(color_videos, f"training.checkpointing={value}", "schedule.iterations=3", *more),
            tmp_path / value,
        )
    plain, saving = weights(tmp_path / "false"), weights(tmp_path / "true")
    assert all(torch.equal(plain[key], saving[key]) for key in plain)
    config, _ = RunDir(tmp_path / "true").read_config()
    assert config.training.checkpointing


@pytest.fixture
def process_group():
    """A process group of one process; test_distributed.py runs two."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings(
    "ignore:Grad strides"
)  # of 1×1×1 kernels, whose channels-last strides are ambiguous
def test_under_distributed_data_parallel():
    model, other = pair("i3d_mini_nl1")
    expected, got = losses(DistributedDataParallel(model)), losses(DistributedDataParallel(other))
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert_equal(model, other)
