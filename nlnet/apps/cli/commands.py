"""The typer application: all commands by name. It imports no torch, so that `--help` and completion are quick."""

from collections.abc import Callable
from typing import Annotated

import typer

import nlnet
from nlnet.apps.cli.attention import attend, explore
from nlnet.apps.cli.data import data_check, data_make
from nlnet.apps.cli.machine import bench, doctor
from nlnet.apps.cli.networks import convert, models
from nlnet.apps.cli.runs import evaluate, predict, report, score, train
from nlnet.apps.cli.studies import ablate, demo

app = typer.Typer(
    name="nlnet",
    help="Non-local neural networks on video: train, test on many views, predict, and see where the blocks look.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "test": evaluate,
    "report": report,
    "score": score,
    "predict": predict,
    "attend": attend,
    "convert": convert,
    "explore": explore,
    "models": models,
    "bench": bench,
    "doctor": doctor,
    "demo": demo,
    "ablate": ablate,
}
"""In the order of the help page. A new command is a function in one of the files beside this one and a line here."""
for name, command in COMMANDS.items():
    app.command(name)(command)
data_app = typer.Typer(help="Write the diagnostic videos, or check a data set.", no_args_is_help=True)
data_app.command("make")(data_make)
data_app.command("check")(data_check)
app.add_typer(data_app, name="data")


def print_version(wanted: bool) -> None:
    """Print the version and end the command, for `--version`."""
    if wanted:
        print(f"nlnet {nlnet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def run_command() -> int:
    """Run the command in `sys.argv` and return its exit code. Errors are raised, not printed."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort as abort:
        # typer hides two errors behind this one: Ctrl-C (in some versions), and an EOFError, which may be a bug
        raise abort.__cause__ or abort from None
    return code if isinstance(code, int) else 0
