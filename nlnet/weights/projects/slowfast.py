"""PySlowFast: the names of its keys, and the options that its code or a file's configuration determines.

A setting of the configuration that changes the function becomes an option where we have that network, and an error
that names it where we do not.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nlnet.weights.keymap import naming
from nlnet.weights.projects.caffe2 import CAFFE2_NAMES, caffe2_bookkeeping
from nlnet.weights.projects.project import (
    ASSUMED_PAIRWISE,
    Project,
    Settings,
    has_blocks,
    nonlocal_modules,
    residual_modules,
    stages_with_blocks,
    unsupported,
)
from nlnet.weights.projects.slowfast_config import ARCHS, NO_POOL, PAIRWISE, POOL, config_value, nested_list

SLOWFAST_NAMES = naming(
    {"conv1": "s1.pathway0_stem.conv", "bn1": "s1.pathway0_stem.bn", "fc": "head.projection"}
    | residual_modules(
        "s{S}.pathway0_res{B}.branch2.{n}",
        "s{S}.pathway0_res{B}.branch2.{n}_bn",
        "s{S}.pathway0_res{B}.branch1",
        "s{S}.pathway0_res{B}.branch1_bn",
        ("a", "b", "c"),
    )
    | nonlocal_modules(
        *(
            f"s{{S}}.pathway0_nonlocal{{B}}.{part}"
            for part in ("conv_theta", "conv_phi", "conv_g", "conv_out", "bn")
        )
    )
)

FIXED = {
    ("RESNET", "STRIDE_1X1"): "false",
    ("RESNET", "SPATIAL_STRIDES"): [1, 2, 2, 2],
    ("RESNET", "SPATIAL_DILATIONS"): [1, 1, 1, 1],
}
"""(section, key) → the only value that our networks can have; lists are for the stages from res2 on."""


def slowfast_options(tensors: Mapping[str, Tensor], index: int, text: str) -> Settings:
    """The options of PySlowFast's networks; `text` is the configuration in the file, if it has one.

    Raises:
        WeightsError: a setting of a network that we cannot build.
    """
    frames, rate = config_value(text, "DATA", "NUM_FRAMES"), config_value(text, "DATA", "SAMPLING_RATE")
    options: Settings = {
        "variant": ("8x8", "PySlowFast's C2D and I3D, whose stem never strides in time"),
        "padding": ("padded", "PySlowFast pads pool1 by one pixel"),
        "convention": ("released", "keys pooled before φ and g, 1/√d"),
    }
    if (frames, rate) == ("32", "4"):
        options["variant"] = ("32x4", "in the file's configuration")
    _check_fixed(text)
    arch = config_value(text, "MODEL", "ARCH")
    if arch is not None and arch not in ARCHS:
        raise unsupported("MODEL.ARCH", repr(arch), f"{', '.join(ARCHS[:-1])} or {ARCHS[-1]}")
    if arch is not None and arch.endswith("_nopool"):
        options["pool2"] = (False, f"ARCH {arch} in the file's configuration")
    return options | (_block_options(tensors, text) if has_blocks(tensors) else {})


def _check_fixed(text: str) -> None:
    """Raise if the configuration changes a setting that is fixed in our networks."""
    for (section, key), expected in FIXED.items():
        value = config_value(text, section, key)
        got: Any = value
        if value is not None and isinstance(expected, list):
            got = [int(number) for number in re.findall(r"\d+", value)]
        if value is not None and got != expected:
            raise unsupported(f"{section}.{key}", got, expected)
    epsilon = config_value(text, "BN", "EPSILON")
    # YAML and Python write 1e-05 in several ways
    if epsilon is not None and not re.fullmatch(r"1(\.0*)?e-0?5|0?\.00001", epsilon):
        raise unsupported("BN.EPSILON", epsilon, "1e-05")


def _block_options(tensors: Mapping[str, Tensor], text: str) -> Settings:
    """The options of the non-local blocks, from the settings of the stages that have some."""
    stages = stages_with_blocks(tensors)
    options: Settings = {"pairwise": ASSUMED_PAIRWISE}
    pairwise = config_value(text, "NONLOCAL", "INSTANTIATION")
    if pairwise is not None:
        if pairwise not in PAIRWISE:
            raise unsupported("INSTANTIATION", repr(pairwise), " or ".join(PAIRWISE))
        options["pairwise"] = (PAIRWISE[pairwise], f"INSTANTIATION {pairwise} in the file's configuration")
    for stage, groups in _first_pathway(text, "GROUP", stages):
        if groups != 1:
            if stage != 1 or type(groups) is not int:  # stage 1 is res3; our option `groups` is for it alone
                raise unsupported("NONLOCAL.GROUP", f"{groups} in res{stage + 2}", "1 outside res3")
            options["groups"] = (groups, "GROUP in the file's configuration")
    pools = _first_pathway(text, "POOL", stages)
    for stage, pool in pools:
        if pool not in (POOL, NO_POOL):
            raise unsupported(
                "NONLOCAL.POOL", f"{pool} in res{stage + 2}", f"{POOL}, or {NO_POOL} for no pool"
            )
    if len({str(pool) for _, pool in pools}) > 1:
        raise unsupported(
            "NONLOCAL.POOL", f"{POOL} in some stages and {NO_POOL} in others", "the same in all"
        )
    if pools and pools[0][1] == NO_POOL:
        options["subsample"] = (False, f"POOL {NO_POOL} in the file's configuration")
    return options


def _first_pathway(text: str, key: str, stages: list[int]) -> list[tuple[int, Any]]:
    """(stage, value) pairs of a NONLOCAL setting for the first pathway, the only one of C2D and I3D."""
    values = nested_list(config_value(text, "NONLOCAL", key) or "")
    listed = [(stage, values[stage]) for stage in stages if stage < len(values)]
    return [(stage, value[0] if isinstance(value, list) and value else None) for stage, value in listed]


def slowfast_pkl_options(tensors: Mapping[str, Tensor], index: int, text: str) -> Settings:
    """The options of PySlowFast's networks in the release's format, which has no configuration."""
    options = slowfast_options(tensors, index, "")
    if tensors["conv1.weight"].shape[2] == 1:
        options["pool2"] = (False, "PySlowFast's only C2D in this format is its C2D_NOPOOL")
    return options


SLOWFAST = Project(title="PySlowFast", keymaps=(SLOWFAST_NAMES,), options=slowfast_options)
SLOWFAST_PKL = Project(
    title="PySlowFast in the release's format",
    keymaps=(CAFFE2_NAMES,),
    options=slowfast_pkl_options,
    bookkeeping=caffe2_bookkeeping,
)
