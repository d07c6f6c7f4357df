"""The commands on the paper's networks and other projects' weights: models, convert."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Json


def convert(
    origin: Annotated[
        Path, typer.Argument(metavar="IN", help="A weight file of any project, or a run directory.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="model.key=value, such as model.variant=8x8")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="caffe2, caffe2_flat, slowfast, slowfast_pkl, pytorchvideo, mmaction2, torchvision; ours if not given."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="The project, where keys do not say it: slowfast_pkl.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Start this network from the weights; new parts stay fresh.")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="Class names, one a line.")] = None,
    as_json: Json = False,
) -> None:
    """Turn weight files of the release, PySlowFast, PyTorchVideo, mmaction2 or torchvision into ours, or back."""
    from nlnet.apps.verbs.convert import run_convert

    run_convert(
        origin,
        out,
        overrides or [],
        form=to,
        source=source,
        name=model,
        classes_file=classes,
        as_json=as_json,
    )


def models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Networks, such as 'i3d_r50*'; all if not given.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Clip as frames×stride: 32x2, 8x8, 128x1 or 32x4.")] = "32x2",
    recipes: Annotated[
        bool, typer.Option("--recipes", help="List the recipes of `nlnet train` instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the networks with parameters, multiply-adds and memory, or the recipes with cost and reported figures."""
    from nlnet.apps.verbs.models import run_models, run_recipes

    run_recipes(as_json=as_json) if recipes else run_models(names or [], variant, as_json=as_json)
