"""Loading weights by name: inflation keeps the 2-D network's response, and no key is dropped silently."""

import pytest
import torch
from support.networks import randomised

from nlnet.errors import WeightsError
from nlnet.weights.load import inflate, load_weights
from nlnet.zoo import create_model


def image_net_style(model):
    """The weights of a C2D as a torchvision ResNet holds them: 4-D kernels and a 1000-class fc."""
    weights = {k: v.squeeze(2) if v.ndim == 5 else v for k, v in model.state_dict().items()}
    return weights | {"fc.weight": torch.randn(1000, model.fc.in_features), "fc.bias": torch.randn(1000)}


def test_every_plane_is_the_kernel_over_kt():
    kernel = torch.randn(4, 3, 5, 5)
    grown = inflate(kernel, (4, 3, 3, 5, 5))
    torch.testing.assert_close(grown.sum(dim=2), kernel)
    assert all(torch.equal(grown[:, :, t], kernel / 3) for t in range(3))


@pytest.mark.parametrize("shape", [(4, 3, 3, 7, 7), (4, 2, 3, 5, 5), (4, 3, 5, 5)])
def test_what_cannot_inflate(shape):
    assert inflate(torch.randn(4, 3, 5, 5), shape) is None


@pytest.mark.parametrize("name", ["c2d_mini", "i3d_mini", "i3d333_mini", "i3d_r50"])
def test_a_repeated_frame_gives_the_2d_networks_features(name):
    """On a repeated frame, away from the padding in time, an inflated network has the 2-D network's features."""
    torch.manual_seed(0)
    flat = randomised(create_model(name.replace("i3d333", "c2d").replace("i3d", "c2d"), variant="8x8")).eval()
    video = create_model(name, variant="8x8", weights=image_net_style(flat)).eval()
    side = 32 if "mini" in name else 64
    still = torch.randn(1, 3, 1, side, side)
    # padding reaches 2 frames at conv1 and one per inflated block; only a middle that none of it reaches counts
    frames = 64
    with torch.no_grad():
        expected = flat.features(still)
        features = video.features(still.expand(-1, -1, frames, -1, -1))
    middle = features.shape[2] // 2
    torch.testing.assert_close(features[:, :, middle], expected[:, :, 0], rtol=1e-4, atol=1e-4)


def receptive_fields(model, frames):
    """(first, last) input frame in the receptive field of each frame of the last map, from kernels and strides."""
    kernels = [(model.conv1.kernel_size[0], model.conv1.stride[0], model.conv1.padding[0])]
    kernels += [(model.pool1.kernel[0], model.pool1.stride[0], model.pool1.padding[0])]
    for stage in model.stages:
        for block in model.get_submodule(stage):
            kernels += [(c.kernel_size[0], 1, c.padding[0]) for c in (block.conv1, block.conv2)]
        if stage == "layer1":
            kernels += [(model.pool2.kernel[0], model.pool2.stride[0], model.pool2.padding[0])]
    lengths = [frames]
    for kernel, stride, padding in kernels:
        lengths.append((lengths[-1] + 2 * padding - kernel) // stride + 1)
    ranges = []
    for last in range(lengths[-1]):
        first, final = last, last
        for kernel, stride, padding in reversed(kernels):
            first, final = first * stride - padding, final * stride - padding + kernel - 1
        ranges.append((first, final))
    return ranges


@pytest.mark.parametrize("variant", ["8x8", "32x2"])
@pytest.mark.parametrize("name", ["c2d_mini", "i3d_mini", "i3d333_mini", "i3d_mini_nl1"])
def test_logits_of_a_repeated_frame_are_the_2d_networks_exactly_where_no_padding_is_seen(name, variant):
    """A window's logits equal the 2-D network's if and only if its receptive field lies inside the clip.

    C2D sees one frame at a time, so all its logits are equal. An I3D sees the zeros that pad time in every
    window whose receptive field reaches past an end; there they differ.
    """
    torch.manual_seed(0)
    flat = randomised(create_model("c2d_mini", variant="8x8")).eval()
    for key, value in flat.state_dict().items():  # large enough weights that the padding changes the logits
        if ".bn" in key and key.endswith("weight"):
            value.add_(1)
        elif value.ndim > 1:
            value.mul_(5)
    flat = flat.double()
    weights = {k: v.squeeze(2) if v.ndim == 5 else v for k, v in flat.state_dict().items()}
    video = create_model(name, variant=variant).double().eval()
    load_weights(video, weights, may_miss=("*.nonlocal_block.*",))
    still = torch.randn(1, 3, 1, 32, 32).double()
    frames = 96 if variant == "32x2" else 40
    with torch.no_grad():
        expected = flat(still)
        clip = still.expand(-1, -1, frames, -1, -1)
        height, width = video.features(clip).shape[-2:]
        logits = video.dense_logits(clip, (1, height, width))[0, :, :, 0, 0].T
        whole = video(clip)
    inside = [first >= 0 and last < frames for first, last in receptive_fields(video, frames)]
    equal = [torch.allclose(row, expected[0], rtol=1e-10, atol=0) for row in logits]
    assert equal == inside
    assert any(inside)
    assert torch.allclose(whole, expected, rtol=1e-10, atol=0) == all(inside) == name.startswith("c2d")


def test_image_net_keys_load_with_a_new_classifier():
    flat = randomised(create_model("c2d_mini", variant="8x8"))
    model = create_model("i3d_mini_nl1", num_classes=7, variant="8x8")
    fresh = model.fc.weight.clone()
    report = load_weights(
        model, image_net_style(flat), may_miss=("fc.*", "*.nonlocal_block.*"), may_drop=("fc.*",)
    )
    assert set(report.mismatched) == {"fc.weight", "fc.bias"}
    assert "conv1.weight" in report.inflated
    assert "layer1.0.conv3.weight" in report.inflated
    assert "bn1.running_mean" in report.copied
    assert torch.equal(model.fc.weight, fresh)
    assert torch.equal(model.bn1.running_var, flat.bn1.running_var)
    assert all(".nonlocal_block." in key for key in report.missing)


def test_keys_left_over_are_named_and_nothing_is_loaded():
    model = create_model("c2d_mini", variant="8x8")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weights = {k: v + 1 for k, v in before.items()}
    del weights["layer2.1.bn2.weight"]
    weights["head.extra"] = torch.zeros(1)
    weights["fc.weight"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, weights)
    message = str(caught.value)
    assert "only in the model: layer2.1.bn2.weight" in message
    assert "only in the weights: head.extra" in message
    assert "of another shape (weights → model): fc.weight (3, 3) → (400, 256)" in message
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_long_lists_are_cut_and_counted():
    with pytest.raises(WeightsError, match=r"… \(\d+ in all\)"):
        load_weights(create_model("c2d_mini", variant="8x8"), {})


def block_keys(weights):
    return [key for key in weights if ".nonlocal_block." in key]


def test_a_block_is_fresh_only_as_a_whole():
    """A block whose norm is missing would keep the initial γ = 0 and be switched off."""
    model = create_model("c2d_mini_nl1", variant="8x8")
    whole = randomised(create_model("c2d_mini_nl1", variant="8x8")).state_dict()
    fresh = {"may_miss": ("fc.*", "*.nonlocal_block.*"), "may_drop": ("fc.*",)}
    none = {key: value for key, value in whole.items() if key not in block_keys(whole)}
    assert len(load_weights(model, none, **fresh).missing) == 12
    for part in ("norm.", "theta.", "W_z.bias"):
        half = {key: value for key, value in whole.items() if f"nonlocal_block.{part}" not in key}
        with pytest.raises(
            WeightsError, match=rf"only in the model: layer2\.1\.nonlocal_block\.{part}"
        ) as caught:
            load_weights(model, half, **fresh)
        assert "keeps its initial values only if all of its keys are missing" in str(caught.value)


def test_another_shape_is_an_error_outside_the_classifier():
    model = create_model("c2d_mini_nl1", variant="8x8")
    narrow = randomised(create_model("c2d_mini_nl1", variant="8x8")).state_dict()
    for part in ("theta", "phi", "g"):
        for leaf in ("weight", "bias"):
            narrow[f"layer2.1.nonlocal_block.{part}.{leaf}"] = narrow[
                f"layer2.1.nonlocal_block.{part}.{leaf}"
            ][:32]
    key = "layer2.1.nonlocal_block.W_z.weight"
    narrow[key] = narrow[key][:, :32]
    with pytest.raises(WeightsError, match=r"of another shape .*: .*layer2\.1\.nonlocal_block\.W_z\.weight"):
        load_weights(model, narrow, may_miss=("fc.*", "*.nonlocal_block.*"), may_drop=("fc.*",))
    half = narrow | {"fc.weight": torch.zeros(400, 9)}  # its bias has the right shape
    with pytest.raises(WeightsError, match=r"of another shape .*: .*fc\.weight"):
        load_weights(
            create_model("c2d_mini", variant="8x8"),
            half,
            may_miss=("fc.*",),
            may_drop=("fc.*", "layer2.1.n*"),
        )


def test_kernels_of_one_plane_beside_kernels_of_several():
    """An I3D that inflates other blocks than ours is another network; a C2D inflates as a whole."""
    state = randomised(create_model("i3d_mini", variant="8x8")).state_dict()
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"].sum(2, keepdim=True)
    with pytest.raises(
        WeightsError, match=r"layer2\.0\.conv1\.weight has 1 temporal plane .* conv1\.weight has 5"
    ):
        load_weights(create_model("i3d_mini", variant="8x8"), state)
