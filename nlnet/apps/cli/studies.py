"""The commands that run a whole study: demo, ablate."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Device, Json


def demo(
    out: Annotated[Path, typer.Option(help="Where data, runs and the report go.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tuning runs of each network.")] = 2,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; the number of cores if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The main job, whole: make videos, train three networks, test them on many views, report."""
    from nlnet.apps.demo.command import run_demo

    raise typer.Exit(run_demo(out, seeds=seeds, jobs=jobs, as_json=as_json))


def ablate(
    tables: Annotated[
        list[str],
        typer.Argument(help="2a … 2g, conventions, reach, or all; key=value sets data of --recipe kinetics."),
    ],
    out: Annotated[Path, typer.Option(help="Where data, runs and tables go.")] = Path("runs/ablations"),
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tuning runs of each row.")] = 2,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; the number of cores or GPUs if not given.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="miniature: the diagnostic videos; kinetics: the paper's own rows.")
    ] = "miniature",
    device: Device = "cpu",
    publish: Annotated[
        Path | None, typer.Option(help="Also copy page, JSON and pictures there, such as docs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs and their cost, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The paper's ablation study: train and test every row, and print its tables beside the paper's."""
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
