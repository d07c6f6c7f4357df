"""All recipes by name. A recipe is a complete configuration of a training run, without the paths of its videos.

`nlnet train RECIPE data.train=PATH key=value` runs one, `nlnet train RECIPE --dry-run` prints its plan and cost, and
`nlnet models --recipes` lists those of the paper.

To add a recipe, add a line to `RECIPES`: its name, and a function that returns its `Config`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nlnet.apps.recipes.kinetics import KINETICS
from nlnet.data.diagnostic.task import DiagnosticSpec
from nlnet.engine.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    read_yaml,
)
from nlnet.errors import ConfigError, did_you_mean


def finetune(model: str, variant: str) -> Config:
    """Return the recipe for fine-tuning on one's own videos: the release's, shortened to 20k iterations of 16 clips.

    It is meant to start from Kinetics or ImageNet weights (init.weights=FILE): they learn at a tenth of the learning
    rate of the new classifier and blocks. Not a recipe of the paper, and not measured.
    """
    return Config(
        model=ModelConfig(name=model, variant=variant),
        optimizer=OptimizerConfig(transferred_lr=0.1, clip_norm=40.0),
        schedule=ScheduleConfig(iterations=20_000, steps=(10_000, 16_000), warmup=500),
        training=TrainingConfig(batch=16, validate_every=1000, checkpoint_every=1000),
    )


# The data of the demo: videos of 18 frames and 36×36 pixels. A clip is 8 frames of them, cropped to 32×32.
DEMO_SPEC = DiagnosticSpec(task="spacetime", height=36, width=36, frames=18, tile=14, visible=4)
DEMO_VIDEOS = {"train": 5000, "val": 200, "test": 400, "stills": 6600}
MINIATURE = DataConfig(frames=8, stride=2, crop=32, scales=(36, 36), flip=False, workers=0, cache_gib=1.0)
MINIATURE_TEST = EvalConfig(clips=4, crops=3, short_side=36, crop=32, views_at_once=12)


def demo_stills() -> Config:
    """Return the recipe of the demo's 2-D network, which is pre-trained on single frames.

    It takes the part that ImageNet has in the paper. There are 22 classes: digit × colour, and the two cues. Training
    takes about a minute on one core; 95 % of the held-out frames are then right.
    """
    return Config(
        model=ModelConfig(name="c2d_mini", variant="8x8", dropout=0.0),
        data=MINIATURE.model_copy(update={"frames": 1, "stride": 1, "crop": 24, "scales": (28, 28)}),
        optimizer=OptimizerConfig(lr=0.2, reference_batch=128, clip_norm=5.0),
        schedule=ScheduleConfig(iterations=500, policy="cosine", warmup=30),
        training=TrainingConfig(batch=128, validate_every=250, checkpoint_every=250, precise_norm=20),
        test=MINIATURE_TEST.model_copy(update={"clips": 1, "crop": 24, "short_side": 28}),
    )


def demo(model: str) -> Config:
    """Return the recipe of one of the demo's video networks, which starts from the 2-D network (init.weights).

    As in the paper: inflate, insert the block with γ = 0, fine-tune with SGD. The embedded Gaussian has the release's
    scale 1/√d. Transferred weights learn at a quarter of the learning rate, after a warm-up: at the full rate, some
    seeds forget the digits before the block has learned anything (docs/log.md). Training takes about 90 s on one core.
    """
    return Config(
        model=ModelConfig(
            name=model,
            variant="8x8",
            dropout=0.0,
            convention="paper",
            scale=64**-0.5 if "_nl" in model else None,
        ),
        data=MINIATURE,
        optimizer=OptimizerConfig(lr=0.2, reference_batch=32, transferred_lr=0.25, clip_norm=5.0),
        schedule=ScheduleConfig(iterations=500, policy="cosine", warmup=100),
        training=TrainingConfig(batch=32, validate_every=125, checkpoint_every=250, precise_norm=10),
        test=MINIATURE_TEST,
    )


RECIPES: dict[str, Callable[[], Config]] = {
    **{name: recipe.config for name, recipe in KINETICS.items()},
    "demo_stills": demo_stills,
    "demo_local": partial(demo, "c2d_mini"),
    "demo_control": partial(demo, "c2d_mini_rb1"),
    "demo_nonlocal": partial(demo, "c2d_mini_nl1"),
    "finetune_i3d_r50_nl5_8x8": partial(finetune, "i3d_r50_nl5", "8x8"),
    "finetune_c2d_r50_nl5_8x8": partial(finetune, "c2d_r50_nl5", "8x8"),
}


def recipe_or_file(name: str) -> Config:
    """Return the recipe of that name, or read the configuration in that YAML file.

    Raises:
        ConfigError: neither a recipe nor a file, or a file that is no configuration.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or path.exists():
        return read_yaml(path)
    hint = did_you_mean(name, RECIPES) or "; `nlnet models --recipes` lists the recipes"
    raise ConfigError(f"no recipe or YAML file {name!r}{hint}")
