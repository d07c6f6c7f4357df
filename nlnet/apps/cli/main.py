"""The command line: one verb each. `--help` imports no torch; every verb fetches what it needs when it runs."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

import nlnet
from nlnet.apps.cli.attention import attend, explore
from nlnet.apps.cli.data import data_check, data_make
from nlnet.apps.cli.machine import bench, doctor
from nlnet.apps.cli.networks import convert, models
from nlnet.apps.cli.runs import evaluate, predict, report, score, train
from nlnet.apps.cli.studies import ablate, demo


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"nlnet {nlnet.__version__}")
        raise typer.Exit


app = typer.Typer(
    name="nlnet",
    help="Non-local neural networks on video: train, test honestly, predict, and look inside.",
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
data_app = typer.Typer(help="Make the diagnostic videos, or check a data set.", no_args_is_help=True)
data_app.command("make")(data_make)
data_app.command("check")(data_check)
app.add_typer(data_app, name="data")


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command. Errors that a user can mend become one line and exit code 1; Ctrl-C exits with 130."""
    try:
        code = app(standalone_mode=False)
        leave(code if isinstance(code, int) else 0)
    except typer.Exit as end:
        leave(end.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("NLNET_TRACEBACK") or not explains_itself(error):
            raise
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        print(f"nlnet: {message}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))


def leave(code: int) -> NoReturn:
    """End this process: under torchrun at once, its work being done and written.

    Taking everything down in order there can abort a process (torch 2.13 with gloo: "terminate called without an active
    exception", now and then), which torchrun then reports as a failed run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def explains_itself(error: Exception) -> bool:
    """Whether the message alone is what a user needs: wrong input, a system's refusal, too little memory."""
    if isinstance(error, ValueError | OSError | MemoryError | ImportError) or hasattr(
        error, "format_message"
    ):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "not enough memory", "DataLoader worker")
    )
