"""Benchmarks of loading: the data loader against decoding alone, and a test against decoding plus network."""

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.utils.data import DataLoader, Dataset

from nlnet.apps.bench.side_by_side import Comparison
from nlnet.apps.bench.videos import write_videos
from nlnet.data import EvalTransform, EvalViews, TrainClips, TrainTransform, Video
from nlnet.data.clips import clip_indices, eval_clips, random_start
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.distributed import World
from nlnet.engine.evaluation.evaluate import evaluate, score_views
from nlnet.engine.network import build_model, eval_precision, eval_window, for_testing
from nlnet.engine.training.loader import TrainLoader

ENCODINGS: Mapping[str, Mapping[str, str]] = {
    "a keyframe where x264 sets one": {},
    "a keyframe every 30": {"g": "30"},
}


def loader_comparisons(
    *,
    clips: int = 32,
    batch: int = 4,
    sampling: tuple[tuple[int, int], ...] = ((32, 2), (8, 8)),
    transform: TrainTransform | None = None,
    num_frames: int = 300,
    size: tuple[int, int] = (256, 340),
    workers: tuple[int, ...] = (1, 2),
) -> Iterator[Comparison]:
    """Compare random clips from H.264 video: one process that only decodes, and the loader with W workers.

    The loader's efficiency is its speedup divided by W. W processes that only decode are timed too: their speedup is
    what the machine can reach with W processes.

    Args:
        sampling: (frames of a clip, distance between them).
    """
    transform = transform or TrainTransform(224)
    # the seeds decide where each clip starts, so that every way decodes the same frames
    keys = [(0, seed) for seed in range(clips)]
    batches = [keys[first : first + batch] for first in range(0, clips, batch)]
    for encoding, options in ENCODINGS.items():
        with TemporaryDirectory() as folder:
            videos = write_videos(Path(folder), 1, num_frames=num_frames, size=size, options=options)
            for length, stride in sampling:
                decoded = DecodedClips(videos.items[0].path, num_frames, length, stride)
                data = TrainClips(videos, length=length, stride=stride, transform=transform)
                ways: dict[str, Callable[[], object]] = {"one decoder": partial(count_frames, decoded, keys)}
                for count in workers:
                    decoders = DataLoader(
                        decoded, batch_size=batch, sampler=keys, num_workers=count, persistent_workers=True
                    )
                    loader = TrainLoader(data, batches, workers=count, persistent=True)
                    # workers persist: they are started by the run that does not count, before the timed ones
                    ways[f"decoders, {count}"] = partial(list, decoders)
                    ways[f"loader, {count}"] = partial(count_clips, loader)
                yield Comparison(
                    name=f"clips of {length} frames, every {stride}, {encoding}",
                    ways=ways,
                    amounts=dict.fromkeys(ways, float(clips)),
                    facts={
                        "size": list(size),
                        "frames": num_frames,
                        "crop": transform.crop,
                        "cores": os.cpu_count(),
                    },
                )


def evaluation_comparisons(
    config: Config,
    *,
    videos: int = 2,
    num_frames: int = 300,
    size: tuple[int, int] = (256, 340),
    num_classes: int = 400,
    device: torch.device | None = None,
) -> Iterator[Comparison]:
    """Compare the multi-view test of `config` with a lower bound: each frame decoded once, then the network.

    The baseline decodes once each frame that some view needs, and scores views that are in memory already, with the
    network as `evaluate` prepares it. A speedup of 1/1.2 means that the test takes 1.2 times as long as that.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config, num_classes).eval().to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    length, stride = sampling(config)
    test = config.test
    network, precision = for_testing(model, test), eval_precision(config, test)
    chosen = eval_clips(num_frames, test.clips, length=length, stride=stride, protocol=test.protocol)
    # clips overlap: a frame that several of them need is decoded once
    needed = sorted({number for clip in chosen for number in clip})
    with TemporaryDirectory() as folder:
        written = write_videos(Path(folder), videos, num_frames=num_frames, size=size, options={})
        views = EvalViews(
            written,
            length=length,
            stride=stride,
            num_clips=test.clips,
            protocol=test.protocol,
            transform=EvalTransform(test.crop, test.short_side, test.crops, test.protocol),
        )[0].clips
        assert views is not None

        def decode_and_score() -> None:
            for item in written.items:
                with Video(item.path) as video:
                    video.frames(needed)  # the frames are dropped: `views` were made before the clock starts
                score_views(
                    network,
                    views,
                    window=eval_window(model, config, test),
                    data=config.data,
                    device=device,
                    precision=precision,
                    views_at_once=test.views_at_once,
                    score=config.training.loss,
                )

        yield Comparison(
            name=f"test of {len(views)} views, {config.model.name} {length}x{stride}",
            ways={
                "one decode + network": decode_and_score,
                "test": lambda: evaluate(model, written, config, world=World(0, 1, device)),
            },
            amounts={"one decode + network": float(videos), "test": float(videos)},
            facts={
                "size": list(size),
                "frames": num_frames,
                "decoded": len(needed),
                "workers": config.data.workers,
            },
        )


class DecodedClips(Dataset[int]):
    """Decode the frames of the random clips that `TrainClips` takes, and return only their number."""

    def __init__(self, path: Path, num_frames: int, length: int, stride: int) -> None:
        self.path, self.num_frames, self.length, self.stride = path, num_frames, length, stride

    def __getitem__(self, key: tuple[int, int]) -> int:
        draw = random.Random(key[1]).random()
        start = random_start(self.num_frames, length=self.length, stride=self.stride, draw=draw)
        with Video(self.path) as video:
            wanted = clip_indices(start, length=self.length, stride=self.stride, num_frames=self.num_frames)
            return len(video.frames(wanted))


def count_frames(decoded: DecodedClips, keys: Sequence[tuple[int, int]]) -> list[int]:
    """The number of frames of each clip."""
    return [decoded[key] for key in keys]


def count_clips(loader: TrainLoader) -> int:
    """The number of clips that the loader returns."""
    return sum(len(batch.indices) for batch in loader)
