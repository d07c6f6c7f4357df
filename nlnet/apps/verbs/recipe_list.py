"""`nlnet models --recipes`: the recipes with their cost and the accuracy that paper and release report."""

from typing import Any

from rich.console import Group
from rich.text import Text

from nlnet.apps.console import OUT, open_table, print_json
from nlnet.apps.recipes.catalogue import RECIPES
from nlnet.apps.recipes.costs import assumption, network_cost, run_cost
from nlnet.apps.recipes.kinetics import KINETICS, VIDEOS
from nlnet.apps.recipes.published import METRICS, TABLES, published

UNREPORTED = "§5.1, in words alone"
"""Where the paper mentions the one recipe that it reports no figure of: residual blocks instead of non-local ones."""


def run_recipe_list(*, as_json: bool) -> None:
    """Run `nlnet models --recipes`: one table of recipes for each table of the paper, and one for the release."""
    rows = {name: recipe_row(name) for name in KINETICS}
    if as_json:
        tables = {
            table: [
                {"row": r.row, "recipe": r.recipe, "published": list(r.figures), "protocol": r.protocol}
                for r in reported
            ]
            for table, reported in TABLES.items()
        }
        print_json({"recipes": rows, "tables": tables, "assumption": assumption("float32")})
        return
    for table, reported in TABLES.items():
        first, second = METRICS.get(table, ("top-1", "top-5"))
        made = open_table("row", "recipe", first, second, "epochs", "GPU-h", left=2)
        for row in reported:
            cost = rows[row.recipe]
            epochs = "–" if cost["epochs"] is None else f"{cost['epochs']:.1f}"
            made.add_row(
                row.row, row.recipe, *(f"{f:.1f}" for f in row.figures), epochs, f"{cost['gpu_hours']:.0f}"
            )
        name = "Models of the release" if table == "release" else f"Table {table} of the paper"
        OUT.print(Group(Text(f"{name}, test.protocol={reported[0].protocol}", style="bold"), made))
    in_tables = {row.recipe for reported in TABLES.values() for row in reported}
    others = [name for name in RECIPES if name not in in_tables]
    OUT.print(f"Without a reported figure: {', '.join(others)}", highlight=False)
    OUT.print(
        f"The figures are the authors' own: no recipe was trained here. An epoch has {VIDEOS:,} videos. "
        f"{assumption('float32')}. COCO detection (Tables 5 and 6) has no recipe. "
        "The plan of a recipe: nlnet train RECIPE --dry-run",
        highlight=False,
    )


def recipe_row(name: str) -> dict[str, Any]:
    """Return where a recipe comes from, what it starts from, its cost, and its reported figures."""
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
