"""`nlnet models`: every network with what it costs, and every recipe with what was reported for it."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nlnet.apps.console import OUT, bar, print_json
from nlnet.apps.recipes.catalogue import RECIPES
from nlnet.apps.recipes.costs import assumption, network_cost, run_cost
from nlnet.apps.recipes.kinetics import KINETICS, LONG, LONG_CLIPS, LONG_GROUPS, VIDEOS
from nlnet.apps.recipes.published import METRICS, TABLES, published
from nlnet.engine.config import Config, DataConfig, EvalConfig, ModelConfig
from nlnet.models.names import SCALES, list_models
from nlnet.models.resnet import TIMINGS

CLASSES = 400
UNREPORTED = "§5.1, in words alone"
"""Where the paper speaks of the one recipe without a figure, residual blocks in the place of non-local ones."""


def run_models(names: Sequence[str], variant: str, *, as_json: bool) -> None:
    """The networks that the globs name (all if there are none), on one kind of clip."""
    if variant not in TIMINGS:
        raise ValueError(f"variant: got {variant!r}, expected one of {', '.join(TIMINGS)}")
    chosen = [name for name in matching(names) if variant in variants(name)]
    if not chosen:
        raise ValueError(f"variant: {', '.join(names)} has no clip {variant}; give --variant 8x8")
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
        f"{CLASSES} classes; GMAC are 10⁹ multiply-adds of one clip, attention counted. Memory is what the forward pass "
        "of one training clip keeps for the gradient, in float32, and what is left of it with "
        f"training.checkpointing=true. Other clips: --variant {others} (the mini networks have 8x8). "
        "Recipes: nlnet models --recipes",
        highlight=False,
    )


def matching(globs: Sequence[str]) -> list[str]:
    """The networks with a name that a glob matches; all of them without globs."""
    known = list_models()
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            near = get_close_matches(glob, known, n=3)
            raise ValueError(f"no network {glob!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    return [name for name in known if not globs or any(fnmatchcase(name, glob) for glob in globs)]


def sides(name: str) -> tuple[int, int]:
    """Training crop and test crop of a network, pixels: 224 and 256 for those of the paper."""
    crop = SCALES[name.split("_")[1]].crop
    return crop, crop * 256 // 224


def variants(name: str) -> tuple[str, ...]:
    """The clips that make sense: the small networks have their own, shorter videos."""
    return tuple(TIMINGS) if sides(name)[0] == 224 else ("8x8",)


def model_row(name: str, variant: str) -> dict[str, Any]:
    """A network on its clip; long clips as the release trains them, with frozen norms and grouped blocks."""
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
    """A table for each training side."""
    timing = TIMINGS[variant]
    long = (
        "; norms frozen, blocks of res3 in runs of 4 frames. γ and β of frozen norms are no parameters: "
        "27.990 M are 28.043 M with them"
        if variant in LONG_CLIPS
        else ""
    )
    parts: list[Text | Table] = [
        Text(f"Networks on {variant}: {timing.frames} frames, every {timing.stride}{long}", style="bold")
    ]
    for crop, test in dict.fromkeys(sides(row["name"]) for row in rows):
        unit, size = ("GiB", 2**30) if crop == 224 else ("MiB", 2**20)
        made = _table("network", "M params", f"GMAC {crop}²", f"{test}²", f"{unit} a clip", "checkpointed")
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


def run_recipes(*, as_json: bool) -> None:
    """The recipes, table by table."""
    rows = {name: recipe_row(name) for name in KINETICS}
    if as_json:
        tables = {
            table: [
                {"row": r.row, "recipe": r.recipe, "published": list(r.figures), "protocol": r.protocol}
                for r in listed
            ]
            for table, listed in TABLES.items()
        }
        print_json({"recipes": rows, "tables": tables, "assumption": assumption("float32")})
        return
    for table, listed in TABLES.items():
        first, second = METRICS.get(table, ("top-1", "top-5"))
        made = _table("row", "recipe", first, second, "epochs", "GPU-h", left=2)
        for row in listed:
            cost = rows[row.recipe]
            epochs = "–" if cost["epochs"] is None else f"{cost['epochs']:.1f}"
            made.add_row(
                row.row, row.recipe, *(f"{f:.1f}" for f in row.figures), epochs, f"{cost['gpu_hours']:.0f}"
            )
        name = "The release's models" if table == "release" else f"Table {table} of the paper"
        OUT.print(Group(Text(f"{name}, test.protocol={listed[0].protocol}", style="bold"), made))
    others = [name for name in RECIPES if name not in {row.recipe for t in TABLES.values() for row in t}]
    OUT.print(f"Without a reported figure: {', '.join(others)}", highlight=False)
    OUT.print(
        f"Reported by the authors, not trained here. Epochs of {VIDEOS:,} videos. {assumption('float32')}. "
        "COCO detection (Tables 5 and 6) has no recipe. The plan of one: nlnet train RECIPE --dry-run",
        highlight=False,
    )


def recipe_row(name: str) -> dict[str, Any]:
    """Source, needs, cost and reported figures of a recipe."""
    recipe, config = KINETICS[name], RECIPES[name]()
    cost = run_cost(config, network_cost(config, recipe.classes))
    figures = [
        {
            "where": f"{row.place}: {row.row}",
            "metrics": list(row.metrics),
            "figures": list(row.figures),
            "protocol": row.protocol,
        }
        for row in published(name)
    ]
    return {
        "source": [row["where"] for row in figures] or [UNREPORTED],
        "command": f"nlnet train {name} data.train=PATH init.weights=PATH",
        "starts_from": recipe.origin,
        "devices": recipe.devices,
        "clips": cost.clips,
        "epochs": None if recipe.videos is None else cost.clips / recipe.videos,
        "gpu_hours": cost.gpu_hours,
        "published": figures,
    }


def _table(*columns: str, left: int = 1) -> Table:
    """Without a frame, so that a row fits 80 columns; the first `left` columns are text, the others numbers."""
    made = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for position, column in enumerate(columns):
        made.add_column(column, justify="left" if position < left else "right", overflow="fold")
    return made


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.3f}" if macs < 1e9 else f"{macs / 1e9:.2f}"
