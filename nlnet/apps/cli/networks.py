"""The commands on networks and on weights of other projects: models, convert."""

from pathlib import Path
from typing import Annotated

import typer

from nlnet.apps.cli.arguments import Json


def convert(
    origin: Annotated[
        Path, typer.Argument(metavar="IN", help="A weight file of any project, or a run directory.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; it must not exist.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of the network and its data, such as model.variant=8x8",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="caffe2, caffe2_flat, slowfast_pkl, slowfast, pytorchvideo, mmaction2 or torchvision.",
            show_default="a checkpoint of nlnet",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT",
            help="The project that IN comes from, if its keys do not show it: slowfast_pkl.",
            show_default="detected",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Load the weights into this network; layers that IN lacks are initialised.",
            show_default="the network of IN",
        ),
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="A file with one class name per line.")] = None,
    as_json: Json = False,
) -> None:
    """Convert weight files of other projects into checkpoints of nlnet, and back."""
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
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Names or patterns of networks, such as 'i3d_r50*'.", show_default="all"
        ),
    ] = None,
    variant: Annotated[
        str, typer.Option(help="The clip, as frames x stride: 32x2, 128x1, 8x8 or 32x4.")
    ] = "32x2",
    recipes: Annotated[
        bool, typer.Option("--recipes", help="List the recipes of `nlnet train` instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List networks with parameters, multiply-adds and memory; or, with --recipes, recipes and their accuracy."""
    if recipes:
        if names:
            raise typer.BadParameter(
                "lists all recipes, whatever the network; remove the names of networks",
                param_hint="'--recipes'",
            )
        from nlnet.apps.verbs.recipe_list import run_recipe_list

        run_recipe_list(as_json=as_json)
    else:
        from nlnet.apps.verbs.models import run_models

        run_models(names or [], variant, as_json=as_json)
