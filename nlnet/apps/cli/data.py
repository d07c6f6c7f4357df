"""The commands on videos: data make, data check."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Json


def data_make(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to create.")],
    task: Annotated[
        str, typer.Option(help="What separates the digits of a video: space, time, or both (spacetime).")
    ] = "spacetime",
    train: Annotated[int, typer.Option(min=1, help="Number of training videos.")] = 4000,
    val: Annotated[int, typer.Option(min=1, help="Number of validation videos.")] = 200,
    test: Annotated[int, typer.Option(min=1, help="Number of test videos.")] = 1000,
    stills: Annotated[
        int,
        typer.Option(min=0, help="Number of training stills (single frames); a tenth more for validation."),
    ] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")] = 0,
) -> None:
    """Write the diagnostic data set, digits on coloured tiles, as .mp4 files in class folders."""
    from nlnet.apps.verbs.data import run_data_make

    run_data_make(out, task=task, counts={"train": train, "val": val, "test": test}, stills=stills, seed=seed)


def data_check(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder of class folders, a list, or a data set's annotation file."
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the videos that SOURCE names.", show_default="the folder of SOURCE"),
    ] = None,
    format: Annotated[
        str, typer.Option(help="Format of SOURCE (the setting data.format); auto detects it.")
    ] = "auto",
    classes: Annotated[
        Path | None, typer.Option(help="A file with the class names in order (the setting data.classes).")
    ] = None,
    first_frame: Annotated[
        bool,
        typer.Option(
            "--first-frame", help="Decode only the first frame of each video: quick, but misses later damage."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes.", show_default="the number of cores")
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode every video of a data set, and list those that are missing or damaged (exit code 1)."""
    from nlnet.apps.verbs.data import run_data_check

    code = run_data_check(
        source,
        root=root,
        format=format,
        classes=classes,
        first_frame=first_frame,
        workers=workers,
        as_json=as_json,
    )
    raise typer.Exit(code)
