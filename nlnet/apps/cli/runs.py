"""The commands that work on runs: train, test, report, score, predict."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Checkpoint, Device, Json, Overrides, Run


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name (see `nlnet models`) or a YAML file.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/RECIPE if not given.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory.")] = None,
    until: Annotated[int | None, typer.Option(help="Stop with a checkpoint after this iteration.")] = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole plan and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network on videos; the same command under torchrun uses every process."""
    from nlnet.apps.verbs.train import run_training

    if (recipe is None) == (resume is None):
        raise typer.BadParameter("give a recipe, or --resume DIRECTORY")
    if resume is not None and overrides:
        raise typer.BadParameter("a resumed run keeps its configuration; overrides are for a new one")
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
        Path | None, typer.Option(help="Videos to test on; the run's data.test if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the scores; RUN/test if not given (none for a file).")
    ] = None,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Test on many views of each video and save every score.

    The protocol is the run's, else 10 clips × 3 crops as released; choose another as test.protocol=NAME:
    released, paper, slowfast, mmaction2, mmaction2_v1, single.
    """
    from nlnet.apps.verbs.test import run_test

    run_test(run, overrides or [], data=data, out=out, checkpoint=checkpoint, device=device, as_json=as_json)


def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path | None, typer.Option(help="Where the page goes; RUN/report if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page on a run: curves, whether its blocks learned, confusions, classes, the hardest videos."""
    from nlnet.apps.report.command import run_report

    run_report(run, out=out, as_json=as_json)


def score(
    sources: Annotated[
        list[Path], typer.Argument(help="Runs that were tested, test folders, or scores.safetensors files.")
    ],
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Weight of each source in the fusion, in order; equal if not given."),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Use that many of the saved clips, spread evenly.")
    ] = None,
    centre_crop: Annotated[bool, typer.Option("--centre-crop", help="Use the centre crop alone.")] = False,
    aggregate: Annotated[
        str | None, typer.Option(help="mean or max over the views; as tested if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge saved scores again without decoding: fewer clips, other aggregation, late fusion of several runs."""
    from nlnet.apps.verbs.score import run_score

    if aggregate not in (None, "mean", "max"):
        raise typer.BadParameter(f"--aggregate is mean or max, got {aggregate!r}")
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
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Classify video files, over the same views and by the same code as `nlnet test`."""
    from nlnet.apps.verbs.predict import run_predict

    raise typer.Exit(run_predict(run, videos, top=top, checkpoint=checkpoint, device=device, as_json=as_json))
