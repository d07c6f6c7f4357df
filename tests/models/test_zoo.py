"""Names, block positions and costs of the paper's networks: parameters and multiply-adds of the published table."""

import inspect

import pytest
import torch

from nlnet import NonLocalBlock, block_options, insert_nonlocal
from nlnet.engine.config import ModelConfig
from nlnet.errors import NlnetError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.flops import ShapesOnly, count
from nlnet.models.names import BLOCK_POSITIONS, block_positions, list_models
from nlnet.models.options import DEFAULTS, OPTIONS, NetworkOptions
from nlnet.zoo import create_model

# Parameters (M) and multiply-adds (10⁹) of the released architecture, 400 classes: 32×2 and 8×8 at 224, 8×8
# at 256. Computed by hand from the stage table, independently of this code.
TABLE = {
    "c2d_r50": (24.328, 20.23, 19.29, 25.23),
    "i3d_r50": (28.043, 32.83, 28.11, 36.76),
    "c2d_r50_nl5": (31.686, 28.36, 27.42, 37.04),
    "i3d_r50_nl5": (35.402, 40.96, 36.24, 48.57),
    "c2d_r50_nl10": (39.045, 36.49, None, None),
    "c2d_r50_nl1": (26.429, 21.42, None, None),
    "c2d_r101": (43.320, 35.08, 34.14, 44.62),
    "i3d_r101": (51.754, 51.38, 46.66, 60.99),
    "i3d333_r101": (63.043, 61.86, None, None),
    "c2d_r101_nl5": (50.678, 43.21, 42.27, 56.43),
    "i3d_r101_nl5": (59.113, 59.51, 54.79, 72.80),
}


def on_meta(name, **options):
    with ShapesOnly():
        return create_model(name, **options)


@pytest.mark.parametrize("name", TABLE)
def test_parameters_and_multiply_adds_of_the_published_table(name):
    parameters, org, fast, fast256 = TABLE[name]
    cost = count(on_meta(name, variant="32x2"), (32, 224, 224))
    assert round(cost.parameters / 1e6, 3) == parameters
    assert round(cost.macs / 1e9, 2) == org
    for expected, side in ((fast, 224), (fast256, 256)):
        if expected is not None:
            assert round(count(on_meta(name, variant="8x8"), (8, side, side)).macs / 1e9, 2) == expected


# Long clips as the release trains them: frozen norms (their γ and β are no parameters, hence 27.990 M and not
# 28.043), blocks without a norm.
LONG = {"norm": "affine", "nonlocal_norm": "none"}


@pytest.mark.parametrize(
    ("name", "variant", "groups", "expected"),
    [
        ("i3d_r50", "128x1", 1, 131.3),
        ("i3d_r50_nl5", "128x1", 4, 169.5),
        ("i3d_r50_nl5", "128x1", 1, 199.7),  # every block global
        ("i3d_r50", "32x4", 1, 112.4),
        ("i3d_r50_nl5", "32x4", 4, 150.6),
    ],
)
def test_multiply_adds_of_long_clips(name, variant, groups, expected):
    frames = int(variant.split("x")[0])
    cost = count(on_meta(name, variant=variant, groups=groups, **LONG), (frames, 224, 224))
    assert round(cost.macs / 1e9, 1) == expected
    # γ and β: 64 of the stem and, a stage, 6·inner of each block and 4·inner of a shortcut; blocks have 2·C
    norms = 2 * (64 + sum(6 * inner * n + 4 * inner for inner, n in ((64, 3), (128, 4), (256, 6), (512, 3))))
    local = sum(p.numel() for p in on_meta("i3d_r50").parameters()) - norms
    blocks = 7_358_464 - 2 * (2 * 512 + 3 * 1024)
    assert round(local / 1e6, 3) == 27.990
    assert cost.parameters == local + (blocks if "nl5" in name else 0)


@pytest.mark.parametrize(
    ("name", "options", "clip", "expected"),
    [
        # figures of other code bases, and what makes them differ from the table above
        ("c2d_r101", {"variant": "32x2", "padding": "padded"}, (32, 224, 224), 35.29),
        (
            "i3d_r50",
            {"variant": "32x2", "padding": "padded"},
            (32, 256, 256),
            43.27,
        ),  # mmaction2: at 256, not 224
        ("c2d_r50", {"variant": "8x8", "padding": "padded"}, (8, 256, 256), 25.46),  # PyTorchVideo's 25.89
        ("i3d_r50", {"variant": "8x8", "padding": "padded"}, (8, 256, 256), 37.10),  # PyTorchVideo's 37.53
    ],
)
def test_published_figures_of_other_conventions(name, options, clip, expected):
    assert round(count(on_meta(name, **options), clip).macs / 1e9, 2) == expected


def test_mmaction2s_59_3_billion_pools_after_the_embeddings():
    model = on_meta("i3d_r50_nl5", variant="32x2", padding="padded", pool_position="after")
    assert round(count(model, (32, 256, 256)).macs / 1e9, 2) == 59.11  # 55.08 + 4.03; they say 59.3


def test_the_papers_34_2_billion_has_the_stride_on_the_1x1():
    """The release's C2D R101 has 35.08; an older ResNet strides in the first convolution of a stage."""
    model = on_meta("c2d_r101", variant="32x2")
    for stage in ("layer2", "layer3", "layer4"):
        block = model.get_submodule(f"{stage}.0")
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    assert round(count(model, (32, 224, 224)).macs / 1e9, 2) == 34.17


def test_groups_are_of_res3_alone():
    groups = [b.groups for b in nonlocal_blocks(on_meta("i3d_r101_nl5", variant="32x4", groups=4)).values()]
    assert groups == [4, 4, 1, 1, 1]
    assert [b.groups for b in nonlocal_blocks(on_meta("c2d_r50_nl1", stage="res3", groups=2)).values()] == [2]


def test_the_papers_43_2_million_is_c2d_r101_without_norms():
    # Table 2e gives 43.2 M: convolutions and classifier weights, no BN
    model = on_meta("c2d_r101")
    weights = sum(p.numel() for n, p in model.named_parameters() if p.ndim > 1)
    assert round(weights / 1e6, 3) == 43.214


def test_ratios_of_table_2e():
    base = count(on_meta("c2d_r101"), (32, 224, 224))
    expected = {"i3d333_r101": (1.5, 1.8), "i3d_r101": (1.2, 1.5), "c2d_r101_nl5": (1.2, 1.2)}
    for name, ratios in expected.items():
        cost = count(on_meta(name), (32, 224, 224))
        assert (round(cost.parameters / base.parameters, 1), round(cost.macs / base.macs, 1)) == ratios


def test_five_blocks_in_r50_cost_less_than_r101():
    """§5.1: "about 70 % of the parameters and 80 % of the FLOPs" of the R101 baseline; 73 % and 81 % by count."""
    five, base = count(on_meta("c2d_r50_nl5"), (32, 224, 224)), count(on_meta("c2d_r101"), (32, 224, 224))
    assert round(five.parameters / base.parameters, 2) == 0.73
    assert round(five.macs / base.macs, 2) == 0.81


def test_one_block_of_a_detector():
    """§6.3 puts one before the last block of res4. At 800 × 1333 that map is 50 × 84, its keys 25 × 42.

    Four projections of 1024·512 (two of them of the keys) and two products of N·M·512.
    """
    block = NonLocalBlock(1024, ndim=2, convention="released")
    assert (
        block.macs((1024, 50, 84)) == 2 * 1024 * 512 * (4200 + 1050) + 2 * 512 * 4200 * 1050 == 10_020_864_000
    )


DEFAULTS_OF_NETWORKS = {  # what a name alone builds: the paper's clip, the release's block
    "variant": "32x2",
    "padding": "released",
    "pool2": True,
    "norm": "batch",
    "pairwise": "embedded_gaussian",
    "axis": "spacetime",
    "subsample": True,
    "groups": 1,
    "nonlocal_norm": "batch",
    "convention": "released",
    "pool_position": None,
    "scale": None,
    "out_bias": None,
}


def test_options_have_one_default_each():
    """`create_model`, a weight file's options and the configuration agree: one name is one network."""
    assert {name: DEFAULTS[name] for name in OPTIONS} == DEFAULTS_OF_NETWORKS
    assert set(DEFAULTS) - set(OPTIONS) == {"dropout", "stage", "where", "init", "algorithm"}
    configured = ModelConfig().model_dump()
    assert configured == {"name": "i3d_r50_nl5"} | DEFAULTS
    signature = inspect.signature(create_model).parameters
    assert set(signature) == {*configured, "num_classes", "weights", "source"}
    assert all(signature[key].default is None for key in DEFAULTS), "None is what is not given"


def test_options_are_the_blocks_own():
    """A block, an insertion and a network show the same options with the same defaults, written once."""
    block, insertion = (inspect.signature(f).parameters for f in (NonLocalBlock.__init__, insert_nonlocal))
    for name, default in block_options.DEFAULTS.items():
        assert block[name].default == insertion[name].default == default
        assert ("nonlocal_norm" if name == "norm" else name) in DEFAULTS
    assert set(block_options.DEFAULTS) == set(block_options.BlockOptions.__annotations__)
    assert set(DEFAULTS) == set(NetworkOptions.__annotations__)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: NonLocalBlock(8, pairwse="gaussian"),
            r"NonLocalBlock\(\) got .*'pairwse'; did you mean 'pairwise'",
        ),
        (
            lambda: insert_nonlocal(torch.nn.Conv2d(3, 3, 1), "", axes="time"),
            r"insert_nonlocal\(\) got .*'axes'; did you",
        ),
        (
            lambda: create_model("c2d_mini", varient="8x8"),
            r"create_model\(\) got .*'varient'; did you mean 'variant'",
        ),
    ],
)
def test_unknown_options_are_python_errors_with_the_nearest(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_counting_agrees_with_torchs_own_counter():
    """Independent: torch's flop counter on the same graph, attention by the definition."""
    from torch.utils.flop_counter import FlopCounterMode

    model = create_model("i3d_mini_nl1", variant="8x8", num_classes=10, algorithm="definition").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 8, 32, 32))
    assert counter.get_total_flops() == 2 * count(model, (8, 32, 32)).macs


def test_five_blocks_have_the_releases_parameters():
    five = count(on_meta("c2d_r50_nl5"), (32, 224, 224)).parameters
    assert five - count(on_meta("c2d_r50"), (32, 224, 224)).parameters == 7_358_464


@pytest.mark.parametrize(
    ("scale", "blocks", "expected"),
    [
        ("r50", 1, ["layer3.4"]),
        ("r101", 1, ["layer3.21"]),
        ("r50", 5, ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]),
        ("r101", 5, ["layer2.1", "layer2.3", "layer3.6", "layer3.13", "layer3.20"]),
        ("r50", 10, [f"layer2.{n}" for n in (0, 1, 2, 3)] + [f"layer3.{n}" for n in (0, 1, 2, 3, 4, 5)]),
        # R101's ten are not the paper's: the corresponding blocks of res3, and every fourth of res4
        ("r101", 10, [f"layer2.{n}" for n in (0, 1, 2, 3)] + [f"layer3.{n}" for n in (2, 6, 10, 14, 18, 22)]),
    ],
)
def test_block_positions_of_the_release(scale, blocks, expected):
    assert block_positions(scale, blocks) == expected


def test_a_single_block_of_the_shallow_study_network_follows_its_stage():
    stages = {"res2": "layer1.0", "res3": "layer2.1", "res4": "layer3.1", "res5": "layer4.0"}
    assert {stage: block_positions("mini20", 1, stage) for stage in stages} == {
        s: [at] for s, at in stages.items()
    }
    assert block_positions("mini20", 1) == ["layer2.1"]
    assert block_positions("mini20", 5) == ["layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer3.1"]
    assert block_positions("mini", 1, "res4") == ["layer3.0"]


@pytest.mark.parametrize(
    ("stage", "path"), [("res2", "layer1.1"), ("res3", "layer2.2"), ("res5", "layer4.1")]
)
def test_one_block_goes_before_the_last_residual_block_of_its_stage(stage, path):
    model = on_meta("c2d_r50_nl1", stage=stage)
    assert list(nonlocal_blocks(model)) == [f"{path}.nonlocal_block"]


def test_every_name_builds_with_its_number_of_blocks():
    for name in list_models():
        model = on_meta(name)
        blocks = len(nonlocal_blocks(model))
        controls = sum(n.endswith(".control") for n, _ in model.named_modules())
        suffix = name.rsplit("_", 1)[1]
        assert (blocks, controls) == {
            "nl": (int(suffix[2:] or 0) if suffix[2:].isdigit() else 0, 0),
            "rb": (0, int(suffix[2:]) if suffix[2:].isdigit() else 0),
        }.get(suffix[:2], (0, 0)), name


@pytest.mark.parametrize("name", ["c2d_r50", "i3d_r101", "c2d_mini"])
def test_the_control_matches_the_parameters(name):
    """A residual block has as many weights as the non-local block that it replaces, within 2 %."""
    number = 1 if "mini" in name else 5
    base = (
        count(on_meta(name), (8, 32, 32)).parameters
        if "mini" in name
        else sum(p.numel() for p in on_meta(name).parameters())
    )
    extra = [sum(p.numel() for p in on_meta(f"{name}_{k}{number}").parameters()) - base for k in ("nl", "rb")]
    assert extra[1] == pytest.approx(extra[0], rel=0.02)


@pytest.mark.parametrize("kind", ["nl1", "rb1"])
@pytest.mark.parametrize("training", [True, False])
def test_added_blocks_start_as_the_identity(kind, training):
    torch.manual_seed(0)
    plain = create_model("c2d_mini", num_classes=3, variant="8x8", dropout=0.0).train(training)
    model = create_model(
        f"c2d_mini_{kind}", num_classes=3, variant="8x8", dropout=0.0, weights=plain.state_dict()
    )
    x = torch.randn(2, 3, 8, 32, 32)
    assert torch.equal(model.train(training)(x), plain(x))


@pytest.mark.parametrize("kind", ["nl1", "rb1"])
def test_without_a_norm_that_trains_they_start_as_the_identity_too(kind):
    """There is no γ to be zero: W_z, or the control's last convolution, is zero instead."""
    options = {"num_classes": 3, "variant": "8x8", "norm": "affine", "nonlocal_norm": "none"}
    plain = create_model("c2d_mini", **options).eval()
    model = create_model(f"c2d_mini_{kind}", **options, weights=plain.state_dict()).eval()
    x = torch.randn(2, 3, 8, 32, 32)
    assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "i3d_r50_nl",
            {},
            "unknown model 'i3d_r50_nl'; did you mean .*'i3d_r50_nl1'.*`nlnet models` lists all names",
        ),
        ("zzz", {}, "unknown model 'zzz'. `nlnet models` lists all names"),
        ("i3d_mini_nl10", {}, "unknown model"),
        ("c2d_r50", {"variant": "16x4"}, r"variant: got '16x4', expected one of 32x2, .*; did you mean"),
        ("c2d_r50_nl1", {"stage": "res6"}, "stage: got 'res6', expected one of res2, res3, res4, res5"),
        (
            "c2d_r50_nl5",
            {"stage": "res4"},
            "stage: got 'res4' with 5 blocks; a stage can be chosen for one block only, use `where`",
        ),
        (
            "c2d_r50_nl5",
            {"where": ["layer2.1"]},
            r"where: got 1 positions \(layer2.1\), expected 5, the number of blocks in the network's name",
        ),
        ("c2d_r50_nl1", {"groups": 4}, "groups: got 4, but no block is in res3, .*; expected groups = 1"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(NlnetError, match=message):
        create_model(name, **options)


def test_undefined_numbers_of_blocks():
    assert ("mini", 10) not in BLOCK_POSITIONS
    with pytest.raises(ValueError, match="mini network with 10 non-local blocks is not defined, expected 1"):
        block_positions("mini", 10)
