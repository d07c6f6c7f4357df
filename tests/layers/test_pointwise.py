"""1×1×1 convolutions as products: equal to the convolution, in the layout asked for."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nlnet.layers.pointwise import CONVOLUTIONS, is_channels_last, pointwise


def laid_out(x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x.contiguous()


@settings(max_examples=60, deadline=None)
@given(
    grid=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    batch=st.integers(0, 3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    given_last=st.booleans(),
    channels_last=st.booleans(),
    bias=st.booleans(),
)
def test_pointwise_is_the_convolution(grid, batch, channels, given_last, channels_last, bias):
    c, d = channels
    x = laid_out(torch.randn(batch, c, *grid, dtype=torch.float64), given_last)
    weight = torch.randn(d, c, *[1] * len(grid), dtype=torch.float64)
    shift = torch.randn(d, dtype=torch.float64) if bias else None
    y = pointwise(x, weight, shift, channels_last=channels_last)
    expected = torch.einsum("bc...,dc->bd...", x, weight.flatten(1))
    if shift is not None:
        expected = expected + shift.view(-1, *[1] * len(grid))
    torch.testing.assert_close(y, expected)
    if batch:
        assert (y.movedim(1, -1) if channels_last else y).is_contiguous()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_gradients(ndim):
    torch.manual_seed(0)
    weight = torch.randn(2, 3, *[1] * ndim, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    for given_last in (True, False):
        x = laid_out(torch.randn(2, 3, *[2] * ndim, dtype=torch.float64), given_last).requires_grad_()
        for channels_last in (True, False):
            assert torch.autograd.gradcheck(
                lambda *t, channels_last=channels_last: pointwise(*t, channels_last=channels_last),
                (x, weight, bias),
            )
    assert CONVOLUTIONS[ndim](x, weight, bias).shape == (2, 2, *[2] * ndim)


def test_channels_last_is_recognised():
    x = torch.randn(2, 3, 4, 5)
    assert not is_channels_last(x)
    assert is_channels_last(x.contiguous(memory_format=torch.channels_last))
    assert not is_channels_last(x[:, :, ::2])
    assert not is_channels_last(x[:, :1]), "one channel is in both layouts"


def test_autocast_applies_in_every_layout():
    weight, bias = torch.randn(4, 3, 1, 1), torch.randn(4)
    x = torch.randn(2, 3, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        for given_last in (True, False):
            for channels_last in (True, False):
                y = pointwise(laid_out(x, given_last), weight, bias, channels_last=channels_last)
                assert y.dtype == torch.bfloat16
                torch.testing.assert_close(y.float(), F.conv2d(x, weight, bias).float(), rtol=0.02, atol=0.05)
