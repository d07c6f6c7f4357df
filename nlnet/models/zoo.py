"""The paper's networks by name: `create_model("i3d_r50_nl5")`.

A name is `{c2d|i3d|i3d333}_{r50|r101|mini}`, then nothing, `_nl1`, `_nl5`, `_nl10` (non-local blocks), or
`_rb1`, `_rb5`, `_rb10` (the parameter-matched control: residual blocks at the same places).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor

from nlnet.models.control import ResidualControl
from nlnet.models.inflate import load_weights
from nlnet.models.resnet import EXPANSION, TIMINGS, Inflation, Padding, VideoResNet
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
}

# Blocks sit after these residual blocks, counted from 0 (original release; for 10 in R101, which the paper
# leaves open, every fourth block of res4). `layer2` is res3, `layer3` is res4.
PLACES: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {
    ("r50", 5): {"layer2": (1, 3), "layer3": (1, 3, 5)},
    ("r50", 10): {"layer2": (0, 1, 2, 3), "layer3": (0, 1, 2, 3, 4, 5)},
    ("r101", 5): {"layer2": (1, 3), "layer3": (6, 13, 20)},
    ("r101", 10): {"layer2": (0, 1, 2, 3), "layer3": (2, 6, 10, 14, 18, 22)},
    ("mini", 1): {"layer2": (1,)},
}
_NAME = re.compile(r"(?P<net>c2d|i3d|i3d333)_(?P<scale>r50|r101|mini)(?:_(?P<kind>nl|rb)(?P<count>1|5|10))?")


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
    weights: Mapping[str, Tensor] | None = None,
    variant: str = "32x2",
    padding: Padding = "released",
    dropout: float = 0.5,
    norm: str = "batch",
    stage: str | None = None,
    pairwise: str = "embedded_gaussian",
    axis: str = "spacetime",
    subsample: bool = True,
    groups: int = 1,
    nonlocal_norm: str = "batch",
    convention: str = "released",
    pool_position: str | None = None,
    scale: float | None = None,
    init: str | None = None,
    out_bias: bool | None = None,
    algorithm: str = "auto",
) -> VideoResNet:
    """Build a network of the paper by name (`list_models()`), initialised as the release does.

    Args:
        num_classes: outputs of the classifier.
        weights: a state dict to start from: this network's own, a local network's (fresh blocks keep the
            identity), or a 2-D ResNet's in torchvision's key names (kernels inflate). A classifier of another
            size keeps its fresh initialisation.
        variant: frames×stride of a clip and with it the temporal strides: "32x2" and "128x1" (the paper's),
            "8x8" and "32x4" (the release's faster ones).
        padding, dropout, norm: see `VideoResNet`.
        stage: where one block goes (`places`).
        pairwise, axis, subsample, groups, nonlocal_norm, convention, pool_position, scale, init, out_bias,
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
    if variant not in TIMINGS:
        raise ValueError(f"variant: got {variant!r}, expected one of {', '.join(TIMINGS)}")
    size = SCALES[match["scale"]]
    model = VideoResNet(
        blocks=size.blocks,
        inflation=INFLATIONS[match["net"]],
        timing=TIMINGS[variant],
        padding=padding,
        num_classes=num_classes,
        dropout=dropout,
        norm=norm,
        width=size.width,
        stem_kernel=size.stem_kernel,
        stem_pool=size.stem_pool,
    )
    if match["kind"] is not None:
        where = places(match["scale"], int(match["count"]), stage)
        if match["kind"] == "rb":
            for path in where:
                number = int(path.split(".")[0].removeprefix("layer"))
                attach(model, path, "control", ResidualControl(channels_of(size, number), norm=norm))
        else:
            insert_nonlocal(
                model,
                where,
                ndim=3,
                pairwise=pairwise,
                axis=axis,
                subsample=subsample,
                groups=groups,
                norm=nonlocal_norm,
                convention=convention,
                pool_position=pool_position,
                scale=scale,
                init=init,
                out_bias=out_bias,
                algorithm=algorithm,
            )
    if weights is not None:
        load_weights(model, weights, may_miss=FRESH, may_drop=("fc.*",))
    return model


FRESH = ("fc.*", "*.nonlocal_block.*", "*.control.*")
"""Keys that may keep their initial values when a network starts from another one's weights."""


def channels_of(scale: Scale, layer: int) -> int:
    """Outer channels of `layer{layer}`."""
    return scale.width * 2 ** (layer - 1) * EXPANSION
