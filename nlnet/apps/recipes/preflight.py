"""Before a training run: what is missing, what differs from the recipe, what will not fit."""

import os
from collections.abc import Sequence

import torch

from nlnet.apps.recipes.costs import GIB
from nlnet.apps.recipes.kinetics import Recipe
from nlnet.engine.config import Config
from nlnet.engine.distributed import World
from nlnet.engine.runs.directory import RunDir
from nlnet.weights.read import Weights


def missing(config: Config, recipe: Recipe | None, run: RunDir, resumed_at: int | None) -> list[str]:
    """What training still needs, or would refuse."""
    found = []
    if resumed_at is None and run.exists:
        found.append(f"{run.path} holds a run already: choose another --out, or go on with --resume")
    if config.data.train is None:
        found.append("no training videos: give data.train=PATH")
    if config.data.val is None:
        found.append("no validation videos (data.val=PATH): nothing says which checkpoint is best")
    if resumed_at is None and config.init.weights is None and recipe is not None:
        found.append(f"no init.weights: the recipe starts from {recipe.origin}")
    return found


def differences(config: Config, base: Config, recipe: Recipe | None, processes: int) -> list[str]:
    """Where batch, length and the batch norms' view differ from `base`, and the settings that make up for it.

    The rate needs no warning: it follows the batch (`optimizer.reference_batch`).
    """
    batch, iterations = config.training.batch, config.schedule.iterations
    per_pass = batch / (processes * config.training.accumulate)
    found = []
    if per_pass != int(per_pass):
        found.append(
            f"{batch} clips do not divide into {processes} processes × {config.training.accumulate} passes: "
            "training will refuse"
        )
    if batch * iterations != base.training.batch * base.schedule.iterations:
        factor = base.training.batch * base.schedule.iterations / (batch * iterations)
        found.append(
            f"{batch} clips × {iterations:,} iterations are {1 / factor:.3g} of the recipe's clips; "
            f"schedule.iterations={round(iterations * factor)}"
            + (
                f" schedule.steps=[{','.join(str(round(step * factor)) for step in config.schedule.steps)}]"
                if config.schedule.policy == "step"
                else ""
            )
            + " would keep its epochs"
        )
    if recipe is not None and not recipe.long:
        usual = base.training.batch // recipe.devices
        if per_pass != usual:
            mend = f"; training.accumulate={batch // processes // usual} comes back to it"
            found.append(
                f"batch norm sees {per_pass:g} clips at a time, {usual} in the recipe ({recipe.devices} GPUs × {usual})"
                + (mend if batch % (processes * usual) == 0 else "")
            )
    return found


def other_pixels(config: Config, weights: Weights | None) -> list[str]:
    """Where pixels are not normalised as those that the weights of the start were trained on."""
    if weights is None or weights.statistics is None:
        return []
    data = config.data
    if all(_triple(a) == _triple(b) for a, b in zip(weights.statistics, (data.mean, data.std), strict=True)):
        return []
    mean, std = (
        str(_triple(value)).replace(" ", "").replace("(", "[").replace(")", "]")
        for value in weights.statistics
    )
    return [
        "init.weights saw pixels of mean {} and deviation {}, here ".format(*weights.statistics)
        + f"{data.mean} and {data.std}: data.mean={mean} data.std={std} are theirs"
    ]


def _triple(value: float | Sequence[float]) -> tuple[float, ...]:
    """One number for R, G and B, or three."""
    return (value,) * 3 if isinstance(value, float | int) else tuple(value)


def too_large(world: World, needed: int) -> list[str]:
    """Whether a process's bytes exceed what its device has."""
    if world.device.type == "cuda":
        here = torch.cuda.get_device_properties(world.device).total_memory
    else:
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // world.size
    if needed <= here:
        return []
    return [
        f"{needed / GIB:.1f} GiB a process are more than the {here / GIB:.1f} GiB here: training.checkpointing=true, "
        "more training.accumulate, or more processes"
    ]
