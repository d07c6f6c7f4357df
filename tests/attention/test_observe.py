"""Attention rows: the right cell of every grid, by its centre, and the row that the block used."""

import weakref
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.blocks import CHANNELS, CONVENTIONS, PAIRWISE, pooled, randomise, visible
from torch import Tensor, nn

from nlnet.attention.observe import attention_row, observe
from nlnet.attention.tracing import centers_of
from nlnet.block import NonLocalBlock
from nlnet.insertion.insert import insert_nonlocal, nonlocal_blocks
from nlnet.models.resnet import TIMINGS, VideoResNet

CLIP = (8, 48, 40)


def video_net(padding: str = "released", **options: object) -> VideoResNet:
    torch.manual_seed(0)
    model = VideoResNet(
        blocks=(1, 2, 2),
        inflation="3x1x1",
        timing=TIMINGS["32x2"],
        padding=padding,
        num_classes=5,
        width=4,
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
    assert not any(b._forward_hooks for b in nonlocal_blocks(model).values())
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
        torch.testing.assert_close(row, block.affinity_rows(seen["x"], cell)[0], atol=1e-7, rtol=1e-5)


def test_without_traced_centres_the_ratio_of_sizes_is_used() -> None:
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


def test_exact_tells_traced_centres_from_estimated_ones() -> None:
    """A roll before layer3 moves every cell: the centres of its block are estimated, those of the block before traced."""
    assert all(observe(video_net(), clip()).exact(path) for path in nonlocal_blocks(video_net()))
    model = video_net()
    model.layer3.register_forward_pre_hook(lambda module, args: (args[0].roll(1, dims=3),))
    seen = observe(model, clip())
    assert {path: seen.exact(path) for path in seen.paths} == {
        "layer2.1.nonlocal_block": True,
        "layer3.0.nonlocal_block": False,
    }


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
    assert centers_of(x) is None


class Reused(nn.Module):
    """A network that runs one module on every frame, so that its maps are not the clip's."""

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
            r"got a clip of shape \(2, 3, 8, 48, 40\), expected one clip of channels and 3 axes",
        ),
        ((3, *CLIP), (0, 0), r"position: got \(0, 0\), expected 3 numbers inside"),
        (
            (3, *CLIP),
            (8, 0, 0),
            r"position: got \(8, 0, 0\), expected 3 numbers inside the clip's grid \(8, 48, 40\)",
        ),
        ((3, *CLIP), (0, 0, -1), r"position: got \(0, 0, -1\)"),
    ],
)
def test_bad_clips_and_positions(shape: tuple[int, ...], position: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_row(video_net(), torch.zeros(shape), position)


def test_models_that_do_not_fit() -> None:
    with pytest.raises(
        ValueError, match="the model has no non-local block; insert some with nlnet.insert_nonlocal"
    ):
        attention_row(nn.Conv3d(3, 4, 1), clip(), (0, 0, 0))
    looped, folded, unused = Reused(False), Reused(True), Reused(True)
    insert_nonlocal(looped, "conv")
    insert_nonlocal(folded, "conv")
    insert_nonlocal(unused, "unused")
    with pytest.raises(
        ValueError,
        match="block 'conv.nonlocal_block' ran 8 times on this clip, expected once; insert it after",
    ):
        attention_row(looped, clip(), (0, 0, 0))
    with pytest.raises(
        ValueError,
        match=r"block 'conv.nonlocal_block' was given maps of shape \(8, 4, 48, 40\) .*; insert it after",
    ):
        attention_row(folded, clip(), (0, 0, 0))
    with pytest.raises(ValueError, match="block 'unused.nonlocal_block' ran 0 times on this clip"):
        attention_row(unused, clip(), (0, 0, 0))


@pytest.mark.unhooked
def test_a_compiled_model_is_observed() -> None:
    torch.compiler.reset()
    model = video_net().eval()
    compiled = torch.compile(model, backend="eager")
    rows, expected = attention_row(compiled, clip(), (0, 9, 9)), attention_row(model, clip(), (0, 9, 9))
    assert all(torch.equal(rows[path], expected[path]) for path in expected)


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[str, object], tuple[int, ...], list[tuple[int, ...]]]:
    """Options of a block, the grid of a map it takes, and positions on it."""
    ndim = draw(st.integers(1, 3))
    axis = draw(
        st.sampled_from(
            {1: ["time", "spacetime"], 2: ["space", "spacetime"]}.get(ndim, ["space", "time", "spacetime"])
        )
    )
    groups = draw(st.integers(1, 3)) if ndim != 2 and (ndim == 1 or axis != "space") else 1
    grid = tuple(draw(st.integers(1, 5)) for _ in range(ndim))
    if ndim != 2:
        grid = (grid[0] * groups, *grid[1:])
    options = {
        "ndim": ndim,
        "axis": axis,
        "groups": groups,
        "subsample": draw(st.booleans()),
        "pairwise": draw(st.sampled_from(PAIRWISE)),
        "convention": draw(st.sampled_from(CONVENTIONS)),
    }
    position = st.tuples(*[st.integers(0, n - 1) for n in grid])
    return options, grid, draw(st.lists(position, min_size=1, max_size=4))


def every_pair(block: NonLocalBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x_i, x_j)/C(x) for all i and j by equations 2 to 5, each pair written down, and which are seen: (*grid, *keys)."""
    p, grid, ndim = dict(block.named_parameters()), tuple(x.shape[2:]), x.ndim - 2

    def linear(name: str, t: Tensor) -> Tensor:
        y = torch.einsum("oc,bc...->bo...", p[f"{name}.weight"].flatten(1), t)
        return y + p[f"{name}.bias"].view(-1, *[1] * ndim)

    def pool(t: Tensor) -> Tensor:
        if not block.subsample or (ndim == 3 and block.axis == "time"):
            return t
        # a side of one cell stays as it is: the same as pooling it doubled
        short = (
            [2]
            if ndim == 1 and t.shape[2] == block.groups
            else [a for a in (-2, -1) if ndim > 1 and t.shape[a] == 1]
        )
        for axis in short:
            t = t.repeat_interleave(2, dim=axis)
        return pooled(t, ndim, block.groups)

    embedded = block.pairwise != "gaussian"
    if block.convention == "released":
        phi = linear("phi", pool(x)) if embedded else pool(x)
    else:
        phi = pool(linear("phi", x)) if embedded else pool(x)
    theta, keys = linear("theta", x) if embedded else x, tuple(phi.shape[2:])
    mask = visible(grid, keys, block.axis, block.groups)
    theta, phi = theta[0].flatten(1), phi[0].flatten(1)
    if block.pairwise == "concatenation":
        w_query, w_key = p["w_f"].chunk(2)
        f = ((w_query @ theta)[:, None] + (w_key @ phi)[None]).clamp(min=0)
    else:
        f = theta.mT @ phi
    if block.pairwise == "embedded_gaussian" and block.convention != "paper":
        f = f / block.inner_channels**0.5
    if "gaussian" in block.pairwise:
        f = torch.where(mask, (f - f.amax(dim=1, keepdim=True)).exp(), 0.0)
        f = f / f.sum(dim=1, keepdim=True)
    else:
        f = f * mask / mask.sum(dim=1, keepdim=True)
    return f.view(*grid, *keys), mask.view(*grid, *keys)


@settings(max_examples=150, deadline=None)
@given(situations())
def test_rows_are_those_of_the_definition(
    situation: tuple[dict[str, object], tuple[int, ...], list[tuple[int, ...]]],
) -> None:
    """Every pairwise function, convention, axis, pooled or not, groups, 1-D to 3-D: to 1e-6 in float32, 1e-12 in float64."""
    options, grid, positions = situation
    torch.manual_seed(0)
    block = randomise(NonLocalBlock(CHANNELS, norm="none", **options)).double()
    x = torch.randn(1, CHANNELS, *grid, dtype=torch.float64)
    weights, mask = every_pair(block, x)
    expected, hidden = (torch.stack([t[position] for position in positions]) for t in (weights, ~mask))
    scale = max(1.0, expected.abs().max().item())
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        (rows,) = observe(block.to(dtype), x.to(dtype)).rows(positions).values()
        assert rows.dtype == dtype
        torch.testing.assert_close(rows.double(), expected, atol=tolerance * scale, rtol=0)
        assert not rows[hidden].any()


def smooth_r50(padding: str, width: int) -> VideoResNet:
    """I3D-R50-NL5, all weights positive, so that a cell's gradient is positive on all that it sees.

    The blocks add nothing (γ = 0): behind one, a cell would see everything.
    """
    model = VideoResNet(
        blocks=(3, 4, 6, 3),
        inflation="3x1x1",
        timing=TIMINGS["8x8"],
        padding=padding,
        num_classes=5,
        width=width,
    )
    insert_nonlocal(
        model, ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"], convention="released"
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.constant_(parameter, 1 / parameter[0].numel())
        else:
            nn.init.constant_(parameter, float(name.endswith("weight") and "nonlocal" not in name))
    return model.double().eval()


@pytest.mark.parametrize("width", [4, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("padding", ["released", "padded", "paper"])
@pytest.mark.parametrize(
    ("size", "axes"), [((4, 320, 320), (1, 2)), ((48, 40, 40), (0,))], ids=["space", "time"]
)
def test_keys_lie_at_the_centre_of_what_they_see_in_r50(
    width: int, padding: str, size: tuple[int, ...], axes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of one key's φ, its max pools made averages of the same windows, is centred where `centres` says.

    Width 64 is R50's own; geometry does not depend on it.

    Inputs are so large that the middle key sees no border along `axes`.
    """
    model = smooth_r50(padding, width)
    observation = observe(model, torch.rand(1, 3, *size, dtype=torch.float64))
    monkeypatch.setattr(torch.nn.functional, "max_pool3d", torch.nn.functional.avg_pool3d)
    maps: dict[str, Tensor] = {}
    for path, block in nonlocal_blocks(model).items():
        block.register_forward_pre_hook(lambda module, args, path=path: maps.update({path: args[0]}))
    x = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    model(x)
    blocks = nonlocal_blocks(model)
    for path, block in [*blocks.items()][
        :: 1 if axes == (0,) else 4
    ]:  # in space the first and the last, for time's sake
        phi = block.embeddings(maps[path])[1]
        middle = tuple(n // 2 for n in phi.shape[2:])
        (gradient,) = torch.autograd.grad(phi[(0, 0, *middle)], x, retain_graph=True)
        seen = gradient[0, 0].nonzero()
        first, last = seen.amin(0), seen.amax(0)
        for axis in axes:
            assert first[axis] > 0, "the input is too small"
            assert last[axis] < size[axis] - 1, "the input is too small"
            centre = observation.centres(path)[axis][middle[axis]]
            assert centre == (first[axis] + last[axis]) / 2, (path, axis)
            assert len(observation.centres(path)[axis]) == phi.shape[2 + axis]


def test_centres_of_a_small_map_by_hand() -> None:
    """Stride 2 puts 9 columns at 0, 2, … 16; pairs of them at 1, 5, 9, 13, and the last, odd one is in no key."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1))
    insert_nonlocal(model, "0")
    seen = observe(model, torch.randn(3, 2, 17))
    (path,) = seen.paths
    rows, columns = seen.centres(path)
    assert (rows.tolist(), columns.tolist()) == ([0.0], [1.0, 5.0, 9.0, 13.0])
    assert seen.grid == (2, 17)
    assert (seen.query_cell(path, (1, 3)), seen.query_centre(path, (1, 3))) == ((0, 1), (0.0, 2.0))


def test_centres_of_temporal_groups() -> None:
    """Two runs of 5: each pools its first four frames in pairs."""
    model = nn.Sequential(nn.Conv1d(3, 4, 1))
    insert_nonlocal(model, "0", groups=2)
    seen = observe(model, torch.randn(3, 10))
    assert seen.centres(seen.paths[0])[0].tolist() == [0.5, 2.5, 5.5, 7.5]


def test_many_positions_at_once_are_each_alone() -> None:
    model = video_net(axis="space")
    seen = observe(model, torch.randn(3, 16, 48, 40))
    positions = [(15, 0, 3), (0, 40, 39), (3, 9, 9), (15, 0, 3)]
    for path, rows in seen.rows(positions).items():
        alone = torch.cat([seen.rows([position])[path] for position in positions])
        torch.testing.assert_close(rows, alone, atol=1e-7, rtol=1e-5)
    assert all(len(rows) == 0 for rows in seen.rows([]).values())


def test_only_the_dot_product_is_signed() -> None:
    for pairwise in PAIRWISE:
        seen = observe(video_net(pairwise=pairwise), clip())
        assert {seen.signed(path) for path in seen.paths} == {pairwise == "dot_product"}


def test_half_precision_is_compared_in_float32() -> None:
    model = video_net().bfloat16()
    assert {rows.dtype for rows in observe(model, clip()).rows([(0, 0, 0)]).values()} == {torch.float32}


def changing(height: int, width: int) -> tuple[nn.Module, Tensor]:
    """A block with an effect, and an image whose grid is the block's."""
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1))
    insert_nonlocal(model, "0", norm="none")
    randomise(nonlocal_blocks(model)["0.nonlocal_block"])
    return model, torch.randn(1, 3, height, width)


def test_strongest_are_the_positions_that_the_block_changes_most() -> None:
    """‖z_i − x_i‖ summed over 3×3 cells, by loops; chosen ones lie three cells apart or more."""
    model, image = changing(9, 7)
    features = nn.functional.conv2d(image, model[0].weight, model[0].bias)
    change = (model(image) - features)[0].norm(dim=0)
    around = {
        (y, x): sum(
            change[v, u].item()
            for v in range(max(y - 1, 0), min(y + 2, 9))
            for u in range(max(x - 1, 0), min(x + 2, 7))
        )
        for y in range(9)
        for x in range(7)
    }
    expected: list[tuple[int, int]] = []
    for cell in sorted(around, key=lambda c: -around[c]):
        if all(abs(cell[0] - y) > 2 or abs(cell[1] - x) > 2 for y, x in expected):
            expected.append(cell)
    seen = observe(model, image)
    assert seen.strongest(3) == expected[:3]
    assert seen.strongest(1000, "0.nonlocal_block") == expected


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 5), (2, 9)])
def test_strongest_on_maps_smaller_than_the_neighbourhood(height: int, width: int) -> None:
    """All cells lie within two of each other along a side of one or two: one is chosen there, spread along the other.

    No cell is left that lies further than two from all that were chosen.
    """
    model, image = changing(height, width)
    chosen = observe(model, image).strongest(100)
    assert len(chosen) <= -(-width // 3)
    for cell in product(range(height), range(width)):
        assert any(max(abs(a - b) for a, b in zip(cell, other, strict=True)) <= 2 for other in chosen)


class InPlace(nn.Module):
    """A network that overwrites the input and the output of its block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1)
        self.block = randomise(NonLocalBlock(CHANNELS, ndim=2, norm="none"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        z = self.block(x)
        x.zero_()
        return torch.relu_(z)


def test_later_layers_may_overwrite_the_blocks_input_and_output() -> None:
    torch.manual_seed(0)
    model, image = InPlace().eval(), torch.randn(1, 3, 9, 7)
    with torch.no_grad():
        features = model.conv(image)
        change = (model.block(features) - features)[0].norm(dim=0)
    around = nn.functional.avg_pool2d(change[None, None], 3, stride=1, padding=1)[0, 0]
    seen = observe(model, image)
    assert seen.strongest(1) == [divmod(int(around.argmax()), 7)]
    rows = seen.rows([(4, 5)])["block"]
    torch.testing.assert_close(rows, model.block.affinity_rows(features, (4, 5)), atol=1e-7, rtol=1e-5)


def test_a_blocks_input_and_output_are_freed_while_the_network_runs() -> None:
    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    model = video_net()
    for block in nonlocal_blocks(model).values():
        block.register_forward_hook(lambda module, args, out: held.extend(map(weakref.ref, (args[0], out))))
    model.fc.register_forward_pre_hook(
        lambda module, args: alive.append(sum(ref() is not None for ref in held))
    )
    observe(model, clip())
    assert (len(held), alive) == (4, [0])


def test_strongest_positions_lead_back_to_their_cells() -> None:
    """At every stride the cell of the pixel that stands for a cell is that cell."""
    seen = observe(video_net(), torch.randn(3, 16, 90, 62))
    for path in seen.paths:
        positions = seen.strongest(100, path)
        cells = {seen.query_cell(path, position) for position in positions}
        assert len(cells) == len(positions)
        for position in positions:
            near = zip(position, seen.query_centre(path, position), strict=True)
            assert all(-0.5 <= p - c <= 0.5 for p, c in near)


def test_a_fresh_block_changes_nothing_so_the_order_is_the_grids() -> None:
    seen = observe(video_net(), clip())
    assert seen.strongest(1) == [(3, 2, 2)]


def test_errors_of_an_observation() -> None:
    seen = observe(video_net(), clip())
    with pytest.raises(
        ValueError, match="path: got 'layer2.1', expected one of layer2.1.nonlocal_block, layer3.0"
    ):
        seen.centres("layer2.1")
    with pytest.raises(ValueError, match="count: got 0, expected at least 1"):
        seen.strongest(0)
