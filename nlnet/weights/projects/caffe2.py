"""The files of the release and of its authors' later projects, PySlowFast and PyTorchVideo."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nlnet.models.resnet import TIMINGS
from nlnet.weights.keymap import naming
from nlnet.weights.projects.project import (
    ASSUMED_PAIRWISE,
    Settings,
    Source,
    block_modules,
    has_blocks,
    residual_modules,
    stages_with_blocks,
)

RUN = 4
"""Frames of a group in the release's res3 (`add_nonlocal_group`)."""

CAFFE2_NAMES = naming(
    {"conv1": "conv1", "bn1": "res_conv1_bn", "fc": "pred"}
    | residual_modules(
        "res{S}_{B}_branch2{n}",
        "res{S}_{B}_branch2{n}_bn",
        "res{S}_{B}_branch1",
        "res{S}_{B}_branch1_bn",
        ("a", "b", "c"),
    )
    | block_modules(*(f"nonlocal_conv{{S}}_{{B}}_{part}" for part in ("theta", "phi", "g", "out", "bn"))),
    convolution={".weight": "_w", ".bias": "_b"},
    norm={".weight": "_s", ".bias": "_b", ".running_mean": "_rm", ".running_var": "_riv"},
)


def caffe2_bookkeeping(name: str, file: Mapping[str, Any]) -> bool:
    """The learning rate, the counters, and the momentum of a blob that is there."""
    return name in ("lr", "model_iter", "epoch") or (
        name.endswith("_momentum") and name.removesuffix("_momentum") in file
    )


def caffe2_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    affine = "bn1.running_mean" not in tensors
    named = re.search(r"(?<!\d)(32x2|128x1|8x8|32x4)(?!\d)", text)
    if named:
        variant = (named[1], "in the file's name")
    else:
        variant = (
            ("32x4", "assumed: a long clip, or give variant=128x1")
            if affine
            else ("32x2", "assumed: the paper's, or give variant=8x8")
        )
    options: Settings = {
        "variant": variant,
        "padding": (
            "released",
            "release assumed, which pads no pool; PySlowFast's files have the same names: "
            "then give source=slowfast_pkl",
        ),
        "convention": ("released", "keys pooled before φ and g, 1/√d"),
    }
    return options | ({"pairwise": ASSUMED_PAIRWISE} if has_blocks(tensors) else {})


def caffe2_groups(tensors: Mapping[str, Tensor], settings: Settings) -> Settings:
    """Where norms are frozen, the release cuts res3 into runs of 4 frames, however many there are."""
    variant = settings["variant"][0] if "variant" in settings else None
    if (
        settings.get("norm", ("",))[0] != "affine"
        or variant not in TIMINGS
        or 1 not in stages_with_blocks(tensors)
    ):
        return {}
    timing = TIMINGS[variant]
    groups = release_groups(timing.frames // (timing.conv1_stride * timing.pool1_stride * 2))
    return {"groups": (groups, f"with frozen norms res3 runs in groups of {RUN} of its frames")}


def release_groups(frames: int) -> int:
    """Temporal groups of a block over `frames` frames of res3 in a network with frozen norms."""
    return max(1, frames // RUN)


CAFFE2 = Source(
    title="the Caffe2 release",
    keymaps=(CAFFE2_NAMES,),
    options=caffe2_options,
    following=caffe2_groups,
    bookkeeping=caffe2_bookkeeping,
)
