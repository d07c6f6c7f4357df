"""Attention rows: the right cell of every grid, by geometry, and the row the block used."""

import pytest
import torch
from torch import Tensor, nn

from nlnet.attention import Geometry, Places, attention_row, mark, nearest_cell, places_of, proportional
from nlnet.models.resnet import TIMINGS, VideoResNet
from nlnet.surgery import insert_nonlocal, nonlocal_blocks

CLIP = (8, 48, 40)


def video_net(padding: str = "released", **options: object) -> VideoResNet:
    torch.manual_seed(0)
    model = VideoResNet(
        blocks=(1, 2, 2), inflation="3x1x1", timing=TIMINGS["32x2"], padding=padding, num_classes=5, width=4
    )
    insert_nonlocal(model, ["layer2.1", "layer3.0"], **options)
    return model


def clip() -> Tensor:
    return torch.randn(1, 3, *CLIP, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
def test_rows_of_a_video_network(pairwise: str) -> None:
    """conv1 (stride 2,2,2), pool1 2×3×3 unpadded and pool2 2×1×1 turn 8×48×40 into 1×11×9, then 1×6×5, 1×3×3."""
    model = video_net(pairwise=pairwise).train()
    model.layer2.eval()
    modes = [m.training for m in model.modules()]
    rows = attention_row(model, clip()[0], (3, 20, 39))
    assert {path: tuple(row.shape) for path, row in rows.items()} == {
        "layer2.1.nonlocal_block": (1, 3, 2),
        "layer3.0.nonlocal_block": (1, 1, 1),
    }
    assert [m.training for m in model.modules()] == modes
    assert not any(b._forward_pre_hooks for b in nonlocal_blocks(model).values())
    for row in rows.values():
        assert not row.requires_grad
        if "gaussian" in pairwise:
            assert bool((row >= 0).all())
            assert row.sum().item() == pytest.approx(1, abs=1e-5)
    again = attention_row(model, clip(), (3, 20, 39))
    assert all(torch.equal(rows[path], again[path]) for path in rows)


def test_the_row_is_that_of_the_nearest_cell() -> None:
    """layer2.1 at 48 rows: conv1 (7, pad 3, stride 2) puts cell i at 2i, pool1 (3, stride 2) at 2 + 4i, layer2 at 2 + 8i.

    Row 20 lies nearest to cell 2 (row 18); the ratio of the sizes would say the same, but row 14 is halfway
    between cells 1 (row 10) and 2, and the earlier one wins, where the ratio says 1.75.
    """
    model = video_net(subsample=False).eval()
    seen: dict[str, Tensor] = {}
    block = nonlocal_blocks(model)["layer2.1.nonlocal_block"]
    block.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    for position, cell in [((3, 20, 2), (0, 2, 0)), ((3, 14, 39), (0, 1, 4)), ((0, 0, 15), (0, 0, 2))]:
        row = attention_row(model, clip(), position)["layer2.1.nonlocal_block"]
        torch.testing.assert_close(row, block.affinity_rows(seen["x"], cell)[0], atol=0, rtol=0)


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


def test_lost_geometry_falls_back_on_the_ratio() -> None:
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::4]

    model = nn.Sequential(Halved(), nn.Conv1d(2, 4, 1))
    insert_nonlocal(model, "1", subsample=False)
    model.eval()
    x = torch.randn(1, 2, 16)
    block = nonlocal_blocks(model)["1.nonlocal_block"]
    inner = model[1]._modules["nonlocal_block"]
    assert inner is block
    features = nn.functional.conv1d(x[:, :, ::4], model[1].weight, model[1].bias)
    row = attention_row(model, x, (9,))["1.nonlocal_block"]
    torch.testing.assert_close(row, block.affinity_rows(features, (2,))[0])


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


def test_images_and_axes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1))
    insert_nonlocal(model, "0")
    assert attention_row(model, torch.randn(3, 9, 7), (8, 0))["0.nonlocal_block"].shape == (2, 2)
    frames = video_net(axis="space")
    rows = attention_row(frames, torch.randn(3, 16, 48, 40), (0, 0, 0))
    # res3 has two frames: (16 → 8 → 4 → 2); keys outside the query's own frame weigh nothing
    assert rows["layer2.1.nonlocal_block"].shape == (2, 3, 2)
    assert rows["layer2.1.nonlocal_block"][0].sum().item() == pytest.approx(1, abs=1e-5)
    assert not rows["layer2.1.nonlocal_block"][1].any()


def test_the_users_clip_is_left_alone() -> None:
    x = clip()
    attention_row(video_net(), x, (0, 0, 0))
    assert places_of(x) is None


class Reused(nn.Module):
    """One host for every frame: its maps are not the clip's."""

    def __init__(self, fold: bool) -> None:
        super().__init__()
        self.conv, self.unused, self.fold = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), fold

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        return self.conv(frames) if self.fold else torch.stack([self.conv(f[None]) for f in frames])


@pytest.mark.parametrize(
    ("shape", "position", "message"),
    [
        (
            (2, 3, *CLIP),
            (0, 0, 0),
            r"got a clip of shape \(2, 3, 8, 48, 40\) with position \(0, 0, 0\), expected one",
        ),
        ((3, *CLIP), (0, 0), r"with position \(0, 0\), expected one clip"),
        ((3, *CLIP), (8, 0, 0), r"position: got \(8, 0, 0\), expected inside the clip's grid \(8, 48, 40\)"),
        ((3, *CLIP), (0, 0, -1), r"position: got \(0, 0, -1\)"),
    ],
)
def test_bad_clips_and_positions(shape: tuple[int, ...], position: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_row(video_net(), torch.zeros(shape), position)


def test_models_that_do_not_fit() -> None:
    with pytest.raises(
        ValueError, match="the model has no non-local block: put some in with insert_nonlocal"
    ):
        attention_row(nn.Conv3d(3, 4, 1), clip(), (0, 0, 0))
    looped, folded, unused = Reused(False), Reused(True), Reused(True)
    insert_nonlocal(looped, "conv")
    insert_nonlocal(folded, "conv")
    insert_nonlocal(unused, "unused")
    with pytest.raises(
        ValueError, match="block 'conv.nonlocal_block' ran 8 times on this clip, expected once"
    ):
        attention_row(looped, clip(), (0, 0, 0))
    with pytest.raises(
        ValueError, match=r"block 'conv.nonlocal_block' was given maps of shape \(8, 4, 48, 40\)"
    ):
        attention_row(folded, clip(), (0, 0, 0))
    with pytest.raises(ValueError, match="block 'unused.nonlocal_block' ran 0 times on this clip"):
        attention_row(unused, clip(), (0, 0, 0))


@pytest.mark.unhooked
def test_a_compiled_model_is_looked_into() -> None:
    torch.compiler.reset()
    model = video_net().eval()
    compiled = torch.compile(model, backend="eager")
    rows, expected = attention_row(compiled, clip(), (0, 9, 9)), attention_row(model, clip(), (0, 9, 9))
    assert all(torch.equal(rows[path], expected[path]) for path in expected)
