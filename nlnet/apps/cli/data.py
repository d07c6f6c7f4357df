"""`nlnet data make` and `nlnet data check`."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Json


def data_make(
    out: Annotated[Path, typer.Argument(help="Directory to create.")],
    task: Annotated[str, typer.Option(help="space, time or spacetime.")] = "spacetime",
    train: Annotated[int, typer.Option(min=1, help="Training clips.")] = 4000,
    val: Annotated[int, typer.Option(min=1, help="Validation clips.")] = 200,
    test: Annotated[int, typer.Option(min=1, help="Test clips.")] = 1000,
    stills: Annotated[int, typer.Option(min=0, help="Training stills (a tenth more for validation).")] = 4000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write the diagnostic data set as encoded .mp4 files in class folders."""
    from nlnet.apps.verbs.data import run_data_make

    run_data_make(out, task=task, counts={"train": train, "val": val, "test": test}, stills=stills, seed=seed)


def data_check(
    source: Annotated[
        Path, typer.Argument(help="A folder of class folders, a list, or a data set's own annotation file.")
    ],
    root: Annotated[
        Path | None, typer.Option(help="Where relative paths start and named videos are looked for.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="What SOURCE is, as data.format, where it does not say so itself.")
    ] = "auto",
    classes: Annotated[
        Path | None, typer.Option(help="A file of class names in order, as data.classes.")
    ] = None,
    first_frame: Annotated[
        bool,
        typer.Option(
            "--first-frame", help="Decode only the first frame of each: quick, and blind to later damage."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; the number of cores if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode every video of a data set; list those that are not there or cannot be read (then exit code 1)."""
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
