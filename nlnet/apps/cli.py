"""The command line: one verb each. `--help` imports no torch; every verb fetches what it needs when it runs."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="nlnet",
    help="Non-local neural networks on video: train, test honestly, predict, and look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make the diagnostic videos, or check a data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable results to stdout.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, such as optimizer.lr=0.005")]


def main() -> None:
    """Run a command. Errors that a user can mend become one line and exit code 1; Ctrl-C exits with 130."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as end:
        sys.exit(end.exit_code)
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


def explains_itself(error: Exception) -> bool:
    """Whether the message alone is what a user needs: wrong input, a system's refusal, too little memory."""
    if isinstance(error, ValueError | OSError | MemoryError | ImportError) or hasattr(
        error, "format_message"
    ):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "not enough memory", "DataLoader worker")
    )


@app.command()
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
    from nlnet.apps.commands import run_training

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


@app.command()
def test(
    run: Annotated[Path, typer.Argument(help="A run directory or a .safetensors checkpoint.")],
    overrides: Overrides = None,
    data: Annotated[
        Path | None, typer.Option(help="Videos to test on; the run's data.test if not given.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="last or best (on validation).")] = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Test on many views of each video (10 clips × 3 crops by default) and save every score."""
    from nlnet.apps.commands import run_test

    run_test(run, overrides or [], data=data, checkpoint=checkpoint, device=device, as_json=as_json)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run directory or a .safetensors checkpoint.")],
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    checkpoint: Annotated[str, typer.Option(help="last or best (on validation).")] = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Classify video files, over the same views and by the same code as `nlnet test`."""
    from nlnet.apps.commands import run_predict

    raise typer.Exit(run_predict(run, videos, top=top, checkpoint=checkpoint, device=device, as_json=as_json))


@app.command()
def models(as_json: Json = False) -> None:
    """List the networks with their cost, and the recipes."""
    from nlnet.apps.commands import run_models

    run_models(as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: versions, devices, decoding, encoding, disk."""
    from nlnet.apps.doctor import run_doctor

    raise typer.Exit(run_doctor(as_json=as_json))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where data, runs and the report go.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tuning runs of each network.")] = 2,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; the number of cores if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The main job, whole: make videos, train three networks, test them on many views, report."""
    from nlnet.apps.demo import run_demo

    raise typer.Exit(run_demo(out, seeds=seeds, jobs=jobs, as_json=as_json))


@data_app.command("make")
def data_make(
    out: Annotated[Path, typer.Argument(help="Directory to create.")],
    task: Annotated[str, typer.Option(help="space, time or spacetime.")] = "spacetime",
    train: Annotated[int, typer.Option(min=1, help="Training clips.")] = 4000,
    val: Annotated[int, typer.Option(min=1, help="Validation clips.")] = 200,
    test: Annotated[int, typer.Option(min=1, help="Test clips.")] = 1000,
    stills: Annotated[int, typer.Option(min=0, help="Training stills (a tenth more for validation).")] = 4000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write the diagnostic data set as encoded .mp4 files in class folders."""
    from nlnet.apps.commands import run_data_make

    run_data_make(out, task=task, counts={"train": train, "val": val, "test": test}, stills=stills, seed=seed)


@data_app.command("check")
def data_check(
    source: Annotated[Path, typer.Argument(help="A folder of class folders, or a list file.")],
    root: Annotated[Path | None, typer.Option(help="Where a list's relative paths start.")] = None,
    as_json: Json = False,
) -> None:
    """Open every video of a data set and list those that cannot be read; exit code 1 if there are any."""
    from nlnet.apps.commands import run_data_check

    raise typer.Exit(run_data_check(source, root=root, as_json=as_json))


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2))
