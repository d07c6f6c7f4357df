"""`nlnet predict`: classes of video files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlnet.apps.console import OUT, print_json, show_failures, table
from nlnet.apps.verbs.test import watched_evaluation
from nlnet.data import VideoItem, VideoList
from nlnet.engine.distributed import world
from nlnet.engine.network import load_network


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
