"""The training recipes of the paper and its release: networks × clips × schedules, as data.

A recipe is a model, a clip and one of the release's five schedules; `Recipe.config` writes it out. What they share
is the default of `nlnet.engine.config`: SGD with Nesterov momentum 0.9, weight decay 1e-4 but 0 on norms (other
biases are decayed), no warm-up, crop 224, flip, RGB minus 114.75 over 57.375 (0.45 and 0.225 of [0, 1]), short videos
looped, precise BN over 200 batches before each checkpoint (10k) and validation (20k). A recipe is tested as its figure
was: on the release's 10 clips × 3 crops, or, where the paper alone reports it, on whole frames (`protocol`).

Two points differ on purpose. The release multiplies the momentum by the ratio of the rates where the rate drops,
because Caffe2 keeps the rate inside it; torch keeps it outside, which is the same update. The release validates
with the training transform (a random crop of a random clip); here validation is the centre of one clip.
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
"""Training videos of the release's Kinetics-400 copy: an epoch."""
TEST_VIDEOS = 19_761
IMAGENET = "imagenet"
RELEASED = frozenset(row.recipe for row in TABLES["release"])
"""The recipes that the release has figures of."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One of the schedules that the release ships."""

    devices: int
    batch: int
    """Clips per step, over all devices."""
    lr: float
    steps: tuple[int, ...]
    """Iterations at which the rate falls to a tenth, counted from the start."""
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
    # Charades, §6.2 of the paper: one clip on each of 8 devices
    "charades": Schedule(devices=8, batch=8, lr=0.00125, steps=(75_000, 150_000), iterations=200_000),
}

# Frozen affine norms; blocks without a norm (so W_z starts at zero), those of res3 in runs of 4 of its 16 frames.
LONG: Mapping[str, Any] = {"norm": "affine", "nonlocal_norm": "none"}
LONG_GROUPS = 4
LONG_CLIPS = ("128x1", "32x4")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network and how it is trained."""

    model: str
    variant: str
    schedule: str = "400k"
    start: str = IMAGENET
    """What `init.weights` is meant to be: an ImageNet ResNet, or the run of the recipe of that name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Model settings besides name and variant."""
    charades: bool = False
    videos: int | None = VIDEOS
    """Videos that it trains on, an epoch; None where we have no count."""
    eval_videos: int | None = TEST_VIDEOS

    @property
    def name(self) -> str:
        """`c2d_r50_nl1_gaussian_32x2`, `i3d_r50_8x8_300k`: model, what is special, clip, schedule if not 400k."""
        special = () if self.long else tuple(self.options.values())
        shown = () if self.schedule in ("400k", "long", "charades") else (self.schedule,)
        parts = (self.model, *special, self.variant, *shown)
        return "_".join(("charades", *parts) if self.charades else parts)

    @property
    def devices(self) -> int:
        return SCHEDULES[self.schedule].devices

    @property
    def origin(self) -> str:
        """What `init.weights` should be, in words."""
        if self.start == IMAGENET:
            return f"an ImageNet ResNet-{'101' if 'r101' in self.model else '50'}"
        return f"the run of {self.start}" + (", norms folded" if self.long and not self.charades else "")

    @property
    def protocol(self) -> Protocol:
        """The test protocol of its figure; the release's, where both report one."""
        return "released" if self.name in RELEASED else "paper"

    @property
    def classes(self) -> int:
        return 157 if self.charades else 400

    @property
    def long(self) -> bool:
        """A clip of 32×4 or 128×1, fine-tuned with frozen norms."""
        return self.options.get("norm") == "affine"

    def config(self) -> Config:
        """The whole configuration, without data paths."""
        schedule = SCHEDULES[self.schedule]
        # a new classifier, and new non-local blocks on a local network's weights
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
    """Fine-tune a local network of short clips on long ones (release: the affine recipes; paper: Table 2g).

    The batch norms of the start are folded into frozen affine layers. Non-local blocks begin fresh: the paper
    starts from "the corresponding 32-frame model", its release from the model without blocks.
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
    """§6.2: from the Kinetics network of the same 128 frames, with a sigmoid for each of the 157 classes.

    Clips are cut as on Kinetics and scaled so that a crop is 288×288, so the shorter side is drawn from
    288/224·[256, 320]; tested at a shorter side of 320.
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
"""Every recipe of the release and of the paper's Tables 2a–2g, 3 and 4, by name."""
