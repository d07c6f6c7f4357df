"""Saved scores of a made-up test."""

from pathlib import Path

import torch

from nlnet.engine.config import EvalConfig
from nlnet.engine.evaluation.score_files import SavedScores
from nlnet.engine.evaluation.video_scores import Evaluation, Missing, Unread, VideoScores


def saved_scores(labels=(0, 1, None), *, classes=("a b", "ü"), score="softmax", seed=0) -> SavedScores:
    """2 clips × 3 crops of a video for each label; the last one of the list was not read."""
    made = torch.Generator().manual_seed(seed)
    videos = [
        VideoScores(2 * k, Path(f"v/{k}.mp4"), label, torch.rand(6, len(classes), generator=made), (0, 5 + k))
        for k, label in enumerate(labels)
    ]
    lost = Unread(1, Path("v/bad.mp4"), labels[0], "v/bad.mp4: is empty; download it again")
    gone = Missing(Path("v/gone.mp4"), labels[0])
    return SavedScores(
        evaluation=Evaluation(tuple(videos), (lost,), classes, (gone,)),
        score=score,
        test=EvalConfig(clips=2, short_side=36, crop=32),
        frames=8,
        stride=2,
        run="runs/x",
        checkpoint="best",
        iteration=500,
    )
