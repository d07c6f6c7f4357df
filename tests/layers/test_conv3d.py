"""The convolutions by their kernels against torch's own, values and gradients, and when they are taken."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nlnet.layers import conv3d as convolution
from nlnet.layers.conv3d import Convolution, temporal

ROWS = torch.channels_last_3d


def torchs(layer: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    return F.conv3d(x, layer.weight, layer.bias, layer.stride, layer.padding)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.sampled_from([(1, 1, 1), (3, 1, 1), (5, 1, 1), (1, 3, 3), (3, 3, 3), (1, 1, 3), (5, 7, 7)]),
    stride=st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 1)]),
    sizes=st.tuples(
        st.integers(1, 3), st.integers(2, 5), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)
    ),
    bias=st.booleans(),
)
def test_every_kernel_is_torchs_convolution(kernel, stride, sizes, bias):
    """Values, the gradients of input, weight and bias, and the layout, in float32 by rows."""
    batch, channels, *grid = sizes
    layer = Convolution(channels, 4, kernel, stride, tuple(k // 2 for k in kernel), bias=bias)
    layer.to(memory_format=ROWS)
    x = torch.randn(batch, channels, *grid).contiguous(memory_format=ROWS)
    outcomes = []
    for run in (layer, lambda x: torchs(layer, x)):
        inner = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = run(inner)
        upstream = torch.linspace(-1, 1, y.numel()).view(y.shape)
        outcomes.append((y, *torch.autograd.grad(y, [inner, *layer.parameters()], upstream)))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_shifted_sum_has_all_derivatives():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64).contiguous(memory_format=ROWS).requires_grad_()
    weight = torch.randn(2, 3, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(temporal, (x, weight, bias))
    assert torch.autograd.gradgradcheck(temporal, (x, weight, bias))
    torch.testing.assert_close(temporal(x, weight, bias), F.conv3d(x, weight, bias, padding=(1, 0, 0)))


@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 1, 1), (1, 3, 3), (3, 3, 3)])
def test_a_relu_in_place_may_follow(kernel):
    """As in networks without norms: the gradient is that of a ReLU of its own memory."""
    torch.manual_seed(0)
    layer = Convolution(3, 4, kernel, padding=tuple(k // 2 for k in kernel))
    x = torch.randn(2, 3, 4, 5, 5).contiguous(memory_format=ROWS)
    grads = [torch.autograd.grad(relu(layer(x)).sum(), layer.weight)[0] for relu in (torch.relu_, torch.relu)]
    torch.testing.assert_close(*grads)


def test_a_shift_beyond_the_clip_adds_nothing():
    """A kernel of five frames on a clip of one: only the middle one meets it."""
    x = torch.randn(1, 2, 1, 3, 3).contiguous(memory_format=ROWS)
    weight = torch.randn(2, 2, 5, 1, 1)
    torch.testing.assert_close(temporal(x, weight, None), F.conv3d(x, weight[:, :, 2:3]))


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (lambda x: x.contiguous(memory_format=ROWS), True),
        (lambda x: x, False),
        (lambda x: x.contiguous(memory_format=ROWS).double(), False),
        (lambda x: x.contiguous(memory_format=ROWS).bfloat16(), False),
        (lambda x: x.contiguous(memory_format=ROWS).to("meta"), False),
    ],
    ids=["rows", "channels", "float64", "bf16", "meta"],
)
def test_only_float32_by_rows_on_the_cpu_is_taken_apart(make, taken):
    x = make(torch.randn(1, 2, 3, 4, 4))
    layer = Convolution(2, 2, 1).to(x.device, x.dtype)
    with mock.patch.object(convolution, "pointwise", wraps=convolution.pointwise) as way:
        layer(x)
    assert way.called == taken


def test_autocast_is_left_to_torch():
    layer, x = Convolution(2, 2, 1), torch.randn(1, 2, 3, 4, 4).contiguous(memory_format=ROWS)
    with torch.autocast("cpu", torch.bfloat16), mock.patch.object(convolution, "pointwise") as way:
        assert layer(x).dtype == torch.bfloat16
    assert not way.called


@pytest.mark.unhooked
def test_compiled_networks_take_the_same_ways_and_exported_ones_torchs():
    torch.manual_seed(0)
    torch.compiler.reset()
    layers = nn.Sequential(
        Convolution(3, 4, (3, 1, 1), padding=(1, 0, 0)),
        Convolution(4, 4, (1, 3, 3), padding=(0, 1, 1)),
        Convolution(4, 2, 1, (1, 2, 2)),
    ).to(memory_format=ROWS)
    x = torch.randn(2, 3, 4, 6, 6).contiguous(memory_format=ROWS)
    operators = []

    def keep(module, _):
        operators.append(module.code)
        return module.forward

    compiled = torch.compile(layers, fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(x), layers(x))
    grads = [torch.autograd.grad(way(x).sin().sum(), layers.parameters()) for way in (compiled, layers)]
    torch.testing.assert_close(*grads)
    assert "conv2d" in operators[0]
    assert "conv3d" not in operators[0]
    exported = torch.export.export(layers.eval(), (x,)).graph_module.code
    assert exported.count("aten.conv3d") == 3
