"""The attention of a trained network on one view of a video: the view, its class scores and its attention maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from nlnet.apps.attend.attention_map import AttentionMap
from nlnet.attention.observe import Observation, observe
from nlnet.data import normalize
from nlnet.engine.config import Config
from nlnet.engine.evaluation.video_views import cut_video, middle_view, score_view
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.errors import NlnetError
from nlnet.models.resnet import VideoResNet


@dataclass(frozen=True, eq=False)
class View:
    """One view (a crop of a clip) of a video, as `nlnet test` makes it."""

    video: Path
    clip: Tensor
    """uint8 (3, T, H, W)"""
    number: int
    """Number of this view, clip number × crops + crop number; the video has `of` views."""
    of: int
    start: int
    """Frame of the video at which the clip starts."""
    seconds: tuple[float, ...] | None = None
    """Time in the video of each frame of the clip; None if the video has no frame rate."""


@dataclass(frozen=True, eq=False)
class VideoAttention:
    """The attention and the class scores of a network on one view of a video."""

    view: View
    observation: Observation
    scores: dict[str, float]
    """Probability of each class for this view, largest first."""
    label: str | None
    """The true class, taken from the name of the video's folder; None if that is not a class."""

    @property
    def title(self) -> str:
        """File name, predicted class and label in one line."""
        name, probability = next(iter(self.scores.items()))
        label = "" if self.label is None else f", label {self.label}"
        return f"{self.view.video.name}: answer {name} ({100 * probability:.1f} %){label}"

    @property
    def frames(self) -> np.ndarray:
        """The frames of the clip before normalisation, (T, H, W, 3) uint8."""
        frames: np.ndarray = self.view.clip.permute(1, 2, 3, 0).numpy()
        return frames

    def maps(self, positions: Sequence[Sequence[int]], paths: Sequence[str]) -> list[AttentionMap]:
        """The attention maps of each block in `paths` from each position (t, y, x), ordered by position, then block."""
        rows, seen = self.observation.rows(positions), self.observation
        centres = {path: tuple(c.numpy() for c in seen.centres(path)) for path in paths}
        return [
            AttentionMap(path, tuple(position), rows[path][i].cpu().numpy(), centres[path], seen.signed(path))  # type: ignore[arg-type]
            for i, position in enumerate(positions)
            for path in paths
        ]


def view_of(video: Path, config: Config, number: int | None = None) -> View:
    """Read one view of a video under a run's test settings; by default the centre crop of the middle clip.

    Raises:
        NlnetError: no such view, or a video that cannot be read.
    """
    test, views = config.test, cut_video(video, config)
    total = len(views)
    number = middle_view(test.clips, test.crops) if number is None else number
    if not 0 <= number < total:
        raise NlnetError(
            f"view: got {number}, expected 0 to {total - 1}; the run tests {test.clips} clips × {test.crops} crops of a video"
        )
    start = views.numbers[number // test.crops][0]
    return View(video, views.view(number), number, total, start, views.seconds(number))


def attention_of_video(model: VideoResNet, checkpoint: Checkpoint, view: View) -> VideoAttention:
    """Run the network on one view, once for the class scores and once in float32 for the attention."""
    config = checkpoint.config
    ranked = score_view(model, config, view.clip).sort(descending=True)
    classes = [checkpoint.classes[i] for i in ranked.indices.tolist()]
    folder = view.video.absolute().parent.name
    return VideoAttention(
        view,
        observe(model, normalize(view.clip[None], config.data.mean, config.data.std)),
        dict(zip(classes, ranked.values.tolist(), strict=True)),
        folder if folder in checkpoint.classes else None,
    )
