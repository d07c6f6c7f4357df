"""Names of networks: the inflation and sizes that a name stands for, and the positions of its added blocks.

A name is `{c2d|i3d|i3d333}_{r50|r101|mini|mini20|mini38|mini56}`, alone or followed by `_nl1`, `_nl5` or `_nl10`
(non-local blocks), or by `_rb1`, `_rb5` or `_rb10` (the parameter-matched control: residual blocks at the same
positions). "mini" networks are for small videos and tests.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nlnet.errors import NlnetError, did_you_mean
from nlnet.models.resnet import EXPANSION, Inflation

INFLATIONS: dict[str, Inflation] = {"c2d": "none", "i3d": "3x1x1", "i3d333": "3x3x3"}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes of a network: depth, width and stem."""

    blocks: tuple[int, ...]
    """Residual blocks per stage, from res2 on."""
    width: int
    """Channels of conv1."""
    stem_kernel: int
    stem_pool: bool
    crop: int
    """Side of the training crop that the scale is meant for, in pixels."""


SCALES = {
    "r50": Scale(blocks=(3, 4, 6, 3), width=64, stem_kernel=7, stem_pool=True, crop=224),
    "r101": Scale(blocks=(3, 4, 23, 3), width=64, stem_kernel=7, stem_pool=True, crop=224),
    "mini": Scale(blocks=(1, 2, 2), width=16, stem_kernel=5, stem_pool=True, crop=32),
    # all four stages in few layers: a block learns sooner the fewer layers follow it (docs/log.md)
    "mini20": Scale(blocks=(1, 2, 2, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
    # narrow networks in the proportions of R50 and R101: res3 and res4 are deep enough for five and ten blocks
    "mini38": Scale(blocks=(1, 4, 6, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
    "mini56": Scale(blocks=(1, 4, 12, 1), width=16, stem_kernel=5, stem_pool=True, crop=36),
}

AFTER_STAGE = ("mini20",)
"""Scales whose single block follows the last residual block of its stage, so that few layers come after it."""

# The residual blocks, counted from 0, after which the added blocks are inserted: as in the original release. It has no
# R101 with ten blocks; here they follow every block of res3 and every fourth of res4. `layer2` is res3, `layer3` res4.
BLOCK_POSITIONS: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {
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
# the tables above say which parts exist: parse_name looks the whole name up in list_models()
_NAME = re.compile(r"(?P<net>[a-z0-9]+)_(?P<scale>[a-z0-9]+)(?:_(?P<kind>nl|rb)(?P<count>\d+))?")


@dataclass(frozen=True, kw_only=True)
class NameParts:
    """The parts of a network's name."""

    net: str
    """A key of `INFLATIONS`."""
    scale: str
    """A key of `SCALES`."""
    kind: str | None
    """"nl" for non-local blocks, "rb" for the control, None for no added blocks."""
    count: int
    """Number of added blocks."""


def list_models() -> list[str]:
    """Return every name that `create_model` takes.

        nlnet.list_models()[:3]                         # ["c2d_r50", "c2d_r50_nl1", "c2d_r50_nl5"]

    `_nl5` stands for five non-local blocks, `_rb5` for as many residual blocks at the same positions (the control).
    """
    names = []
    for net in INFLATIONS:
        for scale in SCALES:
            names.append(f"{net}_{scale}")
            counts = [c for c in (1, 5, 10) if c == 1 or (scale, c) in BLOCK_POSITIONS]
            names += [f"{net}_{scale}_{kind}{c}" for kind in ("nl", "rb") for c in counts]
    return names


def parse_name(name: str) -> NameParts:
    """Split a network's name into its parts.

    Raises:
        NlnetError: an unknown name; the message lists similar ones.
    """
    match = _NAME.fullmatch(name)
    if match is None or name not in list_models():
        near = did_you_mean(name, list_models())
        raise NlnetError(f"unknown model {name!r}{near or '.'} `nlnet models` lists all names")
    return NameParts(
        net=match["net"], scale=match["scale"], kind=match["kind"], count=int(match["count"] or 0)
    )


def block_positions(scale: str, count: int, stage: str | None = None) -> list[str]:
    """Module paths after which a network of that scale has its `count` added blocks.

    One block goes right before the last residual block of `stage` ("res2" … "res5", default "res4"; Tables 2a
    and 2b), except in mini20, where it follows the stage; in mini and mini20 the default is after res3. Five and ten
    go to res3 and res4 (Table 2c); the five of mini20 to res2, too.

    Raises:
        NlnetError: a `stage` for more than one block, an unknown stage, or a number of blocks that the scale does
            not have.
    """
    table = BLOCK_POSITIONS.get((scale, count))
    if stage is not None or (table is None and count == 1):
        if count != 1:
            raise NlnetError(
                f"stage: got {stage!r} with {count} blocks; a stage can be chosen for one block only, "
                "use `where` for the positions of several"
            )
        stages = [f"res{number + 2}" for number in range(len(SCALES[scale].blocks))]
        stage = stage or "res4"
        if stage not in stages:
            raise NlnetError(f"stage: got {stage!r}, expected one of {', '.join(stages)}")
        number = stages.index(stage)
        last = SCALES[scale].blocks[number] - 1
        # a stage of one residual block has none before its last: the block follows that one
        table = {f"layer{number + 1}": (last if scale in AFTER_STAGE else max(0, last - 1),)}
    if table is None:
        counts = sorted({1} | {n for name, n in BLOCK_POSITIONS if name == scale})
        raise NlnetError(
            f"a {scale} network with {count} non-local blocks is not defined, expected "
            f"{' or '.join(map(str, counts))}"
        )
    return [f"{layer}.{index}" for layer, indices in table.items() for index in indices]


def checked_positions(where: Sequence[str] | None, count: int) -> Sequence[str] | None:
    """Check that the caller chose as many positions as the network's name says, and return them.

    Raises:
        NlnetError: another number of positions.
    """
    if where is not None and len(where) != count:
        raise NlnetError(
            f"where: got {len(where)} positions ({', '.join(where)}), expected {count}, the number of blocks in "
            "the network's name"
        )
    return where


def split_by_groups(where: Sequence[str], groups: int) -> list[tuple[list[str], int]]:
    """Pair the positions with their number of temporal groups: `groups` in res3, 1 elsewhere.

    At res3 a long clip has 16 frames, too many for one affinity map of all positions; the release cuts them into
    runs of 4 frames. In res4 every position sees every frame.

    Raises:
        NlnetError: more than one group, and no block in res3.
    """
    if groups == 1:
        return [(list(where), 1)]
    res3 = [path for path in where if path.startswith("layer2.")]
    others = [path for path in where if path not in res3]
    if not res3:
        raise NlnetError(
            f"groups: got {groups}, but no block is in res3, the only stage whose blocks are grouped; "
            "expected groups = 1"
        )
    return [(res3, groups)] + ([(others, 1)] if others else [])


def channels_of(scale: Scale, layer: int) -> int:
    """Channels of the maps that the module `layer{layer}` returns."""
    return scale.width * 2 ** (layer - 1) * EXPANSION
