"""Predictions for video files, for `nlnet predict` and for `TrainedRun.predict` in Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nlnet.apps.console import OUT, print_json, show_failures, table
from nlnet.apps.verbs.test import watched_evaluation
from nlnet.data import VideoItem, VideoList
from nlnet.engine.distributed import World, world
from nlnet.engine.evaluation.evaluate import evaluate
from nlnet.engine.evaluation.video_scores import Unread
from nlnet.engine.network import load_network
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.models.resnet import VideoResNet


@dataclass(frozen=True)
class Prediction:
    """The scores of one video: the mean (or the largest, as the run tests) over all its views."""

    path: Path
    label: str
    """The class with the largest score."""
    score: float
    """The probability of that class, from 0 to 1."""
    scores: dict[str, float]
    """The probability of each class, the largest first. They sum to 1 where a video has one class."""
    views: int
    """The number of views, clips × crops."""


def predict_videos(
    model: VideoResNet,
    checkpoint: Checkpoint,
    files: Sequence[Path],
    *,
    world: World,
    progress: bool,
) -> list[Prediction | Unread]:
    """Score every file on the run's test views, by the code of `nlnet test`, in the order of `files`.

    A file that cannot be read gives an `Unread` with the reason. `progress` shows a progress bar on stderr.

    Raises:
        EvaluationError: no file could be read, or a score is NaN or infinite.
    """
    items = tuple(VideoItem(path=file, label=None) for file in files)
    videos = VideoList(items=items, classes=checkpoint.classes, source=files[0])
    if progress:
        evaluation, _ = watched_evaluation(model, videos, checkpoint.config, world)
    else:
        evaluation = evaluate(model, videos, checkpoint.config, world=world)
    results: dict[int, Prediction | Unread] = {failure.index: failure for failure in evaluation.failures}
    for video in evaluation.videos:
        # a stable sort: of equal scores the first class comes first, as `nlnet test` counts them
        values, order = video.video.sort(descending=True, stable=True)
        classes = [checkpoint.classes[k] for k in order.tolist()]
        scores = dict(zip(classes, values.tolist(), strict=True))
        results[video.index] = Prediction(
            video.path, classes[0], scores[classes[0]], scores, len(video.views)
        )
    return [results[index] for index in range(len(files))]


def run_predict(
    path: Path, files: Sequence[Path], *, top: int, checkpoint: str, device: str, as_json: bool
) -> int:
    """Run `nlnet predict`; the exit code is 1 if a file could not be read."""
    with world(device) as here:
        model, loaded = load_network(path, checkpoint, here.device)
        results = predict_videos(model, loaded, files, world=here, progress=True)
    predictions = [found for found in results if isinstance(found, Prediction)]
    best = [dict(islice(found.scores.items(), top)) for found in predictions]
    reasons = [found.reason for found in results if isinstance(found, Unread)]
    if as_json:
        answers = [
            {"path": str(found.path), "views": found.views, "classes": classes}
            for found, classes in zip(predictions, best, strict=True)
        ]
        print_json({"videos": answers, "failures": reasons})
        return 1 if reasons else 0
    for found, classes in zip(predictions, best, strict=True):
        rows = [[name, f"{100 * score:.2f} %"] for name, score in classes.items()]
        OUT.print(table(f"{found.path} ({found.views} views)", ["class", "probability"], rows))
    show_failures(reasons)
    return 1 if reasons else 0
