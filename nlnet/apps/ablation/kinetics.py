"""`nlnet ablate --recipe kinetics`: the paper's own rows at full size, for whoever has the videos and the GPUs.

The configurations are the recipes behind the tables' rows. One row at a time takes all GPUs (torchrun); a recipe that stands
behind several rows is run once, and one that starts from another row's weights waits for it. Nothing here was run by
us: `--dry-run` says what it would cost.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nlnet.apps.console import OUT, print_json, table
from nlnet.apps.jobs import Job, phase, work
from nlnet.apps.recipes.costs import assumption, network_cost, run_cost
from nlnet.apps.recipes.kinetics import IMAGENET, KINETICS
from nlnet.apps.recipes.published import TABLES, Published
from nlnet.engine.config import Config, override
from nlnet.engine.runs.atomic_write import write_json, write_text
from nlnet.errors import ConfigError

PAPER = tuple(name for name in TABLES if name.startswith("2"))
CLASSES = 400


@dataclass(frozen=True, kw_only=True)
class KineticsRun:
    """One recipe and seed."""

    recipe: str
    seed: int
    config: Config
    job: Job
    first: bool
    """Starts from ImageNet weights, not from another run."""


def run_kinetics(
    names: Sequence[str],
    assignments: Sequence[str],
    *,
    out: Path,
    seeds: int,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Exit code 1 where a run failed."""
    rows = [row for name in names for row in TABLES[name]]
    runs = plan_kinetics(rows, assignments, out=out.resolve(), seeds=seeds, device=device)
    if dry_run:
        costs = [cost_of(row, runs) for row in rows]
        if as_json:
            print_json({"rows": costs, "runs": len(runs), "gpu_hours": total_hours(runs)})
        else:
            show_costs(costs, runs)
        return 0
    missing = needs(runs)
    if missing:
        raise ConfigError(f"the paper's rows need {', '.join(missing)}, given as key=value after the tables")
    for run in runs.values():
        write_json(Path(run.job.recipe), run.config.model_dump(mode="json"))
    failed: dict[str, str] = {}
    for first in (True, False):
        waiting = [run for run in runs.values() if run.first == first]
        failed |= stranded(waiting, failed)
        jobs = [run.job for run in waiting if run.job.name not in failed]
        with phase(f"{len(jobs)} runs from {'ImageNet' if first else 'other rows'}"):
            failed |= work(jobs, at_once=1, environments=({},), keep_going=True)
    result = collect(rows, runs, failed)
    write_json(out / "kinetics.json", result)
    write_text(out / "kinetics.md", page(result))
    print_json(result) if as_json else OUT.print(page(result), markup=False)
    return 1 if failed else 0


def plan_kinetics(
    rows: Sequence[Published], assignments: Sequence[str], *, out: Path, seeds: int, device: str
) -> dict[tuple[str, int], KineticsRun]:
    """The runs of those rows and of the rows whose weights they start from, each once.

    Args:
        assignments: key=value for all rows; `r50:key=value` for the networks of that depth.
    """
    wanted = list(dict.fromkeys(row.recipe for row in rows))
    starts = [KINETICS[name].start for name in wanted if KINETICS[name].start != IMAGENET]
    runs = {}
    for recipe in dict.fromkeys([*starts, *wanted]):
        for seed in range(seeds):
            runs[recipe, seed] = _run(recipe, seed, assignments, out, device)
    return runs


def _run(recipe: str, seed: int, assignments: Sequence[str], out: Path, device: str) -> KineticsRun:
    known = KINETICS[recipe]
    depth, first = known.model.split("_")[1], known.start == IMAGENET
    config = override(
        known.config(), ["test.protocol=paper", *for_depth(assignments, depth), f"training.seed={seed}"]
    )
    folder = out / "kinetics"
    if not first:
        config = override(config, [f"init.weights={folder / f'{known.start}-s{seed}'}"])
    name = f"{recipe}-s{seed}"
    processes = torch.cuda.device_count() if device == "cuda" else 1
    job = Job(
        name,
        str(folder / f"{name}.config.json"),
        folder / name,
        (),
        tests=True,
        device=device,
        processes=max(1, processes),
    )
    return KineticsRun(recipe=recipe, seed=seed, config=config, job=job, first=first)


def stranded(runs: Sequence[KineticsRun], failed: Mapping[str, str]) -> dict[str, str]:
    """The runs whose weights should have come from one that failed, with that as their reason."""
    origins = {run.job.name: Path(run.config.init.weights or "").name for run in runs if not run.first}
    return {
        name: f"it starts from {origin}, which failed" for name, origin in origins.items() if origin in failed
    }


def for_depth(assignments: Sequence[str], depth: str) -> list[str]:
    """The assignments that are for networks of that depth."""
    taken = []
    for assignment in assignments:
        head, colon, rest = assignment.partition(":")
        if not colon or "=" in head:
            taken.append(assignment)
        elif head == depth:
            taken.append(rest)
    return taken


def needs(runs: Mapping[tuple[str, int], KineticsRun]) -> list[str]:
    """Keys that a run cannot do without and that were not given."""
    missing = set()
    for run in runs.values():
        missing |= {f"data.{k}" for k in ("train", "test") if getattr(run.config.data, k) is None}
        if run.config.init.weights is None:
            missing.add(f"{KINETICS[run.recipe].model.split('_')[1]}:init.weights")
    return sorted(missing)


def cost_of(row: Published, runs: Mapping[tuple[str, int], KineticsRun]) -> dict[str, Any]:
    config = runs[row.recipe, 0].config
    network = network_cost(config, CLASSES)
    return {
        "table": row.table,
        "row": row.row,
        "recipe": row.recipe,
        "paper": row.figures,
        "parameters": network.parameters,
        "macs": network.macs,
        "clips": run_cost(config, network).clips,
        "gpu_hours": run_cost(config, network).gpu_hours,
    }


def total_hours(runs: Mapping[tuple[str, int], KineticsRun]) -> float:
    return sum(run_cost(run.config, network_cost(run.config, CLASSES)).gpu_hours for run in runs.values())


def show_costs(costs: Sequence[Mapping[str, Any]], runs: Mapping[tuple[str, int], KineticsRun]) -> None:
    rows = [
        [
            f"{c['table']} {c['row']}",
            "{:.1f} / {:.1f}".format(*c["paper"]),
            f"{c['parameters'] / 1e6:.1f}",
            f"{c['macs'] / 1e9:.1f}",
            f"{c['clips'] / 1e6:.1f}",
            f"{c['gpu_hours']:.0f}",
        ]
        for c in costs
    ]
    columns = ["row", "paper, top-1 / 5", "params, M", "MACs, G", "clips, M", "GPU-hours"]
    OUT.print(table("The paper's rows at full size (not run here)", columns, rows))
    OUT.print(f"{len(runs)} runs, shared rows once: {total_hours(runs):,.0f} GPU-hours", highlight=False)
    OUT.print(assumption("float32"), highlight=False)
    missing = needs(runs)
    if missing:
        OUT.print(f"still to be given as key=value: {', '.join(missing)}", highlight=False)


def collect(
    rows: Sequence[Published], runs: Mapping[tuple[str, int], KineticsRun], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Ours beside the paper's, from the tests' summaries."""
    made = []
    for row in rows:
        mine = [run.job for (recipe, _), run in runs.items() if recipe == row.recipe]
        done = [job for job in mine if job.name not in failed]
        metrics = [json.loads((job.run / "test" / "summary.json").read_text())["metrics"] for job in done]
        made.append(
            {
                "table": row.table,
                "row": row.row,
                "paper": row.figures,
                "video_top1": [m["video_top1"] for m in metrics],
                "video_top5": [m["video_top5"] for m in metrics],
            }
        )
    return {"rows": made, "failed": dict(failed)}


def page(result: Mapping[str, Any]) -> str:
    lines = [
        "| table | row | paper, top-1 / top-5 | ours, top-1 by seed | ours, top-5 by seed |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ours = (" / ".join(f"{v:.1f}" for v in row[key]) or "–" for key in ("video_top1", "video_top5"))
        lines.append(
            "| {} | {} | {:.1f} / {:.1f} | {} | {} |".format(row["table"], row["row"], *row["paper"], *ours)
        )
    return "\n".join(lines) + "\n"
