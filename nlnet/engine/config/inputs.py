"""The inputs of a configured run: how clips are sampled, the videos, and whether their labels fit the loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nlnet.data import VideoList, read_classes, read_videos
from nlnet.engine.config import Config, DataConfig
from nlnet.errors import ConfigError, did_you_mean
from nlnet.models.resnet import TIMINGS

Loss = Literal["softmax", "sigmoid"]


def sampling(config: Config) -> tuple[int, int]:
    """Return (frames, stride) of a clip, in video frames: the configuration's, else the model variant's."""
    timing = TIMINGS.get(config.model.variant)
    if timing is None:
        raise ConfigError(
            f"model.variant: got {config.model.variant!r}, expected one of {', '.join(TIMINGS)}"
            f"{did_you_mean(config.model.variant, TIMINGS)}"
        )
    return config.data.frames or timing.frames, config.data.stride or timing.stride


def configured_videos(data: DataConfig, source: Path, classes: Sequence[str] | None = None) -> VideoList:
    """Read the videos of `source` as the data section says.

    Class names are `classes` if given, else those of the file `data.classes`, else those that `source` has.
    """
    if classes is None and data.classes is not None:
        classes = read_classes(data.classes)
    return read_videos(source, root=data.root, classes=classes, format=data.format, missing=data.missing)


def check_labels(videos: VideoList, loss: Loss, source: Path) -> None:
    """Raise ConfigError if the labels of a list do not fit the loss."""
    if any(item.label is None for item in videos.items):
        raise ConfigError(f"{source}: a list for training needs a label for every video")
    if videos.multilabel and loss == "softmax":
        raise ConfigError(
            f"training.loss=softmax needs one class per video, but {source} ({videos.layout}) gives any "
            "number of "
            "classes; set training.loss=sigmoid"
        )
    if not videos.multilabel and loss == "sigmoid":
        raise ConfigError(
            f"training.loss=sigmoid needs lists of classes, but {source} ({videos.layout}) gives one class "
            "per video; "
            "set training.loss=softmax, or data.format=multilabel if each line of a list may name several classes"
        )
