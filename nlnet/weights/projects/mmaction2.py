"""OpenMMLab's mmaction2: the names of its keys, and the options that its code or a file's configuration determines."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from nlnet.errors import WeightsError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import MaxPool, VideoResNet
from nlnet.weights.keymap import KeyMap, naming
from nlnet.weights.projects.project import (
    ASSUMED_PAIRWISE,
    IMAGENET_STATISTICS,
    Project,
    Settings,
    has_blocks,
    nonlocal_modules,
    residual_modules,
    unsupported,
)


def mmaction2_names(pooled: str) -> KeyMap:
    """The key map of mmaction2's networks.

    `pooled` is "0." for blocks that pool keys: φ and g are then item 0 of a Sequential whose item 1 is the pool.
    """
    inner = "backbone.layer{L}.{B}.non_local_block."
    return naming(
        {"conv1": "backbone.conv1.conv", "bn1": "backbone.conv1.bn", "fc": "cls_head.fc_cls"}
        | residual_modules(
            "backbone.layer{L}.{B}.conv{n}.conv",
            "backbone.layer{L}.{B}.conv{n}.bn",
            "backbone.layer{L}.{B}.downsample.conv",
            "backbone.layer{L}.{B}.downsample.bn",
            ("1", "2", "3"),
        )
        | nonlocal_modules(
            inner + "theta.conv",
            inner + f"phi.{pooled}conv",
            inner + f"g.{pooled}conv",
            inner + "conv_out.conv",
            inner + "conv_out.bn",
        )
        | {"layer{L}.{B}.nonlocal_block.w_f": inner + "concat_project.conv"},
        other={"": ".weight"},
    )


FIXED = {
    "style": ("pytorch",),
    "with_pool1": ("True",),
    "conv1_stride_s": ("2",),
    "pool1_stride_s": ("2",),
    "strides": ("1, 2, 2, 2",),
    "spatial_strides": ("1, 2, 2, 2",),
    "temporal_strides": ("1, 1, 1, 1",),
    "dilations": ("1, 1, 1, 1",),
}
"""Setting of the backbone → the values that our networks have."""


def mmaction2_options(tensors: Mapping[str, Tensor], index: int, text: str) -> Settings:
    """The options of mmaction2's networks; `index` 1 is the key map without pooled keys.

    `text` is the configuration in the file's `meta` (Python source), if it has one, and the file's name.

    Raises:
        WeightsError: a setting of a network that we cannot build.
    """
    for key, expected in FIXED.items():
        value = config_value(text, key)
        if value is not None and value not in expected:
            raise unsupported(key, value, " or ".join(expected))
    if tensors["conv1.weight"].ndim == 4:
        return _c2d_options(text)
    options: Settings = {
        "variant": _variant(text),
        "padding": ("mmaction2", "its pool1 is 1×3×3 with stride 2 in time, padded by one pixel"),
    }
    if config_value(text, "with_pool2") == "False":
        options["pool2"] = (False, "with_pool2=False in the file's configuration")
    return options | (_block_options(index, text) if has_blocks(tensors) else {})


def _c2d_options(text: str) -> Settings:
    """The options of mmaction2's C2D, a 2-D network on frames.

    It is either of the class C2D, or a ResNet in the recogniser TSN, whose files have "nopool" in their names.
    """
    options: Settings = {"variant": ("8x8", "frames are not strided in time")}
    if "Recognizer2D" in text or "nopool" in text:
        return options | {
            "padding": ("padded", "nopool in the file's name or configuration: a padded 2-D ResNet"),
            "pool2": (False, "nopool in the file's name or configuration"),
        }
    return options | {
        "padding": ("released", "mmaction2's class C2D; its nopool needs padding=padded, pool2=false")
    }


def _variant(text: str) -> tuple[str, str]:
    """The variant whose conv1 and pool1 have the strides in time of the configuration, and the reason."""
    strides = config_value(text, "conv1_stride_t"), config_value(text, "pool1_stride_t")
    conv1, pool1 = (stride or "2" for stride in strides)  # 2 is the default of mmaction2's code
    if (conv1, pool1) == ("2", "2"):
        return "32x2", "mmaction2's I3D: conv1 and pool1 have stride 2 in time"
    if (conv1, pool1) == ("1", "1"):
        return "8x8", "strides 1 in the file's configuration"
    raise WeightsError(
        f"conv1_stride_t {conv1} and pool1_stride_t {pool1} in the file's configuration, expected 2 and 2, or 1 and 1"
    )


def _block_options(index: int, text: str) -> Settings:
    """The options of the non-local blocks."""
    options: Settings = {
        "convention": ("mmcv", "keys pooled after φ and g, no bias before the norm"),
        "scale": (1.0, "use_scale is off in mmaction2's I3D configurations"),
        "pairwise": ASSUMED_PAIRWISE,
    }
    if index == 1:
        options["subsample"] = (False, "φ and g are not in a Sequential with a pool")
    # where a configuration has non_local_cfg, mmcv's own default counts, which is use_scale=True
    if "non_local_cfg" in text and config_value(text, "use_scale", "non_local_cfg") != "False":
        options["scale"] = (None, "use_scale is on in the file's configuration: 1/√d")
    mode = config_value(text, "mode", "non_local_cfg") if "non_local_cfg" in text else None
    if mode is not None:
        options["pairwise"] = (mode, "mode in the file's configuration")
    elif re.search("dot[-_]product", text):
        options["pairwise"] = ("dot_product", "in the file's name")
    if options["pairwise"][0] in ("dot_product", "gaussian", "concatenation"):
        options["scale"] = (1.0, "mmcv scales the embedded Gaussian alone")
    return options


def config_value(text: str, key: str, after: str = "") -> str | None:
    """The value of `key` in a configuration in Python, or the items of its tuple or list.

    Args:
        after: only the text after these words is searched.
    """
    place = text.partition(after)[2] if after else text
    # `key=value` or `"key": value`: a word, quoted or not, or a tuple or list of integers
    found = re.search(rf"\b{key}['\"]?\s*[=:]\s*(?:['\"]*(\w+)|[(\[]([\d,\s]*)[)\]])", place)
    if found is None:
        return None
    return found[1] if found[1] is not None else ", ".join(re.findall(r"\d+", found[2]))


def mmaction2_configuration(model: VideoResNet, *, is_2d: bool) -> str:
    """Write the configuration of what the keys of `model` do not show; with `is_2d`, that of a C2D."""
    if is_2d:
        return "Recognizer2D\n" if isinstance(model.pool2, nn.Identity) else "Recognizer3D C2D\n"
    assert isinstance(model.pool1, MaxPool)
    text = f"conv1_stride_t={model.conv1.stride[0]}, pool1_stride_t={model.pool1.stride[0]}"
    text += ", with_pool2=False" if isinstance(model.pool2, nn.Identity) else ""
    for block in list(nonlocal_blocks(model).values())[
        :1
    ]:  # all are of one kind (`nlnet.weights.export_limits`)
        scaled = block.pairwise == "embedded_gaussian" and block.scale != 1.0
        text += f", non_local_cfg=dict(use_scale={scaled}, mode='{block.pairwise}')"
    return text + "\n"


MMACTION2 = Project(
    title="mmaction2",
    keymaps=(mmaction2_names("0."), mmaction2_names("")),
    options=mmaction2_options,
    statistics=IMAGENET_STATISTICS,
)
