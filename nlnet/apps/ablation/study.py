"""What all rows of the ablation study share (data sets, training recipe), and the types `Row` and `Table`."""

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
    """Diagnostic videos, and how clips are cut from them."""

    spec: DiagnosticSpec
    frames: int = 8
    """Frames of a clip."""
    stride: int = 2
    """Distance from one frame of a clip to the next, in video frames."""

    @property
    def crop(self) -> int:
        """Side of a random crop, pixels: a crop cuts off at most the margin, where no item lies."""
        return self.spec.height - self.spec.margin


# chosen together with the recipe on the validation videos of seeds 0 and 1 (docs/log.md)
_ITEMS: Mapping[str, Any] = {"height": 40, "width": 40, "tile": 14, "visible": 4, "jitter": 2, "seed": 1}
DATA = {
    # the items lie apart in space and in time
    "spacetime": DataSet(spec=DiagnosticSpec(task="spacetime", frames=18, **_ITEMS)),
    # apart in space, visible in every frame
    "space": DataSet(spec=DiagnosticSpec(task="space", frames=18, **_ITEMS)),
    # apart in time, all at the same position
    "time": DataSet(spec=DiagnosticSpec(task="time", frames=18, **_ITEMS)),
    # as "time", in videos and clips twice as long, so that distances in time reach further
    "long": DataSet(spec=DiagnosticSpec(task="time", frames=34, **_ITEMS), frames=16),
    # anywhere in larger frames, visible in every frame, so that distances in space vary
    "wide": DataSet(
        spec=DiagnosticSpec(task="space", frames=8, height=56, width=56, tile=14, layout="anywhere", seed=1),
        frames=4,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """The recipe of all rows: numbers of videos, two stages of training, test. No row has settings of its own."""

    data: Mapping[str, DataSet] = field(default_factory=lambda: DATA)
    videos: Mapping[str, int] = field(default_factory=lambda: {"train": 5000, "val": 200, "test": 1000})
    """Videos of each data set, by split."""
    stills: int = 6600
    """Single frames that the 2-D networks are trained on."""
    stills_spec: DiagnosticSpec = DATA["spacetime"].spec
    stills_iterations: int = 1200
    stills_batch: int = 128
    iterations: int = 550
    """Of fine-tuning; so are the numbers below."""
    batch: int = 32
    warmup: int = 30
    validate_every: int = 275
    precise_norm: int = 10
    """Batches of precise batch normalisation; twice as many for the 2-D networks."""

    def stills_config(self, depth: str, data: Path) -> Config:
        """Return the configuration of a 2-D network, trained on single frames (22 classes) instead of ImageNet."""
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
        """Return the configuration of a row: its network is inflated from `weights` and fine-tuned on the videos in `data`."""
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
        # a study of a few iterations, as in the tests, must not warm up to its end
        return min(iterations, self.iterations // 5)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of a table, on one data set."""

    name: str
    model: ModelConfig
    data: str = "spacetime"
    paper: str | None = None
    """Name of the row in the paper's table (`rows.published`); None if the paper has no such row."""

    @property
    def depth(self) -> str:
        """Depth of the network, such as "mini20": rows of one depth start from the same 2-D network."""
        return self.model.name.split("_")[1]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper, or one of ours."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""

    def __getitem__(self, name: str) -> Row:
        """Return the row with this name."""
        return next(row for row in self.rows if row.name == name)
