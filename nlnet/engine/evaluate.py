"""Multi-view testing and prediction: one code path from a video file to its scores.

Each video gives clips × crops views. A view's score is the softmax over the K classes, averaged over the grid
of the fully convolutional head; the video's score is the mean over its views (§4.1; original release). Clip
metrics judge single views and video metrics judge videos: their names never lose the prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from nlnet.data import Failure, TestTransform, TestViews, VideoList, normalize
from nlnet.engine.config import Config, DataConfig, TestConfig
from nlnet.engine.distributed import World
from nlnet.engine.loading import ignore_interrupts, sampling
from nlnet.models import VideoResNet, create_model, window_of
from nlnet.models.resnet import Triple

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class EvaluationError(ValueError):
    """Nothing could be scored, or scores are not numbers."""


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video."""

    index: int
    path: Path
    label: int | None
    views: Tensor
    """(V, K) probabilities, clips outermost, crops inside."""

    @property
    def video(self) -> Tensor:
        """(K,) mean over the views."""
        return self.views.mean(dim=0)


@dataclass(frozen=True)
class Evaluation:
    """Scores of every readable video, in the list's order, and the failures: counted, never replaced."""

    videos: tuple[VideoScores, ...]
    failures: tuple[Failure, ...]
    classes: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """Percentages over the labelled videos that were read.

        `video_*` judge the mean over views, `clip_*` average over single views. `mean_class` averages the
        top-1 of each class. top-5 appears where there are more than five classes.
        """
        labelled = [v for v in self.videos if v.label is not None]
        if not labelled:
            return {}
        labels = torch.tensor([v.label for v in labelled])
        video_ranks = torch.stack([rank_of(v.video, v.label) for v in labelled])  # type: ignore[arg-type]
        clip_ranks = torch.stack([rank_of(v.views, v.label).float() for v in labelled])  # type: ignore[arg-type]
        right = (video_ranks < 1).float()
        metrics = {
            "video_top1": 100 * right.mean().item(),
            "video_mean_class": 100
            * torch.stack([right[labels == c].mean() for c in labels.unique()]).mean().item(),
            "clip_top1": 100 * (clip_ranks < 1).float().mean().item(),
        }
        if len(self.classes) > 5:
            metrics["video_top5"] = 100 * (video_ranks < 5).float().mean().item()
            metrics["clip_top5"] = 100 * (clip_ranks < 5).float().mean().item()
        return metrics


def rank_of(scores: Tensor, label: int) -> Tensor:
    """How many classes score strictly higher than `label`: 0 is top-1, below 5 is top-5."""
    return (scores > scores[..., label : label + 1]).sum(dim=-1)


def build_model(config: Config, num_classes: int) -> VideoResNet:
    """The configured network with fresh weights."""
    return create_model(num_classes=num_classes, **config.model.model_dump())


def training_window(model: VideoResNet, config: Config) -> Triple:
    """The last map's size at the training clip: the window of the fully convolutional head."""
    frames, _ = sampling(config)
    return window_of(model, (frames, config.data.crop, config.data.crop))


@torch.no_grad()
def score_views(
    model: VideoResNet,
    views: Tensor,
    *,
    window: Triple,
    data: DataConfig,
    device: torch.device,
    precision: str = "float32",
    views_at_once: int = 6,
) -> Tensor:
    """(V, K) probabilities of uint8 views (V, 3, T, H, W), on the CPU in float32."""
    scores = []
    for part in views.split(views_at_once):
        clip = normalize(part.to(device, non_blocking=True), data.mean, data.std)
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32"):
            logits = model.dense_logits(clip.contiguous(memory_format=torch.channels_last_3d), window)
        scores.append(logits.float().softmax(dim=1).mean(dim=(2, 3, 4)).cpu())
    return torch.cat(scores)


def evaluate(
    model: VideoResNet,
    videos: VideoList,
    config: Config,
    *,
    world: World,
    test: TestConfig | None = None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score every video of the list; the processes share the videos out, each exactly once.

    `on_video(done, total)` is called after each of this process's videos.

    Raises:
        EvaluationError: no video could be read, or a score is not finite.
    """
    test = test or config.test
    frames, stride = sampling(config)
    views = TestViews(
        videos,
        length=frames,
        stride=stride,
        num_clips=test.clips,
        protocol=test.protocol,
        transform=TestTransform(test.crop, test.short_side, test.crops),
    )
    mine = range(world.rank, len(videos.items), world.size)
    loader = DataLoader(
        Subset(views, mine),
        batch_size=None,
        num_workers=min(config.data.workers, len(mine)),
        pin_memory=world.device.type == "cuda",
        worker_init_fn=ignore_interrupts,
    )
    window = training_window(model, config)
    was_training = model.training
    model.eval()
    scored: list[VideoScores] = []
    failures: list[Failure] = []
    for done, item in enumerate(loader, start=1):
        if item.failure is not None:
            failures.append(Failure(item.index, item.failure))
        else:
            scores = score_views(
                model,
                item.clips,
                window=window,
                data=config.data,
                device=world.device,
                precision=config.training.precision,
                views_at_once=test.views_at_once,
            )
            source = videos.items[item.index]
            if not torch.isfinite(scores).all():
                raise EvaluationError(f"{source.path}: the network's scores are not finite numbers")
            scored.append(VideoScores(item.index, source.path, source.label, scores))
        on_video(done, len(mine))
    model.train(was_training)
    return _joined(world.gather((scored, failures)), videos.classes)


def _joined(parts: Sequence[tuple[list[VideoScores], list[Failure]]], classes: tuple[str, ...]) -> Evaluation:
    videos = sorted((v for scored, _ in parts for v in scored), key=lambda v: v.index)
    failures = sorted((f for _, failed in parts for f in failed), key=lambda f: f.index)
    if not videos:
        reasons = "; ".join(f.reason for f in failures[:3])
        raise EvaluationError(f"none of the {len(failures)} videos could be read: {reasons}")
    return Evaluation(tuple(videos), tuple(failures), classes)
