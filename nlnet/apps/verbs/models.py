"""`nlnet models`: the networks with their parameters, multiply-adds and memory."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nlnet.apps.console import OUT, bar, open_table, print_json
from nlnet.apps.recipes.catalogue import RECIPES
from nlnet.apps.recipes.costs import network_cost
from nlnet.apps.recipes.kinetics import LONG, LONG_CLIPS, LONG_GROUPS
from nlnet.engine.config import Config, DataConfig, EvalConfig, ModelConfig
from nlnet.errors import NlnetError, did_you_mean
from nlnet.models.names import SCALES, list_models
from nlnet.models.resnet import TIMINGS

CLASSES = 400
"""Outputs of the classifier: Kinetics-400."""


def run_models(names: Sequence[str], variant: str, *, as_json: bool) -> None:
    """Run `nlnet models`: list the networks whose names match a pattern of `names`, or all, on clips of one kind.

    Raises:
        NlnetError: an unknown variant, a pattern that matches no network, or only networks without that variant.
    """
    if variant not in TIMINGS:
        raise NlnetError(
            f"--variant: got {variant!r}, expected one of {', '.join(TIMINGS)}{did_you_mean(variant, TIMINGS)}"
        )
    chosen = [name for name in matching(names) if variant in variants(name)]
    if not chosen:
        raise NlnetError(
            f"--variant: got {variant!r}, but {', '.join(names)} has clips of 8x8 only; give --variant 8x8"
        )
    progress = bar()
    rows = []
    with progress:
        task = progress.add_task("counting", total=len(chosen), note="")
        for name in chosen:
            progress.update(task, note=name)
            rows.append(model_row(name, variant))
            progress.advance(task)
    if as_json:
        print_json({"models": rows, "recipes": sorted(RECIPES)})
        return
    OUT.print(models_table(rows, variant))
    others = ", ".join(other for other in TIMINGS if other != variant)
    OUT.print(
        f"With {CLASSES} classes. GMAC: 10⁹ multiply-adds of one clip, attention included; the column head has the "
        "size of its crops in pixels. Memory: the activations of one training clip that the forward pass keeps for the gradient, in "
        "float32; the last column is with training.checkpointing=true. "
        f"Other clips: --variant {others} (mini networks have 8x8 only). Recipes: nlnet models --recipes",
        highlight=False,
    )


def matching(globs: Sequence[str]) -> list[str]:
    """Return the names of the networks that match one of the patterns; all names if there are no patterns."""
    known = list_models()
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            raise NlnetError(
                f"no network matches {glob!r}"
                + (did_you_mean(glob, known) or "; `nlnet models` lists all names")
            )
    return [name for name in known if not globs or any(fnmatchcase(name, glob) for glob in globs)]


def sides(name: str) -> tuple[int, int]:
    """Return the sides of a network's training crop and test crop in pixels; 224 and 256 in the paper."""
    crop = SCALES[name.split("_")[1]].crop
    return crop, crop * 256 // 224


def variants(name: str) -> tuple[str, ...]:
    """Return the kinds of clips that a network is for: all kinds, or 8x8 for mini networks (short videos)."""
    return tuple(TIMINGS) if sides(name)[0] == 224 else ("8x8",)


def model_row(name: str, variant: str) -> dict[str, Any]:
    """Return the cost of a network on one clip; on long clips, with the release's frozen norms and groups."""
    crop, test = sides(name)
    long = dict(LONG) if variant in LONG_CLIPS else {}
    if long and name.endswith(("_nl5", "_nl10")):
        long["groups"] = LONG_GROUPS
    config = Config(
        model=ModelConfig(name=name, variant=variant, **long),
        data=DataConfig(crop=crop, scales=(test, test)),
        test=EvalConfig(short_side=test, crop=test),
    )
    cost = network_cost(config, CLASSES)
    return {
        "name": name,
        "variant": variant,
        "parameters": cost.parameters,
        "macs": {str(crop): cost.macs, str(test): cost.eval_macs},
        "activation_bytes": {"kept": cost.memory.kept, "checkpointed": cost.memory.checkpointed},
    }


def models_table(rows: Sequence[Mapping[str, Any]], variant: str) -> Group:
    """Return the table of the networks; one table for each size of crop."""
    timing = TIMINGS[variant]
    long = (
        "; norms are frozen, and blocks of res3 attend within groups of 4 frames. Frozen γ and β do not count as "
        "parameters: 27.990 M would be 28.043 M with them"
        if variant in LONG_CLIPS
        else ""
    )
    parts: list[Text | Table] = [
        Text(
            f"Networks on {variant} clips: {timing.frames} frames with stride {timing.stride}{long}",
            style="bold",
        )
    ]
    for crop, test in dict.fromkeys(sides(row["name"]) for row in rows):
        unit, size = ("GiB", 2**30) if crop == 224 else ("MiB", 2**20)
        made = open_table(
            "network", "M params", f"GMAC {crop}²", f"{test}²", f"{unit} a clip", "checkpointed"
        )
        for row in rows:
            if sides(row["name"]) == (crop, test):
                kept = row["activation_bytes"]
                made.add_row(
                    row["name"],
                    f"{row['parameters'] / 1e6:.3f}",
                    *(_giga(macs) for macs in row["macs"].values()),
                    *(f"{kept[key] / size:.2f}" for key in ("kept", "checkpointed")),
                )
        parts.append(made)
    return Group(*parts)


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.3f}" if macs < 1e9 else f"{macs / 1e9:.2f}"
