"""The files of the release and of its authors' later projects, PySlowFast and PyTorchVideo."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nlnet.models.keymap import naming
from nlnet.models.resnet import TIMINGS
from nlnet.models.slowfast_configuration import slowfast_options
from nlnet.models.source import (
    ASSUMED_PAIRWISE,
    Settings,
    Source,
    block,
    has_blocks,
    residual,
    stages_with_blocks,
)

RUN = 4
"""Frames of a group in the release's res3 (`add_nonlocal_group`)."""

CAFFE2_NAMES = naming(
    {"conv1": "conv1", "bn1": "res_conv1_bn", "fc": "pred"}
    | residual(
        "res{S}_{B}_branch2{n}",
        "res{S}_{B}_branch2{n}_bn",
        "res{S}_{B}_branch1",
        "res{S}_{B}_branch1_bn",
        ("a", "b", "c"),
    )
    | block(*(f"nonlocal_conv{{S}}_{{B}}_{part}" for part in ("theta", "phi", "g", "out", "bn"))),
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


def slowfast_pkl_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    options = slowfast_options(tensors, which, "")
    if tensors["conv1.weight"].shape[2] == 1:
        options["pool2"] = (False, "PySlowFast's only C2D in this format is its C2D_NOPOOL")
    return options


SLOWFAST_NAMES = naming(
    {"conv1": "s1.pathway0_stem.conv", "bn1": "s1.pathway0_stem.bn", "fc": "head.projection"}
    | residual(
        "s{S}.pathway0_res{B}.branch2.{n}",
        "s{S}.pathway0_res{B}.branch2.{n}_bn",
        "s{S}.pathway0_res{B}.branch1",
        "s{S}.pathway0_res{B}.branch1_bn",
        ("a", "b", "c"),
    )
    | block(
        *(
            f"s{{S}}.pathway0_nonlocal{{B}}.{part}"
            for part in ("conv_theta", "conv_phi", "conv_g", "conv_out", "bn")
        )
    )
)


PYTORCHVIDEO_NAMES, PYTORCHVIDEO_NAMES_NO_POOL = (
    naming(
        {"conv1": "blocks.0.conv", "bn1": "blocks.0.norm", "fc": f"blocks.{head}.proj"}
        | residual(
            f"blocks.{stage}.res_blocks.{{B}}.branch2.conv_{{n}}",
            f"blocks.{stage}.res_blocks.{{B}}.branch2.norm_{{n}}",
            f"blocks.{stage}.res_blocks.{{B}}.branch1_conv",
            f"blocks.{stage}.res_blocks.{{B}}.branch1_norm",
            ("a", "b", "c"),
        )
    )
    for stage, head in (("{P}", 6), ("{L}", 5))
)


def pytorchvideo_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    options: Settings = {
        "variant": ("8x8", "PyTorchVideo's C2D and I3D, whose stem never strides in time"),
        "padding": ("padded", "PyTorchVideo pads pool1 by one pixel"),
    }
    if which == 1:
        options["pool2"] = (False, "the head is block 5: no pool between the first two stages")
    return options


CAFFE2 = Source(
    title="the Caffe2 release",
    keymaps=(CAFFE2_NAMES,),
    options=caffe2_options,
    following=caffe2_groups,
    bookkeeping=caffe2_bookkeeping,
)
SLOWFAST_PKL = Source(
    title="PySlowFast in the release's format",
    keymaps=(CAFFE2_NAMES,),
    options=slowfast_pkl_options,
    bookkeeping=caffe2_bookkeeping,
)
SLOWFAST = Source(title="PySlowFast", keymaps=(SLOWFAST_NAMES,), options=slowfast_options)
PYTORCHVIDEO = Source(
    title="PyTorchVideo",
    keymaps=(PYTORCHVIDEO_NAMES, PYTORCHVIDEO_NAMES_NO_POOL),
    options=pytorchvideo_options,
)
