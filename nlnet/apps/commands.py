"""The verbs that work on runs and data: each turns arguments into calls of the engine and prints the outcome."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.text import Text

from nlnet.apps.cli import print_json
from nlnet.apps.console import OUT, TrainingDisplay, bar, facts, table
from nlnet.apps.plan import make_plan
from nlnet.apps.recipes import recipe_or_file
from nlnet.apps.report_findings import verdicts
from nlnet.apps.testing import save_test, show_test, summary_of, watched_evaluation
from nlnet.data import VideoItem, VideoList, check_videos
from nlnet.data.diagnostic import DiagnosticSpec
from nlnet.data.diagnostic_files import write_dataset
from nlnet.engine.config import Config, ConfigError, from_mapping, override
from nlnet.engine.distributed import World, world
from nlnet.engine.evaluate import build_model
from nlnet.engine.loading import configured_videos, sampling
from nlnet.engine.rundir import Checkpoint, RunDir, load_checkpoint
from nlnet.engine.scores import SavedScores
from nlnet.engine.train import Outcome, train
from nlnet.models import VideoResNet


def run_training(
    recipe: str | None,
    overrides: Sequence[str],
    *,
    out: Path | None,
    resume: Path | None,
    until: int | None,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """`nlnet train`. Exit code 130 where a signal stopped the run."""
    if resume is not None:
        run, name = RunDir(resume), str(resume)
        config, _ = run.read_config()
    else:
        assert recipe is not None
        config, name = override(recipe_or_file(recipe), overrides), Path(recipe).stem
        run = RunDir(out or Path("runs") / name)
    with world(device) as here:
        if dry_run:
            show_plan(config, name, recipe, run, here, as_json=as_json)
            return 0
        display = TrainingDisplay(f"{name} → {run.path}") if here.first else None
        with display or nullcontext():
            outcome = train(config, run, here, resume=resume is not None, until=until, listener=display)
        if here.first:
            report_training(outcome, run, as_json=as_json)
        return 130 if outcome.interrupted else 0


def show_plan(
    config: Config, name: str, recipe: str | None, run: RunDir, here: World, *, as_json: bool
) -> None:
    """`nlnet train --dry-run`; without a recipe, of the run that would go on."""
    base = config if recipe is None else recipe_or_file(recipe)
    resumed_at = run.load_state()["iteration"] if recipe is None else None
    plan = make_plan(config, name=name, base=base, run=run, world=here, resumed_at=resumed_at)
    if here.first:
        print_json(plan.document()) if as_json else OUT.print(plan)


def report_training(outcome: Outcome, run: RunDir, *, as_json: bool) -> None:
    """How the run ended and what became of each block."""
    blocks = verdicts(run.metrics())
    if as_json:
        print_json(
            {"run": str(run.path), "iteration": outcome.iteration, "interrupted": outcome.interrupted}
            | {"validation": outcome.metrics, "blocks": {block: vars(said) for block, said in blocks.items()}}
        )
    elif outcome.interrupted:
        OUT.print(f"stopped after iteration {outcome.iteration}; go on with: nlnet train --resume {run.path}")
    else:
        shown = ", ".join(f"{name} {value:.2f} %" for name, value in outcome.metrics.items())
        OUT.print(
            f"{run.path}: {outcome.iteration} iterations done{'; validation ' + shown if shown else ''}"
        )
        for block, said in blocks.items():
            OUT.print(f"block {block} {said.words}", markup=False, highlight=False)
        OUT.print(f"curves and blocks: nlnet report {run.path}", markup=False, highlight=False)


def load_network(path: Path, name: str, device: torch.device) -> tuple[VideoResNet, Checkpoint]:
    """The network of a run or checkpoint, ready for testing."""
    checkpoint = load_checkpoint(path, name)
    model = build_model(checkpoint.config, len(checkpoint.classes))
    model.load_state_dict(checkpoint.weights)
    return model.to(device, memory_format=torch.channels_last_3d).eval(), checkpoint  # type: ignore[call-overload]


def run_test(
    path: Path,
    overrides: Sequence[str],
    *,
    data: Path | None,
    out: Path | None = None,
    checkpoint: str,
    device: str,
    as_json: bool,
) -> None:
    """`nlnet test`."""
    foreign = [o for o in overrides if not o.startswith(("test.", "data.", "training.precision="))]
    if foreign:
        raise ConfigError(f"{foreign[0]!r}: a test can change test.*, data.* and training.precision only")
    with world(device) as here:
        model, loaded = load_network(path, checkpoint, here.device)
        config = override(loaded.config, overrides)
        source = data or config.data.test
        if source is None:
            raise ConfigError("no test videos: give --data PATH (the run's configuration has no data.test)")
        videos = configured_videos(config.data, source, loaded.classes)
        evaluation, seconds = watched_evaluation(model, videos, config, here)
        if not here.first:
            return
        frames, stride = sampling(config)
        saved = SavedScores(
            evaluation=evaluation,
            score=config.training.loss,
            test=config.test,
            frames=frames,
            stride=stride,
            run=str(path),
            checkpoint=checkpoint,
            iteration=loaded.iteration,
        )
        summary = summary_of(saved, videos, seconds)
        folder = out or (path / "test" if path.is_dir() else None)
        if folder is not None:
            save_test(folder, saved, summary)
    if as_json:
        print_json(summary)
    else:
        show_test(path, summary, folder)
        show_failures(summary["failures"])
        show_missing(summary["missing"])
        if folder is not None and folder == path / "test":
            OUT.print(
                f"confusions, classes, the hardest videos: nlnet report {path}", markup=False, highlight=False
            )


def show_failures(reasons: Sequence[str]) -> None:
    if reasons:
        OUT.print(f"[yellow]{len(reasons)} videos could not be read and were left out:")
        for reason in reasons:
            OUT.print(f"  {reason}", markup=False, highlight=False)


def show_missing(paths: Sequence[str]) -> None:
    if paths:
        OUT.print(f"[yellow]{len(paths)} videos that the list names are not on the disk and were left out:")
        for path in paths:
            OUT.print(f"  {path}", markup=False, highlight=False)


def run_predict(
    path: Path, files: Sequence[Path], *, top: int, checkpoint: str, device: str, as_json: bool
) -> int:
    """`nlnet predict`. Exit code 1 where a file could not be read."""
    with world(device) as here:
        model, loaded = load_network(path, checkpoint, here.device)
        items = tuple(VideoItem(path=file, label=None) for file in files)
        videos = VideoList(items=items, classes=loaded.classes, source=files[0])
        evaluation, _ = watched_evaluation(model, videos, loaded.config, here)
    answers: list[dict[str, Any]] = []
    for video in evaluation.videos:
        best = video.video.topk(min(top, len(loaded.classes)))
        ranked = {
            loaded.classes[i]: p for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        }
        answers.append({"path": str(video.path), "views": len(video.views), "classes": ranked})
    reasons = [f.reason for f in evaluation.failures]
    if as_json:
        print_json({"videos": answers, "failures": reasons})
    else:
        for answer in answers:
            rows = [[name, f"{100 * p:.2f} %"] for name, p in answer["classes"].items()]
            OUT.print(table(f"{answer['path']} ({answer['views']} views)", ["class", "probability"], rows))
        show_failures(reasons)
    return 1 if reasons else 0


def write_videos(spec: DiagnosticSpec, out: Path, counts: Mapping[str, int]) -> None:
    """Write the diagnostic with a bar, on every core; the same data set is left alone, another one is refused."""
    progress = bar()
    with progress:
        line = progress.add_task("writing videos", total=None, note="")
        write_dataset(
            spec,
            out,
            counts,
            processes=os.cpu_count() or 1,
            progress=lambda done, total: progress.update(line, completed=done, total=total),
        )


def run_data_make(out: Path, *, task: str, counts: dict[str, int], stills: int, seed: int) -> None:
    """`nlnet data make`."""
    start = time.perf_counter()
    write_videos(DiagnosticSpec(task=task, seed=seed), out, counts | {"stills": stills})  # type: ignore[arg-type]
    OUT.print(
        f"{out}: {sum(counts.values())} videos and {stills} stills in {time.perf_counter() - start:.0f} s"
    )


def run_data_check(
    source: Path,
    *,
    root: Path | None,
    format: str,
    classes: Path | None,
    first_frame: bool,
    workers: int | None,
    as_json: bool,
) -> int:
    """`nlnet data check`. Exit code 1 where a video is not there or cannot be read."""
    values = {"root": root, "format": format, "classes": classes, "missing": "leave_out"}
    videos = configured_videos(from_mapping({"data": values}, source="data check").data, source)
    progress = bar()
    with progress:
        what = "opening videos" if first_frame else "decoding videos"
        line = progress.add_task(what, total=len(videos.items), note="")
        checks = check_videos(
            videos,
            every_frame=not first_frame,
            processes=workers or os.cpu_count() or 1,
            progress=lambda check: progress.advance(line),
        )
    bad = [c for c in checks if c.error is not None]
    good = [c for c in checks if c.error is None]
    lengths = sorted(c.num_frames or 0 for c in good)
    missing = [str(path) for path in videos.missing]
    summary = {
        "source": str(source),
        "layout": videos.layout,
        "videos": len(videos.items),
        "classes": len(videos.classes),
        "labels": label_counts(videos),
        "readable": len(good),
        "decoded": "first frames" if first_frame else "every frame",
        "frames": [lengths[0], lengths[len(lengths) // 2], lengths[-1]] if lengths else [],
        "missing": missing,
        "failures": [c.error for c in bad],
    }
    if as_json:
        print_json(summary)
    else:
        shown = {k: v for k, v in summary.items() if k not in ("source", "failures")} | {
            "missing": len(missing)
        }
        OUT.print(facts(f"{source}", shown))
        for check in bad:
            OUT.print(Text.assemble(("unreadable ", "red"), str(check.error)))
        show_missing(missing)
    return 1 if bad or missing else 0


def label_counts(videos: VideoList) -> str:
    """How many labels the videos have, in words."""
    if videos.multilabel:
        counts = [len(item.label) for item in videos.items if isinstance(item.label, tuple)]
        return f"{min(counts)} to {max(counts)} a video, {sum(counts) / len(counts):.1f} on average"
    return "none" if videos.items[0].label is None else "one a video"
