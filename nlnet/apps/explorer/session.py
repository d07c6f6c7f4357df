"""Compute what the explorer shows (frames, attention and class scores of the views of videos) and cache it.

A view is what `nlnet test` scores: one crop of one clip. The network runs once for each view (`observe` in
attention/observe.py). The attention from any position is then one matrix product, so clicks are answered at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from nlnet.apps.explorer.encoding import encode_floats, image_url
from nlnet.apps.explorer.lru_cache import LRUCache
from nlnet.attention.observe import Observation, observe
from nlnet.data import normalize
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.evaluation.video_views import VideoViews, cut_video, score_view
from nlnet.engine.network import load_network
from nlnet.errors import EvaluationError, NlnetError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet

SUGGESTIONS = 5
"""Positions that a block changes most, which the page offers as queries."""


class NotFoundError(NlnetError):
    """A run, a video or a view that this session does not have."""


@dataclass(frozen=True)
class Run:
    """A network loaded from a run directory or a checkpoint."""

    name: str
    model: VideoResNet
    config: Config
    classes: tuple[str, ...]
    iteration: int


@dataclass(frozen=True)
class VideoSource:
    """A video of the session: its file, the name shown for it, and the limit for its decoded frames."""

    path: Path
    name: str
    limit_bytes: int | None
    """Largest memory for its decoded frames (`cut_video`); None for videos named on the command line."""


def load_run(path: Path, name: str, checkpoint: str, device: torch.device) -> Run:
    """Load the network of a run directory or a .safetensors checkpoint, under a name that the page shows."""
    model, loaded = load_network(path, checkpoint, device)
    return Run(name, model, loaded.config, loaded.classes, loaded.iteration)


class Session:
    """Runs and videos, and answers about them that can be sent as JSON. Threads may share a session."""

    def __init__(self, runs: Sequence[Run], videos: Sequence[Path], device: torch.device) -> None:
        if not runs:
            raise NlnetError("no run to explore: give a run directory or a .safetensors checkpoint")
        self.runs, self.device = tuple(runs), device
        self._videos = [VideoSource(path, path.name, None) for path in videos]
        self._adding = Lock()
        # Networks run one at a time: `observe` puts hooks on the blocks of a model, and a second forward pass of
        # the same model at that time would call them too. So attention and scores share one lock. Decoding has a
        # lock of its own: it does not use the network.
        running = Lock()
        # few decoded videos, since each may take hundreds of megabytes; many scores, since each is a short list
        self._views: LRUCache[tuple[Any, ...], VideoViews] = LRUCache(3, Lock())
        self._observations: LRUCache[tuple[int, int, int], Observation] = LRUCache(8, running)
        self._scores: LRUCache[tuple[int, int, int], list[float]] = LRUCache(4096, running)

    def index(self) -> dict[str, Any]:
        """The names of all runs and videos, and the settings of the runs."""
        return {
            "runs": [describe_run(run) for run in self.runs],
            "videos": [video.name for video in self._videos],
        }

    def add(self, path: Path, name: str, limit_bytes: int | None = None) -> int:
        """Add a video under a name and return its number.

        Raises:
            UnreadableVideoError, VideoTooLargeError: as `cut_video`; the video is then not added.
        """
        video = VideoSource(path, name, limit_bytes)
        self._cut(self.runs[0], video)  # reads it, so that a bad video is reported now
        # the number has to be that of the video just appended, also if two threads add one at the same time
        with self._adding:
            self._videos.append(video)
            return len(self._videos) - 1

    def clip(self, run: int, video: int, view: int) -> dict[str, Any]:
        """The frames of a view before normalisation, their numbers in the video, and their times in seconds."""
        _, views = self._view(run, video, view)
        frames, seconds = views.view(view), views.seconds(view)
        return {
            "size": list(frames.shape[1:]),
            "frames": [image_url(frame) for frame in frames.unbind(1)],
            "numbers": list(views.numbers[view // views.crops]),
            "seconds": None if seconds is None else [round(moment, 4) for moment in seconds],
        }

    def blocks(self, run: int, video: int, view: int) -> list[dict[str, Any]]:
        """The geometry of every non-local block on a view, in the network's order; empty for a network without blocks."""
        found = nonlocal_blocks(self._run(run).model)
        if not found:
            return []
        seen = self.observation(run, video, view)
        return [describe_block(seen, path, block.pairwise) for path, block in found.items()]

    def rows(self, run: int, video: int, view: int, at: Sequence[int]) -> dict[str, Any]:
        """The weights f/C of every block from the position `at` (t, y, x) in the clip, and the centre of its query cell."""
        seen = self.observation(run, video, view)
        return {
            path: {"centre": seen.query_centre(path, at), "weights": encode_floats(row[0])}
            for path, row in seen.rows([at]).items()
        }

    def scores(self, run: int, video: int, view: int) -> list[float]:
        """The probability of every class for one view, computed by the code of `nlnet test`."""
        # before the video is read: its frames may have left the cache, and would be decoded for nothing
        cached = self._scores.find((run, video, view))
        if cached is not None:
            return cached
        chosen, views = self._view(run, video, view)

        def score() -> list[float]:
            try:
                return score_view(chosen.model, chosen.config, views.view(view)).tolist()
            except EvaluationError as error:
                raise EvaluationError(f"{chosen.name}: {error}") from None

        return self._scores.get((run, video, view), score)

    def observation(self, run: int, video: int, view: int) -> Observation:
        """The attention of every block on one view; NlnetError for a network without blocks."""
        cached = self._observations.find((run, video, view))  # before the video is read, as in `scores`
        if cached is not None:
            return cached
        chosen, views = self._view(run, video, view)
        if not nonlocal_blocks(chosen.model):
            raise NlnetError(f"run {chosen.name} has no non-local block, so there is no attention to show")

        def compute() -> Observation:
            data = chosen.config.data
            clip = normalize(views.view(view)[None].to(self.device), data.mean, data.std)
            return observe(chosen.model, clip)

        return self._observations.get((run, video, view), compute)

    def _view(self, run: int, video: int, view: int) -> tuple[Run, VideoViews]:
        chosen = self._run(run)
        if not 0 <= video < len(self._videos):
            raise NotFoundError(
                f"video {video} does not exist: there are {len(self._videos)}, numbered from 0"
            )
        views = self._cut(chosen, self._videos[video])
        if not 0 <= view < len(views):
            raise NotFoundError(
                f"view {view} does not exist: run {chosen.name} has {len(views)} of each video, numbered from 0"
            )
        return chosen, views

    def _run(self, run: int) -> Run:
        if not 0 <= run < len(self.runs):
            raise NotFoundError(f"run {run} does not exist: there are {len(self.runs)}, numbered from 0")
        return self.runs[run]

    def _cut(self, run: Run, video: VideoSource) -> VideoViews:
        """The views of a video under a run's test settings; runs with equal settings share them."""
        # `views_at_once` is the batch size of scoring: it does not change the views
        test = run.config.test.model_dump_json(exclude={"views_at_once"})
        key = (video.path, *sampling(run.config), test)
        return self._views.get(key, lambda: cut_video(video.path, run.config, limit_bytes=video.limit_bytes))


def describe_run(run: Run) -> dict[str, Any]:
    """What the page needs to know of a run: its name, network, classes and test settings."""
    test, model = run.config.test, run.config.model
    return {
        "name": run.name,
        "network": f"{model.name} {model.variant}, iteration {run.iteration}",
        "classes": list(run.classes),
        "clips": test.clips,
        "crops": test.crops,
        "aggregate": test.aggregate,
    }


def describe_block(seen: Observation, path: str, pairwise: str) -> dict[str, Any]:
    """What the page needs to know of a block: the centres of its keys and queries in the clip, and its pairwise function.

    `exact` tells whether the centres were traced through the network or estimated from the sizes of its maps.
    """
    return {
        "path": path,
        "pairwise": pairwise,
        "signed": seen.signed(path),
        "exact": seen.exact(path),
        "keys": [axis.tolist() for axis in seen.centres(path)],
        "queries": [query_centres(seen, path, axis) for axis in range(len(seen.grid))],
        "strongest": [list(position) for position in seen.strongest(SUGGESTIONS, path)],
    }


def query_centres(seen: Observation, path: str, axis: int) -> list[float]:
    """The centres of a block's query cells along one axis of the clip, ascending."""
    axes = range(len(seen.grid))
    # each cell is the nearest one of some position, so asking for all positions along the axis finds every cell
    positions = [tuple(p if a == axis else 0 for a in axes) for p in range(seen.grid[axis])]
    return sorted({seen.query_centre(path, position)[axis] for position in positions})
