"""What a configuration leaves to the model variant and to the disk: clip sampling, the videos, their labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nlnet.data import VideoList, read_classes, read_videos
from nlnet.engine.config import Config, DataConfig
from nlnet.errors import ConfigError
from nlnet.models.resnet import TIMINGS


def sampling(config: Config) -> tuple[int, int]:
    """Frames of a clip and their distance in the video: the configuration's, else the model variant's."""
    timing = TIMINGS.get(config.model.variant)
    if timing is None:
        raise ValueError(f"model.variant: got {config.model.variant!r}, expected one of {', '.join(TIMINGS)}")
    return config.data.frames or timing.frames, config.data.stride or timing.stride


def configured_videos(data: DataConfig, source: Path, classes: Sequence[str] | None = None) -> VideoList:
    """The videos of `source`, read as configured; their classes are `classes`, or the configured file's, or its own."""
    if classes is None and data.classes is not None:
        classes = read_classes(data.classes)
    return read_videos(source, root=data.root, classes=classes, format=data.format, missing=data.missing)


Loss = Literal["softmax", "sigmoid"]


def check_labels(videos: VideoList, loss: Loss, source: Path) -> None:
    """Raise ConfigError where the labels of a list are not of the kind that the loss needs."""
    if any(item.label is None for item in videos.items):
        raise ConfigError(f"{source}: a list for training needs a label for every video")
    if videos.multilabel and loss == "softmax":
        raise ConfigError(
            f"training.loss=softmax needs one class a video, but {source} ({videos.layout}) gives any number of "
            "them; set training.loss=sigmoid"
        )
    if not videos.multilabel and loss == "sigmoid":
        raise ConfigError(
            f"training.loss=sigmoid needs lists of classes, but {source} ({videos.layout}) gives one class a video; "
            "set training.loss=softmax, or data.format=multilabel if each line of a list may name several classes"
        )
