"""Where the cells of maps lie: by the gradients of what they see, and by hand."""

import pytest
import torch
from torch import nn

from nlnet.places import Geometry, Places, mark, nearest_cell, places_of, proportional


def test_every_cell_is_at_the_centre_of_what_it_sees() -> None:
    """By gradients: with constant weights the support of one cell is symmetric about its place."""
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
    mark(x, (Places(0.0, 1.0), Places(0.0, 1.0)))
    with Geometry():
        y = layers(x)
    rows, columns = places_of(y)
    z = smooth(x)
    for i, j in [(6, 7), (7, 6)]:
        (gradient,) = torch.autograd.grad(z[0, 0, i, j], x, retain_graph=True)
        support = gradient[0, 0].nonzero()
        centre = (support.amin(0) + support.amax(0)) / 2
        assert (rows.first + rows.step * i, columns.first + columns.step * j) == tuple(centre.tolist())


def test_functions_that_keep_change_or_lose_the_grid() -> None:
    x = torch.randn(1, 4, 12)
    mark(x, (Places(1.0, 2.0),))
    with Geometry():
        kept = torch.sigmoid(nn.functional.group_norm(x.relu() * 2, 2))
        first, second = (1 + x).chunk(2, dim=1)
        gated = x.mean(dim=2, keepdim=True) * x
        pooled = nn.functional.adaptive_avg_pool1d(x, 4)
        larger = nn.functional.interpolate(x, scale_factor=2)
        sliced = x[:, :, ::2]
        rows = x.mean(dim=1)
    for y in (kept, first, second, gated):
        assert places_of(y) == (Places(1.0, 2.0),)
    # cells 0, 1, 2 lie at 1, 3, 5
    assert places_of(pooled) == (Places(3.0, 6.0),)
    assert places_of(larger) == (Places(0.5, 1.0),)
    assert places_of(sliced) is None
    assert places_of(rows) is None


@pytest.mark.parametrize(
    ("position", "places", "cells", "expected"),
    [
        (0, Places(0.0, 1.0), 5, 0),
        (4, Places(0.0, 1.0), 5, 4),
        (5, Places(0.0, 2.0), 9, 2),
        (6, Places(0.0, 2.0), 9, 3),
        (0, Places(3.5, 8.0), 4, 0),
        (31, Places(3.5, 8.0), 4, 3),
        (31, Places(2.0, 4.0), 7, 6),
        (7, Places(3.5, 8.0), 4, 0),
        (8, Places(3.5, 8.0), 4, 1),
    ],
)
def test_nearest_cell(position: int, places: Places, cells: int, expected: int) -> None:
    assert nearest_cell(position, places, cells) == expected


def test_proportional_shares_the_clip_out_evenly() -> None:
    assert proportional((32, 7), (4, 7)) == (Places(3.5, 8.0), Places(0.0, 1.0))
    (places,) = proportional((32,), (4,))
    assert [nearest_cell(p, places, 4) for p in range(32)] == [p * 4 // 32 for p in range(32)]
