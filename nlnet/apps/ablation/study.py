"""What the rows of the ablation study share: the data sets, the two stages of training, testing; and what a row is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlnet.data.diagnostic.task import DiagnosticSpec
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


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Diagnostic videos and the clips that are cut from them."""

    what: str
    spec: DiagnosticSpec
    frames: int = 8
    stride: int = 2

    @property
    def crop(self) -> int:
        """What a random crop cuts off is at most the margin."""
        return self.spec.height - self.spec.margin


# how the recipe was chosen, by validation videos of seeds 0 and 1: docs/log.md
_ITEMS: Mapping[str, Any] = {"height": 40, "width": 40, "tile": 14, "visible": 4, "jitter": 2, "seed": 1}
DATA = {
    "spacetime": DataSet(
        what="items apart in space and in time", spec=DiagnosticSpec(task="spacetime", frames=18, **_ITEMS)
    ),
    "space": DataSet(
        what="items apart in space, in every frame", spec=DiagnosticSpec(task="space", frames=18, **_ITEMS)
    ),
    "time": DataSet(
        what="items apart in time, at one place", spec=DiagnosticSpec(task="time", frames=18, **_ITEMS)
    ),
    "long": DataSet(
        what="the same in videos twice as long, the items up to as far apart as they go",
        spec=DiagnosticSpec(task="time", frames=34, **_ITEMS),
        frames=16,
    ),
    "wide": DataSet(
        what="items anywhere in larger frames, in every frame",
        spec=DiagnosticSpec(task="space", frames=8, height=56, width=56, tile=14, layout="anywhere", seed=1),
        frames=4,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all rows share: videos, the two stages of training, testing. One recipe, none tuned for a row."""

    data: Mapping[str, DataSet] = field(default_factory=lambda: DATA)
    videos: Mapping[str, int] = field(default_factory=lambda: {"train": 5000, "val": 200, "test": 1000})
    stills: int = 6600
    stills_spec: DiagnosticSpec = DATA["spacetime"].spec
    stills_iterations: int = 1200
    stills_batch: int = 128
    iterations: int = 550
    batch: int = 32
    warmup: int = 30
    validate_every: int = 275
    precise_norm: int = 10

    def stills_config(self, depth: str, data: Path) -> Config:
        """The 2-D network of a depth on single frames, 22 classes: the part that ImageNet plays in the paper."""
        return Config(
            model=ModelConfig(name=f"c2d_{depth}", variant="8x8", dropout=0.0),
            data=DataConfig(
                train=data / "stills" / "train",
                val=data / "stills" / "val",
                frames=1,
                stride=1,
                crop=24,
                scales=(28, 28),
                flip=False,
                workers=0,
                cache_gib=1.0,
            ),
            optimizer=OptimizerConfig(lr=0.2, reference_batch=128, clip_norm=5.0),
            schedule=ScheduleConfig(
                iterations=self.stills_iterations, policy="cosine", warmup=self._warmup(self.warmup)
            ),
            training=TrainingConfig(
                batch=self.stills_batch,
                validate_every=self.stills_iterations,
                checkpoint_every=self.stills_iterations,
                precise_norm=2 * self.precise_norm,
            ),
            test=EvalConfig(clips=1, crops=1, crop=24, short_side=28),
        )

    def config(self, row: "Row", *, data: Path, weights: Path, seed: int) -> Config:
        """A row's network, inflated from the 2-D network in `weights` and fine-tuned on the videos in `data`."""
        videos = self.data[row.data]
        side, crop = videos.spec.height, videos.crop
        return Config(
            model=row.model,
            data=DataConfig(
                train=data / "train",
                val=data / "val",
                test=data / "test",
                frames=videos.frames,
                stride=videos.stride,
                crop=crop,
                scales=(side, side),
                flip=False,
                workers=0,
                cache_gib=1.0,
            ),
            optimizer=OptimizerConfig(lr=0.2, reference_batch=32, transferred_lr=0.25, clip_norm=5.0),
            schedule=ScheduleConfig(
                iterations=self.iterations, policy="cosine", warmup=self._warmup(self.warmup)
            ),
            training=TrainingConfig(
                batch=self.batch,
                validate_every=self.validate_every,
                checkpoint_every=self.validate_every,
                precise_norm=self.precise_norm,
                seed=seed,
            ),
            init=InitConfig(weights=weights),
            test=EvalConfig(clips=2, crops=1, short_side=side, crop=crop, views_at_once=2),
        )

    def _warmup(self, iterations: int) -> int:
        return min(iterations, self.iterations // 5)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of a table, on one data set."""

    name: str
    model: ModelConfig
    data: str = "spacetime"
    paper: str | None = None
    """The row's name in the paper's table (`published`)."""

    @property
    def depth(self) -> str:
        """The scale, which names the 2-D network that it starts from."""
        return self.model.name.split("_")[1]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper, or one beyond it."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)
