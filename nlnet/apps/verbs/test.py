"""`nlnet test`: evaluate a run on its test videos, print the metrics, and write a test folder.

A test folder holds `summary.json` (the protocol and the metrics), `videos.json` (the prediction for each video),
`classes.json` (the metrics of each class) and `scores.safetensors` (the scores of every view; see
`nlnet.engine.evaluation.score_files`). The summary is written last: where there is one, the other files are complete
and belong to it.
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

CHANGEABLE = ("test.", "data.", "training.precision=")
"""Beginnings of the settings that a test may change: the weights fit no other network."""


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
    """Run `nlnet test` on the run directory or checkpoint file `path`.

    Args:
        data: the videos; data.test of the configuration if None.
        out: the test folder; `path`/test if None, and no folder for a checkpoint file.

    Raises:
        ConfigError: a setting that a test cannot change, or no videos to test on.
    """
    unchangeable = [setting for setting in overrides if not setting.startswith(CHANGEABLE)]
    if unchangeable:
        raise ConfigError(
            f"{unchangeable[0]!r}: a test can change test.*, data.* and training.precision only"
        )
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
            write_test_folder(folder, saved, summary)
    if as_json:
        print_json(summary)
        return
    show_test(path, summary, folder)
    show_failures(summary["failures"])
    show_missing(summary["missing"])
    if folder is not None and folder == path / "test":
        OUT.print(
            f"confused classes and the hardest videos: nlnet report {path}", markup=False, highlight=False
        )


def watched_evaluation(
    model: VideoResNet, videos: VideoList, config: Config, here: World
) -> tuple[Evaluation, float]:
    """Evaluate, with a progress bar on the first process; return the scores and the seconds that it took."""
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
    missing = tuple(Missing(item.path, item.label) for item in videos.missing_items)
    return replace(evaluation, missing=missing), time.perf_counter() - start


def summary_of(saved: SavedScores, videos: VideoList, seconds: float) -> dict[str, Any]:
    """Return the content of summary.json."""
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


def write_test_folder(folder: Path, saved: SavedScores, summary: Mapping[str, Any]) -> None:
    """Write the files of a test folder, over those of an earlier test."""
    evaluation = saved.evaluation
    rows = [
        {
            "index": v.index,
            "path": str(v.path),
            "label": label_name(v.label, evaluation.classes),
            "prediction": evaluation.classes[int(v.video.argmax())],
            "probability": round(float(v.video.max()), 6),
        }
        for v in evaluation.videos
    ]
    # the summary goes first and comes last, so that it never stands beside the scores of another test
    (folder / "summary.json").unlink(missing_ok=True)
    write_scores(folder / "scores.safetensors", saved)
    write_json(folder / "videos.json", rows)
    write_json(folder / "classes.json", evaluation.by_class())
    write_json(folder / "summary.json", summary)


def label_name(label: Label, classes: tuple[str, ...]) -> str | list[str] | None:
    """Return the name of a label's class, or the names of its classes; None for a video without a label."""
    if label is None:
        return None
    return [classes[k] for k in label] if isinstance(label, tuple) else classes[label]


def show_test(path: Path, summary: Mapping[str, Any], folder: Path | None) -> None:
    """Print the metrics, and the test folder.

    Where a video could not be read or is missing, a second column has the metrics with it counted as wrong.
    """
    with_unread = summary.get("metrics_unread_as_wrong")
    columns = ["metric", "value"]
    rows = [[name, percent(value)] for name, value in summary["metrics"].items()]
    if with_unread:
        columns.append("unread as wrong")
        rows = [[*row, percent(with_unread.get(row[0]))] for row in rows]
    title = (
        f"{path}: {summary['scored']} of {summary['videos'] + len(summary['missing'])} videos scored, "
        f"{summary['views_per_video']} views each ({summary['protocol']}), {summary['seconds']:.0f} s"
    )
    OUT.print(table(title, columns, rows))
    if without_videos := summary.get("classes_without_videos"):
        OUT.print(
            f"{without_videos} of the classes have no test video: they are left out of the mean over classes"
        )
    if folder is not None:
        OUT.print(
            f"scores of every view are in {folder}; other metrics from them: nlnet score {folder}",
            markup=False,
            highlight=False,
        )


def percent(value: float | None) -> str | None:
    """Format a percentage; None stays None, for a metric that does not exist."""
    return None if value is None else f"{value:.2f} %"
