"""Multi-view testing and prediction, which compute the scores of a video by the same code.

Each video has clips × crops views, chosen by a named protocol (`nlnet.data.protocols`). The score of a view is the
softmax over the K classes, or the sigmoid of each class if the network was trained with sigmoids, averaged over the
grid of the fully convolutional head. The score of a video is the mean or the maximum over its views (§4.1; original
release). Names of metrics say what they are of: clip_* of single views, video_* of videos.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from nlnet.data import EvalTransform, EvalViews, VideoList, Views, normalize
from nlnet.engine.config import Config, DataConfig, EvalConfig
from nlnet.engine.config.inputs import check_labels, sampling
from nlnet.engine.distributed import World
from nlnet.engine.evaluation.score_files import Score
from nlnet.engine.evaluation.video_scores import Evaluation, Unread, VideoScores
from nlnet.engine.network import PRECISIONS, eval_precision, eval_window, for_testing
from nlnet.engine.signals import ignore_interrupts, wait_for_threads
from nlnet.errors import EvaluationError
from nlnet.models.resnet import Triple, VideoResNet


class NoVideoReadError(EvaluationError):
    """None of the videos could be read; `unread` has the reason for each."""

    def __init__(self, unread: Sequence[Unread]) -> None:
        reasons = "; ".join(video.reason for video in unread[:3])
        super().__init__(f"none of the {len(unread)} videos could be read: {reasons}")
        self.unread = tuple(unread)


@torch.no_grad()
def score_views(
    model: VideoResNet,
    views: Tensor | Views,
    *,
    window: Triple | None,
    data: DataConfig,
    device: torch.device,
    precision: str = "float32",
    views_at_once: int = 6,
    score: Score = "softmax",
) -> Tensor:
    """Return the (V, K) probabilities of uint8 views (V, 3, T, H, W), on the CPU in float32.

    With a `window`, which slides over the last map, the score is the mean over its positions of the softmax (or of the
    sigmoids); without one the whole map is averaged first and scored once.

    Args:
        views: a tensor, or the views of a video (`nlnet.data.Views`), which are then cut from its frames on the device.
        window: the size of the head's window in cells of the last map (`eval_window`).
        views_at_once: views of a forward pass; bounds memory, does not change results.
    """
    scores = []
    parts = views.split(views_at_once) if isinstance(views, Tensor) else views.parts(views_at_once, device)
    for part in parts:
        clip = normalize(part.to(device, non_blocking=True), data.mean, data.std)
        clip = clip.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32"):
            logits = (
                model(clip)[:, :, None, None, None] if window is None else model.dense_logits(clip, window)
            )
        # the softmax of each position first, then the mean: the other order is another score
        probabilities = logits.float().softmax(dim=1) if score == "softmax" else logits.float().sigmoid()
        scores.append(probabilities.mean(dim=(2, 3, 4)).cpu())
    return torch.cat(scores)


def evaluate(
    model: VideoResNet,
    videos: VideoList,
    config: Config,
    *,
    world: World,
    test: EvalConfig | None = None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score every video of the list once, divided among the processes; every process returns the whole result.

    Args:
        test: the settings of the test; those of the configuration if not given.
        on_video: called as on_video(done, total) after each of this process's videos.

    Raises:
        EvaluationError: no video could be read, a score is NaN or infinite, or a view is smaller than the head's
            window.
        ConfigError: the labels do not fit the loss that the network was trained with (training.loss).
    """
    test = test or config.test
    if any(item.label is not None for item in videos.items):
        check_labels(videos, config.training.loss, videos.source)
    frames, stride = sampling(config)
    views = EvalViews(
        videos,
        length=frames,
        stride=stride,
        num_clips=test.clips,
        protocol=test.protocol,
        transform=EvalTransform(test.crop, test.short_side, test.crops, test.protocol),
    )
    mine = range(world.rank, len(videos.items), world.size)
    loader = DataLoader(
        Subset(views, mine),
        batch_size=None,  # a sample is all views of a video, which the network gets in parts
        num_workers=min(config.data.workers, len(mine)),
        pin_memory=world.device.type == "cuda",
        worker_init_fn=ignore_interrupts,
    )
    window = eval_window(model, config, test)
    was_training = model.training  # validation interrupts training
    network, precision = for_testing(model, test), eval_precision(config, test)
    scored: list[VideoScores] = []
    unread: list[Unread] = []
    # a failed process must not leave the others waiting in `gather`
    with world.together():
        wait_for_threads()
        for done, item in enumerate(loader, start=1):
            source = videos.items[item.index]
            if item.failure is not None:
                unread.append(Unread(item.index, source.path, source.label, item.failure))
            else:
                scores = score_views(
                    network,
                    item,
                    window=window,
                    data=config.data,
                    device=world.device,
                    precision=precision,
                    views_at_once=test.views_at_once,
                    score=config.training.loss,
                )
                if not torch.isfinite(scores).all():
                    raise EvaluationError(f"{source.path}: the network's scores are NaN or infinite")
                scored.append(
                    VideoScores(item.index, source.path, source.label, scores, item.starts, test.aggregate)
                )
            on_video(done, len(mine))
    model.train(was_training)
    return _join(world.gather((scored, unread)), videos.classes)


def _join(parts: Sequence[tuple[list[VideoScores], list[Unread]]], classes: tuple[str, ...]) -> Evaluation:
    """Join the results of all processes, in the order of the list."""
    videos = sorted((v for scored, _ in parts for v in scored), key=lambda v: v.index)
    unread = sorted((f for _, failed in parts for f in failed), key=lambda f: f.index)
    if not videos:
        raise NoVideoReadError(unread)
    return Evaluation(tuple(videos), tuple(unread), classes)
