import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nlnet.data.transforms import (
    EvalTransform,
    ScaleCropFlip,
    TrainTransform,
    normalize,
    resize,
    source_pixels,
)
from nlnet.errors import NlnetError


def noise(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(
        256, (frames, height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def coordinates(height: int, width: int, frames: int = 2) -> Tensor:
    """Frames whose red channel is a pixel's row, green its column, blue its frame number."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    stack = [torch.stack([y, x, torch.full_like(x, t)], dim=-1) for t in range(frames)]
    return torch.stack(stack).to(torch.uint8)


def along(size: int, new: int) -> np.ndarray:
    """The matrix (new, size) of linear interpolation: output i lies at (i + ½)·size/new − ½, clamped to the row."""
    weights = np.zeros((new, size))
    for i in range(new):
        position = min(max((i + 0.5) * size / new - 0.5, 0.0), size - 1.0)
        left = min(int(position), size - 2) if size > 1 else 0
        weights[i, left] += 1 - (position - left)
        if size > 1:
            weights[i, left + 1] += position - left
    return weights


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_resize_is_bilinear_to_within_one(height: int, width: int, new_height: int, new_width: int) -> None:
    frames = noise(1, height, width)
    exact = np.einsum("ih,jw,hwc->ijc", along(height, new_height), along(width, new_width), frames[0].numpy())
    resized = resize(frames, (new_height, new_width))[0].numpy()
    assert np.abs(resized - exact).max() <= 1.02  # two roundings of ½, and weights of 14 bits or more


def test_resize_by_two_has_the_half_pixel_weights() -> None:
    row = torch.tensor([0, 100], dtype=torch.uint8).reshape(1, 1, 2, 1).expand(1, 1, 2, 3)
    assert resize(row, (1, 4))[0, 0, :, 0].tolist() == [0, 25, 75, 100]  # positions −¼, ¼, ¾, 1¼


def test_resize_to_the_same_size_gives_the_same_frames() -> None:
    frames = noise(2, 9, 7)
    assert resize(frames, (9, 7)) is frames


@st.composite
def transforms(draw: st.DrawFn) -> ScaleCropFlip:
    """Transforms whose sides grow, shrink or keep their size, alone or together; large and tiny sides."""
    sides = st.one_of(st.integers(1, 12), st.integers(1, 400))
    size = draw(sides), draw(sides)
    scaled = draw(st.one_of(sides, st.just(size[0]))), draw(st.one_of(sides, st.just(size[1])))
    crop = draw(st.integers(1, min(scaled)))
    corner = draw(st.integers(0, scaled[0] - crop)), draw(st.integers(0, scaled[1] - crop))
    return ScaleCropFlip(size, scaled, corner, crop, draw(st.booleans()))


@given(transforms(), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_a_window_scaled_alone_is_the_window_of_the_scaled_frame(
    transform: ScaleCropFlip, count: int
) -> None:
    frames = noise(count, *transform.size)
    (top, left), crop = transform.corner, transform.crop
    expected = resize(frames, transform.scaled)[:, top : top + crop, left : left + crop]
    expected = (expected.flip(2) if transform.flipped else expected).permute(3, 0, 1, 2)
    rows, columns = transform.source
    assert torch.equal(transform(frames), expected)
    assert torch.equal(transform(frames[:, :rows, :columns].contiguous()), expected)


def test_no_more_of_a_frame_is_scaled_than_the_window_needs() -> None:
    # out pixel 99 of 300 lies at 99.5·256/300 − ½ = 84.4, between pixels 84 and 85 of the source; one may be spare
    source, out = source_pixels(256, 300, 100)
    assert (source - 86 in (0, 1), out) == (True, 100)
    assert source_pixels(256, 256, 100) == (100, 100)
    assert source_pixels(300, 256, 100) == (300, 256)  # a side that shrinks: whole
    assert source_pixels(256, 300, 300) == (256, 300)
    assert source_pixels(3, 4, 3) == (
        3,
        4,
    )  # all 3 for the first 3 of 4: `resize` must not take them for frames of the right size


def test_same_seed_same_clip_and_other_seeds_differ() -> None:
    transform = TrainTransform(crop=16, scales=(20, 30))
    frames = noise(3, 40, 50)
    first = transform(frames, random.Random(7))
    assert torch.equal(first, transform(frames, random.Random(7)))
    assert first.shape == (3, 3, 16, 16)
    assert first.dtype == torch.uint8
    assert sum(torch.equal(first, transform(frames, random.Random(seed))) for seed in range(8, 28)) == 0


def test_one_draw_for_all_frames_of_a_clip() -> None:
    still = noise(1, 40, 50).expand(4, 40, 50, 3)
    for seed in range(10):
        clip = TrainTransform(crop=16, scales=(20, 30))(still, random.Random(seed))
        assert all(torch.equal(clip[:, 0], clip[:, t]) for t in range(1, 4))


def test_crops_and_flips_are_uniform() -> None:
    frames = coordinates(10, 14)
    seen = set()
    for seed in range(600):
        clip = TrainTransform(crop=8, scales=(10, 10))(frames, random.Random(seed))
        red, green, blue = clip
        flipped = bool(green[0, 0, 0] > green[0, 0, 1])
        green = green.flip(-1) if flipped else green
        top, left = int(red[0, 0, 0]), int(green[0, 0, 0])
        assert torch.equal(red[0], torch.arange(top, top + 8, dtype=torch.uint8)[:, None].expand(8, 8))
        assert torch.equal(green[0], torch.arange(left, left + 8, dtype=torch.uint8).expand(8, 8))
        assert blue[0].unique().tolist() == [0]
        assert blue[1].unique().tolist() == [1]
        seen.add((top, left, flipped))
    # every one of 3 × 7 positions, each flipped and not: 600 draws miss a given one with chance (41/42)^600 < 1e-6
    assert seen == {(top, left, flip) for top in range(3) for left in range(7) for flip in (False, True)}


def test_scales_include_both_ends() -> None:
    # the colour of a pixel is its column / 4, so the last column's value tells the scale
    frames = torch.arange(0, 240, 4, dtype=torch.uint8).reshape(1, 1, 60, 1).expand(1, 60, 60, 3)
    sizes = {len(TrainTransform(crop=k, scales=(k, k))(frames, random.Random(0))[0, 0]) for k in (3, 5)}
    assert sizes == {3, 5}
    pixels = [
        TrainTransform(crop=2, scales=(2, 4), flip=False)(frames, random.Random(seed)).flatten().tolist()
        for seed in range(60)
    ]
    steps = {(pixel[1] - pixel[0]) // 4 for pixel in pixels}
    assert steps == {30, 20, 15}  # 60 columns scaled to 2, 3 and 4


def test_no_room_to_choose_changes_nothing() -> None:
    frames = noise(4, 32, 32)
    clip = TrainTransform(crop=32, scales=(32, 32), flip=False)(frames, random.Random(3))
    assert torch.equal(clip, frames.permute(3, 0, 1, 2))
    assert clip.permute(1, 2, 3, 0).is_contiguous()  # channels last, and no other memory is kept


@pytest.mark.parametrize(
    ("flip", "probability", "expected"), [(True, 1.0, 40), (True, 0.0, 0), (False, 1.0, 0)]
)
def test_flip_probability(flip: bool, probability: float, expected: int) -> None:
    frames = coordinates(8, 8)
    transform = TrainTransform(crop=8, scales=(8, 8), flip=flip, flip_probability=probability)
    clips = [transform(frames, random.Random(seed)) for seed in range(40)]
    assert sum(int(clip[1, 0, 0, 0]) == 7 for clip in clips) == expected


def test_views_of_a_wide_frame() -> None:
    views = EvalTransform(crop=8, short_side=8)(coordinates(8, 15))
    assert views.shape == (3, 3, 2, 8, 8)
    assert views[:, 1, 0, 0, 0].tolist() == [0, 3, 6]  # {0, 1, 2}·⌊7/2⌋
    centre = EvalTransform(crop=8, short_side=8, num_crops=1)(coordinates(15, 8))
    assert centre.shape == (1, 3, 2, 8, 8)
    assert centre[0, 0, 0, 0, 0] == 3


def test_views_are_scaled_first() -> None:
    frames = noise(2, 30, 40)
    views = EvalTransform(crop=12, short_side=15, num_crops=1)(frames)
    scaled = resize(frames, (15, 20))
    assert torch.equal(views[0], scaled[:, 1:13, 4:16].permute(3, 0, 1, 2))


def test_views_of_each_protocol() -> None:
    # 16×31 to a shorter side of 8: 31/2 = 15.5, cut down to 15 or rounded to 16; the crops' first columns by hand
    frames = coordinates(16, 31)
    firsts = {}
    for protocol in ("released", "slowfast", "mmaction2", "mmaction2_v1", "single"):
        transform = EvalTransform(crop=8, short_side=8, protocol=protocol)
        scaled = transform.scale(frames)
        views = transform(frames)
        offsets = [(scaled[0, 0, :, 1] == view[1, 0, 0, 0]).nonzero()[0].item() for view in views]
        firsts[protocol] = (scaled.shape[2], offsets)
    assert firsts == {
        "released": (15, [0, 3, 6]),
        "single": (15, [0, 3, 6]),
        "slowfast": (15, [0, 4, 7]),
        "mmaction2": (16, [0, 4, 8]),
        "mmaction2_v1": (16, [0, 4, 8]),
    }


def test_the_papers_view_is_the_whole_frame() -> None:
    transform = EvalTransform(crop=8, short_side=8, num_crops=1, protocol="paper")
    for height, width, size in ((16, 31, (8, 15)), (31, 16, (15, 8)), (9, 9, (8, 8))):
        frames = noise(2, height, width)
        views = transform(frames)
        assert torch.equal(views[0], resize(frames, size).permute(3, 0, 1, 2))
        assert len(views) == 1
    for wrong in ({"crop": 6, "num_crops": 1}, {"crop": 8, "num_crops": 3}):
        with pytest.raises(NlnetError, match=r"takes the whole frame: crop must be short_side \(8\)"):
            EvalTransform(short_side=8, protocol="paper", **wrong)


def test_normalize_is_the_releases_constants() -> None:
    clips = noise(2, 4, 5).permute(3, 0, 1, 2)[None]
    expected = (clips.double() - 114.75) / 57.375
    assert torch.allclose(normalize(clips).double(), expected, rtol=0, atol=1e-6)
    half = normalize(clips, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, normalize(clips).to(torch.bfloat16))  # rounded once, at the end


def test_normalize_per_channel() -> None:
    clips = torch.full((1, 3, 2, 2, 2), 255, dtype=torch.uint8)
    out = normalize(clips, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    assert out[0, :, 0, 0, 0].tolist() == [1.0, 1.0, 0.0]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(NlnetError, match=r"got crop 224, scales \(200, 320\); raise the scales"):
        TrainTransform(crop=224, scales=(200, 320))
    with pytest.raises(NlnetError, match="smallest scale ≤ largest scale"):
        TrainTransform(crop=8, scales=(20, 10))
    with pytest.raises(NlnetError, match=r"flip_probability must lie in \[0, 1\], got 2.0"):
        TrainTransform(crop=8, scales=(8, 8), flip_probability=2.0)
    with pytest.raises(NlnetError, match="1 ≤ crop ≤ short_side, got crop 256, short_side 224"):
        EvalTransform(crop=256, short_side=224)
    with pytest.raises(NlnetError, match="num_crops must be 1 .*got 5"):
        EvalTransform(crop=8, short_side=8, num_crops=5)
    with pytest.raises(NlnetError, match="must be 1×1 or more, got 0×4"):
        resize(noise(1, 4, 4), (0, 4))
    clips = torch.zeros((1, 3, 1, 1, 1), dtype=torch.uint8)
    with pytest.raises(NlnetError, match="std must be above 0, got 0.0"):
        normalize(clips, std=0.0)
    with pytest.raises(NlnetError, match="mean must be one number or three"):
        normalize(clips, mean=(0.1, 0.2))
