"""`nlnet ablate`: run the ablation study, from making the videos to writing the tables.

A table (rows.py) is a list of rows; a row is a network on a data set, with the paper's figure beside it. Each row is
trained once for each seed. A run's directory carries a hash of everything that the run depends on (plan.py). So a row
that stands in several tables is trained once, a changed row is trained anew, and a study that was stopped goes on
where it was when the same command is given again.

    out/data/NAME            the diagnostic videos of one data set                nlnet.data.diagnostic
    out/stills/DEPTH-HASH    one 2-D network for each depth, on single frames     nlnet train
    out/runs/NAME-HASH-sK    one row and seed, and its test                       nlnet train, nlnet test
    out/ablations.md, .json, ablations/*.png                                      from the runs' files alone

A seed decides the fresh weights, the sample order and the crops of fine-tuning. All seeds share the videos and the 2-D
networks.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nlnet.apps.ablation.plan import Plan, make_plan
from nlnet.apps.ablation.report import publish_results, report
from nlnet.apps.ablation.results import Session
from nlnet.apps.ablation.rows import TABLES
from nlnet.apps.ablation.study import Study, Table
from nlnet.apps.console import ERR, OUT, facts, print_json, table
from nlnet.apps.jobs import ONE_THREAD, phase, run_jobs
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
    """Run `nlnet ablate`: the miniature study, or the paper's own rows with `recipe="kinetics"`.

    Args:
        words: names of tables; `key=value` settings are for the kinetics recipe.

    Returns:
        The exit code: 1 if a run failed.
    """
    names, assignments = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    # resolved here: the jobs need the device by name, and their number depends on it
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe == "kinetics":
        from nlnet.apps.ablation.kinetics import PAPER, run_kinetics

        return run_kinetics(
            chosen_tables(names, PAPER),
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
            f"{assignments[0]!r}: --recipe miniature takes no settings, all of its rows are trained alike; remove it, "
            "or use --recipe kinetics"
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
    """Run the miniature study; return the exit code, 1 if a run failed.

    The tables leave out the row of a failed run, and list the run with its reason.
    """
    picked = {name: tables[name] for name in chosen_tables(names, tables)}
    # a run on the CPU takes one core, one on CUDA a GPU
    at_once = jobs or (torch.cuda.device_count() if device == "cuda" else os.cpu_count()) or 1
    plan = make_plan(picked, study or Study(), out.resolve(), seeds=seeds, device=device)
    if dry_run:
        show_plan(plan, jobs=at_once, as_json=as_json)
        return 0
    session = Session(plan.out, command_of(names, seeds=seeds, jobs=jobs, device=device))
    # a termination signal unwinds the stack, so that the running processes are ended and write their checkpoints
    with sigterm_raises(SystemExit(143)):
        failed = run_plan(plan, at_once=at_once, environments=job_environments(device), session=session)
    with phase("4. tables"):
        session.save()
        result = report(plan, failed=failed, command=session.entry["command"])
        if publish is not None:
            publish_results(plan.out, publish)
    print_json(result) if as_json else show(result, publish or plan.out)
    return 1 if failed else 0


def command_of(names: Sequence[str], *, seeds: int, jobs: int | None, device: str) -> str:
    """Return the command line without the options that do not affect results, such as --out."""
    more = [f"--jobs {jobs}"] * (jobs is not None) + [f"--device {device}"] * (device != "cpu")
    return " ".join(["nlnet ablate", *names, f"--seeds {seeds}", *more])


def run_plan(
    plan: Plan, *, at_once: int, environments: Sequence[Mapping[str, str]], session: Session
) -> dict[str, str]:
    """Make the videos, train the 2-D networks, train and test every row; return {run: reason} of the failed runs."""
    plan.write_configs()
    names = sorted({row.data for table in plan.tables.values() for row in table.rows})
    with phase(f"1. videos: {', '.join(names)}"):
        write_videos(plan.study.stills_spec, plan.data("stills"), {"stills": plan.study.stills})
        for name in names:
            write_videos(plan.study.data[name].spec, plan.data(name), plan.study.videos)
    with phase("2. stills: training 2-D networks on single frames"):
        run_jobs(plan.weighted(plan.stills.values()), at_once=at_once, environments=environments)
    with phase(f"3. runs: fine-tuning and testing {len(plan.runs)} networks, {plan.seeds} seeds a row"):
        return run_jobs(
            plan.weighted(plan.runs.values()),
            at_once=at_once,
            environments=environments,
            keep_going=True,  # one failed row must not stop a study of hours
            on_end=session.add_run,
        )


def chosen_tables(names: Sequence[str], tables: Iterable[str]) -> list[str]:
    """Return the requested tables in the order of the paper; "all" selects every table.

    Raises:
        ConfigError: no name, or a name that is no table.
    """
    tables = list(tables)
    unknown = [name for name in names if name not in tables and name != "all"]
    if unknown or not names:
        got = f"there is no table {unknown[0]!r}" if unknown else "no table was given"
        raise ConfigError(f"{got}; expected {', '.join(tables)} or all")
    return [name for name in tables if name in names or "all" in names]


def job_environments(device: str) -> list[Mapping[str, str]]:
    """Return environment variables for jobs that run at the same time: one thread each, and on CUDA one GPU each."""
    if device != "cuda":
        return [ONE_THREAD]
    return [ONE_THREAD | {"CUDA_VISIBLE_DEVICES": str(k)} for k in range(torch.cuda.device_count())]


def show_plan(plan: Plan, *, jobs: int, as_json: bool) -> None:
    """Print the planned runs of each table and the estimated time (`--dry-run`)."""
    from nlnet.apps.ablation.cost import estimate

    result = estimate(plan, jobs=jobs)
    if as_json:
        print_json(result)
        return
    rows = [
        [name, t["rows"], t["runs"], t["done"], f"{t['minutes']:.0f}"] for name, t in result["tables"].items()
    ]
    rows.append(["all tables", None, result["runs"], result["done"], f"{result['minutes']:.0f}"])
    columns = ["table", "rows", "runs", "done", f"minutes, {jobs} at a time"]
    OUT.print(
        table(
            "Runs and time of each table, and of all tables (a row in several tables runs once)",
            columns,
            rows,
        )
    )
    OUT.print(facts("How the time was estimated", result["basis"]))


def show(result: Mapping[str, Any], where: Path) -> None:
    """Print the tables, the verdicts and the runs that failed."""
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
