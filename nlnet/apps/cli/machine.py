"""The commands on this machine: bench, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Device, Json


def bench(
    groups: Annotated[
        list[str],
        typer.Argument(
            metavar="GROUP", help="What to measure: op, growth, block, network, loader, test, or all."
        ),
    ],
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Seconds for each table; 5 to 25 rounds are timed.")
    ] = 15.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="as torch chooses")
    ] = None,
    device: Device = "cpu",
    precision: Annotated[str, typer.Option(help="For op, growth and block: float32 or bf16.")] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Whether to time networks under torch.compile too.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Also write the results to this JSON file.")] = None,
    as_json: Json = False,
) -> None:
    """Time the operation, the block, networks, the data loader and testing, each against a plain version."""
    from nlnet.apps.bench.command import run_bench

    run_bench(
        groups,
        seconds=seconds,
        threads=threads,
        device=device,
        precision=precision,
        compiled=compiled,
        out=out,
        as_json=as_json,
    )


def doctor(
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe or YAML file: print how many of its clips fit in memory instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, devices, video decoding, disk; or, with --recipe, how many clips fit in memory."""
    from nlnet.apps.verbs.doctor import run_doctor

    raise typer.Exit(run_doctor(recipe, as_json=as_json))
