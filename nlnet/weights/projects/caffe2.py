"""The paper's own release, in Caffe2: the names of its blobs, and the options that its code determines."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nlnet.models.resnet import TIMINGS
from nlnet.weights.keymap import naming
from nlnet.weights.projects.project import (
    ASSUMED_PAIRWISE,
    Project,
    Settings,
    has_blocks,
    nonlocal_modules,
    residual_modules,
    stages_with_blocks,
)

GROUP_FRAMES = 4
"""Frames of a temporal group in the release's res3 (`add_nonlocal_group`)."""

CAFFE2_NAMES = naming(
    {"conv1": "conv1", "bn1": "res_conv1_bn", "fc": "pred"}
    | residual_modules(
        "res{S}_{B}_branch2{n}",
        "res{S}_{B}_branch2{n}_bn",
        "res{S}_{B}_branch1",
        "res{S}_{B}_branch1_bn",
        ("a", "b", "c"),
    )
    | nonlocal_modules(*(f"nonlocal_conv{{S}}_{{B}}_{part}" for part in ("theta", "phi", "g", "out", "bn"))),
    convolution={".weight": "_w", ".bias": "_b"},
    norm={".weight": "_s", ".bias": "_b", ".running_mean": "_rm", ".running_var": "_riv"},
)


def caffe2_options(tensors: Mapping[str, Tensor], index: int, text: str) -> Settings:
    """The options of the release's networks; `text` is the file's name, which may hold the variant."""
    affine = "bn1.running_mean" not in tensors
    named = re.search(r"(?<!\d)(32x2|128x1|8x8|32x4)(?!\d)", text)
    if named:
        variant = (named[1], "in the file's name")
    else:  # only the release's networks for long clips have frozen norms
        variant = (
            ("32x4", "assumed: frozen norms mean a long clip; else give variant=128x1")
            if affine
            else ("32x2", "assumed: as in the paper; else give variant=8x8")
        )
    options: Settings = {
        "variant": variant,
        "padding": (
            "released",
            "assumed: a file of the release, which pads no pool; a PySlowFast file has the same keys: "
            "for it give source=slowfast_pkl",
        ),
        "convention": ("released", "keys pooled before φ and g, 1/√d"),
    }
    return options | ({"pairwise": ASSUMED_PAIRWISE} if has_blocks(tensors) else {})


def caffe2_groups(tensors: Mapping[str, Tensor], settings: Settings) -> Settings:
    """The option `groups`; in networks with frozen norms the release cuts the frames of res3 into groups of 4."""
    variant = settings["variant"][0] if "variant" in settings else None
    if (
        settings.get("norm", ("",))[0] != "affine"
        or variant not in TIMINGS
        or 1 not in stages_with_blocks(tensors)  # res3
    ):
        return {}
    timing = TIMINGS[variant]
    # pool2, before res3, halves the frames once more
    groups = release_groups(timing.frames // (timing.conv1_stride * timing.pool1_stride * 2))
    return {"groups": (groups, f"with frozen norms res3 runs in groups of {GROUP_FRAMES} of its frames")}


def release_groups(frames: int) -> int:
    """Number of temporal groups in res3, which sees `frames` frames, in the release's networks with frozen norms."""
    return max(1, frames // GROUP_FRAMES)


def caffe2_bookkeeping(name: str, file: Mapping[str, Any]) -> bool:
    """Whether a blob is the learning rate, a counter, or the momentum of another blob in the file."""
    return name in ("lr", "model_iter", "epoch") or (
        name.endswith("_momentum") and name.removesuffix("_momentum") in file
    )


CAFFE2 = Project(
    title="the Caffe2 release",
    keymaps=(CAFFE2_NAMES,),
    options=caffe2_options,
    derived=caffe2_groups,
    bookkeeping=caffe2_bookkeeping,
)
