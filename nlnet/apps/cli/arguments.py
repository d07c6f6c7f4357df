"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable results to stdout.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Run = Annotated[Path, typer.Argument(help="A run directory or a .safetensors checkpoint.")]
Checkpoint = Annotated[str, typer.Option(help="last or best (on validation).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, such as optimizer.lr=0.005")]
