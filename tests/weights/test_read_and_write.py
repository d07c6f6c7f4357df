"""Weight files of other projects: recognised by their keys, every key accounted for, the function kept.

The names are built here from the release's naming rules and from the projects' own code, not from the key maps.
"""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nlnet.compatibility import differences
from nlnet.errors import WeightsError
from nlnet.insertion.insert import insert_nonlocal, nonlocal_blocks
from nlnet.models.flops import ShapesOnly
from nlnet.models.resnet import Timing, VideoResNet
from nlnet.weights.architecture import architecture_of
from nlnet.weights.keymap import KeyMap
from nlnet.weights.projects import PROJECTS
from nlnet.weights.projects.slowfast import slowfast_options
from nlnet.weights.read import read_weights
from nlnet.weights.write import write_weights
from nlnet.zoo import create_model, network_of

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
PLACES = {50: {3: (1, 3), 4: (1, 3, 5)}, 101: {3: (1, 3), 4: (6, 13, 20)}}


def release(depth, *, blocks=False, affine=False, flat=False, classes=400):
    """Blob → shape of a Caffe2 training checkpoint of an I3D, by the rules of the released code."""
    weights, norms = {"conv1_w": (64, 3, 5, 7, 7)}, {"res_conv1_bn": 64}
    channels = 64
    for stage, count in enumerate(DEPTHS[depth], start=2):
        inner, outer = 64 * 2 ** (stage - 2), 256 * 2 ** (stage - 2)
        for index in range(count):
            unit = f"res{stage}_{index}"
            inflates = stage == 2 or index % 2 == (1 if stage == 5 else 0)
            weights[f"{unit}_branch2a_w"] = (inner, channels, 3 if inflates else 1, 1, 1)
            weights[f"{unit}_branch2b_w"] = (inner, inner, 1, 3, 3)
            weights[f"{unit}_branch2c_w"] = (outer, inner, 1, 1, 1)
            norms |= {
                f"{unit}_branch2{letter}_bn": n
                for letter, n in zip("abc", (inner, inner, outer), strict=True)
            }
            if index == 0:
                weights[f"{unit}_branch1_w"] = (outer, channels, 1, 1, 1)
                norms[f"{unit}_branch1_bn"] = outer
            channels = outer
            if blocks and index in PLACES[depth].get(stage, ()):
                for part in ("theta", "phi", "g"):
                    weights[f"nonlocal_conv{stage}_{index}_{part}_w"] = (outer // 2, outer, 1, 1, 1)
                    weights[f"nonlocal_conv{stage}_{index}_{part}_b"] = (outer // 2,)
                weights[f"nonlocal_conv{stage}_{index}_out_w"] = (outer, outer // 2, 1, 1, 1)
                weights[f"nonlocal_conv{stage}_{index}_out_b"] = (outer,)
                if not affine:
                    norms[f"nonlocal_conv{stage}_{index}_bn"] = outer
    weights |= {"pred_w": (classes, 2048), "pred_b": (classes,)}
    trained = dict(weights)
    for norm, width in norms.items():
        weights |= {f"{norm}_s": (width,), f"{norm}_b": (width,)}
        if not affine:
            trained |= {f"{norm}_s": (width,), f"{norm}_b": (width,)}
            weights |= {f"{norm}_rm": (width,), f"{norm}_riv": (width,)}
    if flat:  # the ImageNet networks: 2-D kernels, and their files are clean
        return {name: (*s[:2], *s[3:]) if len(s) == 5 else s for name, s in weights.items()}
    return weights | {f"{name}_momentum": shape for name, shape in trained.items()} | {"lr": ()}


def meta_tensors(shapes):
    """Meta tensors of these shapes, and the counter."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()} | {
        "model_iter": 400_000
    }


KINDS = [  # depth, blocks, affine, blobs (counted from the release's code)
    (50, False, False, 430),
    (50, True, False, 540),
    (101, False, False, 838),
    (101, True, False, 948),
    (50, False, True, 218),
    (50, True, True, 298),
]


@pytest.mark.parametrize(("depth", "blocks", "affine", "count"), KINDS)
def test_every_kind_of_file_of_the_release_loads_without_a_key_left_over(depth, blocks, affine, count):
    file = meta_tensors(release(depth, blocks=blocks, affine=affine))
    assert len(file) == count
    weights = read_weights(file)
    with ShapesOnly():
        model, report = network_of(weights)
    assert weights.source == "caffe2"
    assert not weights.unmatched
    named = {name for name in file if name.endswith("_momentum") or name in ("lr", "model_iter")}
    assert set(weights.bookkeeping) == named
    assert len(weights.tensors) + len(weights.bookkeeping) == count
    assert report.missing == report.unexpected == report.mismatched == report.inflated == ()
    assert len(report.copied) == count - len(named)
    found = architecture_of(weights.tensors)
    assert (found.name, found.where) == (f"i3d_r{depth}{'_nl5' if blocks else ''}", None)
    assert weights.options["padding"] == "released"
    assert weights.options["variant"] == ("32x4" if affine else "32x2")
    assert weights.options["norm"] == ("affine" if affine else "batch")
    groups = {path: block.groups for path, block in nonlocal_blocks(model).items()}
    assert set(groups.items()) == ({(p, 4 if affine and "layer2" in p else 1) for p in groups})
    assert all(
        block.norm_kind == ("none" if affine else "batch") for block in nonlocal_blocks(model).values()
    )


def test_a_blob_too_many_or_too_few_is_named():
    file = meta_tensors(release(50))
    file["res9_0_branch2b_w"] = file.pop("res2_0_branch2b_w")
    weights = read_weights(file)
    assert set(weights.unmatched) == {"res9_0_branch2b_w", "res2_0_branch2b_w_momentum"}
    with ShapesOnly(), pytest.raises(WeightsError) as caught:
        network_of(weights)
    assert "only in the model: layer1.0.conv2.weight" in str(caught.value)
    assert "only in the weights: res2_0_branch2b_w_momentum, res9_0_branch2b_w" in str(caught.value)


def test_momentum_without_its_blob_is_not_bookkeeping():
    file = {"conv1_w": torch.zeros(1), "conv2_w_momentum": torch.zeros(1), "conv1_w_momentum": torch.zeros(1)}
    assert not PROJECTS["caffe2"].bookkeeping("conv2_w_momentum", file)
    assert PROJECTS["caffe2"].bookkeeping("conv1_w_momentum", file)


NAMES = {  # ours: the release's, PySlowFast's, PyTorchVideo's (with pool2), mmaction2's; from each project's code
    "conv1.weight": (
        "conv1_w",
        "s1.pathway0_stem.conv.weight",
        "blocks.0.conv.weight",
        "backbone.conv1.conv.weight",
    ),
    "bn1.bias": (
        "res_conv1_bn_b",
        "s1.pathway0_stem.bn.bias",
        "blocks.0.norm.bias",
        "backbone.conv1.bn.bias",
    ),
    "layer1.2.conv2.weight": (
        "res2_2_branch2b_w",
        "s2.pathway0_res2.branch2.b.weight",
        "blocks.1.res_blocks.2.branch2.conv_b.weight",
        "backbone.layer1.2.conv2.conv.weight",
    ),
    "layer3.5.bn3.running_var": (
        "res4_5_branch2c_bn_riv",
        "s4.pathway0_res5.branch2.c_bn.running_var",
        "blocks.4.res_blocks.5.branch2.norm_c.running_var",
        "backbone.layer3.5.conv3.bn.running_var",
    ),
    "layer2.0.downsample.0.weight": (
        "res3_0_branch1_w",
        "s3.pathway0_res0.branch1.weight",
        "blocks.3.res_blocks.0.branch1_conv.weight",
        "backbone.layer2.0.downsample.conv.weight",
    ),
    "layer4.0.downsample.1.running_mean": (
        "res5_0_branch1_bn_rm",
        "s5.pathway0_res0.branch1_bn.running_mean",
        "blocks.5.res_blocks.0.branch1_norm.running_mean",
        "backbone.layer4.0.downsample.bn.running_mean",
    ),
    "layer2.3.nonlocal_block.theta.bias": (
        "nonlocal_conv3_3_theta_b",
        "s3.pathway0_nonlocal3.conv_theta.bias",
        None,
        "backbone.layer2.3.non_local_block.theta.conv.bias",
    ),
    "layer3.1.nonlocal_block.phi.weight": (
        "nonlocal_conv4_1_phi_w",
        "s4.pathway0_nonlocal1.conv_phi.weight",
        None,
        "backbone.layer3.1.non_local_block.phi.0.conv.weight",
    ),
    "layer3.1.nonlocal_block.W_z.weight": (
        "nonlocal_conv4_1_out_w",
        "s4.pathway0_nonlocal1.conv_out.weight",
        None,
        "backbone.layer3.1.non_local_block.conv_out.conv.weight",
    ),
    "layer3.1.nonlocal_block.norm.weight": (
        "nonlocal_conv4_1_bn_s",
        "s4.pathway0_nonlocal1.bn.weight",
        None,
        "backbone.layer3.1.non_local_block.conv_out.bn.weight",
    ),
    "fc.weight": ("pred_w", "head.projection.weight", "blocks.6.proj.weight", "cls_head.fc_cls.weight"),
}


@pytest.mark.parametrize("ours", NAMES)
def test_names_are_the_projects_own(ours):
    for source, theirs in zip(("caffe2", "slowfast", "pytorchvideo", "mmaction2"), NAMES[ours], strict=True):
        keymap = PROJECTS[source].keymaps[0]
        assert keymap.pairs.get(ours) == theirs
        assert theirs is None or keymap.ours[theirs] == ours


def test_two_keys_with_one_counterpart_are_an_error():
    with pytest.raises(ValueError, match="the keys 'a' and 'b' both map to 'x'"):
        KeyMap({"a": "x", "b": "x"})
    with pytest.raises(WeightsError, match=r"the other project has no key for c$"):
        KeyMap({"a": "x"}).write({"a": torch.zeros(1), "c": torch.zeros(1)})


def randomised(model, seed=0):
    """Fill weights, γ and statistics with random values, so that a test notices a key that is lost."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            near_one = name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "norm.weight"))
            value.copy_(
                1 + 0.1 * noise.clamp(-3, 3) if near_one else noise / max(1, value[:1].numel()) ** 0.5
            )
    return model


NL = {"variant": "8x8", "padding": "padded"}
MM = {"padding": "mmaction2", "convention": "mmcv", "scale": 1.0}
LONG = {"variant": "32x4", "norm": "affine", "nonlocal_norm": "none", "groups": 4}
ROUNDS = {  # format, network, its options, options that the keys cannot say and the file does not
    "release": ("caffe2", "i3d_mini_nl1", {}, {}),
    "release, dot product": (
        "caffe2",
        "c2d_mini_nl1",
        {"pairwise": "dot_product"},
        {"pairwise": "dot_product"},
    ),
    "release, 8x8": ("caffe2", "c2d_mini", {"variant": "8x8"}, {"variant": "8x8"}),
    "release, long clips": ("caffe2_flat", "i3d_mini_nl1", LONG, {}),
    "release, affine short clips": (
        "caffe2",
        "i3d_mini_nl1",
        LONG | {"variant": "8x8", "groups": 1},
        {"variant": "8x8"},
    ),
    "release, affine baseline": ("caffe2", "i3d_mini", {"variant": "32x4", "norm": "affine"}, {}),
    "PySlowFast": ("slowfast", "i3d_mini_nl1", NL, {}),
    "PySlowFast, dot product": (
        "slowfast",
        "c2d_mini_nl1",
        NL | {"pairwise": "dot_product", "groups": 2},
        {},
    ),
    "PySlowFast, no pool": ("slowfast", "c2d_mini", NL | {"pool2": False}, {}),
    "PySlowFast, whole keys": ("slowfast", "i3d_mini_nl1", NL | {"subsample": False}, {}),
    "PySlowFast, pickle": ("slowfast_pkl", "i3d_mini_nl1", NL, {}),
    "PySlowFast, pickle of a C2D": ("slowfast_pkl", "c2d_mini", NL | {"pool2": False}, {}),
    "PyTorchVideo": ("pytorchvideo", "i3d_mini", NL, {}),
    "PyTorchVideo, no pool": ("pytorchvideo", "c2d_mini", NL | {"pool2": False}, {}),
    "mmaction2": ("mmaction2", "i3d_mini_nl1", MM, {}),
    "mmaction2, scaled": ("mmaction2", "i3d_mini_nl1", MM | {"scale": None}, {}),
    "mmaction2, Gaussian": ("mmaction2", "i3d_mini_nl1", MM | {"pairwise": "gaussian"}, {}),
    "mmaction2, dot product": ("mmaction2", "i3d_mini_nl1", MM | {"pairwise": "dot_product"}, {}),
    "mmaction2, concatenation": ("mmaction2", "i3d_mini_nl1", MM | {"pairwise": "concatenation"}, {}),
    "mmaction2, whole keys": ("mmaction2", "i3d333_mini_nl1", MM | {"subsample": False}, {}),
    "mmaction2, strides 1": ("mmaction2", "i3d_mini", {"padding": "mmaction2", "variant": "8x8"}, {}),
    "mmaction2, no pool2": ("mmaction2", "i3d_mini_nl1", MM | {"pool2": False}, {}),
    "mmaction2, C2D": ("mmaction2", "c2d_mini", {"variant": "8x8"}, {}),
    "mmaction2, C2D without pool": ("mmaction2", "c2d_mini", NL | {"pool2": False}, {}),
    "torchvision": ("torchvision", "c2d_mini", NL, {}),
}


@pytest.mark.parametrize("case", ROUNDS)
def test_written_by_us_and_read_by_us_is_identical(tmp_path, case):
    form, name, options, unsaid = ROUNDS[case]
    model = randomised(create_model(name, num_classes=7, **options)).eval()
    path = tmp_path / "weights"
    with pytest.warns(UserWarning, match="dot_product") if "pairwise" in unsaid else nullcontext():
        write_weights(model, path, form, frames=int(options.get("variant", "32x2").split("x")[0]))
    # what the keys do not say is named; without it the file is taken for the release's
    source = form if form == "slowfast_pkl" else None
    weights = read_weights(path, options=unsaid, source=source)
    again, report = network_of(weights)
    assert weights.source == form.removesuffix("_flat")
    assert architecture_of(weights.tensors).name == name
    assert not weights.unmatched
    assert report.missing == report.unexpected == report.mismatched == ()
    old, new = model.state_dict(), again.eval().state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[key], new[key]) for key in old if not key.endswith("num_batches_tracked"))
    clip = torch.randn(2, 3, 1 if form == "torchvision" else 32, 24, 24)
    with torch.no_grad():
        expected = model(clip)
        assert torch.equal(again(clip), expected)
        if not weights.is_image_network:  # `weights=` builds the same network
            started = create_model(name, num_classes=7, weights=path, source=source, **unsaid).eval()
            assert torch.equal(started(clip), expected)
    assert expected.std() > 0.01


def test_the_files_look_as_their_projects_write_them(tmp_path):
    model = randomised(create_model("i3d_mini_nl1", num_classes=7, **NL))
    write_weights(model, tmp_path / "a.pyth", "slowfast")
    file = torch.load(tmp_path / "a.pyth", weights_only=True)
    assert file.keys() == {"epoch", "model_state", "optimizer_state", "cfg"}
    assert "ARCH: i3d\n" in file["cfg"]
    assert torch.equal(file["model_state"]["head.projection.bias"], model.fc.bias)
    flat = randomised(create_model("c2d_mini", variant="8x8"))
    write_weights(flat, tmp_path / "a.pth", "mmaction2")
    file = torch.load(tmp_path / "a.pth", weights_only=True)
    assert file.keys() == {"meta", "state_dict"}
    assert torch.equal(file["state_dict"]["backbone.conv1.conv.weight"], flat.conv1.weight[:, :, 0])
    concat = create_model("i3d_mini_nl1", **MM, pairwise="concatenation")
    write_weights(concat, tmp_path / "b.pth", "mmaction2")
    state = torch.load(tmp_path / "b.pth", weights_only=True)["state_dict"]
    assert state["backbone.layer2.1.non_local_block.concat_project.conv.weight"].shape == (1, 128, 1, 1)


LIMITS = [
    ("caffe2", "c2d_mini", {"padding": "padded"}, "the Caffe2 release cannot build this network: pool1 has"),
    ("caffe2", "c2d_mini", {"padding": "paper"}, "pool1 has kernel"),
    ("caffe2", "c2d_mini", {"pool2": False}, "its networks have a pool2"),
    ("caffe2", "c2d_mini", {"norm": "group"}, "its networks have batch norms, got GroupNorm"),
    ("caffe2", "i3d333_mini", {}, "I3D 3×3×3"),
    ("caffe2", "c2d_mini_rb1", {}, "its networks have no residual control blocks"),
    ("caffe2", "c2d_mini_nl1", {"convention": "paper"}, "keys are pooled after φ and g, expected before"),
    ("caffe2", "c2d_mini_nl1", {"scale": 1.0}, "scale 1, expected 0.125"),
    ("caffe2", "c2d_mini_nl1", {"axis": "space"}, "axis 'space'"),
    ("caffe2", "c2d_mini_nl1", {"pairwise": "gaussian"}, "pairwise 'gaussian'"),
    ("caffe2", "c2d_mini_nl1", {"subsample": False}, "the block does not pool its keys"),
    (
        "caffe2",
        "c2d_mini_nl1",
        {"nonlocal_norm": "layer"},
        "norm 'layer', expected batch, sync, affine or none",
    ),
    ("caffe2", "c2d_mini_nl1", {"out_bias": False}, "layer2.1: W_z has no bias, expected one"),
    ("slowfast", "c2d_mini", {"padding": "padded"}, "PySlowFast cannot build this network: pool1 has"),
    ("slowfast", "c2d_mini", {"variant": "8x8"}, "pool1 has kernel"),
    ("slowfast", "i3d_mini", NL | {"norm": "affine"}, "not frozen affine layers"),
    ("slowfast", "c2d_mini_nl1", NL | {"nonlocal_norm": "none"}, "norm 'none', expected batch or sync"),
    (
        "slowfast_pkl",
        "i3d_mini",
        {"variant": "8x8"},
        "PySlowFast in the release's format cannot build this network: pool1",
    ),
    ("slowfast_pkl", "i3d_mini_nl1", NL | {"groups": 2}, "2 temporal groups, expected 1, since the file"),
    ("slowfast_pkl", "i3d_mini_nl1", NL | {"subsample": False}, "the block does not pool its keys"),
    ("slowfast_pkl", "i3d_mini", NL | {"pool2": False}, "its networks have a pool2"),
    ("slowfast_pkl", "c2d_mini", NL, "its C2D networks have no pool2"),
    ("slowfast_pkl", "i3d_mini", NL | {"norm": "affine"}, "not frozen affine layers"),
    ("caffe2", "i3d_mini_nl1", {"groups": 2}, "2 temporal groups with batch norms, expected 1"),
    ("caffe2", "i3d_mini_nl1", LONG | {"groups": 2}, "2 temporal groups, expected 4 for 32 frames"),
    ("caffe2", "i3d_mini_nl1", LONG | {"groups": 1}, "1 temporal groups, expected 4 for 32 frames"),
    ("slowfast", "c2d_mini", {"variant": "8x8", "padding": "paper"}, "pool2 has kernel"),
    ("pytorchvideo", "c2d_mini_nl1", NL, "its networks have no non-local blocks"),
    ("mmaction2", "i3d_mini_nl1", {"padding": "mmaction2"}, "keys are pooled before φ and g, expected after"),
    ("mmaction2", "i3d_mini_nl1", MM | {"out_bias": True}, "W_z has a bias, expected none"),
    ("mmaction2", "i3d_mini_nl1", MM | {"groups": 2}, "2 temporal groups, expected 1"),
    ("mmaction2", "c2d_mini_nl1", {"variant": "8x8"}, "its networks have no non-local blocks"),
    ("mmaction2", "c2d_mini", {}, "pool1 has kernel"),
    ("torchvision", "i3d_mini", NL, "this one is an I3D"),
    ("torchvision", "c2d_mini", {"variant": "8x8"}, "pool1 has kernel"),
    ("onnx", "c2d_mini", {}, "format: got 'onnx', expected one of caffe2"),
]


@pytest.mark.parametrize(("form", "name", "options", "reason"), LIMITS)
def test_what_a_project_cannot_build_is_refused_with_the_reason(tmp_path, form, name, options, reason):
    with pytest.raises(WeightsError, match=reason):
        write_weights(create_model(name, **options), tmp_path / "x", form, frames=32)
    assert not (tmp_path / "x").exists()


def test_networks_that_have_no_name_are_refused(tmp_path):
    sizes = {"blocks": (1, 1, 1), "width": 16, "stem_kernel": 5}
    strided = Timing(frames=8, stride=8, conv1_stride=2, pool1_stride=1)
    grouped = create_model("c2d_mini", variant="8x8")
    insert_nonlocal(grouped, "layer3.0", convention="released", groups=2)
    for model, form, reason in (
        (VideoResNet(**sizes, stem_pool=False), "caffe2", "its networks have a pool1"),
        (VideoResNet(**sizes, timing=strided, padding="padded"), "slowfast", "conv1 has stride 2 in time"),
        (grouped, "caffe2", "layer3.0: 2 temporal groups, expected 1"),
    ):
        with pytest.raises(WeightsError, match=reason):
            write_weights(model, tmp_path / "x", form)


def test_the_groups_of_a_frozen_network_depend_on_the_clip(tmp_path):
    """With frozen norms the release cuts res3 into groups of 4 frames: 16 frames there are 4 groups, 4 are one."""
    one = create_model("i3d_mini_nl1", **LONG | {"groups": 1})
    with pytest.raises(
        WeightsError, match="1 temporal groups, expected 4 for long clips; for others give frames="
    ):
        write_weights(one, tmp_path / "x", "caffe2")
    write_weights(one, tmp_path / "x", "caffe2", frames=8)
    assert read_weights(tmp_path / "x").options["groups"] == 4  # taken for 32x4
    assert read_weights(tmp_path / "x", options={"variant": "8x8"}).options["groups"] == 1
    assert read_weights(tmp_path / "x", options={"variant": "128x1"}).options["groups"] == 4
    assert read_weights(tmp_path / "x", options={"groups": 2}).options["groups"] == 2


@pytest.mark.parametrize(
    ("form", "options"),
    [("caffe2", {}), ("slowfast", NL), ("mmaction2", MM), ("slowfast_pkl", NL)],
)
def test_synchronised_norms_are_batch_norms_in_a_file(tmp_path, form, options):
    synced = create_model("i3d_mini_nl1", num_classes=7, norm="sync", nonlocal_norm="sync", **options)
    write_weights(randomised(synced).eval(), tmp_path / "x", form)
    again, _ = network_of(read_weights(tmp_path / "x", source=form))
    clip = torch.randn(1, 3, 16, 24, 24)
    with torch.no_grad():
        assert torch.equal(again.eval()(clip), synced(clip))


def test_blocks_of_two_kinds_are_refused(tmp_path):
    model = create_model("c2d_mini_nl1", variant="8x8")
    insert_nonlocal(model, "layer3.0", convention="released", pairwise="dot_product")
    with pytest.raises(WeightsError, match="all non-local blocks of its networks have the same"):
        write_weights(model, tmp_path / "x", "caffe2")


# --- what the keys cannot say --------------------------------------------------------------------------------


def meta_state(name, form, **options):
    """The state dict of a network under the keys of `form`, as meta tensors."""
    with ShapesOnly():
        state = create_model(name, **options).state_dict()
    return PROJECTS[form].keymaps[0].write(state)


CFG = """BN:
  EPSILON: 1.0e-05
DATA:
  MEAN:
  - 0.45
  - 0.45
  - 0.45
  NUM_FRAMES: {frames}
  SAMPLING_RATE: {rate}
MODEL:
  ARCH: {arch}
  NUM_CLASSES: 400
NONLOCAL:
  GROUP:
  - - 1
  - - {groups}
  - - 1
  - - 1
  INSTANTIATION: {pairwise}
  LOCATION:
  - - []
  - - - 1
      - 3
  POOL:
  - - - 1
      - 2
      - 2
NUM_GPUS: 8
"""  # as yacs dumps it


def test_pyslowfasts_configuration_is_read(tmp_path):
    tensors = {"layer2.1.nonlocal_block.g.weight": torch.zeros(1)}
    text = CFG.format(frames=32, rate=4, arch="i3d_nopool", groups=4, pairwise="dot_product")
    options = {name: value for name, (value, _) in slowfast_options(tensors, 0, text).items()}
    assert options == {
        "variant": "32x4",
        "padding": "padded",
        "convention": "released",
        "pool2": False,
        "pairwise": "dot_product",
        "groups": 4,
    }
    text = CFG.format(frames=8, rate=8, arch="i3d", groups=1, pairwise="softmax")
    options = {name: value for name, (value, _) in slowfast_options(tensors, 0, text).items()}
    assert (options["variant"], options["pairwise"]) == ("8x8", "embedded_gaussian")
    assert not options.keys() & {"pool2", "groups"}


def test_a_long_configuration_without_the_key_is_read_at_once():
    """A regular expression that backtracks would take 2^400 steps."""
    tensors = {"layer2.1.nonlocal_block.g.weight": torch.zeros(1)}
    text = "DATA:\n" + "  MEAN: 0\n" * 400 + "MODEL:\n  ARCH: i3d\nNONLOCAL:\n  LOCATION:\n  - - []\n"
    assert slowfast_options(tensors, 0, text).keys() == {"variant", "padding", "convention", "pairwise"}


def blocks_at(*places):
    return {f"{place}.nonlocal_block.g.weight": torch.zeros(1) for place in places}


@pytest.mark.parametrize(
    ("old", "new", "places", "message"),
    [
        (
            "  ARCH: i3d",
            "  ARCH: slow",
            ("layer2.1",),
            "ARCH .*: got 'slow', expected c2d, c2d_nopool, i3d or i3d_nopool",
        ),
        ("EPSILON: 1.0e-05", "EPSILON: 0.001", (), r"BN\.EPSILON .*: got 0.001, expected 1e-05"),
        (
            "  POOL:\n  - - - 1\n      - 2\n",
            "  POOL:\n  - - - 1\n      - 2\n      - 2\n  - - - 2\n      - 2\n",
            ("layer2.1",),
            r"NONLOCAL\.POOL .*: got \[2, 2, 2\] in res3, expected",
        ),
        (
            "  - - 1\n  INST",
            "  - - 2\n  INST",
            ("layer4.1",),
            r"NONLOCAL\.GROUP .*: got 2 in res5, expected 1",
        ),
        (
            "NUM_GPUS: 8",
            "RESNET:\n  STRIDE_1X1: true\n",
            (),
            r"RESNET\.STRIDE_1X1 .*: got true, expected false",
        ),
        (
            "NUM_GPUS: 8",
            "RESNET:\n  SPATIAL_STRIDES:\n  - - 1\n  - - 2\n  - - 2\n  - - 1\n",
            (),
            r"RESNET\.SPATIAL_STRIDES .*: got \[1, 2, 2, 1\], expected \[1, 2, 2, 2\]",
        ),
        (
            "NUM_GPUS: 8",
            "RESNET:\n  SPATIAL_DILATIONS: [[1], [1], [1], [2]]\n",
            (),
            r"RESNET\.SPATIAL_DILATIONS .*: got \[1, 1, 1, 2\], expected \[1, 1, 1, 1\]",
        ),
    ],
)
def test_pyslowfasts_settings_that_we_cannot_build_are_refused_by_name(old, new, places, message):
    text = CFG.format(frames=8, rate=8, arch="i3d", groups=1, pairwise="softmax")
    assert slowfast_options(blocks_at(*places), 0, text)
    assert old in text
    with pytest.raises(WeightsError, match=message):
        slowfast_options(blocks_at(*places), 0, text.replace(old, new))


def test_pyslowfasts_groups_of_two_pathways():
    """Of a list with two pathways for each stage, only the first pathway's numbers are read."""
    text = CFG.format(frames=8, rate=8, arch="i3d", groups=1, pairwise="softmax")
    old = "  - - 1\n  - - 1\n  - - 1\n  - - 1\n"
    assert old in text
    two = text.replace(old, "  - - 1\n    - 2\n  - - 4\n    - 2\n  - - 1\n    - 2\n  - - 1\n    - 2\n")
    assert slowfast_options(blocks_at("layer2.1", "layer3.1"), 0, two)["groups"][0] == 4


def test_pyslowfasts_pool_of_one_position_is_no_pooling():
    """POOL [1, 1, 1] is read as no pooling, in both of YAML's forms of lists."""
    text = CFG.format(frames=8, rate=8, arch="i3d", groups=1, pairwise="softmax")
    blocks = "  - - - 1\n      - 2\n      - 2\n    - - 1\n      - 2\n      - 2\n" * 4
    lines = "  - - [1, 2, 2]\n    - [1, 2, 2]\n" * 4
    start = text.index("  - - - 1\n      - 2\n      - 2\n")
    head, tail = text[:start], text[start:].replace("  - - - 1\n      - 2\n      - 2\n", "")
    for pools in (blocks, lines):
        pooled = slowfast_options(blocks_at("layer2.1", "layer3.1"), 0, head + pools + tail)
        assert "subsample" not in pooled
        whole = head + pools.replace("2", "1") + tail
        assert slowfast_options(blocks_at("layer2.1"), 0, whole)["subsample"][0] is False
    mixed = head + blocks.replace("2", "1", 4) + tail  # res2 alone, where no block is
    assert "subsample" not in slowfast_options(blocks_at("layer2.1"), 0, mixed)
    with pytest.raises(WeightsError, match=r"NONLOCAL\.POOL .* in some stages and \[1, 1, 1\] in others"):
        slowfast_options(blocks_at("layer1.1", "layer2.1"), 0, mixed)


def test_pyslowfasts_unknown_instantiation():
    tensors = {"layer2.1.nonlocal_block.g.weight": torch.zeros(1)}
    text = CFG.format(frames=8, rate=8, arch="i3d", groups=1, pairwise="gaussian")
    with pytest.raises(
        WeightsError, match="INSTANTIATION .*: got 'gaussian', expected softmax or dot_product"
    ):
        slowfast_options(tensors, 0, text)


PRETTY = """model = dict(
    backbone=dict(
        conv1_stride_t={stride},
        non_local_cfg=dict(
            mode={mode!r},
            norm_cfg=dict(requires_grad=True, type='BN3d'),
            sub_sample=True{scale}),
        pool1_stride_t={stride},
        type='ResNet3d'),
    type='Recognizer3D')
test_pipeline = [dict(num_clips=10, test_mode=True, type='SampleFrames')]
"""  # as mmengine dumps it


@pytest.mark.parametrize("key", ["config", "cfg"])
def test_mmaction2s_configuration_is_read(tmp_path, key):
    def options(stride, mode, scale, name="i3d_mini_nl1"):
        model = create_model(name, **MM)
        write_weights(model, tmp_path / "x.pth", "mmaction2")
        file = torch.load(tmp_path / "x.pth", weights_only=True)
        quoted = PRETTY.format(stride=stride, mode=mode, scale=scale).replace("'\"", '"').replace("\"'", '"')
        file["meta"] = {key: quoted, "mmengine_version": "0.7"}
        torch.save(file, tmp_path / "x.pth")
        return read_weights(tmp_path / "x.pth").options

    found = options(2, "embedded_gaussian", ", use_scale=False")
    assert (found["variant"], found["scale"], found["pairwise"]) == ("32x2", 1.0, "embedded_gaussian")
    assert options(1, "embedded_gaussian", "")["variant"] == "8x8"
    assert options(1, "embedded_gaussian", "")["scale"] is None  # mmcv's default is on
    assert options(1, "dot_product", "")["scale"] == 1.0
    assert options(2, '"dot_product"', "")["pairwise"] == "dot_product"  # quoted by hand


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("style='caffe'", "style .*: got caffe, expected pytorch"),
        ("with_pool1=False", "with_pool1 .*: got False, expected True"),
        ("spatial_strides=(1, 2, 2, 1)", r"spatial_strides .*: got 1, 2, 2, 1, expected 1, 2, 2, 2"),
        ("temporal_strides=(1, 1, 2, 1)", "temporal_strides .*: got 1, 1, 2, 1, expected 1, 1, 1, 1"),
        ("dilations=[1, 1, 1, 2]", "dilations .*: got 1, 1, 1, 2"),
        ("pool1_stride_s=1", "pool1_stride_s .*: got 1, expected 2"),
        ("conv1_stride_t=1", "conv1_stride_t 1 and pool1_stride_t 2 .*, expected 2 and 2, or 1 and 1"),
        ("conv1_stride_t=4, pool1_stride_t=4", "conv1_stride_t 4 and pool1_stride_t 4"),
    ],
)
def test_mmaction2s_settings_that_we_cannot_build_are_refused_by_name(tmp_path, setting, message):
    write_weights(create_model("i3d_mini_nl1", **MM), tmp_path / "x.pth", "mmaction2")
    file = torch.load(tmp_path / "x.pth", weights_only=True)
    file["meta"]["config"] = (
        f"{setting}, " + file["meta"]["config"] + ", style='pytorch', inflate_style='3x1x1'"
    )
    torch.save(file, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "x.pth")
    flat = {"backbone.conv1.conv.weight": torch.zeros(16, 3, 5, 5)}
    torch.save({"meta": {"config": setting}, "state_dict": flat}, tmp_path / "y.pth")
    if "_t=" not in setting:
        with pytest.raises(WeightsError, match=message):
            read_weights(tmp_path / "y.pth")


def test_an_assumed_pairwise_function_is_recorded():
    """Blocks of the embedded Gaussian and the dot product have the same keys in other projects."""
    assumed = (
        "embedded_gaussian",
        "assumed: the keys do not say; for the dot product give pairwise=dot_product",
    )
    file = meta_tensors(release(50, blocks=True))
    assert read_weights(file).settings["pairwise"] == assumed
    assert read_weights(file, source="slowfast_pkl").settings["pairwise"] == assumed
    for name, form, options in (("i3d_r50_nl5", "slowfast", NL), ("i3d_r50_nl5", "mmaction2", MM)):
        assert read_weights(meta_state(name, form, **options)).settings["pairwise"] == assumed
    gaussian = meta_state("i3d_r50_nl5", "mmaction2", **MM | {"pairwise": "gaussian"})
    assert read_weights(gaussian).settings["pairwise"] == ("gaussian", "the blocks have no θ")
    assert "pairwise" not in read_weights(meta_tensors(release(50))).settings
    assert read_weights(file).settings["padding"][1] == (
        "assumed: a file of the release, which pads no pool; a PySlowFast file has the same keys: for it give source=slowfast_pkl"
    )


def test_file_names_say_what_keys_cannot(tmp_path):
    model = create_model("c2d_mini_nl1", variant="8x8")
    for name, variant in (
        ("c2d_nonlocal_8x8_IN_pretrain_400k.pkl", "8x8"),
        ("c2d_nonlocal_32x2_IN_pretrain_400k.pkl", "32x2"),
        ("model_18x8.pkl", "32x2"),
    ):
        write_weights(model, tmp_path / name, "caffe2")
        weights = read_weights(tmp_path / name)
        assert weights.options["variant"] == variant
    assert weights.settings["variant"] == ("32x2", "assumed: as in the paper; else give variant=8x8")
    assert read_weights(tmp_path / name, options={"variant": "8x8"}).settings["variant"] == ("8x8", "given")
    write_weights(
        create_model("i3d_mini_nl1", **MM), tmp_path / "i3d_r50-nl-dot-product_32x2x1.pth", "mmaction2"
    )
    file = torch.load(tmp_path / "i3d_r50-nl-dot-product_32x2x1.pth", weights_only=True)
    file["meta"] = {}
    torch.save(file, tmp_path / "i3d_r50-nl-dot-product_32x2x1.pth")
    assert read_weights(tmp_path / "i3d_r50-nl-dot-product_32x2x1.pth").options["pairwise"] == "dot_product"


def test_pyslowfasts_pickles_must_be_named():
    file = meta_tensors(release(50, blocks=True))
    found = read_weights(file, source="slowfast_pkl").options
    assert (found["padding"], found["variant"], found["convention"]) == ("padded", "8x8", "released")
    assert "pool2" not in found
    file["conv1_w"] = torch.empty(64, 3, 1, 7, 7, device="meta")
    assert read_weights(file, source="slowfast_pkl").options["pool2"] is False


def test_prefixes_of_wrappers_are_stripped():
    state = meta_state("c2d_r50", "pytorchvideo", variant="8x8", padding="padded")
    for prefix in ("module.", "model.", "module.model."):
        assert read_weights({prefix + key: value for key, value in state.items()}).source == "pytorchvideo"


def test_errors_of_read_weights(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no such file; expected a weight file or a run directory: .*none\.pkl"
    ):
        read_weights(tmp_path / "none.pkl")
    with pytest.raises(WeightsError, match=r"source: got 'keras', expected one of nlnet, caffe2"):
        read_weights({}, source="keras")
    with pytest.raises(WeightsError, match=r"option 'dropout': expected one of variant, padding"):
        read_weights({}, options={"dropout": 0.1})
    with pytest.raises(WeightsError, match=r"'conv1_x' is a list, expected a tensor"):
        read_weights({"conv1_w": torch.zeros(64, 3, 5, 7, 7), "conv1_x": []})
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(
        WeightsError, match=r"list\.pth: expected a state dict \(names to tensors\), got list"
    ):
        read_weights(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (
            "fc.weight",
            lambda v: v.int(),
            r"'pred_w' of shape \(3, 256\): got torch.int32, expected a floating",
        ),
        ("layer1.0.conv1.weight", lambda v: v.bool(), "'res2_0_branch2a_w' .* got torch.bool"),
        ("fc.bias", lambda v: v * torch.nan, "'pred_b' .* NaN or infinite values: did the training diverge"),
        ("bn1.running_var", lambda v: -v, "'res_conv1_bn_riv' .* negative variances"),
    ],
)
def test_values_that_no_network_has(key, change, message):
    state = create_model("c2d_mini", num_classes=3, variant="8x8").state_dict()
    pairs = PROJECTS["caffe2"].keymaps[0].pairs
    blobs = {pairs[k]: v for k, v in state.items() if k in pairs}
    assert read_weights(blobs).source == "caffe2"
    with pytest.raises(WeightsError, match=message):
        read_weights(blobs | {pairs[key]: change(state[key])})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("conv1.weight", torch.tensor(1.0), r"conv1.weight has shape \(\), expected 4 or 5 axes"),
        ("layer1.0.conv2.weight", torch.zeros(3), r"layer1.0.conv2.weight has shape \(3,\)"),
        ("fc.weight", torch.zeros(0, 128), r"fc.weight has shape \(0, 128\), expected 2 axes, none empty"),
    ],
)
def test_shapes_that_no_network_has(key, value, message):
    state = create_model("c2d_mini", num_classes=3, variant="8x8").state_dict()
    with pytest.raises(WeightsError, match=message):
        architecture_of(state | {key: value})
    with pytest.raises(WeightsError, match="got no keys"):
        architecture_of({})


def test_networks_without_a_name():
    with pytest.raises(WeightsError, match="expected a key for conv1, by its name in nlnet"):
        architecture_of({"encoder.weight": torch.zeros(1)})
    state = read_weights(meta_tensors(release(50, blocks=True))).tensors
    wide = {key: value for key, value in state.items() if not key.startswith("layer4.2.")}
    with pytest.raises(WeightsError, match=r"no known network has stages of \(3, 4, 6, 2\) residual blocks"):
        architecture_of(wide)
    with pytest.raises(
        WeightsError, match=r"4 added blocks, after layer2\.1, layer2\.3, layer3\.1, layer3\.3"
    ):
        architecture_of({key: value for key, value in state.items() if "layer3.5.nonlocal" not in key})


def test_unusual_positions_of_blocks_are_kept():
    """PySlowFast's I3D_NLN R101 has its blocks of res4 at 1, 3, 5, the release at 6, 13, 20."""
    where = ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
    state = meta_state("i3d_r101_nl5", "slowfast", **NL, where=where)
    found = architecture_of(read_weights(state).tensors)
    assert (found.name, found.where) == ("i3d_r101_nl5", tuple(where))
    with ShapesOnly():
        model, _ = network_of(read_weights(state))
    assert list(nonlocal_blocks(model)) == [f"{path}.nonlocal_block" for path in where]
    with pytest.raises(ValueError, match=r"where: got 2 positions \(layer2.1, layer2.3\), expected 5"):
        create_model("i3d_r101_nl5", where=where[:2])
    one = architecture_of(read_weights(meta_state("c2d_r50_nl1", "slowfast", stage="res5")).tensors)
    assert (one.name, one.stage, one.where) == ("c2d_r50_nl1", "res5", None)


# --- starting a network from a file --------------------------------------------------------------------------


def test_create_model_takes_the_files_own_function(tmp_path):
    source = randomised(create_model("i3d_mini_nl1", num_classes=7, **MM)).eval()
    write_weights(source, tmp_path / "x.pth", "mmaction2")
    clip = torch.randn(1, 3, 16, 24, 24)
    model = create_model("i3d_mini_nl1", num_classes=7, weights=tmp_path / "x.pth").eval()
    with torch.no_grad():
        assert torch.equal(model(clip), source(clip))
        other = create_model(
            "i3d_mini_nl1", num_classes=7, weights=tmp_path / "x.pth", padding="released"
        ).eval()
        assert not torch.equal(other(clip), source(clip))
    weights = read_weights(tmp_path / "x.pth")
    assert differences(model, weights) == []
    assert any(
        line.startswith("pool1 is MaxPool(") and "instead of MaxPool(kernel=(1, 3, 3)" in line
        for line in differences(other, weights)
    )
    fresh = create_model("i3d_mini_nl1", num_classes=5, weights=tmp_path / "x.pth")
    assert torch.equal(fresh.conv1.weight, source.conv1.weight)
    assert fresh.fc.weight.shape[0] == 5


def test_a_file_sets_the_positions_of_its_blocks(tmp_path):
    source = randomised(create_model("i3d_mini_nl1", num_classes=7, where=["layer3.0"], **MM)).eval()
    write_weights(source, tmp_path / "x.pth", "mmaction2")
    model = create_model("i3d_mini_nl1", num_classes=7, weights=tmp_path / "x.pth").eval()
    assert list(nonlocal_blocks(model)) == ["layer3.0.nonlocal_block"]
    clip = torch.randn(1, 3, 16, 24, 24)
    with torch.no_grad():
        assert torch.equal(model(clip), source(clip))
    with pytest.raises(WeightsError, match=r"only in the weights: layer3\.0"):
        create_model("i3d_mini_nl1", num_classes=7, weights=tmp_path / "x.pth", where=["layer2.0"])
    one = meta_state("c2d_r50_nl1", "slowfast", stage="res3", **NL)
    with ShapesOnly():
        assert list(nonlocal_blocks(create_model("c2d_r50_nl1", weights=one))) == ["layer2.2.nonlocal_block"]


def test_a_file_of_an_image_network_sets_no_clip(tmp_path):
    """`convert` and `weights=` build the same network from a file of an image network."""
    state = randomised(create_model("c2d_mini", num_classes=7)).state_dict()
    flat = {key: value.squeeze(2) if value.ndim == 5 else value for key, value in state.items()}
    assert "variant" not in read_weights(flat).settings
    alone, _ = network_of(read_weights(flat))
    named, _ = network_of(read_weights(flat), name="c2d_mini", num_classes=7)
    assert alone.conv1.stride == named.conv1.stride == create_model("c2d_mini", weights=flat).conv1.stride
    assert alone.conv1.stride == create_model("c2d_mini").conv1.stride == (2, 2, 2)


def test_an_i3d_that_inflates_other_blocks_is_another_network():
    """By its shape alone a 1×1×1 kernel could be inflated to the 3×1×1 kernel of our network."""
    state = create_model("i3d_mini", num_classes=3).state_dict()
    names = PROJECTS["caffe2"].keymaps[0].pairs
    blobs = {names[key]: value for key, value in state.items() if key in names}
    blobs["res3_0_branch2a_w"] = blobs["res3_0_branch2a_w"].sum(2, keepdim=True)
    with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight has 1 temporal plane"):
        network_of(read_weights(blobs))
    with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight has 1 temporal plane"):
        create_model("i3d_mini", weights=blobs)


def test_differences_name_norms(tmp_path):
    """A group norm has the keys of an affine layer: its weights would load, but compute something else."""
    frozen = create_model("i3d_mini_nl1", norm="affine", nonlocal_norm="affine", variant="32x4", groups=4)
    write_weights(frozen, tmp_path / "x.pkl", "caffe2")
    weights = read_weights(tmp_path / "x.pkl")
    options = {"variant": "32x4", "groups": 4}
    assert (
        differences(create_model("i3d_mini_nl1", norm="affine", nonlocal_norm="affine", **options), weights)
        == []
    )
    assert differences(
        create_model("i3d_mini_nl1", norm="group", nonlocal_norm="layer", **options), weights
    ) == [
        "norm is group instead of affine",
        "nonlocal_norm is layer instead of affine",
    ]
    write_weights(create_model("i3d_mini_nl1"), tmp_path / "y.pkl", "caffe2")
    batch = read_weights(tmp_path / "y.pkl")
    assert differences(create_model("i3d_mini_nl1", norm="sync", nonlocal_norm="sync"), batch) == []
    # batch norms fold into affine layers, which is the same function in evaluation
    assert differences(create_model("i3d_mini_nl1", norm="affine", nonlocal_norm="affine"), batch) == []


def test_pixel_statistics_of_a_file():
    assert read_weights(meta_tensors(release(50))).statistics == (0.45, 0.225)
    flat = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    assert read_weights(flat).statistics == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert read_weights({"conv1.weight": torch.zeros(64, 3, 1, 7, 7)}).statistics is None


def test_differences_name_the_blocks_points(tmp_path):
    write_weights(create_model("i3d_mini_nl1", **MM), tmp_path / "x.pth", "mmaction2")
    ours = create_model("i3d_mini_nl1", padding="mmaction2")
    found = differences(ours, read_weights(tmp_path / "x.pth"))
    assert found == [
        "layer2.1.nonlocal_block pool_position is before instead of after",
        "layer2.1.nonlocal_block scale is 0.125 instead of 1.0",
    ]


@pytest.mark.parametrize("depth", [50, 101])
def test_the_releases_imagenet_files_have_every_key_of_the_network(depth):
    file = {n: torch.empty(s, device="meta") for n, s in release(depth, flat=True, classes=1000).items()}
    weights = read_weights(file)
    assert weights.is_image_network
    assert not weights.unmatched
    assert not weights.bookkeeping
    assert weights.tensors["fc.weight"].shape == (1000, 2048)
    with ShapesOnly():
        state = create_model(f"c2d_r{depth}").state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    flat = {k: (*s[:2], *s[3:]) if len(s) == 5 else s for k, s in shapes.items()}
    flat |= {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    assert {key: tuple(value.shape) for key, value in weights.tensors.items()} == flat


@pytest.mark.parametrize("name", ["c2d_mini", "i3d_mini_nl1", "i3d333_mini", "i3d_mini_rb1"])
@pytest.mark.parametrize("form", ["caffe2", "torchvision"])
def test_imagenet_files_load_into_any_network_with_a_new_classifier(name, form):
    flat = randomised(create_model("c2d_mini", num_classes=1000))
    state = {k: v for k, v in flat.state_dict().items() if not k.endswith("num_batches_tracked")}
    file = PROJECTS[form].keymaps[0].write({k: v.squeeze(2) if v.ndim == 5 else v for k, v in state.items()})
    model = create_model(name, num_classes=7, weights=file)
    assert model.fc.weight.shape == (7, 256)
    assert model.pool1.padding == (0, 0, 0)  # the video network's own, not the image network's
    for key, value in model.state_dict().items():
        if key in state and not key.startswith("fc."):
            grown = value.sum(2, keepdim=True) if value.ndim == 5 else value
            assert torch.allclose(grown, state[key], atol=1e-6)


def test_our_own_files_carry_their_configuration(tmp_path):
    options = {"variant": "8x8", "axis": "space", "pairwise": "dot_product"}
    model = randomised(create_model("c2d_mini_nl1", num_classes=3, **options)).eval()
    config = {"model": {"name": "c2d_mini_nl1", "dropout": 0.5, **options}}
    metadata = {"config": json.dumps(config), "classes": json.dumps(["a", "b", "c"])}
    (tmp_path / "checkpoints").mkdir()
    save_file(model.state_dict(), tmp_path / "checkpoints" / "last.safetensors", metadata)
    for origin in (tmp_path, str(tmp_path / "checkpoints" / "last.safetensors")):
        weights = read_weights(origin)
        again, _ = network_of(weights)
        assert (weights.source, weights.classes) == ("nlnet", ("a", "b", "c"))
        clip = torch.randn(1, 3, 8, 24, 24)
        with torch.no_grad():
            assert torch.equal(again.eval()(clip), model(clip))


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def tabled(table):
    """A .safetensors file with this table and no data."""
    return len(table).to_bytes(8, "little") + table.encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:4], "not a readable"),
        (lambda b: b[:-3], "lies outside the file"),
        (lambda b: (2**60).to_bytes(8, "little") + b[8:], "its table claims"),
        (lambda b: b.replace(b'"shape":[2,3]', b'"shape":[9,9]'), "claims a shape of"),
        (lambda b: b.replace(b'"F32"', b'"Q32"'), "not a readable"),
        (lambda b: b.replace(b'"shape":[2,3]', b'"shape":[-23]'), "'w' claims a shape of"),
        (lambda b: b.replace(b'"shape":[2,3]', b'"shape":[2,3'), "not a readable"),
        (lambda b: (10**5).to_bytes(8, "little") + b"[" * 10**5, "not a readable .*RecursionError"),
        (lambda b: tabled('{"__metadata__":{"a":1}}'), "its metadata is not a dictionary of text"),
        (lambda b: tabled('{"__metadata__":"config"}'), "not a readable"),
        (
            lambda b: tabled('{"__metadata__":{"config":"{}"}}'),
            "not a configuration and class names of nlnet",
        ),
        (lambda b: tabled('{"__metadata__":{"config":"{","classes":"[]"}}'), "not a configuration and class"),
        (lambda b: tabled(f'{{"a":{ENTRY},"b":{ENTRY}}}') + bytes(4), "'b' begins inside another tensor"),
        (lambda b: tabled('{"a":{"dtype":"F32","shape":[0,1e999],"data_offsets":[0,0]}}'), "shape .*inf"),
        (
            lambda b: tabled('{"a":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}}'),
            "'a' claims a shape of .*, expected",
        ),
        (
            lambda b: tabled(
                '{"a":{"dtype":"F32","shape":[0,2147483647,2147483647,9],"data_offsets":[0,0]}}'
            ),
            "'a' claims a shape of .*, expected",
        ),
        (lambda b: tabled('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e999]}}'), "not a readable"),
        (lambda b: tabled('{"a":' + "[]," * 10**6 + "}"), "its table has 3,000,006 bytes, expected at most"),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, damage, message):
    path = Path(tmp_path / "x.safetensors")
    save_file({"w": torch.arange(6.0).view(2, 3), "e": torch.empty(0)}, path)
    assert torch.equal(read_weights(path).unmatched["w"], torch.arange(6.0).view(2, 3))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=message):
        read_weights(path)


@pytest.mark.slow
def test_a_whole_network_through_the_releases_format(tmp_path):
    """R50 at its real size, through a file of 280 MB."""
    model = randomised(create_model("i3d_r50_nl5")).eval()
    write_weights(model, tmp_path / "i3d_nonlocal_32x2_IN_pretrain_400k.pkl", "caffe2")
    again, _ = network_of(read_weights(tmp_path / "i3d_nonlocal_32x2_IN_pretrain_400k.pkl"))
    clip = torch.randn(1, 3, 32, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(clip), model(clip))
