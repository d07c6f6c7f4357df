"""What a PySlowFast configuration says of the network whose weights it stands beside, read and written.

The configuration is YAML as `cfg.dump()` writes it. A setting of it that changes the function is taken over where we
have that network, and refused by name where we have not.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet
from nlnet.weights.keymap import naming
from nlnet.weights.projects.caffe2 import CAFFE2_NAMES, caffe2_bookkeeping
from nlnet.weights.projects.project import (
    ASSUMED_PAIRWISE,
    Settings,
    Source,
    block_modules,
    has_blocks,
    residual_modules,
    stages_with_blocks,
    unsupported,
)

ARCHS = ("c2d", "c2d_nopool", "i3d", "i3d_nopool")
PAIRWISE = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
POOL, NO_POOL = [1, 2, 2], [1, 1, 1]
FIXED = {  # section, key: what we have; stages from res2 on
    ("RESNET", "STRIDE_1X1"): "false",
    ("RESNET", "SPATIAL_STRIDES"): [1, 2, 2, 2],
    ("RESNET", "SPATIAL_DILATIONS"): [1, 1, 1, 1],
}


def slowfast_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    """`text` is the configuration in the file, if there is one.

    Raises:
        WeightsError: a setting of a network that we cannot build.
    """
    frames, rate = configured(text, "DATA", "NUM_FRAMES"), configured(text, "DATA", "SAMPLING_RATE")
    options: Settings = {
        "variant": ("8x8", "PySlowFast's C2D and I3D, whose stem never strides in time"),
        "padding": ("padded", "PySlowFast pads pool1 by one pixel"),
        "convention": ("released", "keys pooled before φ and g, 1/√d"),
    }
    if (frames, rate) == ("32", "4"):
        options["variant"] = ("32x4", "in the file's configuration")
    _check_fixed(text)
    arch = configured(text, "MODEL", "ARCH")
    if arch is not None and arch not in ARCHS:
        raise unsupported("MODEL.ARCH", repr(arch), f"{', '.join(ARCHS[:-1])} or {ARCHS[-1]}")
    if arch is not None and arch.endswith("_nopool"):
        options["pool2"] = (False, f"ARCH {arch} in the file's configuration")
    return options | (_blocks(tensors, text) if has_blocks(tensors) else {})


def _check_fixed(text: str) -> None:
    for (section, key), expected in FIXED.items():
        value = configured(text, section, key)
        got: Any = value
        if value is not None and isinstance(expected, list):
            got = [int(number) for number in re.findall(r"\d+", value)]
        if value is not None and got != expected:
            raise unsupported(f"{section}.{key}", got, expected)
    epsilon = configured(text, "BN", "EPSILON")
    if epsilon is not None and not re.fullmatch(r"1(\.0*)?e-0?5|0?\.00001", epsilon):
        raise unsupported("BN.EPSILON", epsilon, "1e-05")


def _blocks(tensors: Mapping[str, Tensor], text: str) -> Settings:
    """The non-local blocks' settings, of the stages that have some."""
    stages = stages_with_blocks(tensors)
    options: Settings = {"pairwise": ASSUMED_PAIRWISE}
    pairwise = configured(text, "NONLOCAL", "INSTANTIATION")
    if pairwise is not None:
        if pairwise not in PAIRWISE:
            raise unsupported("INSTANTIATION", repr(pairwise), " or ".join(PAIRWISE))
        options["pairwise"] = (PAIRWISE[pairwise], f"INSTANTIATION {pairwise} in the file's configuration")
    for stage, groups in _first_pathway(text, "GROUP", stages):
        if groups != 1:
            if stage != 1 or type(groups) is not int:
                raise unsupported("NONLOCAL.GROUP", f"{groups} in res{stage + 2}", "1 outside res3")
            options["groups"] = (groups, "GROUP in the file's configuration")
    there = _first_pathway(text, "POOL", stages)
    for stage, pool in there:
        if pool not in (POOL, NO_POOL):
            raise unsupported(
                "NONLOCAL.POOL", f"{pool} in res{stage + 2}", f"{POOL}, or {NO_POOL} for no pool"
            )
    if len({str(pool) for _, pool in there}) > 1:
        raise unsupported("NONLOCAL.POOL", "that some of its blocks pool keys and some do not", "one kind")
    if there and there[0][1] == NO_POOL:
        options["subsample"] = (False, f"POOL {NO_POOL} in the file's configuration")
    return options


def _first_pathway(text: str, key: str, stages: list[int]) -> list[tuple[int, Any]]:
    """(stage, value) of a list that has an item for each pathway of each stage; C2D and I3D have the first pathway."""
    values = nested(configured(text, "NONLOCAL", key) or "")
    there = [(stage, values[stage]) for stage in stages if stage < len(values)]
    return [(stage, value[0] if isinstance(value, list) and value else None) for stage, value in there]


def slowfast_configuration(model: VideoResNet, *, flat: bool) -> str:
    """The lines of a configuration that say of `model` what its keys do not; `flat` is C2D."""
    arch = ("c2d" if flat else "i3d") + ("_nopool" if isinstance(model.pool2, nn.Identity) else "")
    text = f"MODEL:\n  ARCH: {arch}\n"
    blocks = nonlocal_blocks(model)
    for block in list(blocks.values())[:1]:
        kind = {ours: theirs for theirs, ours in PAIRWISE.items()}[block.pairwise]
        groups = [
            max((b.groups for path, b in blocks.items() if path.startswith(f"layer{stage}.")), default=1)
            for stage in (1, 2, 3, 4)
        ]
        pool = "".join(
            f"{lead}{size}\n"
            for lead, size in zip(
                ("  - - - ", "      - ", "      - "), POOL if block.subsample else NO_POOL, strict=True
            )
        )
        text += "NONLOCAL:\n  GROUP:\n" + "".join(f"  - - {n}\n" for n in groups)
        text += f"  INSTANTIATION: {kind}\n  POOL:\n{pool * 4}"
    return text


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
    if not found:
        return None
    return found[0].strip() if len(found) == 1 else "\n".join(found[1:])


def nested(value: str) -> list[Any]:
    """A list of lists of whole numbers in either of YAML's ways: `[[1, 2], [3]]`, or an item a line behind dashes."""
    root: list[Any] = []
    open_lists: list[tuple[int, list[Any]]] = []
    for line in value.splitlines():
        column = len(line) - len(line.lstrip())
        rest = line.lstrip()
        while rest.startswith("- "):
            while open_lists and open_lists[-1][0] > column:
                open_lists.pop()
            if not open_lists or open_lists[-1][0] < column:
                parent = open_lists[-1][1] if open_lists else None
                opened: list[Any] = root if parent is None else []
                if parent is not None:
                    parent.append(opened)
                open_lists.append((column, opened))
            rest, column = rest[2:], column + 2
        if rest:
            _append(open_lists[-1][1] if open_lists else root, rest)
    return root if open_lists or not root else root[0]


def _append(items: list[Any], text: str) -> None:
    """Add what stands in one line: a number, or a list in brackets."""
    inner = [items]
    for token in re.findall(r"\[|\]|\d+", text):
        if token == "[":
            inner[-1].append([])
            inner.append(inner[-1][-1])
        elif token == "]":
            inner = inner[:-1] or [items]
        else:
            inner[-1].append(int(token))


def slowfast_pkl_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    options = slowfast_options(tensors, which, "")
    if tensors["conv1.weight"].shape[2] == 1:
        options["pool2"] = (False, "PySlowFast's only C2D in this format is its C2D_NOPOOL")
    return options


SLOWFAST_NAMES = naming(
    {"conv1": "s1.pathway0_stem.conv", "bn1": "s1.pathway0_stem.bn", "fc": "head.projection"}
    | residual_modules(
        "s{S}.pathway0_res{B}.branch2.{n}",
        "s{S}.pathway0_res{B}.branch2.{n}_bn",
        "s{S}.pathway0_res{B}.branch1",
        "s{S}.pathway0_res{B}.branch1_bn",
        ("a", "b", "c"),
    )
    | block_modules(
        *(
            f"s{{S}}.pathway0_nonlocal{{B}}.{part}"
            for part in ("conv_theta", "conv_phi", "conv_g", "conv_out", "bn")
        )
    )
)


SLOWFAST_PKL = Source(
    title="PySlowFast in the release's format",
    keymaps=(CAFFE2_NAMES,),
    options=slowfast_pkl_options,
    bookkeeping=caffe2_bookkeeping,
)


SLOWFAST = Source(title="PySlowFast", keymaps=(SLOWFAST_NAMES,), options=slowfast_options)
