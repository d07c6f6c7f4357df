"""The commands that show where a network looks: attend, explore."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Checkpoint, Device, Json, Run


def attend(
    run: Run,
    video: Annotated[Path, typer.Argument(help="A video file.")],
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="t,y,x in the clip: frame, row, column. May be repeated; else chosen automatically."
        ),
    ] = None,
    block: Annotated[
        list[str] | None, typer.Option(help="A block such as layer3.1. May be repeated; else all.")
    ] = None,
    queries: Annotated[
        int, typer.Option(min=1, help="Positions to choose: those that the block changes most.")
    ] = 1,
    view: Annotated[
        int | None,
        typer.Option(min=0, help="Number of the test view; else the centre crop of the middle clip."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Arrows, to the keys of largest weight.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Where the files go; RUN/attention/VIDEO if not given.")
    ] = None,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show where the blocks look from positions of a video: arrows and heat maps as PNG, GIF and MP4, and numbers."""
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
        str, typer.Option(help="Address to serve on; any but loopback lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8765,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    checkpoint: Checkpoint = "last",
    upload_limit: Annotated[
        int, typer.Option(min=1, help="Largest video that can be dropped on the page, MB.")
    ] = 200,
    export: Annotated[
        Path | None, typer.Option(help="Write one self-contained HTML file instead of serving.")
    ] = None,
    grid: Annotated[int, typer.Option(min=1, help="Exported positions along each side of a frame.")] = 8,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """See in the browser where the blocks look: click on a frame; compare runs; drop a video on the page."""
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
