"""The commands that work on runs: train, test, report, score, predict."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Checkpoint, Device, Json, Overrides, Run


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="Name of a recipe (`nlnet models --recipes` lists them), or a YAML file."
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="The new run directory.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this directory.")] = None,
    until: Annotated[
        int | None, typer.Option(min=1, help="Write a checkpoint after this iteration, and stop.")
    ] = None,
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan of the run and its cost, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a network on videos; under torchrun, on several GPUs or processes."""
    if resume is not None and recipe is not None:
        raise typer.BadParameter(
            "a resumed run keeps its recipe and its settings; give --resume alone", param_hint="'--resume'"
        )
    if recipe is None and resume is None:
        raise typer.BadParameter("give a recipe, or --resume DIRECTORY", param_hint="'RECIPE'")

    from nlnet.apps.verbs.train import run_training

    code = run_training(
        recipe,
        overrides or [],
        out=out,
        resume=resume,
        until=until,
        device=device,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(code)


def evaluate(
    run: Run,
    overrides: Overrides = None,
    data: Annotated[
        Path | None, typer.Option(help="Videos to test on.", show_default="data.test of the run")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the scores.", show_default="RUN/test; not saved if RUN is a file"),
    ] = None,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Test on many views of each video, and save the scores of every view.

    The protocol chooses the views: that of the run, or test.protocol=NAME.
    Names: released (10 clips × 3 crops), paper, slowfast, mmaction2, mmaction2_v1, single.
    """
    from nlnet.apps.verbs.test import run_test

    run_test(run, overrides or [], data=data, out=out, checkpoint=checkpoint, device=device, as_json=as_json)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the page.", show_default="RUN/report")] = None,
    as_json: Json = False,
) -> None:
    """Write a page about a run: training curves, block statistics, confused classes, the hardest videos."""
    from nlnet.apps.report.command import run_report

    run_report(run, out=out, as_json=as_json)


def score(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Tested runs, test folders, or scores.safetensors files."),
    ],
    weight: Annotated[
        list[float] | None,
        typer.Option(
            help="Weight of a source in the fusion; repeat the option for each source, in order.",
            show_default="1",
        ),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="Use this many of the saved clips, evenly spread over the video."),
    ] = None,
    centre_crop: Annotated[bool, typer.Option("--centre-crop", help="Use the centre crop alone.")] = False,
    aggregate: Annotated[
        str | None,
        typer.Option(help="How the scores of the views are combined: mean or max.", show_default="as tested"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute metrics from saved scores: with fewer views, another aggregation, or several runs fused."""
    if aggregate not in (None, "mean", "max"):
        raise typer.BadParameter(f"got {aggregate!r}, expected mean or max", param_hint="'--aggregate'")

    from nlnet.apps.verbs.score import run_score

    run_score(
        sources,
        weights=weight or None,
        clips=clips,
        centre_crop=centre_crop,
        aggregate=aggregate,  # type: ignore[arg-type]
        as_json=as_json,
    )


def predict(
    run: Run,
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO", help="Video files.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print, the most likely first.")] = 5,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Classify video files: the most likely classes, on the same views as `nlnet test`."""
    from nlnet.apps.verbs.predict import run_predict

    raise typer.Exit(run_predict(run, videos, top=top, checkpoint=checkpoint, device=device, as_json=as_json))
