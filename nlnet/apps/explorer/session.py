"""What the explorer knows: runs, videos, and for each view of a video what the network made of it.

A view is what `nlnet test` scores: one crop of one clip. It is observed once (`nlnet.attention.observe.observe`); rows of
any position are then a product each, so that clicks are answered at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from nlnet.apps.explorer.encoding import floats, picture_url
from nlnet.apps.explorer.lru_cache import Recent
from nlnet.attention.observe import Observation, observe
from nlnet.data import normalize
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.evaluation.video_views import Footage, cut_video, score_view
from nlnet.engine.network import load_network
from nlnet.errors import EvaluationError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet

SUGGESTIONS = 5


class NotHere(ValueError):
    """A run, a video or a view that this session does not have."""


@dataclass(frozen=True)
class Run:
    """A network ready to be looked into."""

    name: str
    model: VideoResNet
    config: Config
    classes: tuple[str, ...]
    iteration: int


@dataclass(frozen=True)
class Source:
    """A video that can be asked for."""

    path: Path
    name: str
    limit_bytes: int | None
    """What its frames may take (`footage.check_size`); None for those that were named on the command line."""


def load_run(path: Path, name: str, checkpoint: str, device: torch.device) -> Run:
    """The network of a run directory or a .safetensors checkpoint, under a name for the page."""
    model, loaded = load_network(path, checkpoint, device)
    return Run(name, model, loaded.config, loaded.classes, loaded.iteration)


class Session:
    """Answers about runs and videos, as values that JSON can hold. Threads may share it.

    Networks run one at a time: `observe` hooks into the blocks of the network that is running.
    """

    def __init__(self, runs: Sequence[Run], videos: Sequence[Path], device: torch.device) -> None:
        if not runs:
            raise ValueError("no run to explore: name a run directory or a .safetensors checkpoint")
        self.runs, self.device = tuple(runs), device
        self._videos = [Source(path, path.name, None) for path in videos]
        self._adding = Lock()
        one_at_a_time = Lock()
        self._footage: Recent[tuple[Any, ...], Footage] = Recent(3, Lock())
        self._observations: Recent[tuple[int, int, int], Observation] = Recent(8, one_at_a_time)
        self._scores: Recent[tuple[int, int, int], list[float]] = Recent(4096, one_at_a_time)

    def index(self) -> dict[str, Any]:
        """Names and sizes of everything that can be asked for."""
        return {
            "runs": [describe(run) for run in self.runs],
            "videos": [video.name for video in self._videos],
        }

    def add(self, path: Path, name: str, limit_bytes: int | None = None) -> int:
        """Take a video up under a name; its number. Unreadable or TooLarge if it cannot be; then it is not taken up."""
        video = Source(path, name, limit_bytes)
        self._cut(self.runs[0], video)
        with self._adding:
            self._videos.append(video)
            return len(self._videos) - 1

    def clip(self, run: int, video: int, view: int) -> dict[str, Any]:
        """The frames of a view as the network gets them (before normalisation), their numbers and times."""
        _, footage = self._view(run, video, view)
        frames, seconds = footage.view(view), footage.seconds(view)
        return {
            "size": list(frames.shape[1:]),
            "frames": [picture_url(frame) for frame in frames.unbind(1)],
            "numbers": list(footage.numbers[view // footage.crops]),
            "seconds": None if seconds is None else [round(moment, 4) for moment in seconds],
        }

    def blocks(self, run: int, video: int, view: int) -> list[dict[str, Any]]:
        """The geometry of every non-local block on this view, in the network's order; none for a local network."""
        found = nonlocal_blocks(self._run(run).model)
        if not found:
            return []
        seen = self.observation(run, video, view)
        return [describe_block(seen, path, block.pairwise) for path, block in found.items()]

    def rows(self, run: int, video: int, view: int, at: Sequence[int]) -> dict[str, Any]:
        """Each block's affinity row of the position `at` (t, y, x) in the clip, and the cell that answers for it."""
        seen = self.observation(run, video, view)
        return {
            path: {"centre": seen.query_centre(path, at), "weights": floats(row[0])}
            for path, row in seen.rows([at]).items()
        }

    def scores(self, run: int, video: int, view: int) -> list[float]:
        """The probability of every class for one view, by the code of `nlnet test`."""
        kept = self._scores.find((run, video, view))
        if kept is not None:  # the video is not looked at: its pixels may be gone
            return kept
        chosen, footage = self._view(run, video, view)

        def score() -> list[float]:
            try:
                return score_view(chosen.model, chosen.config, footage.view(view)).tolist()
            except EvaluationError as error:
                raise EvaluationError(f"{chosen.name}: {error}") from None

        return self._scores.get((run, video, view), score)

    def observation(self, run: int, video: int, view: int) -> Observation:
        """What every block compared in this view. ValueError where the network has no block."""
        kept = self._observations.find((run, video, view))
        if kept is not None:
            return kept
        chosen, footage = self._view(run, video, view)

        def look() -> Observation:
            data = chosen.config.data
            clip = normalize(footage.view(view)[None].to(self.device), data.mean, data.std)
            return observe(chosen.model, clip)

        return self._observations.get((run, video, view), look)

    def _view(self, run: int, video: int, view: int) -> tuple[Run, Footage]:
        chosen = self._run(run)
        if not 0 <= video < len(self._videos):
            raise NotHere(f"video {video}: there are {len(self._videos)}, counted from 0")
        footage = self._cut(chosen, self._videos[video])
        if not 0 <= view < len(footage):
            raise NotHere(f"view {view}: {chosen.name} has {len(footage)} of a video, counted from 0")
        return chosen, footage

    def _run(self, run: int) -> Run:
        if not 0 <= run < len(self.runs):
            raise NotHere(f"run {run}: there are {len(self.runs)}, counted from 0")
        return self.runs[run]

    def _cut(self, run: Run, video: Source) -> Footage:
        """The same footage serves runs that cut alike."""
        test = run.config.test.model_dump_json(exclude={"views_at_once"})
        key = (video.path, *sampling(run.config), test)
        return self._footage.get(
            key, lambda: cut_video(video.path, run.config, limit_bytes=video.limit_bytes)
        )


def describe(run: Run) -> dict[str, Any]:
    """A run for the page: its name, its network, its classes, and how it tests a video."""
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
    """Where a block's keys and queries lie in the clip (centres along t, y and x), and what it compares with.

    `exact`: whether these places were followed through the network, or estimated from the sizes of its maps.
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
    """The centres of a block's queries along one axis of the clip, ascending."""
    places = range(seen.grid[axis])
    positions = [tuple(p if a == axis else 0 for a in range(len(seen.grid))) for p in places]
    return sorted({seen.query_centre(path, position)[axis] for position in positions})
