"""The paper's networks by name: `create_model("i3d_r50_nl5")`.

A name is `{c2d|i3d|i3d333}_{r50|r101|mini|mini38|mini56}`, then nothing, `_nl1`, `_nl5`, `_nl10` (non-local blocks), or
`_rb1`, `_rb5`, `_rb10` (the parameter-matched control: residual blocks at the same places).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from nlnet.models.checkpoints import read_weights
from nlnet.models.control import ResidualControl
from nlnet.models.inflate import load_weights
from nlnet.models.resnet import EXPANSION, TIMINGS, Inflation, Padding, VideoResNet
from nlnet.norms import fold_batch_norms
from nlnet.surgery import attach, insert_nonlocal

INFLATIONS: dict[str, Inflation] = {"c2d": "none", "i3d": "3x1x1", "i3d333": "3x3x3"}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes that make a network large or small; everything else is shared."""

    blocks: tuple[int, ...]
    width: int
    stem_kernel: int
    stem_pool: bool
    crop: int
    """Side of the training crop that the scale is meant for, in pixels."""


SCALES = {
    "r50": Scale(blocks=(3, 4, 6, 3), width=64, stem_kernel=7, stem_pool=True, crop=224),
    "r101": Scale(blocks=(3, 4, 23, 3), width=64, stem_kernel=7, stem_pool=True, crop=224),
    "mini": Scale(blocks=(1, 2, 2), width=16, stem_kernel=5, stem_pool=True, crop=32),
    # R50's and R101's proportions, narrow: res3 and res4 take the paper's five and ten blocks (38 and 56 layers)
    "mini38": Scale(blocks=(1, 4, 6, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
    "mini56": Scale(blocks=(1, 4, 12, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
}

# Blocks sit after these residual blocks, counted from 0 (original release; for 10 in R101, which the paper
# leaves open, every fourth block of res4). `layer2` is res3, `layer3` is res4.
PLACES: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {
    ("r50", 5): {"layer2": (1, 3), "layer3": (1, 3, 5)},
    ("r50", 10): {"layer2": (0, 1, 2, 3), "layer3": (0, 1, 2, 3, 4, 5)},
    ("r101", 5): {"layer2": (1, 3), "layer3": (6, 13, 20)},
    ("r101", 10): {"layer2": (0, 1, 2, 3), "layer3": (2, 6, 10, 14, 18, 22)},
    ("mini", 1): {"layer2": (1,)},
    ("mini38", 5): {"layer2": (1, 3), "layer3": (1, 3, 5)},
    ("mini38", 10): {"layer2": (0, 1, 2, 3), "layer3": (0, 1, 2, 3, 4, 5)},
    ("mini56", 5): {"layer2": (1, 3), "layer3": (3, 7, 11)},
    ("mini56", 10): {"layer2": (0, 1, 2, 3), "layer3": (1, 3, 5, 7, 9, 11)},
}
_NAME = re.compile(
    r"(?P<net>c2d|i3d|i3d333)_(?P<scale>r50|r101|mini38|mini56|mini)(?:_(?P<kind>nl|rb)(?P<count>1|5|10))?"
)


def list_models() -> list[str]:
    """Every name that `create_model` takes."""
    names = []
    for net in INFLATIONS:
        for scale in SCALES:
            names.append(f"{net}_{scale}")
            counts = [c for c in (1, 5, 10) if c == 1 or (scale, c) in PLACES]
            names += [f"{net}_{scale}_{kind}{c}" for kind in ("nl", "rb") for c in counts]
    return names


def places(scale: str, count: int, stage: str | None = None) -> list[str]:
    """Module paths after which the `count` blocks of a network of that scale go.

    One block goes right before the last residual block of `stage` ("res2" … "res5", default "res4"; Tables 2a
    and 2b), except in the miniature, whose single block follows res3. Five and ten go to res3 and res4
    (Table 2c).
    """
    table = PLACES.get((scale, count))
    if stage is not None or (table is None and count == 1):
        if count != 1:
            raise ValueError(
                f"stage: got {stage!r} with {count} blocks; a stage can be chosen for one block only"
            )
        stages = [f"res{number + 2}" for number in range(len(SCALES[scale].blocks))]
        stage = stage or "res4"
        if stage not in stages:
            raise ValueError(f"stage: got {stage!r}, expected one of {', '.join(stages)}")
        number = stages.index(stage)
        table = {f"layer{number + 1}": (max(0, SCALES[scale].blocks[number] - 2),)}
    if table is None:
        raise ValueError(f"a {scale} network with {count} non-local blocks is not defined")
    return [f"{layer}.{index}" for layer, indices in table.items() for index in indices]


def create_model(
    name: str,
    *,
    num_classes: int = 400,
    weights: Mapping[str, Tensor] | Path | None = None,
    variant: str | None = None,
    padding: Padding | None = None,
    pool2: bool | None = None,
    dropout: float = 0.5,
    norm: str | None = None,
    stage: str | None = None,
    where: Sequence[str] | None = None,
    pairwise: str | None = None,
    axis: str | None = None,
    subsample: bool | None = None,
    groups: int | None = None,
    nonlocal_norm: str | None = None,
    convention: str | None = None,
    pool_position: str | None = None,
    scale: float | None = None,
    init: str | None = None,
    out_bias: bool | None = None,
    algorithm: str = "auto",
) -> VideoResNet:
    """Build a network of the paper by name (`list_models()`), initialised as the release does.

    Args:
        num_classes: outputs of the classifier.
        weights: what to start from: a file or state dict in any form that `nlnet.models.read_weights` knows.
            This network's own, a local network's (fresh blocks keep the identity), or a 2-D ResNet's (kernels
            inflate). A classifier of another size keeps its fresh initialisation. Where an option below is
            not given, a video network's file sets it, so that the logits are its own network's; else
            `DEFAULTS` does.
        variant: frames×stride of a clip and with it the temporal strides: "32x2" and "128x1" (the paper's),
            "8x8" and "32x4" (the release's faster ones).
        padding, pool2, dropout, norm: see `VideoResNet`.
        stage: where one block goes (`places`).
        where: the module paths after which blocks go, as many as the name says, if not the usual ones.
        groups: temporal groups of the blocks in res3; the others see every frame (`grouped`).
        pairwise, axis, subsample, nonlocal_norm, convention, pool_position, scale, init, out_bias,
            algorithm: see `NonLocalBlock`. The networks default to the release's convention, because that is
            what its weights and counts mean; "paper" is the text's.

    Raises:
        ValueError: an unknown name or option; `WeightsError` for weights that do not fit.
    """
    match = _NAME.fullmatch(name)
    if match is None or name not in list_models():
        near = get_close_matches(name, list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"unknown model {name!r}{hint} `nlnet models` lists all names")
    start = None if weights is None else read_weights(weights)
    set_by_file = {} if start is None or start.stills else start.options
    given = {
        "variant": variant,
        "padding": padding,
        "pool2": pool2,
        "norm": norm,
        "pairwise": pairwise,
        "axis": axis,
        "subsample": subsample,
        "groups": groups,
        "nonlocal_norm": nonlocal_norm,
        "convention": convention,
        "pool_position": pool_position,
        "scale": scale,
        "out_bias": out_bias,
    }
    chosen = DEFAULTS | set_by_file | {key: value for key, value in given.items() if value is not None}
    if chosen["variant"] not in TIMINGS:
        raise ValueError(f"variant: got {chosen['variant']!r}, expected one of {', '.join(TIMINGS)}")
    size = SCALES[match["scale"]]
    model = VideoResNet(
        blocks=size.blocks,
        inflation=INFLATIONS[match["net"]],
        timing=TIMINGS[chosen["variant"]],
        padding=chosen["padding"],
        pool2=chosen["pool2"],
        num_classes=num_classes,
        dropout=dropout,
        norm=chosen["norm"],
        width=size.width,
        stem_kernel=size.stem_kernel,
        stem_pool=size.stem_pool,
    )
    if match["kind"] is not None:
        where = places_given(where, int(match["count"])) or places(match["scale"], int(match["count"]), stage)
        if match["kind"] == "rb":
            for path in where:
                number = int(path.split(".")[0].removeprefix("layer"))
                attach(
                    model, path, "control", ResidualControl(channels_of(size, number), norm=chosen["norm"])
                )
        else:
            for paths, runs in grouped(where, chosen["groups"]):
                insert_nonlocal(
                    model,
                    paths,
                    ndim=3,
                    pairwise=chosen["pairwise"],
                    axis=chosen["axis"],
                    subsample=chosen["subsample"],
                    groups=runs,
                    norm=chosen["nonlocal_norm"],
                    convention=chosen["convention"],
                    pool_position=chosen["pool_position"],
                    scale=chosen["scale"],
                    init=init,
                    out_bias=chosen["out_bias"],
                    algorithm=algorithm,
                )
    if start is not None:
        load_weights(model, fold_batch_norms(model, start.state), may_miss=FRESH, may_drop=("fc.*",))
    return model


DEFAULTS: dict[str, Any] = {
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
"""What `create_model` takes for an option that neither the caller nor the weights' file sets."""


FRESH = ("fc.*", "*.nonlocal_block.*", "*.control.*")
"""Keys that may keep their initial values when a network starts from another one's weights."""


def places_given(where: Sequence[str] | None, count: int) -> Sequence[str] | None:
    """`where`, if it has as many places as the network's name says."""
    if where is not None and len(where) != count:
        raise ValueError(f"where: got {len(where)} places ({', '.join(where)}), but the name says {count}")
    return where


def grouped(where: Sequence[str], groups: int) -> list[tuple[list[str], int]]:
    """The places with their number of temporal groups: `groups` in res3, 1 elsewhere (the release's long clips).

    A long clip has 16 frames at res3, where one map of all positions would be too large; the release cuts it
    into runs of 4 frames. res4 sees every frame.
    """
    if groups == 1:
        return [(list(where), 1)]
    res3 = [path for path in where if path.startswith("layer2.")]
    others = [path for path in where if path not in res3]
    if not res3:
        raise ValueError(
            f"groups: got {groups}, but no block is in res3, the only stage whose blocks are grouped"
        )
    return [(res3, groups)] + ([(others, 1)] if others else [])


def channels_of(scale: Scale, layer: int) -> int:
    """Outer channels of `layer{layer}`."""
    return scale.width * 2 ** (layer - 1) * EXPANSION
