"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result to stdout as JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda; auto is cuda where there is a GPU.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory or a .safetensors checkpoint.")]
Checkpoint = Annotated[str, typer.Option(help="last, or best (the one with the highest validation score).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings to change, such as optimizer.lr=0.005"),
]
