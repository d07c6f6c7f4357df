"""The lists of training and validation videos, and whether they have changed since the run began."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlnet.data import VideoList
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import check_labels, configured_videos
from nlnet.errors import ConfigError


def read_training_videos(config: Config) -> tuple[VideoList, VideoList | None]:
    """Read the training list and, if configured, the validation list with the same classes.

    Raises:
        ConfigError: no training list is set, or labels do not fit the loss.
    """
    data = config.data
    if data.train is None:
        raise ConfigError(
            "data.train: not set; give a folder of class folders or a list file, as data.train=PATH"
        )
    train = configured_videos(data, data.train)
    check_labels(train, config.training.loss, data.train)
    if data.val is None:
        return train, None
    validation = configured_videos(data, data.val, train.classes)
    check_labels(validation, config.training.loss, data.val)
    return train, validation


def identity(videos: VideoList, root: Path | None) -> dict[str, Any]:
    """The identity of a list: its classes, the number of videos, and a hash of paths and labels in order.

    Paths are relative to `root`, or to the folder of the list, so that a data set may be moved.
    """
    base = root or (videos.source if videos.source.is_dir() else videos.source.parent)
    digest = hashlib.blake2b(digest_size=16)
    for item in videos.items:
        path = item.path.relative_to(base) if item.path.is_relative_to(base) else item.path
        # file names need not be valid UTF-8
        digest.update(f"{path.as_posix()}\0{item.label}\n".encode(errors="surrogateescape"))
    return {"classes": list(videos.classes), "videos": len(videos.items), "digest": digest.hexdigest()}


def change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Describe how two identities differ; None if they are equal."""
    if before["classes"] != now["classes"]:
        gone, new = (_first_only(a["classes"], b["classes"]) for a, b in ((before, now), (now, before)))
        parts = [*(f"{name!r} is gone" for name in gone), *(f"{name!r} is new" for name in new)]
        return f"its classes differ ({', '.join(parts) or 'the same names in another order'})"
    if before["videos"] != now["videos"]:
        return f"it has {now['videos']} videos and had {before['videos']}"
    if before["digest"] != now["digest"]:
        return f"it still has {now['videos']} videos, but their paths, labels or order differ"
    return None


def _first_only(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """At most three names that only the first of two lists has."""
    return [name for name in one if name not in set(other)][:3]
