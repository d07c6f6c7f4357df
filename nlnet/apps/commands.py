"""The verbs that work on runs and data: each turns arguments into calls of the engine and prints the outcome."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from nlnet.apps.cli import print_json
from nlnet.apps.console import OUT, TrainingDisplay, bar, facts, table
from nlnet.apps.recipes import RECIPES, recipe_or_file
from nlnet.data import VideoItem, VideoList, check_videos, read_videos
from nlnet.data.diagnostic import DiagnosticSpec
from nlnet.data.diagnostic_files import write_dataset
from nlnet.engine.config import Config, ConfigError, override
from nlnet.engine.distributed import World, world
from nlnet.engine.evaluate import Evaluation, build_model, evaluate
from nlnet.engine.rundir import Checkpoint, RunDir, atomically, load_checkpoint, write_json
from nlnet.engine.train import Outcome, Silent, Trainer, train
from nlnet.models import Skeleton, VideoResNet, count, create_model, list_models


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
            plan = Trainer(config, run, here, Silent(), None).facts()
            if here.first:
                print_json(
                    {"facts": plan, "config": config.model_dump(mode="json")}
                ) if as_json else OUT.print(
                    facts(f"{name} → {run.path}", plan), config.model_dump(mode="json")
                )
            return 0
        display = TrainingDisplay(f"{name} → {run.path}") if here.first else None
        with display or nullcontext():
            outcome = train(config, run, here, resume=resume is not None, until=until, listener=display)
        if here.first:
            report_training(outcome, run, as_json=as_json)
        return 130 if outcome.interrupted else 0


def report_training(outcome: Outcome, run: RunDir, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {"run": str(run.path), "iteration": outcome.iteration, "interrupted": outcome.interrupted}
            | {"validation": outcome.metrics}
        )
    elif outcome.interrupted:
        OUT.print(f"stopped after iteration {outcome.iteration}; go on with: nlnet train --resume {run.path}")
    else:
        shown = ", ".join(f"{name} {value:.2f} %" for name, value in outcome.metrics.items())
        OUT.print(
            f"{run.path}: {outcome.iteration} iterations done{'; validation ' + shown if shown else ''}"
        )


def load_network(path: Path, name: str, device: torch.device) -> tuple[VideoResNet, Checkpoint]:
    """The network of a run or checkpoint, ready for testing."""
    checkpoint = load_checkpoint(path, name)
    model = build_model(checkpoint.config, len(checkpoint.classes))
    model.load_state_dict(checkpoint.weights)
    return model.to(device, memory_format=torch.channels_last_3d).eval(), checkpoint  # type: ignore[call-overload]


def run_test(
    path: Path, overrides: Sequence[str], *, data: Path | None, checkpoint: str, device: str, as_json: bool
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
        videos = read_videos(source, root=config.data.root, classes=loaded.classes)
        evaluation, seconds = watched_evaluation(model, videos, config, here)
        if not here.first:
            return
        summary = {
            "videos": len(videos.items),
            "scored": len(evaluation.videos),
            "failures": [f.reason for f in evaluation.failures],
            "views_per_video": config.test.clips * config.test.crops,
            "protocol": config.test.protocol,
            "checkpoint": checkpoint,
            "iteration": loaded.iteration,
            "seconds": round(seconds, 2),
            "metrics": evaluation.metrics(),
        }
        if path.is_dir():
            save_scores(path / "test", evaluation, summary)
        print_json(summary) if as_json else show_test(path, summary)


def watched_evaluation(
    model: VideoResNet, videos: VideoList, config: Config, here: World
) -> tuple[Evaluation, float]:
    """Evaluate with a bar on the first process; the seconds that it took."""
    start = time.perf_counter()
    progress = bar()
    with progress if here.first else nullcontext():
        task = progress.add_task("testing", total=None, note="")
        evaluation = evaluate(
            model,
            videos,
            config,
            world=here,
            on_video=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return evaluation, time.perf_counter() - start


def save_scores(directory: Path, evaluation: Evaluation, summary: dict[str, Any]) -> None:
    """summary.json; videos.json, a row a video; scores.safetensors, (V, K) probabilities by video index."""
    write_json(directory / "summary.json", summary)
    rows = [
        {
            "index": v.index,
            "path": str(v.path),
            "label": None if v.label is None else evaluation.classes[v.label],
            "prediction": evaluation.classes[int(v.video.argmax())],
            "probability": round(float(v.video.max()), 6),
        }
        for v in evaluation.videos
    ]
    write_json(directory / "videos.json", rows)
    scores = {str(v.index): v.views.contiguous() for v in evaluation.videos}
    atomically(directory / "scores.safetensors", lambda temporary: save_file(scores, temporary))


def show_test(path: Path, summary: dict[str, Any]) -> None:
    rows = [[name, f"{value:.2f} %"] for name, value in summary["metrics"].items()]
    title = (
        f"{path}: {summary['scored']} of {summary['videos']} videos scored, "
        f"{summary['views_per_video']} views each, {summary['seconds']:.0f} s"
    )
    OUT.print(table(title, ["metric", "value"], rows))
    show_failures(summary["failures"])


def show_failures(reasons: Sequence[str]) -> None:
    if reasons:
        OUT.print(f"[yellow]{len(reasons)} videos could not be read and were left out of every figure:")
        for reason in reasons:
            OUT.print(f"  {reason}", markup=False, highlight=False)


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


def run_models(*, as_json: bool) -> None:
    """`nlnet models`."""
    rows: list[dict[str, Any]] = []
    for name in list_models():
        macs: dict[str, int] = {}
        for variant, frames, side in (
            (("8x8", 8, 32),) if "_mini" in name else (("32x2", 32, 224), ("8x8", 8, 224))
        ):
            with Skeleton():
                network = create_model(name, variant=variant)
            cost = count(network, (frames, side, side))
            macs[f"{variant} at {side}"] = cost.macs
        rows.append({"name": name, "parameters": cost.parameters, "macs": macs})
    if as_json:
        print_json({"models": rows, "recipes": sorted(RECIPES)})
        return
    cells = [
        [
            row["name"],
            f"{row['parameters'] / 1e6:.3f}",
            *(_giga(row["macs"].get(k)) for k in ("32x2 at 224", "8x8 at 224", "8x8 at 32")),
        ]
        for row in rows
    ]
    OUT.print(
        table(
            "Networks (400 classes; 10⁹ multiply-adds of one clip, attention counted)",
            ["name", "parameters, M", "32×2 at 224", "8×8 at 224", "8×8 at 32"],
            cells,
        )
    )
    OUT.print("Recipes for `nlnet train`: " + ", ".join(sorted(RECIPES)))


def _giga(macs: int | None) -> str | None:
    return None if macs is None else f"{macs / 1e9:.3f}" if macs < 1e9 else f"{macs / 1e9:.2f}"


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


def run_data_check(source: Path, *, root: Path | None, as_json: bool) -> int:
    """`nlnet data check`. Exit code 1 where a video cannot be read."""
    videos = read_videos(source, root=root)
    progress = bar()
    with progress:
        line = progress.add_task("opening videos", total=len(videos.items), note="")
        checks = check_videos(videos, progress=lambda check: progress.advance(line))
    bad = [c for c in checks if c.error is not None]
    good = [c for c in checks if c.error is None]
    lengths = sorted(c.num_frames or 0 for c in good)
    summary = {
        "source": str(source),
        "videos": len(videos.items),
        "classes": len(videos.classes),
        "readable": len(good),
        "frames": [lengths[0], lengths[len(lengths) // 2], lengths[-1]] if lengths else [],
        "failures": [c.error for c in bad],
    }
    if as_json:
        print_json(summary)
    else:
        OUT.print(facts(f"{source}", {k: v for k, v in summary.items() if k not in ("source", "failures")}))
        for check in bad:
            OUT.print(f"[red]unreadable[/] {check.error}", highlight=False)
    return 1 if bad else 0
