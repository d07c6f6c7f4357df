"""The centres of the cells of maps: by the gradients of what they see, and by hand."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from nlnet.attention.cell_centers import AxisCenters, nearest_cell, proportional
from nlnet.attention.tracing import CenterTracer, centers_of, set_centers, tracing


def test_every_cell_is_at_the_centre_of_what_it_sees() -> None:
    """By gradients: with constant weights the support of one cell is symmetric about its centre."""
    layers = nn.Sequential(
        nn.Conv2d(1, 1, 5, stride=2, padding=1, bias=False),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(1, 1, (3, 1), dilation=(2, 1), padding="same", bias=False),
        nn.AvgPool2d((2, 3), stride=1),
        nn.ReplicationPad2d((2, 1, 0, 1)),
        nn.Conv2d(1, 1, 3, padding=(1, 0), padding_mode="circular", bias=False),
    )
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    smooth = nn.Sequential(
        *[nn.AvgPool2d(3, 2, ceil_mode=True) if isinstance(m, nn.MaxPool2d) else m for m in layers]
    )
    x = torch.ones(1, 1, 60, 64, requires_grad=True)
    set_centers(x, (AxisCenters(0.0, 1.0), AxisCenters(0.0, 1.0)))
    with CenterTracer():
        y = layers(x)
    rows, columns = centers_of(y)
    z = smooth(x)
    for i, j in [(6, 7), (7, 6)]:
        (gradient,) = torch.autograd.grad(z[0, 0, i, j], x, retain_graph=True)
        support = gradient[0, 0].nonzero()
        centre = (support.amin(0) + support.amax(0)) / 2
        assert (rows.first + rows.step * i, columns.first + columns.step * j) == tuple(centre.tolist())


def test_functions_that_keep_change_or_lose_the_grid() -> None:
    x = torch.randn(1, 4, 12)
    set_centers(x, (AxisCenters(1.0, 2.0),))
    with CenterTracer():
        kept = torch.sigmoid(nn.functional.group_norm(x.relu() * 2, 2))
        first, second = (1 + x).chunk(2, dim=1)
        gated = x.mean(dim=2, keepdim=True) * x
        pooled = nn.functional.adaptive_avg_pool1d(x, 4)
        larger = nn.functional.interpolate(x, scale_factor=2)
        sliced = x[:, :, ::2]
        rows = x.mean(dim=1)
    for y in (kept, first, second, gated):
        assert centers_of(y) == (AxisCenters(1.0, 2.0),)
    # cells 0, 1, 2 lie at 1, 3, 5
    assert centers_of(pooled) == (AxisCenters(3.0, 6.0),)
    assert centers_of(larger) == (AxisCenters(0.5, 1.0),)
    assert centers_of(sliced) is None
    assert centers_of(rows) is None


@pytest.mark.parametrize(
    "reorder",
    [
        lambda x: torch.roll(x, 1, 2),
        lambda x: x.flip(3),
        lambda x: x.transpose(2, 3),
        lambda x: x.mT,
        lambda x: x.permute(0, 1, 3, 2),
        lambda x: torch.permute(x, (0, 3, 1, 2)),
        lambda x: x[:, :, [3, 2, 1, 0]],
        lambda x: x[..., torch.tensor([3, 2, 1, 0])],
        lambda x: x.sort(dim=2).values,
        lambda x: x.cumsum(dim=3),
        lambda x: x @ x,
        lambda x: x.clone().transpose_(2, 3),
        lambda x: nn.functional.linear(x, torch.eye(4)),
        lambda x: nn.functional.interpolate(x, size=4, mode="nearest", scale_factor=None)[:, :, 1:],
        lambda x: nn.functional.adaptive_avg_pool2d(x, 3),  # windows of two cells that overlap unevenly
    ],
)
def test_functions_that_move_or_mix_cells_lose_the_centres(
    reorder: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Sides of 4 and 4 channels, so that sizes alone cannot tell."""
    x = torch.randn(1, 4, 4, 4)
    set_centers(x, (AxisCenters(1.0, 2.0), AxisCenters(0.0, 1.0)))
    with CenterTracer():
        y = reorder(x)
        z = y.relu() * 2
    assert centers_of(y) is None
    assert centers_of(z) is None


class ByHand(nn.Conv2d):
    """A convolution by unfold and a product, which the tracer cannot recognise as one."""

    trim = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = nn.functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        y = self.weight.flatten(1) @ columns
        rows = (x.shape[2] + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
        return y.unflatten(2, (rows, -1))[:, :, self.trim :]


def test_a_convolution_by_other_functions_is_traced_by_its_settings() -> None:
    """Rows −1…1, 1…3, …; columns 0…2, 1…3, …. A map of another size than the settings give has no centres."""
    conv = ByHand(2, 3, 3, stride=(2, 1), padding=(1, 0), bias=False)
    x = torch.randn(1, 2, 9, 8)
    set_centers(x, (AxisCenters(0.0, 1.0), AxisCenters(0.0, 1.0)))
    with tracing(conv):
        y = conv(x)
        conv.trim = 1
        z = conv(x)
    torch.testing.assert_close(
        y, nn.functional.conv2d(x, conv.weight, None, (2, 1), (1, 0)), atol=1e-5, rtol=0
    )
    assert centers_of(y) == (AxisCenters(0.0, 2.0), AxisCenters(1.0, 1.0))
    assert centers_of(z) is None
    assert not conv._forward_hooks


def test_channels_may_be_shuffled_and_cut() -> None:
    """ShuffleNet's shuffle, and slices of channels: the last axes are not touched."""
    centers = (AxisCenters(1.0, 2.0), AxisCenters(0.0, 1.0))
    x = torch.randn(1, 4, 4, 4)
    set_centers(x, centers)
    with CenterTracer():
        shuffled = x.view(1, 2, 2, 4, 4).transpose(1, 2).reshape(1, 4, 4, 4)
        results = [
            shuffled,
            x.permute(1, 0, 2, 3),
            x[:, :2],
            x[:, [3, 1], :, :],
            x.flatten(0, 1),
            x[:, 1:3, ...],
        ]
        normed = nn.functional.layer_norm(x, (4, 4)) + x.new_zeros(1, 1, 4, 4)
    assert all(centers_of(y) == centers for y in [*results, normed])


def test_a_sum_of_terms_with_different_centres_has_none() -> None:
    a, b = torch.randn(1, 1, 4), torch.randn(1, 1, 4)
    set_centers(a, (AxisCenters(0.0, 1.0),))
    set_centers(b, (AxisCenters(1.0, 1.0),))
    with CenterTracer():
        both, alone = a + b, a + torch.zeros(1, 1, 4)
        a += b
    assert centers_of(both) is None
    assert centers_of(a) is None
    assert centers_of(alone) == (AxisCenters(0.0, 1.0),)


def test_pools_that_return_indices_are_traced() -> None:
    x = torch.randn(1, 1, 9, 8)
    set_centers(x, (AxisCenters(0.0, 1.0), AxisCenters(0.0, 1.0)))
    with CenterTracer():
        y, _ = nn.MaxPool2d(3, 2, padding=(1, 0), return_indices=True)(x)
        z, _ = nn.functional.adaptive_max_pool2d(x[:, :, :8], (4, 2), return_indices=True)
        w, _ = nn.functional.adaptive_max_pool2d(x, (3, 2), return_indices=True)
    # windows −1…1, 1…3, … and 0…2, 2…4, …
    assert centers_of(y) == (AxisCenters(0.0, 2.0), AxisCenters(1.0, 2.0))
    assert centers_of(z) is None  # the slice lost them
    # thirds of 9 rows and halves of 8 columns
    assert centers_of(w) == (AxisCenters(1.0, 3.0), AxisCenters(1.5, 4.0))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 12),
    st.integers(1, 30),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 0.5, 1.5, 2.0, 2.7]),
)
def test_resizing_a_ramp_of_positions_gives_the_centres(
    cells: int, size: int, corners: bool, again: bool, factor: float | None
) -> None:
    """Linear resizing of a ramp of positions gives each cell's own position, but for those beyond the first and last."""
    assume(factor is None or int(cells * factor) >= 1)
    options = {"size": size} if factor is None else {"scale_factor": factor, "recompute_scale_factor": again}
    ramp = torch.arange(cells, dtype=torch.float64).reshape(1, 1, -1)
    set_centers(ramp, (AxisCenters(0.0, 1.0),))
    with CenterTracer():
        resized = nn.functional.interpolate(ramp, mode="linear", align_corners=corners, **options)
    (centers,) = centers_of(resized)
    found = centers.first + centers.step * torch.arange(resized.shape[2], dtype=torch.float64)
    torch.testing.assert_close(resized[0, 0], found.clamp(0, cells - 1), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("mode", "cells", "size", "expected"), [
    ("nearest", 8, 4, AxisCenters(0.0, 2.0)),  # cells 0, 2, 4, 6
    ("nearest-exact", 8, 4, AxisCenters(1.0, 2.0)),  # cells 1, 3, 5, 7
    ("nearest-exact", 9, 3, AxisCenters(1.0, 3.0)),  # cells 1, 4, 7
    ("nearest", 4, 8, AxisCenters(-0.25, 0.5)),  # each cell twice
    ("nearest", 5, 7, None),  # cells 0, 0, 1, 2, 2, 3, 4
    ("linear-corners", 6, 1, AxisCenters(0.0, 6.0)),  # the first cell
    ("linear-corners", 1, 6, None),  # all six have the same centre
    ("area", 8, 4, AxisCenters(0.5, 2.0)),
    ("area", 8, 3, None),
])  # fmt: skip
def test_resizing_in_other_modes_than_linear(
    mode: str, cells: int, size: int, expected: AxisCenters | None
) -> None:
    x = torch.arange(cells, dtype=torch.float32).reshape(1, 1, -1)
    set_centers(x, (AxisCenters(0.0, 1.0),))
    with CenterTracer():
        y = nn.functional.interpolate(
            x, size=size, mode=mode.removesuffix("-corners"), align_corners=mode.endswith("corners") or None
        )
    assert centers_of(y) == (None if expected is None else (expected,))
    if expected is not None and size < cells:
        assert y.flatten().tolist() == [expected.first + expected.step * i for i in range(size)]


@pytest.mark.parametrize(
    ("position", "centers", "cells", "expected"),
    [
        (0, AxisCenters(0.0, 1.0), 5, 0),
        (4, AxisCenters(0.0, 1.0), 5, 4),
        (5, AxisCenters(0.0, 2.0), 9, 2),
        (6, AxisCenters(0.0, 2.0), 9, 3),
        (0, AxisCenters(3.5, 8.0), 4, 0),
        (31, AxisCenters(3.5, 8.0), 4, 3),
        (31, AxisCenters(2.0, 4.0), 7, 6),
        (7, AxisCenters(3.5, 8.0), 4, 0),
        (8, AxisCenters(3.5, 8.0), 4, 1),
    ],
)
def test_nearest_cell(position: int, centers: AxisCenters, cells: int, expected: int) -> None:
    assert nearest_cell(position, centers, cells) == expected


def test_proportional_divides_the_clip_evenly() -> None:
    assert proportional((32, 7), (4, 7)) == (AxisCenters(3.5, 8.0), AxisCenters(0.0, 1.0))
    (centers,) = proportional((32,), (4,))
    assert [nearest_cell(p, centers, 4) for p in range(32)] == [p * 4 // 32 for p in range(32)]
