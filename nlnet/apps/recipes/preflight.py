"""Warnings before a training run: missing inputs, differences from the recipe, too little memory.

Each function returns its warnings as lines of text; none if there is nothing to warn of.
"""

import os
from collections.abc import Sequence

import torch

from nlnet.apps.recipes.costs import GIB
from nlnet.apps.recipes.kinetics import Recipe
from nlnet.engine.config import Config
from nlnet.engine.distributed import World
from nlnet.engine.runs.directory import RunDir
from nlnet.weights.read import Weights


def missing_inputs(config: Config, recipe: Recipe | None, run: RunDir, resumed_at: int | None) -> list[str]:
    """Warn of what is missing: videos, initial weights, a free run directory."""
    found = []
    if resumed_at is None and run.exists:
        found.append(
            f"{run.path} has a run already: choose another --out, or continue that run with --resume"
        )
    if config.data.train is None:
        found.append("no training videos: give data.train=PATH")
    if config.data.val is None:
        found.append("no validation videos, so no best checkpoint will be saved: give data.val=PATH")
    if resumed_at is None and config.init.weights is None and recipe is not None:
        found.append(
            f"no initial weights, but the recipe starts from {recipe.origin}: give init.weights=PATH"
        )
    return found


def differences(config: Config, base: Config, recipe: Recipe | None, processes: int) -> list[str]:
    """Warn where batch, length or batch norm differ from the recipe `base`, with the settings that undo it.

    The learning rate needs no warning: it follows the batch (`optimizer.reference_batch`).
    """
    batch, iterations = config.training.batch, config.schedule.iterations
    per_pass = batch / (processes * config.training.accumulate)
    found = []
    if per_pass != int(per_pass):
        found.append(
            f"a batch of {batch} clips cannot be divided into {processes} processes × {config.training.accumulate} "
            "passes, so training will not start: change training.batch or training.accumulate"
        )
    if batch * iterations != base.training.batch * base.schedule.iterations:
        # the factor by which the schedule has to grow to see as many clips as the recipe
        factor = base.training.batch * base.schedule.iterations / (batch * iterations)
        settings = f"schedule.iterations={round(iterations * factor)}"
        if config.schedule.policy == "step":
            steps = ",".join(str(round(step * factor)) for step in config.schedule.steps)
            settings += f" schedule.steps=[{steps}]"
        found.append(
            f"{batch} clips × {iterations:,} iterations are {1 / factor:.3g} times the recipe's clips; "
            f"as many epochs as the recipe's: {settings}"
        )
    # frozen norms, on long clips, do not depend on the batch
    if recipe is not None and not recipe.long:
        usual = base.training.batch // recipe.devices
        if per_pass != usual:
            line = (
                f"batch norm sees {per_pass:g} clips at a time, {usual} in the recipe ({recipe.devices} GPUs)"
            )
            if batch % (processes * usual) == 0:
                line += f"; training.accumulate={batch // processes // usual} makes it {usual}"
            found.append(line)
    return found


def other_normalisation(config: Config, weights: Weights | None) -> list[str]:
    """Warn if pixels are normalised differently from those that the initial weights were trained on."""
    if weights is None or weights.statistics is None:
        return []
    data = config.data
    if all(_triple(a) == _triple(b) for a, b in zip(weights.statistics, (data.mean, data.std), strict=True)):
        return []
    mean, std = (f"[{','.join(map(str, _triple(value)))}]" for value in weights.statistics)
    return [
        "init.weights were trained on pixels with mean {} and standard deviation {}, ".format(
            *weights.statistics
        )
        + f"but this run has {data.mean} and {data.std}; the same as theirs: data.mean={mean} data.std={std}"
    ]


def _triple(value: float | Sequence[float]) -> tuple[float, ...]:
    """Return the values of R, G and B, which may be given as one number for all."""
    return (value,) * 3 if isinstance(value, float | int) else tuple(value)


def too_large(world: World, needed: int) -> list[str]:
    """Warn if a process needs more memory than it has: the GPU's, or its share of the machine's."""
    if world.device.type == "cuda":
        available = torch.cuda.get_device_properties(world.device).total_memory
    else:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // world.size
    if needed <= available:
        return []
    return [
        f"a process needs {needed / GIB:.1f} GiB and has {available / GIB:.1f} GiB: give training.checkpointing=true, "
        "a larger training.accumulate, or more processes"
    ]
