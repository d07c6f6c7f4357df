"""The command line: one verb each. `--help` imports no torch; every verb fetches what it needs when it runs."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

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
Run = Annotated[Path, typer.Argument(help="A run directory or a .safetensors checkpoint.")]
Checkpoint = Annotated[str, typer.Option(help="last or best (on validation).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, such as optimizer.lr=0.005")]


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
    from nlnet.apps.commands import run_test

    run_test(run, overrides or [], data=data, out=out, checkpoint=checkpoint, device=device, as_json=as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path | None, typer.Option(help="Where the page goes; RUN/report if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page on a run: curves, whether its blocks learned, confusions, classes, the hardest videos."""
    from nlnet.apps.report import run_report

    run_report(run, out=out, as_json=as_json)


@app.command()
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
    from nlnet.apps.scoring import run_score

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


@app.command()
def predict(
    run: Run,
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Classify video files, over the same views and by the same code as `nlnet test`."""
    from nlnet.apps.commands import run_predict

    raise typer.Exit(run_predict(run, videos, top=top, checkpoint=checkpoint, device=device, as_json=as_json))


@app.command()
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
    from nlnet.apps.attend import run_attend

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


@app.command()
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
    from nlnet.apps.convert import run_convert

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


@app.command()
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
    from nlnet.apps.explore import run_explore

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


@app.command()
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
    from nlnet.apps.listing import run_models, run_recipes

    run_recipes(as_json=as_json) if recipes else run_models(names or [], variant, as_json=as_json)


@app.command()
def bench(
    groups: Annotated[list[str], typer.Argument(help="op, growth, block, network, loader, test, or all.")],
    seconds: Annotated[float, typer.Option(min=0.0, help="Spent on each table, 5 to 25 rounds.")] = 15.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; torch's own if not given.")] = None,
    device: Device = "cpu",
    precision: Annotated[str, typer.Option(help="float32 or bf16, for op, growth and block.")] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Whether compiled networks take part.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write the results there, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what you wait for: operation, block, network, loader and test, each beside the plain way, by turns."""
    from nlnet.apps.bench.command import run_bench

    run_bench(
        groups,
        seconds=seconds,
        threads=threads,
        device=device,
        precision=precision,
        compiled=compiled,
        out=out,
        as_json=as_json,
    )


@app.command()
def doctor(
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe or YAML file: say what of it fits into this machine's memory."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, devices, decoding, encoding, disk; with --recipe, what fits into its memory."""
    from nlnet.apps.doctor import run_doctor

    raise typer.Exit(run_doctor(recipe, as_json=as_json))


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


@app.command()
def ablate(
    tables: Annotated[
        list[str],
        typer.Argument(help="2a … 2g, conventions, reach, or all; key=value sets data of --recipe kinetics."),
    ],
    out: Annotated[Path, typer.Option(help="Where data, runs and tables go.")] = Path("runs/ablations"),
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tuning runs of each row.")] = 2,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; the number of cores or GPUs if not given.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="miniature: the diagnostic videos; kinetics: the paper's own rows.")
    ] = "miniature",
    device: Device = "cpu",
    publish: Annotated[
        Path | None, typer.Option(help="Also copy page, JSON and pictures there, such as docs.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs and their cost, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The paper's ablation study: train and test every row, and print its tables beside the paper's."""
    from nlnet.apps.ablations import run_study

    code = run_study(
        tables,
        out=out,
        seeds=seeds,
        jobs=jobs,
        recipe=recipe,
        device=device,
        publish=publish,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(code)


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
    source: Annotated[
        Path, typer.Argument(help="A folder of class folders, a list, or a data set's own annotation file.")
    ],
    root: Annotated[
        Path | None, typer.Option(help="Where relative paths start and named videos are looked for.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="What SOURCE is, as data.format, where it does not say so itself.")
    ] = "auto",
    classes: Annotated[
        Path | None, typer.Option(help="A file of class names in order, as data.classes.")
    ] = None,
    first_frame: Annotated[
        bool,
        typer.Option(
            "--first-frame", help="Decode only the first frame of each: quick, and blind to later damage."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; the number of cores if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode every video of a data set; list those that are not there or cannot be read (then exit code 1)."""
    from nlnet.apps.commands import run_data_check

    code = run_data_check(
        source,
        root=root,
        format=format,
        classes=classes,
        first_frame=first_frame,
        workers=workers,
        as_json=as_json,
    )
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2))
