"""A test as its user meets it: watched while it runs, its figures shown, its scores kept.

A test folder holds `summary.json` (what was tested, and the figures), `videos.json` (a row a video), `classes.json`
(a row a class) and `scores.safetensors` (every view, see `nlnet.engine.evaluation.score_files`). The summary is written last: where
there is one, the rest is there and belongs to it.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlnet.apps.console import OUT, bar, print_json, show_failures, show_missing, table
from nlnet.data import Label, VideoList
from nlnet.engine.config import Config, override
from nlnet.engine.config.inputs import configured_videos, sampling
from nlnet.engine.distributed import World, world
from nlnet.engine.evaluation.evaluate import evaluate
from nlnet.engine.evaluation.score_files import SavedScores, write_scores
from nlnet.engine.evaluation.video_scores import Evaluation, Missing
from nlnet.engine.network import load_network
from nlnet.engine.runs.atomic_write import write_json
from nlnet.errors import ConfigError
from nlnet.models.resnet import VideoResNet


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
    missing = tuple(Missing(item.path, item.label) for item in videos.absent)
    return replace(evaluation, missing=missing), time.perf_counter() - start


def summary_of(saved: SavedScores, videos: VideoList, seconds: float) -> dict[str, Any]:
    """What summary.json says."""
    evaluation, test = saved.evaluation, saved.test
    summary = {
        "videos": len(videos.items),
        "scored": len(evaluation.videos),
        "failures": [f.reason for f in evaluation.failures],
        "missing": [str(video.path) for video in evaluation.missing],
        "views_per_video": test.clips * test.crops,
        "protocol": test.protocol,
        "test": test.model_dump(mode="json"),
        "checkpoint": saved.checkpoint,
        "iteration": saved.iteration,
        "seconds": round(seconds, 2),
        "metrics": evaluation.metrics(),
    }
    if not evaluation.complete:
        summary["metrics_unread_as_wrong"] = evaluation.metrics(unread_as_wrong=True)
    if evaluation.multilabel:
        summary["classes_without_videos"] = sum(row["videos"] == 0 for row in evaluation.by_class())
    return summary


def save_test(directory: Path, saved: SavedScores, summary: Mapping[str, Any]) -> None:
    """Write the files of a test folder; an earlier summary goes first, so that it never vouches for other scores."""
    evaluation = saved.evaluation
    rows = [
        {
            "index": v.index,
            "path": str(v.path),
            "label": named(v.label, evaluation.classes),
            "prediction": evaluation.classes[int(v.video.argmax())],
            "probability": round(float(v.video.max()), 6),
        }
        for v in evaluation.videos
    ]
    (directory / "summary.json").unlink(missing_ok=True)
    write_scores(directory / "scores.safetensors", saved)
    write_json(directory / "videos.json", rows)
    write_json(directory / "classes.json", evaluation.by_class())
    write_json(directory / "summary.json", summary)


def named(label: Label, classes: tuple[str, ...]) -> str | list[str] | None:
    """The name of a label's class, or the names of its classes."""
    if label is None:
        return None
    return [classes[k] for k in label] if isinstance(label, tuple) else classes[label]


def show_test(path: Path, summary: Mapping[str, Any], folder: Path | None) -> None:
    """The figures of a test as a table, and where its scores lie; a second column where a video was not read or not there."""
    both = [summary["metrics"], summary.get("metrics_unread_as_wrong", {})]
    rows = [[name, *(percent(column.get(name)) for column in both)] for name in summary["metrics"]]
    columns = ["metric", "value", "unread as wrong"]
    if not both[1]:
        rows, columns = [row[:2] for row in rows], columns[:2]
    title = (
        f"{path}: {summary['scored']} of {summary['videos'] + len(summary['missing'])} videos scored, "
        f"{summary['views_per_video']} views each ({summary['protocol']}), {summary['seconds']:.0f} s"
    )
    OUT.print(table(title, columns, rows))
    if absent := summary.get("classes_without_videos"):
        OUT.print(f"no video shows {absent} of the classes: they are left out of the mean over classes")
    if folder is not None:
        OUT.print(f"every score: {folder} (judge them again with: nlnet score {folder})", highlight=False)


def percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} %"
