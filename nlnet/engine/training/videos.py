"""The videos that a run trains on: read, held against the loss, and told from others when the run goes on."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlnet.data import VideoList
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import check_labels, configured_videos
from nlnet.errors import ConfigError


def read_training_videos(config: Config) -> tuple[VideoList, VideoList | None]:
    """The training list and, if configured, the validation list with the same classes."""
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
    """What a list of videos is known by: its classes, how many videos, and a digest of paths and labels in order.

    Paths count from `root`, or from where the list starts, so that a data set may move.
    """
    base = root or (videos.source if videos.source.is_dir() else videos.source.parent)
    digest = hashlib.blake2b(digest_size=16)
    for item in videos.items:
        path = item.path.relative_to(base) if item.path.is_relative_to(base) else item.path
        digest.update(f"{path.as_posix()}\0{item.label}\n".encode(errors="surrogateescape"))
    return {"classes": list(videos.classes), "videos": len(videos.items), "digest": digest.hexdigest()}


def change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """How two identities differ, in words; None where they do not."""
    if before["classes"] != now["classes"]:
        gone, new = (_only(a["classes"], b["classes"]) for a, b in ((before, now), (now, before)))
        words = [*(f"{name!r} is gone" for name in gone), *(f"{name!r} is new" for name in new)]
        return f"its classes are others ({', '.join(words) or 'the same in another order'})"
    if before["videos"] != now["videos"]:
        return f"it has {now['videos']} videos where it had {before['videos']}"
    if before["digest"] != now["digest"]:
        return f"it has as many videos, {now['videos']}, but other paths, labels or another order"
    return None


def _only(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    return [name for name in ours if name not in set(theirs)][:3]
