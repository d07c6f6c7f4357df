"""The files of OpenMMLab's mmaction2."""

import re
from collections.abc import Mapping

from torch import Tensor

from nlnet.errors import WeightsError
from nlnet.weights.keymap import KeyMap, naming
from nlnet.weights.projects.project import (
    ASSUMED_PAIRWISE,
    IMAGENET_STATISTICS,
    Settings,
    Source,
    block_modules,
    has_blocks,
    residual_modules,
    unsupported,
)


def openmmlab_names(pooled: str) -> KeyMap:
    """mmaction2's names; φ and g sit in a Sequential with their pool, at its place 0, where they are pooled."""
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
        | block_modules(
            inner + "theta.conv",
            inner + f"phi.{pooled}conv",
            inner + f"g.{pooled}conv",
            inner + "conv_out.conv",
            inner + "conv_out.bn",
        )
        | {"layer{L}.{B}.nonlocal_block.w_f": inner + "concat_project.conv"},
        other={"": ".weight"},
    )


FIXED = {  # what our networks have of the backbone's settings
    "style": ("pytorch",),
    "with_pool1": ("True",),
    "conv1_stride_s": ("2",),
    "pool1_stride_s": ("2",),
    "strides": ("1, 2, 2, 2",),
    "spatial_strides": ("1, 2, 2, 2",),
    "temporal_strides": ("1, 1, 1, 1",),
    "dilations": ("1, 1, 1, 1",),
}


def setting(text: str, key: str, after: str = "") -> str | None:
    """The value of `key` in a configuration in Python, behind the words `after`; of a tuple or list its items."""
    place = text.partition(after)[2] if after else text
    found = re.search(rf"\b{key}['\"]?\s*[=:]\s*(?:['\"]*(\w+)|[(\[]([\d,\s]*)[)\]])", place)
    if found is None:
        return None
    return found[1] if found[1] is not None else ", ".join(re.findall(r"\d+", found[2]))


def mmaction2_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    """`text` is the configuration in the file's `meta`, Python source, if there is one, and the file's name.

    Raises:
        WeightsError: a setting of a network that we cannot build.
    """
    for key, expected in FIXED.items():
        value = setting(text, key)
        if value is not None and value not in expected:
            raise unsupported(key, value, " or ".join(expected))
    if tensors["conv1.weight"].ndim == 4:
        return mmaction2_flat_options(text)
    options: Settings = {
        "variant": mmaction2_variant(text),
        "padding": ("mmaction2", "its pool1 is 1×3×3 with stride 2 in time, padded by one pixel"),
    }
    if setting(text, "with_pool2") == "False":
        options["pool2"] = (False, "with_pool2=False in the file's configuration")
    if not has_blocks(tensors):
        return options
    options |= {
        "convention": ("mmcv", "keys pooled after φ and g, no bias before the norm"),
        "scale": (1.0, "use_scale is off in mmaction2's I3D configurations"),
        "pairwise": ASSUMED_PAIRWISE,
    }
    if which == 1:
        options["subsample"] = (False, "φ and g are not in a Sequential with a pool")
    if "non_local_cfg" in text and setting(text, "use_scale", "non_local_cfg") != "False":
        options["scale"] = (None, "use_scale is on in the file's configuration: 1/√d")
    mode = setting(text, "mode", "non_local_cfg") if "non_local_cfg" in text else None
    if mode is not None:
        options["pairwise"] = (mode, "mode in the file's configuration")
    elif re.search("dot[-_]product", text):
        options["pairwise"] = ("dot_product", "in the file's name")
    if options["pairwise"][0] in ("dot_product", "gaussian", "concatenation"):
        options["scale"] = (1.0, "mmcv scales the embedded Gaussian alone")
    return options


def mmaction2_variant(text: str) -> tuple[str, str]:
    """The variant with the strides in time that the configuration gives conv1 and pool1."""
    strides = setting(text, "conv1_stride_t"), setting(text, "pool1_stride_t")
    conv1, pool1 = (stride or "2" for stride in strides)
    if (conv1, pool1) == ("2", "2"):
        return "32x2", "mmaction2's I3D: conv1 and pool1 have stride 2 in time"
    if (conv1, pool1) == ("1", "1"):
        return "8x8", "strides 1 in the file's configuration"
    raise WeightsError(
        f"conv1_stride_t {conv1} and pool1_stride_t {pool1} in the file's configuration, expected 2 and 2, or 1 and 1"
    )


def mmaction2_flat_options(text: str) -> Settings:
    """mmaction2's C2D is a 2-D network on frames: the class C2D, or the recogniser TSN ("nopool")."""
    options: Settings = {"variant": ("8x8", "frames are not strided in time")}
    if "Recognizer2D" in text or "nopool" in text:
        return options | {
            "padding": ("padded", "nopool in the file's name or configuration: a padded 2-D ResNet"),
            "pool2": (False, "nopool in the file's name or configuration"),
        }
    return options | {
        "padding": ("released", "mmaction2's class C2D; its nopool needs padding=padded, pool2=false")
    }


MMACTION2 = Source(
    title="mmaction2",
    keymaps=(openmmlab_names("0."), openmmlab_names("")),
    options=mmaction2_options,
    statistics=IMAGENET_STATISTICS,
)
