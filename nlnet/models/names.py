"""What a network's name stands for: inflation, sizes, and where its added blocks go.

A name is `{c2d|i3d|i3d333}_{r50|r101|mini|mini38|mini56}`, then nothing, `_nl1`, `_nl5`, `_nl10` (non-local blocks), or
`_rb1`, `_rb5`, `_rb10` (the parameter-matched control: residual blocks at the same places).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from nlnet.models.resnet import EXPANSION, Inflation

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
    # all four stages in few layers: the fewer follow a block, the sooner it learns (docs/log.md)
    "mini20": Scale(blocks=(1, 2, 2, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
    # R50's and R101's proportions, narrow: res3 and res4 take the paper's five and ten blocks (38 and 56 layers)
    "mini38": Scale(blocks=(1, 4, 6, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
    "mini56": Scale(blocks=(1, 4, 12, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
}

AFTER_STAGE = ("mini20",)
"""Scales whose single block follows its stage, so that few layers lie behind it."""

# Blocks sit after these residual blocks, counted from 0 (original release; for 10 in R101, which the paper
# leaves open, every fourth block of res4). `layer2` is res3, `layer3` is res4.
PLACES: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {
    ("r50", 5): {"layer2": (1, 3), "layer3": (1, 3, 5)},
    ("r50", 10): {"layer2": (0, 1, 2, 3), "layer3": (0, 1, 2, 3, 4, 5)},
    ("r101", 5): {"layer2": (1, 3), "layer3": (6, 13, 20)},
    ("r101", 10): {"layer2": (0, 1, 2, 3), "layer3": (2, 6, 10, 14, 18, 22)},
    ("mini", 1): {"layer2": (1,)},
    ("mini20", 1): {"layer2": (1,)},
    ("mini20", 5): {"layer1": (0,), "layer2": (0, 1), "layer3": (0, 1)},
    ("mini38", 5): {"layer2": (1, 3), "layer3": (1, 3, 5)},
    ("mini38", 10): {"layer2": (0, 1, 2, 3), "layer3": (0, 1, 2, 3, 4, 5)},
    ("mini56", 5): {"layer2": (1, 3), "layer3": (3, 7, 11)},
    ("mini56", 10): {"layer2": (0, 1, 2, 3), "layer3": (1, 3, 5, 7, 9, 11)},
}
_NAME = re.compile(
    r"(?P<net>c2d|i3d|i3d333)_(?P<scale>r50|r101|mini20|mini38|mini56|mini)(?:_(?P<kind>nl|rb)(?P<count>1|5|10))?"
)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A name taken apart."""

    net: str
    scale: str
    kind: str | None
    """"nl", "rb", or None without added blocks."""
    count: int


def list_models() -> list[str]:
    """Every name that `create_model` takes."""
    names = []
    for net in INFLATIONS:
        for scale in SCALES:
            names.append(f"{net}_{scale}")
            counts = [c for c in (1, 5, 10) if c == 1 or (scale, c) in PLACES]
            names += [f"{net}_{scale}_{kind}{c}" for kind in ("nl", "rb") for c in counts]
    return names


def parts(name: str) -> Parts:
    """What the name says.

    Raises:
        ValueError: no network's name, with those near it.
    """
    match = _NAME.fullmatch(name)
    if match is None or name not in list_models():
        near = get_close_matches(name, list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"unknown model {name!r}{hint} `nlnet models` lists all names")
    return Parts(net=match["net"], scale=match["scale"], kind=match["kind"], count=int(match["count"] or 0))


def places(scale: str, count: int, stage: str | None = None) -> list[str]:
    """Module paths after which the `count` blocks of a network of that scale go.

    One block goes right before the last residual block of `stage` ("res2" … "res5", default "res4"; Tables 2a
    and 2b), except in mini20, where it follows the stage; in mini and mini20 the default is after res3. Five and ten
    go to res3 and res4 (Table 2c); the five of mini20 to res2, too.
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
        last = SCALES[scale].blocks[number] - 1
        table = {f"layer{number + 1}": (last if scale in AFTER_STAGE else max(0, last - 1),)}
    if table is None:
        raise ValueError(f"a {scale} network with {count} non-local blocks is not defined")
    return [f"{layer}.{index}" for layer, indices in table.items() for index in indices]


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
