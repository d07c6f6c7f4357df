"""The backbone against the release's stage table (original architecture: Table 1, §4.1)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlnet.models.resnet import TIMINGS, Bottleneck, MaxPool, VideoResNet, inflated, window_of

SMALL = {"blocks": (1, 2, 2), "width": 4, "num_classes": 5}


def grids(model, clip):
    """(T, H, W) after conv1, pool1, each stage and pool2, by running the network on the meta device."""
    seen = {}
    for name, module in model.named_modules():
        if name in ("conv1", "pool1", "pool2", "layer1", "layer2", "layer3", "layer4"):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: tuple(o.shape[2:])}))
    model.to("meta").eval()(torch.empty(1, 3, *clip, device="meta"))
    return seen


def test_the_releases_grid_at_224_for_32x2():
    # stage table of the release: unpadded pool1 makes res2 55×55
    seen = grids(VideoResNet(timing=TIMINGS["32x2"]), (32, 224, 224))
    assert seen == {
        "conv1": (16, 112, 112),
        "pool1": (8, 55, 55),
        "layer1": (8, 55, 55),
        "pool2": (4, 55, 55),
        "layer2": (4, 28, 28),
        "layer3": (4, 14, 14),
        "layer4": (4, 7, 7),
    }


def test_the_releases_grid_at_256_for_8x8():
    seen = grids(VideoResNet(timing=TIMINGS["8x8"], inflation="3x1x1"), (8, 256, 256))
    assert [seen[k] for k in ("conv1", "pool1", "pool2", "layer2", "layer3", "layer4")] == [
        (8, 128, 128), (8, 63, 63), (4, 63, 63), (4, 32, 32), (4, 16, 16), (4, 8, 8)
    ]  # fmt: skip


@pytest.mark.parametrize("padding", ["padded", "paper"])
def test_padded_pool1_gives_the_papers_56(padding):
    seen = grids(VideoResNet(padding=padding), (32, 224, 224))
    assert (seen["pool1"], seen["pool2"]) == ((8, 56, 56), (4, 56, 56))


def test_inflation_pattern_of_the_release():
    # stage: flags of R50's blocks, as in the release's architecture files
    pattern = {2: [1, 1, 1], 3: [1, 0, 1, 0], 4: [1, 0, 1, 0, 1, 0], 5: [0, 1, 0]}
    assert {s: [int(inflated(s, i)) for i in range(len(flags))] for s, flags in pattern.items()} == pattern
    assert [i for i in range(23) if inflated(4, i)] == list(range(0, 23, 2))


@pytest.mark.parametrize(
    ("inflation", "first", "second", "stem"), [("none", 1, 1, 1), ("3x1x1", 3, 1, 5), ("3x3x3", 1, 3, 5)]
)
def test_temporal_kernels(inflation, first, second, stem):
    model = VideoResNet(inflation=inflation, **SMALL)
    block = model.get_submodule("layer1.0")
    assert block.conv1.kernel_size == (first, 1, 1)
    assert block.conv2.kernel_size == (second, 3, 3)
    assert model.conv1.kernel_size[0] == stem


def test_the_spatial_stride_is_on_the_3x3():
    block = VideoResNet(**SMALL).get_submodule("layer2.0")
    assert block.conv1.stride == (1, 1, 1)
    assert block.conv2.stride == (1, 2, 2)
    assert block.downsample[0].stride == (1, 2, 2)


def test_a_fresh_bottleneck_is_relu_of_its_shortcut():
    block = Bottleneck(8, 4, 8, inflation="3x1x1").eval()
    x = torch.randn(2, 8, 3, 5, 5)
    assert torch.equal(block(x), x.relu())


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 9),
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    padding=st.sampled_from(["released", "padded", "paper"]),
    timing=st.sampled_from(["8x8", "32x2"]),
)
def test_window_is_the_last_maps_size(frames, height, width, padding, timing):
    model = VideoResNet(padding=padding, timing=TIMINGS[timing], **SMALL).to("meta").eval()
    features = model.features(torch.empty(1, 3, frames, height, width, device="meta"))
    assert window_of(model, (frames, height, width)) == tuple(features.shape[2:])


def test_dense_logits_of_the_whole_window_are_the_logits():
    model = VideoResNet(timing=TIMINGS["8x8"], **SMALL).eval().double()
    x = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    dense = model.dense_logits(x, window_of(model, (4, 32, 32)))
    assert dense.shape == (2, 5, 1, 1, 1)
    torch.testing.assert_close(dense.flatten(1), model(x), rtol=1e-12, atol=1e-12)


def test_a_256_crop_on_a_224_network_gives_a_2x2_grid():
    model = VideoResNet(timing=TIMINGS["8x8"]).to("meta").eval()
    dense = model.dense_logits(torch.empty(1, 3, 8, 256, 256, device="meta"), window_of(model, (8, 224, 224)))
    assert dense.shape == (1, 400, 1, 2, 2)


def test_dense_logits_are_the_classifier_on_each_window():
    model = VideoResNet(timing=TIMINGS["8x8"], **SMALL).eval().double()
    x = torch.randn(1, 3, 2, 48, 40, dtype=torch.float64)
    features = model.features(x)
    t, h, w = features.shape[2:]
    dense = model.dense_logits(x, (t, h - 1, w - 1))
    for i in range(2):
        for j in range(2):
            part = features[..., i : i + h - 1, j : j + w - 1].mean(dim=(2, 3, 4))
            torch.testing.assert_close(dense[:, :, 0, i, j], model.fc(part), rtol=1e-12, atol=1e-12)


def test_c2d_sees_no_order_within_a_pooled_pair():
    """C2D's only temporal operations are max pools of 2: swapping the frames of a pair changes nothing."""
    model = VideoResNet(timing=TIMINGS["8x8"], **SMALL).eval()
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(model(x), model(x[:, :, [1, 0, 3, 2]]))
    i3d = VideoResNet(timing=TIMINGS["8x8"], inflation="3x1x1", **SMALL).eval()
    assert not torch.equal(i3d(x), i3d(x[:, :, [1, 0, 3, 2]]))


def test_a_clip_of_one_frame_is_not_pooled_in_time():
    pool = MaxPool((2, 3, 3), (2, 2, 2))
    x = torch.randn(1, 2, 1, 7, 7)
    assert torch.equal(pool(x), torch.nn.functional.max_pool2d(x[:, :, 0], 3, 2)[:, :, None])


def test_autocast_pools_in_the_precision_of_the_map():
    x = torch.randn(1, 2, 4, 7, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = MaxPool((2, 3, 3), (2, 2, 2))(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y.float(), torch.nn.functional.max_pool3d(x.float(), (2, 3, 3), 2))


@pytest.mark.unhooked  # the shape checker would refuse these before we do
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inflation": "3x1"},
            "inflation: got '3x1', expected one of none, 3x1x1, 3x3x3; did you mean '3x1x1'",
        ),
        ({"padding": "same"}, "padding: got 'same'"),
        ({"blocks": (1, 0)}, r"blocks: got \(1, 0\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        VideoResNet(**options)


def test_a_clip_too_small_for_the_network():
    with pytest.raises(
        ValueError, match=r"a clip of \(8, 4, 4\).*too small for this network: .*take a larger crop"
    ):
        window_of(VideoResNet(timing=TIMINGS["8x8"]), (8, 4, 4))
