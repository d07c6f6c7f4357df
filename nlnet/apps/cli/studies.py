"""The commands that run a whole study: demo, ablate."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Device, Json


def demo(
    out: Annotated[Path, typer.Option(help="Folder for videos, runs and the report.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Number of training runs of each network.")] = 2,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of runs at a time.", show_default="the number of cores")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show in minutes that a non-local block helps: make videos, train three networks, test, report."""
    from nlnet.apps.demo.command import run_demo

    raise typer.Exit(run_demo(out, seeds=seeds, jobs=jobs, as_json=as_json))


def ablate(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE",
            help="Tables of the study: 2a to 2g, conventions, reach, or all. "
            "With --recipe kinetics also settings, such as data.train=PATH",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for videos, runs and tables.")] = Path("runs/ablations"),
    seeds: Annotated[int, typer.Option(min=1, help="Number of training runs of each row.")] = 2,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of runs at a time.", show_default="the number of cores, or of GPUs"),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(help="miniature (small networks on diagnostic videos), or kinetics (the paper's rows)."),
    ] = "miniature",
    device: Device = "cpu",
    publish: Annotated[
        Path | None, typer.Option(help="Also copy the page, its JSON and its pictures to this folder.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs and their cost, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the paper's ablation study: train and test every row, and compare it with the paper's numbers."""
    from nlnet.apps.ablation.command import run_study

    code = run_study(
        tables,
        out=out,
        seeds=seeds,
        jobs=jobs,
        recipe=recipe,
        device=device,
        publish=publish,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(code)
