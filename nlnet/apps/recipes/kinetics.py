"""The training recipes of the paper and its release: networks, clips and schedules.

A recipe is a model, a clip and one of the release's five schedules or Charades' (`SCHEDULES`); `Recipe.config` returns
the whole configuration. What all recipes share is the default of `nlnet.engine.config`: SGD with Nesterov momentum 0.9,
weight decay 1e-4 but 0 on norms (other biases are decayed), no warm-up, crop 224, flip, RGB minus 114.75 over 57.375
(0.45 and 0.225 in [0, 1]), short videos looped, precise batch norm over 200 batches before each checkpoint (every 10k
iterations) and validation (every 20k). A recipe is tested as its published figure was: on the release's 10 clips × 3
crops or, if only the paper reports it, on whole frames (`Recipe.protocol`).

Two details differ from the release on purpose. It multiplies the momentum by the ratio of the learning rates where the
rate drops, because Caffe2 stores the product of rate and momentum; torch stores them apart, which is the same update.
And it validates with the training transform (a random crop of a random clip); here validation is on the centre crop of
one clip.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlnet.apps.recipes.published import TABLES
from nlnet.data.protocols import Protocol
from nlnet.engine.config import (
    Config,
    DataConfig,
    EvalConfig,
    InitConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)

VIDEOS = 234_643
"""Training videos in the release's copy of Kinetics-400: one epoch."""
TEST_VIDEOS = 19_761
"""Validation videos in the release's copy of Kinetics-400, on which its networks are tested."""
IMAGENET = "imagenet"
RELEASED = frozenset(row.recipe for row in TABLES["release"])
"""The recipes that the release reports figures of."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule of the release: batch, learning rate, length, and the augmentation that goes with them."""

    devices: int
    batch: int
    """Clips per iteration, over all devices."""
    lr: float
    steps: tuple[int, ...]
    """Iterations, counted from the start, at which the learning rate falls to a tenth."""
    iterations: int
    scales: tuple[int, int] = (256, 320)
    dropout: float = 0.5


SCHEDULES = {
    "400k": Schedule(devices=8, batch=64, lr=0.01, steps=(150_000, 300_000), iterations=400_000),
    "300k": Schedule(devices=8, batch=64, lr=0.01, steps=(150_000, 250_000), iterations=300_000),
    "600k_4gpu": Schedule(devices=4, batch=32, lr=0.005, steps=(300_000, 500_000), iterations=600_000),
    "300k_4gpu": Schedule(
        devices=4,
        batch=32,
        lr=0.005,
        steps=(150_000, 250_000),
        iterations=300_000,
        scales=(256, 256),
        dropout=0.0,
    ),
    "long": Schedule(devices=8, batch=16, lr=0.0025, steps=(150_000, 300_000), iterations=400_000),
    # §6.2 of the paper: one clip on each of 8 devices
    "charades": Schedule(devices=8, batch=8, lr=0.00125, steps=(75_000, 150_000), iterations=200_000),
}

# Long clips: frozen affine norms, and blocks without a norm, so that W_z starts at zero. Blocks in res3 attend within
# 4 groups of 4 of its 16 frames.
LONG: Mapping[str, Any] = {"norm": "affine", "nonlocal_norm": "none"}
LONG_GROUPS = 4
LONG_CLIPS = ("128x1", "32x4")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network of the paper, and how it is trained."""

    model: str
    variant: str
    schedule: str = "400k"
    start: str = IMAGENET
    """The initial weights: "imagenet" for a ResNet trained on ImageNet, or the recipe whose run is fine-tuned."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model besides name and variant."""
    charades: bool = False
    videos: int | None = VIDEOS
    """Number of training videos, for epochs; None if it is not known."""
    eval_videos: int | None = TEST_VIDEOS

    @property
    def name(self) -> str:
        """The recipe's name: model, options, clip, and the schedule if it is not 400k, as in `i3d_r50_8x8_300k`."""
        special = () if self.long else tuple(self.options.values())
        shown = () if self.schedule in ("400k", "long", "charades") else (self.schedule,)
        parts = (self.model, *special, self.variant, *shown)
        return "_".join(("charades", *parts) if self.charades else parts)

    @property
    def devices(self) -> int:
        """The number of GPUs that it is for."""
        return SCHEDULES[self.schedule].devices

    @property
    def origin(self) -> str:
        """The initial weights, in words."""
        if self.start == IMAGENET:
            return f"an ImageNet ResNet-{'101' if 'r101' in self.model else '50'}"
        return f"the run of {self.start}" + (", norms folded" if self.long and not self.charades else "")

    @property
    def protocol(self) -> Protocol:
        """The test protocol of the published figure: the release's, or the paper's if only the paper has one."""
        return "released" if self.name in RELEASED else "paper"

    @property
    def classes(self) -> int:
        """The number of classes of its data set: Kinetics-400, or Charades."""
        return 157 if self.charades else 400

    @property
    def long(self) -> bool:
        """Whether it fine-tunes on long clips (32x4 or 128x1) with frozen norms."""
        return self.options.get("norm") == "affine"

    def config(self) -> Config:
        """Return the whole configuration, without the paths of the data."""
        schedule = SCHEDULES[self.schedule]
        # dropped from the initial weights: the classifier of another task, and blocks that are to start fresh
        drop = (() if self.start == IMAGENET else ("fc.*",)) + (
            ("*.nonlocal_block.*",) if self.long and not self.charades else ()
        )
        return Config(
            model=ModelConfig(
                name=self.model, variant=self.variant, dropout=schedule.dropout, **dict(self.options)
            ),
            data=DataConfig(crop=288, scales=(329, 411))
            if self.charades
            else DataConfig(scales=schedule.scales),
            optimizer=OptimizerConfig(lr=schedule.lr, reference_batch=schedule.batch),
            schedule=ScheduleConfig(iterations=schedule.iterations, steps=schedule.steps),
            training=TrainingConfig(
                batch=schedule.batch,
                precise_norm=0 if self.long else 200,
                loss="sigmoid" if self.charades else "softmax",
            ),
            init=InitConfig(drop=drop),
            test=EvalConfig(protocol=self.protocol, short_side=320 if self.charades else 256),
        )


def long_clip(model: str, variant: str) -> Recipe:
    """Return the recipe that fine-tunes a network of short clips on long ones (Table 2g; the release's affine recipes).

    The batch norms of the initial weights are folded into frozen affine layers. Non-local blocks start fresh, as in the
    release: it starts from the model without blocks, the paper from "the corresponding 32-frame model".
    """
    network = model.partition("_nl")[0]
    grouped = {"groups": LONG_GROUPS} if "_nl" in model else {}
    return Recipe(
        model=model,
        variant=variant,
        schedule="long",
        start=f"{network}_{'32x2' if variant == '128x1' else '8x8'}",
        options={**LONG, **grouped},
    )


def charades(model: str) -> Recipe:
    """Return the recipe for Charades (§6.2): from the Kinetics run of the same network, a sigmoid for each class.

    The crops are 288×288 instead of 224×224, so the shorter side is drawn from 288/224·[256, 320]; tests are at a
    shorter side of 320.
    """
    kinetics = long_clip(model, "128x1")
    return Recipe(
        model=model,
        variant="128x1",
        schedule="charades",
        start=f"{model}_128x1",
        options=kinetics.options,
        charades=True,
        videos=None,
        eval_videos=None,
    )


_32X2 = (
    *("c2d_r50", "c2d_r50_nl1", "c2d_r50_nl5", "c2d_r50_nl10", "c2d_r50_rb5", "i3d_r50", "i3d_r50_nl5"),
    *("c2d_r101", "c2d_r101_nl1", "c2d_r101_nl5", "c2d_r101_nl10"),
    *("i3d_r101", "i3d_r101_nl5", "i3d333_r101"),
)
_ONE_BLOCK: tuple[dict[str, str], ...] = (
    *({"pairwise": kind} for kind in ("gaussian", "dot_product", "concatenation")),
    *({"stage": stage} for stage in ("res2", "res3", "res5")),
)

KINETICS = {
    recipe.name: recipe
    for recipe in (
        *(Recipe(model=model, variant="32x2") for model in _32X2),
        *(Recipe(model="c2d_r50_nl1", variant="32x2", options=option) for option in _ONE_BLOCK),
        *(
            Recipe(model=model, variant="32x2", options={"axis": axis})
            for model in ("c2d_r50_nl5", "c2d_r101_nl5")
            for axis in ("space", "time")
        ),
        *(
            Recipe(model=model, variant="8x8")
            for model in ("c2d_r50", "c2d_r50_nl5", "i3d_r50", "i3d_r50_nl5")
        ),
        *(
            Recipe(model="i3d_r50", variant="8x8", schedule=schedule)
            for schedule in ("300k", "600k_4gpu", "300k_4gpu")
        ),
        *(long_clip(model, "32x4") for model in ("i3d_r50", "i3d_r50_nl5")),
        *(
            long_clip(model, "128x1")
            for model in ("c2d_r50", "i3d_r50", "i3d_r50_nl5", "c2d_r101", "i3d_r101", "i3d_r101_nl5")
        ),
        *(charades(model) for model in ("i3d_r101", "i3d_r101_nl5")),
    )
}
"""Every recipe of the release and of the paper's Tables 2a–2g, 3 and 4, by name. A new one is a line here."""
