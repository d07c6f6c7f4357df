"""The commands about this machine: bench, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Device, Json


def bench(
    groups: Annotated[list[str], typer.Argument(help="op, growth, block, network, loader, test, or all.")],
    seconds: Annotated[float, typer.Option(min=0.0, help="Spent on each table, 5 to 25 rounds.")] = 15.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; torch's own if not given.")] = None,
    device: Device = "cpu",
    precision: Annotated[str, typer.Option(help="float32 or bf16, for op, growth and block.")] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Whether compiled networks take part.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write the results there, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what you wait for: operation, block, network, loader and test, each beside the plain way, by turns."""
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
        typer.Option(help="A recipe or YAML file: say what of it fits into this machine's memory."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, devices, decoding, encoding, disk; with --recipe, what fits into its memory."""
    from nlnet.apps.verbs.doctor import run_doctor

    raise typer.Exit(run_doctor(recipe, as_json=as_json))
