"""Recipes: named, complete configurations. The paper's are in `kinetics`, what they should reach in `published`.

`nlnet train RECIPE data.train=… key=value` runs one; `nlnet train RECIPE --dry-run` prints its plan and cost;
`nlnet models --recipes` lists all.
"""

from collections.abc import Callable
from difflib import get_close_matches
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
from nlnet.errors import ConfigError


def finetune(model: str, variant: str) -> Config:
    """A folder of one's own videos: the release's recipe, shortened to 20k iterations of 16 clips.

    Meant for Kinetics or ImageNet weights, init.weights=FILE, which learn at a tenth of the rate of the new
    classifier and blocks. Not a recipe of the paper, and not measured.
    """
    return Config(
        model=ModelConfig(name=model, variant=variant),
        optimizer=OptimizerConfig(transferred_lr=0.1, clip_norm=40.0),
        schedule=ScheduleConfig(iterations=20_000, steps=(10_000, 16_000), warmup=500),
        training=TrainingConfig(batch=16, validate_every=1000, checkpoint_every=1000),
    )


# The miniature study: 18-frame videos of 36×36 pixels, of which a clip takes 8 frames and a 32×32 crop.
DEMO_SPEC = DiagnosticSpec(task="spacetime", height=36, width=36, frames=18, tile=14, visible=4)
DEMO_VIDEOS = {"train": 5000, "val": 200, "test": 400, "stills": 6600}
MINIATURE = DataConfig(frames=8, stride=2, crop=32, scales=(36, 36), flip=False, workers=0, cache_gib=1.0)
MINIATURE_TEST = EvalConfig(clips=4, crops=3, short_side=36, crop=32, views_at_once=12)


def demo_stills() -> Config:
    """The 2-D network of the demo, pre-trained on single frames: 22 classes, digit × colour and the two cues.

    The part that ImageNet plays in the paper. About a minute of one core; 95 % of held-out stills.
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
    """A network of the demo, fine-tuned on the diagnostic videos from the stills' weights (init.weights).

    The paper's road: inflate, insert with γ = 0, fine-tune with SGD. The embedded Gaussian takes the release's
    scale 1/√d, and what was transferred learns at a quarter of the rate after a warm-up: faster, some seeds lose
    the digits before the block finds its use (docs/log.md). About 90 s of one core.
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


RECIPES: dict[str, Callable[[], Config]] = {name: recipe.config for name, recipe in KINETICS.items()}
RECIPES["demo_stills"] = demo_stills
RECIPES["demo_local"] = partial(demo, "c2d_mini")
RECIPES["demo_control"] = partial(demo, "c2d_mini_rb1")
RECIPES["demo_nonlocal"] = partial(demo, "c2d_mini_nl1")
RECIPES["finetune_i3d_r50_nl5_8x8"] = partial(finetune, "i3d_r50_nl5", "8x8")
RECIPES["finetune_c2d_r50_nl5_8x8"] = partial(finetune, "c2d_r50_nl5", "8x8")


def recipe_or_file(name: str) -> Config:
    """The recipe of that name, or the configuration in that YAML file."""
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or path.exists():
        return read_yaml(path)
    near = get_close_matches(name, RECIPES, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ConfigError(f"no recipe or YAML file {name!r}{hint} Recipes: {', '.join(sorted(RECIPES))}")
