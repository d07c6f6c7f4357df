"""`nlnet ablate --recipe kinetics`: train and test the paper's own rows at full size, on Kinetics-400.

Needs the videos and GPUs; nlnet's authors have not run it, and `--dry-run` prints what it would cost. The runs go one
after the other, each on all GPUs (torchrun). Rows with the same recipe share a run; a recipe that starts from the
weights of another row runs after it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nlnet.apps.console import OUT, print_json, table
from nlnet.apps.jobs import Job, phase, run_jobs
from nlnet.apps.recipes.costs import assumption, network_cost, run_cost
from nlnet.apps.recipes.kinetics import IMAGENET, KINETICS
from nlnet.apps.recipes.published import TABLES, Published
from nlnet.engine.config import Config, override
from nlnet.engine.runs.atomic_write import write_json, write_text
from nlnet.errors import ConfigError

PAPER = tuple(name for name in TABLES if name.startswith("2"))
"""The ablation tables of the paper, 2a to 2g."""
CLASSES = 400


@dataclass(frozen=True, kw_only=True)
class KineticsRun:
    """The training run of one recipe and seed."""

    recipe: str
    seed: int
    config: Config
    job: Job
    from_imagenet: bool
    """Whether it starts from ImageNet weights; otherwise from the weights of another run."""


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
    """Run the rows of some tables, or print their cost (`dry_run`); return the exit code, 1 if a run failed."""
    rows = [row for name in names for row in TABLES[name]]
    runs = plan_kinetics(rows, assignments, out=out.resolve(), seeds=seeds, device=device)
    if dry_run:
        costs = [cost_of(row, runs) for row in rows]
        if as_json:
            print_json({"rows": costs, "runs": len(runs), "gpu_hours": total_hours(runs)})
        else:
            show_costs(costs, runs)
        return 0
    missing = missing_settings(runs)
    if missing:
        raise ConfigError(
            f"settings are missing: {', '.join(missing)}; give each as key=value after the tables"
        )
    for run in runs.values():
        write_json(Path(run.job.recipe), run.config.model_dump(mode="json"))
    failed: dict[str, str] = {}
    # two rounds are enough: a run that starts from another row's weights starts from one that starts from ImageNet
    for from_imagenet in (True, False):
        waiting = [run for run in runs.values() if run.from_imagenet == from_imagenet]
        failed |= without_start(waiting, failed)
        jobs = [run.job for run in waiting if run.job.name not in failed]
        with phase(f"{len(jobs)} runs that start from {'ImageNet' if from_imagenet else 'other rows'}"):
            failed |= run_jobs(jobs, at_once=1, environments=({},), keep_going=True)
    result = collect(rows, runs, failed)
    write_json(out / "kinetics.json", result)
    write_text(out / "kinetics.md", page(result))
    print_json(result) if as_json else OUT.print(page(result), markup=False)
    return 1 if failed else 0


def plan_kinetics(
    rows: Sequence[Published], assignments: Sequence[str], *, out: Path, seeds: int, device: str
) -> dict[tuple[str, int], KineticsRun]:
    """Return {(recipe, seed): run} for the rows, and for the rows whose weights they start from.

    Args:
        assignments: `key=value` for all rows; `r50:key=value` for the networks of depth r50 alone.
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
    depth, from_imagenet = known.model.split("_")[1], known.start == IMAGENET
    # the paper's figures are from whole frames; before the user's settings, which may choose another protocol
    config = override(
        known.config(), ["test.protocol=paper", *for_depth(assignments, depth), f"training.seed={seed}"]
    )
    folder = out / "kinetics"
    # after the user's settings: init.weights of a depth are the ImageNet weights, which this run does not start from
    if not from_imagenet:
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
    return KineticsRun(recipe=recipe, seed=seed, config=config, job=job, from_imagenet=from_imagenet)


def without_start(runs: Sequence[KineticsRun], failed: Mapping[str, str]) -> dict[str, str]:
    """Return {run: reason} of the runs that cannot start, because the run whose weights they need failed."""
    origins = {
        run.job.name: Path(run.config.init.weights or "").name for run in runs if not run.from_imagenet
    }
    return {
        name: f"it starts from {origin}, which failed" for name, origin in origins.items() if origin in failed
    }


def for_depth(assignments: Sequence[str], depth: str) -> list[str]:
    """Return the assignments for one depth, without the prefix `DEPTH:`; one that has no prefix is for all."""
    taken = []
    for assignment in assignments:
        head, colon, rest = assignment.partition(":")
        # a colon after the "=" belongs to the value, such as a path
        if not colon or "=" in head:
            taken.append(assignment)
        elif head == depth:
            taken.append(rest)
    return taken


def missing_settings(runs: Mapping[tuple[str, int], KineticsRun]) -> list[str]:
    """Return the keys that the runs need and that have no value: data sets and ImageNet weights."""
    missing = set()
    for run in runs.values():
        missing |= {f"data.{k}" for k in ("train", "test") if getattr(run.config.data, k) is None}
        if run.config.init.weights is None:
            missing.add(f"{KINETICS[run.recipe].model.split('_')[1]}:init.weights")
    return sorted(missing)


def cost_of(row: Published, runs: Mapping[tuple[str, int], KineticsRun]) -> dict[str, Any]:
    """Return what one run of a row costs, for the table of `--dry-run` and its JSON."""
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
    """Return the GPU-hours of all runs, each counted once."""
    return sum(run_cost(run.config, network_cost(run.config, CLASSES)).gpu_hours for run in runs.values())


def show_costs(costs: Sequence[Mapping[str, Any]], runs: Mapping[tuple[str, int], KineticsRun]) -> None:
    """Print the cost of each row and of all runs, and the settings that are missing."""
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
    OUT.print(table("The paper's rows at full size: estimated cost of one run of each row", columns, rows))
    OUT.print(
        f"{len(runs)} runs in all: {total_hours(runs):,.0f} GPU-hours; rows of one recipe share a run",
        highlight=False,
    )
    OUT.print(assumption("float32"), highlight=False)
    missing = missing_settings(runs)
    if missing:
        OUT.print(
            f"missing settings; give each as key=value after the tables: {', '.join(missing)}",
            highlight=False,
        )


def collect(
    rows: Sequence[Published], runs: Mapping[tuple[str, int], KineticsRun], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Return our accuracies beside the paper's for each row, from the summaries of the tests."""
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
    """Return kinetics.md: a table of the paper's accuracies and ours."""
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
