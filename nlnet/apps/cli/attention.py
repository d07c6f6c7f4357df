"""The commands that show where a network attends: attend, explore."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Checkpoint, Device, Json, Run


def attend(
    run: Run,
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T,Y,X",
            help="A query position: frame of the clip, row and column of the crop. May be repeated.",
            show_default="where the block changes the features most",
        ),
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option(
            help="A non-local block, or a layer that contains blocks, such as layer3.1. May be repeated.",
            show_default="all",
        ),
    ] = None,
    queries: Annotated[
        int, typer.Option(min=1, help="Number of query positions to choose where --at is not given.")
    ] = 1,
    view: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of the test view.", show_default="the centre crop of the middle clip"
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Number of arrows, to the keys with the largest weights.")
    ] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files.", show_default="RUN/attention/VIDEO")
    ] = None,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw where the blocks attend in a video: arrows and heat maps as PNG, GIF and MP4, weights as JSON."""
    from nlnet.apps.attend.command import run_attend

    run_attend(
        run,
        video,
        at=at or [],
        blocks=block or [],
        queries=queries,
        view=view,
        top=top,
        out=out,
        checkpoint=checkpoint,
        device=device,
        as_json=as_json,
    )


def explore(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... VIDEO...", help="Run directories or .safetensors checkpoints, then videos."
        ),
    ],
    host: Annotated[
        str,
        typer.Option(help="Address to serve on. Any other than 127.0.0.1 opens the page to the network."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes any free one.")
    ] = 8765,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    checkpoint: Checkpoint = "last",
    upload_limit: Annotated[
        int, typer.Option(min=1, help="Largest video that can be dropped on the page, in MB.")
    ] = 200,
    export: Annotated[
        Path | None, typer.Option(help="Write the page to this HTML file instead of serving it.")
    ] = None,
    grid: Annotated[
        int, typer.Option(min=1, help="Query positions along each side of a frame in an exported page.")
    ] = 8,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Explore in the browser where the blocks attend: click on a frame, compare runs, upload a video."""
    from nlnet.apps.explorer.command import run_explore

    run_explore(
        paths,
        host=host,
        port=port,
        open_browser=open_browser,
        checkpoint=checkpoint,
        device=device,
        upload_limit_mb=upload_limit,
        export=export,
        grid=grid,
        as_json=as_json,
    )
