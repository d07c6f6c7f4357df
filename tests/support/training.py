"""Small training runs on the colour videos of conftest.py."""

from pathlib import Path

import torch

from nlnet.engine.config import Config, override
from nlnet.engine.distributed import world
from nlnet.engine.runs.checkpoint import load_checkpoint
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.train import train


def settings(videos: Path, *more: str) -> Config:
    """A small complete run on the colour videos (conftest.py)."""
    return override(
        Config(),
        [
            "model.name=i3d_mini_nl1",
            "model.variant=8x8",
            f"data.train={videos / 'train'}",
            f"data.val={videos / 'val'}",
            "data.frames=4",
            "data.stride=2",
            "data.crop=24",
            "data.scales=[26, 30]",
            "data.workers=0",
            "optimizer.lr=0.02",
            "optimizer.reference_batch=6",
            "schedule.iterations=8",
            "schedule.steps=[6]",
            "training.batch=6",
            "training.validate_every=100",
            "training.checkpoint_every=100",
            "training.log_every=4",
            "training.precise_norm=2",
            *more,
        ],
    )


def run(config: Config, directory: Path, **options: object):
    with world("cpu") as here:
        return train(config, RunDir(directory), here, **options)  # type: ignore[arg-type]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(directory).weights
