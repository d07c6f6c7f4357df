"""`nlnet ablate`: the paper's ablation study, one command from nothing to tables.

A table (`ablation_tables`) is a list of rows; a row is a network on a data set, with the paper's figure beside it.
Rows × seeds are runs. A run's directory is named by the content of all that it depends on: the configuration, the
data set's facts, the 2-D network that it starts from, and `MEANING`. So a row of several tables is trained once, a
changed row is trained anew, and whatever stopped the study, the same command goes on where it was.

    out/data/NAME            the diagnostic videos                            data/diagnostic_files
    out/stills/DEPTH-HASH    one 2-D network for each depth, on single frames nlnet train
    out/runs/NAME-HASH-sK    every row and seed, and its test                 nlnet train, nlnet test
    out/ablations.md, .json, ablations/*.png                                  from the runs' files alone

Seeds are of fine-tuning: fresh weights, order, crops. The 2-D networks and the videos are the same for all.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nlnet.apps.ablation.plan import Plan, make_plan
from nlnet.apps.ablation.report import publish_results, report
from nlnet.apps.ablation.rows import TABLES
from nlnet.apps.ablation.sessions import Session
from nlnet.apps.ablation.study import Study, Table
from nlnet.apps.console import ERR, OUT, facts, print_json, table
from nlnet.apps.jobs import ONE_THREAD, phase, work
from nlnet.apps.verbs.data import write_videos
from nlnet.engine.signals import sigterm_raises
from nlnet.errors import ConfigError


def run_study(
    words: Sequence[str],
    *,
    out: Path,
    seeds: int,
    jobs: int | None,
    recipe: str,
    device: str,
    publish: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """`nlnet ablate` with either recipe; words with "=" are settings of the full-size one."""
    names, assignments = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe == "kinetics":
        from nlnet.apps.ablation.kinetics import PAPER, run_kinetics

        return run_kinetics(
            chosen(names, PAPER),
            assignments,
            out=out,
            seeds=seeds,
            device=device,
            dry_run=dry_run,
            as_json=as_json,
        )
    if recipe != "miniature":
        raise ConfigError(f"recipe: got {recipe!r}, expected miniature or kinetics")
    if assignments:
        raise ConfigError(
            f"{assignments[0]!r}: the miniature has one recipe for all rows; settings are for --recipe kinetics"
        )
    return run_ablations(
        names,
        out=out,
        seeds=seeds,
        jobs=jobs,
        device=device,
        dry_run=dry_run,
        as_json=as_json,
        publish=publish,
    )


def run_ablations(
    names: Sequence[str],
    *,
    out: Path,
    seeds: int,
    jobs: int | None,
    device: str,
    dry_run: bool,
    as_json: bool,
    publish: Path | None,
    study: Study | None = None,
    tables: Mapping[str, Table] = TABLES,
) -> int:
    """`nlnet ablate`. Exit code 1 where a run failed; its row is then missing, and said to be."""
    picked = {name: tables[name] for name in chosen(names, tables)}
    at_once = jobs or (torch.cuda.device_count() if device == "cuda" else os.cpu_count()) or 1
    plan = make_plan(picked, study or Study(), out.resolve(), seeds=seeds, device=device)
    if dry_run:
        show_plan(plan, jobs=at_once, as_json=as_json)
        return 0
    session = Session(plan.out, command_of(names, seeds=seeds, jobs=jobs, device=device))
    with sigterm_raises(SystemExit(143)):
        failed = run_plan(plan, at_once=at_once, places=environments(device), session=session)
    with phase("4. tables"):
        session.save()
        result = report(plan, failed=failed, command=session.entry["command"])
        if publish is not None:
            publish_results(plan.out, publish)
    print_json(result) if as_json else show(result, publish or plan.out)
    return 1 if failed else 0


def command_of(names: Sequence[str], *, seeds: int, jobs: int | None, device: str) -> str:
    """What was typed, as far as results depend on it."""
    more = [f"--jobs {jobs}"] * (jobs is not None) + [f"--device {device}"] * (device != "cpu")
    return " ".join(["nlnet ablate", *names, f"--seeds {seeds}", *more])


def run_plan(
    plan: Plan, *, at_once: int, places: Sequence[Mapping[str, str]], session: Session
) -> dict[str, str]:
    """Videos, 2-D networks, runs and their tests; the runs that failed, with the reason."""
    plan.write_configs()
    names = sorted({row.data for table in plan.tables.values() for row in table.rows})
    with phase(f"1. videos: {', '.join(names)}"):
        write_videos(plan.study.stills_spec, plan.data("stills"), {"stills": plan.study.stills})
        for name in names:
            write_videos(plan.study.data[name].spec, plan.data(name), plan.study.videos)
    with phase("2. stills: 2-D networks learn digits and colours"):
        work(plan.weighted(plan.stills.values()), at_once=at_once, environments=places)
    with phase(f"3. {len(plan.runs)} runs: rows × {plan.seeds} seeds, shared rows once"):
        return work(
            plan.weighted(plan.runs.values()),
            at_once=at_once,
            environments=places,
            keep_going=True,
            on_end=session.ended,
        )


def chosen(names: Sequence[str], tables: Iterable[str]) -> list[str]:
    """The tables asked for, in the order of the paper; "all" is every one."""
    tables = list(tables)
    unknown = [name for name in names if name not in tables and name != "all"]
    if unknown or not names:
        got = f"no table {unknown[0]!r}" if unknown else "no table given"
        raise ConfigError(f"{got}; expected {', '.join(tables)} or all")
    return [name for name in tables if name in names or "all" in names]


def environments(device: str) -> list[Mapping[str, str]]:
    """One thread a run on the CPU; each GPU in turn otherwise."""
    if device != "cuda":
        return [ONE_THREAD]
    return [ONE_THREAD | {"CUDA_VISIBLE_DEVICES": str(k)} for k in range(torch.cuda.device_count())]


def show_plan(plan: Plan, *, jobs: int, as_json: bool) -> None:
    """What would be run, and how long it takes on this machine."""
    from nlnet.apps.ablation.cost import estimate

    result = estimate(plan, jobs=jobs)
    if as_json:
        print_json(result)
        return
    rows = [
        [name, t["rows"], t["runs"], t["done"], f"{t['minutes']:.0f}"] for name, t in result["tables"].items()
    ]
    rows.append(["all together", None, result["runs"], result["done"], f"{result['minutes']:.0f}"])
    columns = ["table", "rows", "runs", "done", f"minutes, {jobs} at a time"]
    OUT.print(table("Each table on its own, and all together, where shared rows run once", columns, rows))
    OUT.print(facts("How the time was estimated", result["basis"]))


def show(result: Mapping[str, Any], where: Path) -> None:
    """The tables and verdicts."""
    for name, made in result["tables"].items():
        rows = [
            [
                row["name"],
                "–" if row["paper"] is None else f"{row['paper'][0]:.1f}",
                " / ".join(f"{s:.1f}" for s in row["accuracy"]["seeds"]),
                f"{row['accuracy']['value']:.1f} [{row['accuracy']['low']:.1f}, {row['accuracy']['high']:.1f}]",
                f"{row['macs'] / 1e6:.1f}",
            ]
            for row in made["rows"]
        ]
        columns = ["network", "paper, top-1 %", "ours by seed, %", "mean [95 %]", "MACs, M"]
        OUT.print(table(f"{name}. {made['title']}", columns, rows))
    for claim in result["claims"]:
        OUT.print(f"{claim['table']:>11}  [bold]{claim['verdict']}[/]: {claim['statement']}", highlight=False)
    for name, reason in result["failed"].items():
        ERR.print(f"{name} failed: {reason}", style="red", markup=False)
    OUT.print(f"tables and pictures: {where / 'ablations.md'}", markup=False)
