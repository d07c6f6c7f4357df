"""Trained runs in Python: predictions, features, attention and curves, with the same numbers as the commands."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nlnet.apps.attend.attention_map import AttentionMap
from nlnet.apps.attend.command import TOP, select_blocks
from nlnet.apps.attend.figures import attention_figure
from nlnet.apps.attend.video_attention import VideoAttention, attention_of_video, view_of
from nlnet.apps.plots import Figure, curves_figure
from nlnet.apps.verbs.predict import Prediction, predict_videos
from nlnet.data import normalize
from nlnet.engine.config import Config
from nlnet.engine.distributed import World, choose_device
from nlnet.engine.evaluation.evaluate import NoVideoReadError
from nlnet.engine.evaluation.video_scores import Unread
from nlnet.engine.evaluation.video_views import cut_video
from nlnet.engine.network import PRECISIONS, eval_precision, for_testing, load_network
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import EvaluationError, NlnetError, RunError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet

Source = str | Path
Position = Sequence[int]


def load(path: Source, checkpoint: Literal["last", "best"] = "last", device: str = "auto") -> "TrainedRun":
    """Load a trained run for predictions, features, attention and training curves.

        run = nlnet.load("runs/mine")
        run.predict("clip.mp4").label

    Needs the packages of `pip install 'nlnet[video]'`. Nothing is printed, and no process group of torch.distributed
    is used.

    Args:
        path: a run directory of `nlnet train`, or a .safetensors checkpoint file.
        checkpoint: of a run directory, the newest weights ("last") or those with the best validation metric ("best").
        device: "auto" (CUDA if there is a device, else the CPU), "cpu" or "cuda".

    Raises:
        RunError: no such run or checkpoint, or a file that cannot be read.
        MissingPackageError: a package of the extra `video` is not installed.
        NlnetError: an unknown device. All of these are ValueErrors.
    """
    path = Path(path)
    if checkpoint not in ("last", "best"):
        raise RunError(f"checkpoint: got {checkpoint!r}, expected 'last' or 'best'")
    here = choose_device(device)
    model, loaded = load_network(path, checkpoint, here)
    metrics = RunDir(path).metrics() if path.is_dir() else []
    # the model has the weights now: a second copy is not kept
    return TrainedRun(
        path=path, model=model, metrics=metrics, device=here, _checkpoint=replace(loaded, weights={})
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TrainedRun:
    """A trained network with its configuration and class names; `nlnet.load` returns it."""

    path: Path
    """The run directory or checkpoint file."""
    model: VideoResNet
    """The network in evaluation mode, a `torch.nn.Module` over normalised clips (B, 3, T, H, W)."""
    metrics: list[dict[str, Any]]
    """The records of metrics.jsonl (training, validation, block statistics); empty for a checkpoint file."""
    device: torch.device
    _checkpoint: Checkpoint

    @property
    def config(self) -> Config:
        """The configuration that the run was trained with; `config.test` holds the test views."""
        return self._checkpoint.config

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the network's outputs."""
        return self._checkpoint.classes

    @property
    def iteration(self) -> int:
        """The training iteration of the weights."""
        return self._checkpoint.iteration

    def __repr__(self) -> str:
        return (
            f"TrainedRun({str(self.path)!r}: {self.config.model.name}, {len(self.classes)} classes, "
            f"iteration {self.iteration}, on {self.device})"
        )

    # mypy notes that a str is a sequence of str; the overloads for one path come first and take it
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, videos: Source, *, errors: Literal["raise"] = "raise", progress: bool = False
    ) -> Prediction: ...

    @overload
    def predict(
        self, videos: Sequence[Source], *, errors: Literal["raise"] = "raise", progress: bool = False
    ) -> list[Prediction]: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, videos: Source, *, errors: Literal["skip"], progress: bool = False
    ) -> Prediction | None: ...

    @overload
    def predict(
        self, videos: Sequence[Source], *, errors: Literal["skip"], progress: bool = False
    ) -> list[Prediction | None]: ...

    def predict(
        self,
        videos: Source | Sequence[Source],
        *,
        errors: Literal["raise", "skip"] = "raise",
        progress: bool = False,
    ) -> Prediction | list[Prediction] | list[Prediction | None] | None:
        """Classify one video or a list of videos, with the code that `nlnet test` and `nlnet predict` use.

        Every video is scored on the run's test views (`config.test`: clips × crops under a protocol), and the scores
        of the views are averaged.

        Args:
            videos: a path of a video file or of a folder of frames, or a list of paths.
            errors: "raise" raises when a video cannot be read, after the other videos were scored. "skip" returns
                None in the place of that video and warns.
            progress: show the progress bar of the command line on stderr.

        Returns:
            A `Prediction`, or for a list of paths a list of them in the same order.

        Raises:
            EvaluationError: a video cannot be read (the message names each), or a score is NaN or infinite.
        """
        if errors not in ("raise", "skip"):
            raise NlnetError(f"errors: got {errors!r}, expected 'raise' or 'skip'")
        single = isinstance(videos, str | Path)
        files = [Path(videos)] if isinstance(videos, str | Path) else [Path(video) for video in videos]
        if not files:
            return []
        # one process, whatever torchrun's environment variables say: a notebook never waits for other processes
        here = World(rank=0, size=1, device=self.device)
        try:
            found = predict_videos(self.model, self._checkpoint, files, world=here, progress=progress)
        except NoVideoReadError as error:
            found = list(error.unread)
        reasons = [result.reason for result in found if isinstance(result, Unread)]
        if reasons and errors == "raise":
            raise EvaluationError("; ".join(reasons))
        for reason in reasons:
            warnings.warn(f"skipped {reason}", stacklevel=2)
        results = [None if isinstance(result, Unread) else result for result in found]
        return results[0] if single else results

    @torch.no_grad()
    def features(self, video: Source, *, per_view: bool = False) -> Float[Tensor, "*views C"]:
        """The features of a video, (C,): the last map, averaged over time and space, then over the test views.

        The classifier takes them: `run.model.fc(features)` are the logits of a view where the whole map is averaged, as
        by the protocol "mmaction2" and wherever the test crop is the training crop. The other protocols slide a window
        of the training crop's size over a larger map and classify each average.

        Args:
            per_view: return the features of each view, (V, C), clips outermost, crops inside.

        Returns:
            float32 on the CPU.

        Raises:
            UnreadableVideoError: the video cannot be read.
        """
        test, data = self.config.test, self.config.data
        network, precision = for_testing(self.model, test), eval_precision(self.config, test)
        pooled = []
        # as nlnet.engine.evaluation.evaluate.score_views prepares its clips: same parts, memory format and precision
        for part in cut_video(Path(video), self.config).cut.parts(test.views_at_once, self.device):
            clips = normalize(part, data.mean, data.std).contiguous(memory_format=torch.channels_last_3d)
            with torch.autocast(self.device.type, PRECISIONS[precision], enabled=precision != "float32"):
                maps = network.features(clips)
            pooled.append(maps.float().mean(dim=(2, 3, 4)).cpu())
        views = torch.cat(pooled)
        return views if per_view else views.mean(dim=0)

    def attention(
        self,
        video: Source,
        position: Position | None = None,
        *,
        view: int | None = None,
        blocks: Sequence[str] | None = None,
    ) -> "Attention":
        """The attention of the non-local blocks from one position of a video, as in `nlnet attend`.

        Args:
            position: the query (t, y, x): frame, row and column in the clip of the view. By default the position that
                the last of the blocks changes most.
            view: the number of the test view, clip × crops + crop; by default the centre crop of the middle clip.
            blocks: paths of blocks, or of modules that contain blocks ("layer3"); by default all blocks.

        Raises:
            NlnetError: a network without non-local blocks, an unknown view or block, a position outside of the clip.
            UnreadableVideoError: the video cannot be read.
        """
        if not nonlocal_blocks(self.model):
            raise NlnetError(
                f"{self.config.model.name} has no non-local block, so there is no attention to show"
            )
        found = attention_of_video(self.model, self._checkpoint, view_of(Path(video), self.config, view))
        paths = tuple(select_blocks(found.observation.paths, blocks or ()))
        if position is None:
            (position,) = found.observation.strongest(1, paths[-1])
        return Attention(found, paths, position)

    def curves(self) -> Figure:
        """Draw the training loss and the validation accuracy over the iterations, as a matplotlib figure.

        Raises:
            RunError: a checkpoint file, which has no metrics.
        """
        if not self.metrics:
            raise RunError(
                f"{self.path}: no training metrics here; curves need the run directory of `nlnet train`"
            )
        # the figure names runs NETWORK-SEED
        return curves_figure({f"{self.path.absolute().name}-0": self.metrics})


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention weights of each block from one position of a clip to all keys; `TrainedRun.attention` returns it."""

    _found: VideoAttention = field(repr=False)
    blocks: tuple[str, ...]
    """The paths of the blocks, in the network's order."""
    position: Position
    """The query (t, y, x) in the clip."""

    def __post_init__(self) -> None:
        self._found.observation.query_cell(
            self.blocks[0], self.position
        )  # raises for a position outside of the clip

    @property
    def weights(self) -> dict[str, Float[Tensor, "T H W"]]:
        """The attention weights f(x_i, x_j)/C(x) of each block from the position to all its keys.

        They are on the block's grid of keys (T', H', W'). A softmax row is non-negative and sums to 1. Keys that the position does not see have 0.
        """
        return {found.block: torch.from_numpy(found.weights) for found in self._maps}

    @property
    def centres(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Where the keys of each block lie in the clip: their frames (T'), rows (H') and columns (W')."""
        found = {path: self._found.observation.centres(path) for path in self.blocks}
        return found  # type: ignore[return-value]

    @property
    def query_cells(self) -> dict[str, tuple[int, ...]]:
        """The cell on each block's grid that stands for the position: the one whose centre is nearest."""
        return {path: self._found.observation.query_cell(path, self.position) for path in self.blocks}

    @property
    def query_centres(self) -> dict[str, tuple[float, ...]]:
        """The centre (t, y, x) in the clip of the cell that stands for the position, for each block."""
        return {path: self._found.observation.query_centre(path, self.position) for path in self.blocks}

    @property
    def clip(self) -> UInt8[Tensor, "3 T H W"]:
        """The frames of the view before normalisation."""
        return self._found.view.clip

    @property
    def scores(self) -> dict[str, float]:
        """The probability of each class for this view, the largest first."""
        return self._found.scores

    def strongest(self, count: int = 1, block: str | None = None) -> list[tuple[int, ...]]:
        """Up to `count` positions (t, y, x) that a block (by default the last one) changes most, strongest first."""
        return self._found.observation.strongest(count, self.blocks[-1] if block is None else block)

    def strongest_keys(
        self, count: int = TOP, block: str | None = None
    ) -> list[tuple[float, tuple[float, float, float]]]:
        """The `count` keys of a block (by default the last one) with the largest |weight|: weight and centre (t, y, x)."""
        block = self.blocks[-1] if block is None else block
        if block not in self.blocks:
            raise NlnetError(f"block: got {block!r}, expected one of {', '.join(self.blocks)}")
        return self._maps[self.blocks.index(block)].strongest(count)

    def at(self, position: Position) -> "Attention":
        """The attention from another position of the same view; the network does not run again."""
        return Attention(self._found, self.blocks, position)

    def figure(self, top: int = TOP) -> Figure:
        """Draw the figure of `nlnet attend`: for each block arrows to the `top` strongest keys, and a heat map."""
        return attention_figure(self._found.frames, self._maps, title=self._found.title, top=top)

    @cached_property
    def _maps(self) -> list[AttentionMap]:
        return self._found.maps([self.position], self.blocks)
