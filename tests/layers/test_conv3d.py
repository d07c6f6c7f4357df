"""The special paths of convolutions against torch's own: values and gradients, and when they are taken."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nlnet.layers import conv3d as convolution
from nlnet.layers.conv3d import Convolution, temporal

CHANNELS_LAST = torch.channels_last_3d


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
    """Values, and the gradients of input, weight and bias, in float32 and channels last."""
    batch, channels, *grid = sizes
    layer = Convolution(channels, 4, kernel, stride, tuple(k // 2 for k in kernel), bias=bias)
    layer.to(memory_format=CHANNELS_LAST)
    x = torch.randn(batch, channels, *grid).contiguous(memory_format=CHANNELS_LAST)
    outcomes = []
    for run in (layer, lambda x: torchs(layer, x)):
        inner = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = run(inner)
        upstream = torch.linspace(-1, 1, y.numel()).view(y.shape)
        outcomes.append((y, *torch.autograd.grad(y, [inner, *layer.parameters()], upstream)))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_temporal_convolution_has_all_derivatives():
    torch.manual_seed(0)
    x = (
        torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
        .contiguous(memory_format=CHANNELS_LAST)
        .requires_grad_()
    )
    weight = torch.randn(2, 3, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(temporal, (x, weight, bias))
    assert torch.autograd.gradgradcheck(temporal, (x, weight, bias))
    torch.testing.assert_close(temporal(x, weight, bias), F.conv3d(x, weight, bias, padding=(1, 0, 0)))


@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 1, 1), (1, 3, 3), (3, 3, 3)])
def test_a_relu_in_place_may_follow(kernel):
    """As in networks without norms: the gradient is the same as with a ReLU that is not in place."""
    torch.manual_seed(0)
    layer = Convolution(3, 4, kernel, padding=tuple(k // 2 for k in kernel))
    x = torch.randn(2, 3, 4, 5, 5).contiguous(memory_format=CHANNELS_LAST)
    grads = [torch.autograd.grad(relu(layer(x)).sum(), layer.weight)[0] for relu in (torch.relu_, torch.relu)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(("frames", "kernel"), [(1, 5), (2, 7), (3, 9), (2, 9)])
def test_a_kernel_that_reaches_beyond_the_clip(frames, kernel):
    """Its outermost weights meet zeros alone: they change no output and have no gradient, as in torch's convolution."""
    x = torch.randn(2, 2, frames, 3, 3).contiguous(memory_format=CHANNELS_LAST)
    weight = torch.randn(3, 2, kernel, 1, 1, requires_grad=True)
    ours, theirs = temporal(x, weight, None), F.conv3d(x, weight, padding=(kernel // 2, 0, 0))
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(theirs)
    got, expected = (torch.autograd.grad(y, weight, upstream)[0] for y in (ours, theirs))
    torch.testing.assert_close(got, expected)
    beyond = [abs(r - kernel // 2) >= frames for r in range(kernel)]
    assert any(beyond)
    assert not got[:, :, beyond].any()


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (lambda x: x.contiguous(memory_format=CHANNELS_LAST), True),
        (lambda x: x, False),
        (lambda x: x.contiguous(memory_format=CHANNELS_LAST).double(), False),
        (lambda x: x.contiguous(memory_format=CHANNELS_LAST).bfloat16(), False),
        (lambda x: x.contiguous(memory_format=CHANNELS_LAST).to("meta"), False),
    ],
    ids=["channels last", "channels first", "float64", "bf16", "meta"],
)
def test_only_channels_last_float32_on_the_cpu_takes_a_special_path(make, taken):
    x = make(torch.randn(1, 2, 3, 4, 4))
    layer = Convolution(2, 2, 1).to(x.device, x.dtype)
    with mock.patch.object(convolution, "pointwise", wraps=convolution.pointwise) as way:
        layer(x)
    assert way.called == taken


def test_autocast_is_left_to_torch():
    layer, x = Convolution(2, 2, 1), torch.randn(1, 2, 3, 4, 4).contiguous(memory_format=CHANNELS_LAST)
    with torch.autocast("cpu", torch.bfloat16), mock.patch.object(convolution, "pointwise") as way:
        assert layer(x).dtype == torch.bfloat16
    assert not way.called


@pytest.mark.unhooked
@pytest.mark.filterwarnings("ignore:.torch.jit.trace(_method)?. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("kernel", "stride"), [((1, 1, 1), (1, 2, 2)), ((3, 1, 1), 1), ((1, 3, 3), 1)])
def test_traced_programs_contain_torchs_own_convolution(kernel, stride):
    """One operator and nothing of the special paths, whatever the layout of the example."""
    layer = Convolution(2, 3, kernel, stride, tuple(k // 2 for k in kernel))
    x = torch.randn(2, 2, 3, 4, 4).contiguous(memory_format=CHANNELS_LAST)
    graph = torch.jit.trace(layer, x).inlined_graph
    kinds = [node.kind() for node in graph.nodes() if node.kind().startswith(("aten::", "prim::Python"))]
    assert kinds == ["aten::_convolution"]


@pytest.mark.unhooked
def test_compiled_networks_take_the_special_paths_and_exported_ones_torchs():
    torch.manual_seed(0)
    torch.compiler.reset()
    layers = nn.Sequential(
        Convolution(3, 4, (3, 1, 1), padding=(1, 0, 0)),
        Convolution(4, 4, (1, 3, 3), padding=(0, 1, 1)),
        Convolution(4, 2, 1, (1, 2, 2)),
    ).to(memory_format=CHANNELS_LAST)
    x = torch.randn(2, 3, 4, 6, 6).contiguous(memory_format=CHANNELS_LAST)
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
