"""The files of the release and of its authors' later projects, PySlowFast and PyTorchVideo."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nlnet.models.inflate import WeightsError
from nlnet.models.keymap import naming
from nlnet.models.source import Settings, Source, block, has_blocks, residual

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
        "padding": ("released", "the release pads no pool"),
        "convention": ("released", "keys pooled before φ and g, 1/√d"),
    }
    if affine and has_blocks(tensors) and variant[0] in ("32x4", "128x1"):
        options["groups"] = (4, "res3 of long clips runs in groups of 4 of its 16 frames")
    return options


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


SLOWFAST_PAIRWISE = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}


def slowfast_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    """`text` is the configuration in the file (`cfg.dump()`, YAML), if there is one."""
    frames, rate = configured(text, "DATA", "NUM_FRAMES"), configured(text, "DATA", "SAMPLING_RATE")
    options: Settings = {
        "variant": ("8x8", "PySlowFast's C2D and I3D, whose stem never strides in time"),
        "padding": ("padded", "PySlowFast pads pool1 by one pixel"),
        "convention": ("released", "keys pooled before φ and g, 1/√d"),
    }
    if (frames, rate) == ("32", "4"):
        options["variant"] = ("32x4", "in the file's configuration")
    arch = configured(text, "MODEL", "ARCH")
    if arch is not None and arch.endswith("_nopool"):
        options["pool2"] = (False, f"ARCH {arch} in the file's configuration")
    if not has_blocks(tensors):
        return options
    pairwise = configured(text, "NONLOCAL", "INSTANTIATION")
    if pairwise is not None:
        if pairwise not in SLOWFAST_PAIRWISE:
            names = " or ".join(SLOWFAST_PAIRWISE)
            raise WeightsError(
                f"INSTANTIATION in the file's configuration: got {pairwise!r}, expected {names}"
            )
        ours = SLOWFAST_PAIRWISE[pairwise]
        options["pairwise"] = (ours, f"INSTANTIATION {pairwise} in the file's configuration")
    groups = re.findall(r"\d+", configured(text, "NONLOCAL", "GROUP") or "")
    if len(groups) == 4 and int(groups[1]) > 1:
        options["groups"] = (int(groups[1]), "GROUP in the file's configuration")
    return options


def configured(text: str, section: str, key: str) -> str | None:
    """The value of `key` in a section of YAML as `cfg.dump()` writes it, with the lines of a list below it."""
    inside = False
    found: list[str] = []
    for line in text.splitlines():
        if found and not line.lstrip().startswith("- "):
            break
        if not line.startswith((" ", "-")):
            inside = line == f"{section}:"
        elif found:
            found.append(line)
        elif inside and line.lstrip().startswith(f"{key}:"):
            found.append(line.partition(":")[2])
    return "\n".join(found).strip() if found else None


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
