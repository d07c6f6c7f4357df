"""Multi-view testing and prediction: one code path from a video file to its scores.

Each video gives clips × crops views, chosen by a named protocol (`nlnet.data.protocols`). A view's score is the
softmax over the K classes, or each class's sigmoid where the network was trained so, averaged over the grid of the
fully convolutional head; the video's score is the mean, or the largest, over its views (§4.1; original release).
Clip metrics judge single views and video metrics judge videos: their names never lose the prefix.
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
from nlnet.engine.signals import ignore_interrupts
from nlnet.errors import EvaluationError
from nlnet.models.resnet import Triple, VideoResNet


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
    """(V, K) probabilities of uint8 views (V, 3, T, H, W), on the CPU in float32.

    The views of a video (`nlnet.data.Views`) are cut from its frames on the device, `views_at_once` at a time.
    With a `window` it slides over the last map, and the mean over its places of the softmax (or of the sigmoids) is
    the score; without one the whole map is averaged and scored once.
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
        places = logits.float().softmax(dim=1) if score == "softmax" else logits.float().sigmoid()
        scores.append(places.mean(dim=(2, 3, 4)).cpu())
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
    """Score every video of the list; the processes share the videos out, each exactly once.

    `on_video(done, total)` is called after each of this process's videos.

    Raises:
        EvaluationError: no video could be read, a score is not finite, or a view is smaller than the head's window.
        ConfigError: the labels are not of the kind that the network was trained for (training.loss).
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
        batch_size=None,
        num_workers=min(config.data.workers, len(mine)),
        pin_memory=world.device.type == "cuda",
        worker_init_fn=ignore_interrupts,
    )
    window = eval_window(model, config, test)
    was_training = model.training
    network, precision = for_testing(model, test), eval_precision(config, test)
    scored: list[VideoScores] = []
    unread: list[Unread] = []
    with world.together():
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
                    raise EvaluationError(f"{source.path}: the network's scores are not finite numbers")
                scored.append(
                    VideoScores(item.index, source.path, source.label, scores, item.starts, test.aggregate)
                )
            on_video(done, len(mine))
    model.train(was_training)
    return _joined(world.gather((scored, unread)), videos.classes)


def _joined(parts: Sequence[tuple[list[VideoScores], list[Unread]]], classes: tuple[str, ...]) -> Evaluation:
    videos = sorted((v for scored, _ in parts for v in scored), key=lambda v: v.index)
    unread = sorted((f for _, failed in parts for f in failed), key=lambda f: f.index)
    if not videos:
        reasons = "; ".join(f.reason for f in unread[:3])
        raise EvaluationError(f"none of the {len(unread)} videos could be read: {reasons}")
    return Evaluation(tuple(videos), tuple(unread), classes)
