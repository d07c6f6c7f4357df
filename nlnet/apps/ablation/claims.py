"""The claims of the study as data: statements of §5.1 of the paper, and our own (`source="ours"`).

A claim has parts; each is one comparison under one rule (`RULES`). A claim is *shown* if every part is, *contradicted*
if some part is, *not run* if a row is missing, and *not shown* otherwise (verdicts.py). The claims, their parts and
their rules were written down before the runs, and must not be fitted to the results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from nlnet.apps.ablation.statistics import MARGIN
from nlnet.data.diagnostic.bounds import additive_bound

Rule = Literal[
    "better", "alike", "no gain", "related", "unrelated", "falls", "flat", "loses", "keeps", "cheaper"
]
BOUND = 100 * additive_bound()
"""Accuracy, percent, above which a network must have related two items (`nlnet.data.diagnostic.bounds`)."""
RULES: Mapping[Rule, str] = {
    # better, alike and no gain compare networks video by video on the same videos; falls and flat compare two sets of
    # videos of one network; loses and keeps compare networks on different videos
    "better": "its accuracy is higher: the 95 % interval of the difference is above 0, and so is every seed",
    "alike": f"the difference lies within ±{MARGIN:g} points: the 95 % interval and every seed",
    "no gain": f"the difference lies below {MARGIN:g} points: the 95 % interval and every seed",
    "related": f"its accuracy is above {BOUND:g} %, which no sum of local evidence exceeds: interval and every seed",
    "unrelated": f"its accuracy is below {BOUND:g} %: interval and every seed",
    "falls": "its accuracy on the nearest third of the videos is higher than on the farthest: interval and every seed",
    "flat": f"nearest minus farthest third lies within ±{MARGIN:g} points: the 95 % interval and every seed",
    "loses": "the first is more accurate than the second, each on its own videos: interval and every seed",
    "keeps": f"first minus second, each on its own videos, is below {MARGIN:g} points: the 95 % interval and every seed",
    "cheaper": "it has fewer multiply-adds",
}


@dataclass(frozen=True)
class Part:
    """One comparison: row `ours` with row `other` of the claim's table, or row `ours` alone."""

    rule: Rule
    ours: str
    other: str | None = None
    axis: Literal["space", "time"] = "time"
    """The distance that the rules "falls" and "flat" are about."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about the rows of one table, and the comparisons that it stands for."""

    table: str
    statement: str
    source: str
    """Where the paper says so, with its figures; "ours" if it does not."""
    parts: tuple[Part, ...]


def _each(rule: Rule, rows: Sequence[str], other: str) -> tuple[Part, ...]:
    """Compare each row with `other`."""
    return tuple(Part(rule, row, other) for row in rows)


def _alike(rows: Sequence[str]) -> tuple[Part, ...]:
    """Compare every pair of rows."""
    return tuple(Part("alike", *pair) for pair in combinations(rows, 2))


_INSTANTIATIONS = ("Gaussian", "embedded Gaussian", "dot product", "concatenation")
_CONTROL = "residual block (control)"
_NO_GAIN = "§5.1: residual blocks instead of non-local ones bring no gain"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        table="2a",
        statement="Every instantiation improves on the baseline.",
        source="Table 2a: 71.8 → 72.5 to 72.9",
        parts=_each("better", _INSTANTIATIONS, "baseline"),
    ),
    Claim(
        table="2a",
        statement="The instantiations are alike: attention's softmax is not what matters.",
        source="Table 2a: 72.5, 72.7, 72.9, 72.8",
        parts=_alike(_INSTANTIATIONS),
    ),
    Claim(
        table="2a",
        statement="A residual block instead brings no gain.",
        source=_NO_GAIN,
        parts=(Part("no gain", _CONTROL, "baseline"),),
    ),
    Claim(
        table="2b",
        statement="A block in res2, res3 or res4 improves on the baseline.",
        source="Table 2b: 71.8 → 72.7, 72.9, 72.7",
        parts=_each("better", ("res2", "res3", "res4"), "baseline"),
    ),
    Claim(
        table="2b",
        statement="res2, res3 and res4 are alike.",
        source="Table 2b: 72.7, 72.9, 72.7",
        parts=_alike(("res2", "res3", "res4")),
    ),
    Claim(
        table="2b",
        statement="res5, whose map is too small for precise places, helps less.",
        source="Table 2b: 72.3 against 72.7 to 72.9",
        parts=tuple(Part("better", row, "res5") for row in ("res2", "res3", "res4")),
    ),
    *(
        Claim(
            table="2c",
            statement=f"More blocks are better ({layers} layers).",
            source=f"Table 2c, {paper}",
            parts=(
                Part("better", f"{layers} layers: 1 block", f"{layers} layers: baseline"),
                Part("better", f"{layers} layers: 5 blocks", f"{layers} layers: 1 block"),
                Part("better", f"{layers} layers: 10 blocks", f"{layers} layers: 5 blocks"),
            ),
        )
        for layers, paper in ((38, "R50: 71.8, 72.7, 73.8, 74.3"), (56, "R101: 73.1, 74.3, 75.1, 75.1"))
    ),
    Claim(
        table="2c",
        statement="The gain is not depth: five blocks in the shallow network beat the deep baseline, at less cost.",
        source="§5.1: R50 with 5 blocks 73.8, R101 73.1, 70 % of the parameters, 80 % of the FLOPs",
        parts=(
            Part("better", "38 layers: 5 blocks", "56 layers: baseline"),
            Part("cheaper", "38 layers: 5 blocks", "56 layers: baseline"),
        ),
    ),
    Claim(
        table="2c",
        statement="Residual blocks instead bring no gain.",
        source=_NO_GAIN,
        parts=tuple(
            Part("no gain", f"{n} layers: 5 residual blocks (control)", f"{n} layers: baseline")
            for n in (38, 56)
        ),
    ),
    Claim(
        table="2d",
        statement="Space alone and time alone improve on the baseline (spacetime task).",
        source="Table 2d: 71.8 → 72.9, 73.1",
        parts=_each("better", ("spacetime task: space", "spacetime task: time"), "spacetime task: baseline"),
    ),
    Claim(
        table="2d",
        statement="Spacetime is better than either (spacetime task).",
        source="Table 2d: 73.8 against 72.9 and 73.1",
        parts=tuple(
            Part("better", "spacetime task: spacetime", f"spacetime task: {axis}")
            for axis in ("space", "time")
        ),
    ),
    Claim(
        table="2d",
        statement="Space alone relates items in space and not in time.",
        source="ours",
        parts=(Part("related", "space task: space"), Part("unrelated", "time task: space")),
    ),
    Claim(
        table="2d",
        statement="Time alone relates items in time and not in space.",
        source="ours",
        parts=(Part("related", "time task: time"), Part("unrelated", "space task: time")),
    ),
    Claim(
        table="2d",
        statement="Spacetime solves all three tasks; neither axis alone solves the spacetime task.",
        source="ours",
        parts=(
            *(Part("related", f"{task} task: spacetime") for task in ("space", "time", "spacetime")),
            *(Part("unrelated", f"spacetime task: {axis}") for axis in ("space", "time")),
        ),
    ),
    Claim(
        table="2d",
        statement="The baseline solves none of the tasks, with a residual block neither.",
        source="ours",
        parts=(
            *(Part("unrelated", f"{task} task: baseline") for task in ("space", "time", "spacetime")),
            Part("unrelated", f"spacetime task: {_CONTROL}"),
        ),
    ),
    Claim(
        table="2e",
        statement="Five non-local blocks are more accurate than either 3-D convolution.",
        source="Table 2e: 75.1 against 74.1 and 74.4",
        parts=_each("better", ("NL C2D, 5 blocks",), "I3D 3×3×3")
        + _each("better", ("NL C2D, 5 blocks",), "I3D 3×1×1"),
    ),
    Claim(
        table="2e",
        statement="Five non-local blocks are cheaper than either 3-D convolution.",
        source="Table 2e: 1.2× the FLOPs of C2D, against 1.8× and 1.5×",
        parts=tuple(Part("cheaper", "NL C2D, 5 blocks", row) for row in ("I3D 3×3×3", "I3D 3×1×1")),
    ),
    Claim(
        table="2f",
        statement="Non-local blocks and 3-D convolution are complementary: together better than either.",
        source="Table 2f: NL I3D 74.9, I3D 73.3; NL C2D 73.8 (Table 2c)",
        parts=_each("better", ("NL I3D",), "I3D") + _each("better", ("NL I3D",), "NL C2D"),
    ),
    Claim(
        table="2g",
        statement="On longer clips the gain of the block persists.",
        source="Table 2g: I3D 74.9 → NL I3D 76.5",
        parts=(
            Part("better", "long: NL I3D", "long: I3D"),
            Part("better", "long: NL C2D", "long: C2D"),
        ),
    ),
    Claim(
        table="2g",
        statement="From short to long clips 3-D convolution loses accuracy, with a block it does not.",
        source="ours",
        parts=(
            Part("loses", "short: I3D", "long: I3D"),
            Part("keeps", "short: NL I3D", "long: NL I3D"),
        ),
    ),
    Claim(
        table="2g",
        statement="The accuracy of 3-D convolution falls with the distance in time within long clips, that of non-local blocks does not.",
        source="ours",
        parts=(
            Part("falls", "long: I3D", axis="time"),
            Part("flat", "long: NL C2D", axis="time"),
            Part("flat", "long: NL I3D", axis="time"),
        ),
    ),
    Claim(
        table="2g",
        statement="A residual block instead brings no gain on longer clips.",
        source=_NO_GAIN,
        parts=(Part("no gain", f"long: {_CONTROL}", "long: C2D"),),
    ),
    Claim(
        table="conventions",
        statement="The paper's, the release's and mmcv's block all improve on the baseline.",
        source="ours",
        parts=_each("better", ("paper", "released", "mmcv"), "baseline"),
    ),
    Claim(
        table="conventions",
        statement="The three conventions are alike.",
        source="ours",
        parts=_alike(("paper", "released", "mmcv")),
    ),
    Claim(
        table="reach",
        statement="The accuracy of the non-local network does not fall with the distance in space.",
        source="ours",
        parts=(
            Part("related", "NL C2D, 1 block"),
            Part("flat", "NL C2D, 1 block", axis="space"),
        ),
    ),
)
