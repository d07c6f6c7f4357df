"""A run directory as `nlnet train` leaves it, of an untrained small network whose block has an effect."""

from pathlib import Path

import torch
from torch import nn

from nlnet.engine.config import Config, override
from nlnet.engine.network import build_model
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.engine.runs.directory import RunDir

CLASSES = ("blue", "green", "red")


def save_run(directory: Path, *settings: str) -> Path:
    """Clips of 4 frames, 2 clips × 3 crops; checkpoints last (iteration 20) and best (iteration 10); metrics.jsonl."""
    config = override(
        Config(),
        [
            "model.name=c2d_mini_nl1",
            "model.variant=8x8",
            "data.frames=4",
            "data.stride=2",
            "data.crop=48",
            "data.scales=[52, 60]",
            "data.workers=0",
            "test.clips=2",
            "test.crops=3",
            "test.short_side=56",
            "test.crop=48",
            *settings,
        ],
    )
    run = RunDir(directory)
    run.create(config, CLASSES)
    torch.manual_seed(0)
    for name, iteration in (("best", 10), ("last", 20)):
        model = build_model(config, len(CLASSES))
        nn.init.normal_(model.fc.weight)  # its own initialisation gives all classes nearly the same score
        for key, parameter in model.named_parameters():
            if key.endswith("nonlocal_block.norm.weight"):
                nn.init.ones_(parameter)
        weights = model.state_dict()
        run.save(
            name, Checkpoint(weights=weights, config=config, classes=CLASSES, iteration=iteration, metrics={})
        )
    for iteration in (10, 20):
        run.log(
            {"kind": "train", "iteration": iteration, "loss": 10 / iteration, "clip_top1": 40.0, "lr": 0.01}
        )
        run.log({"kind": "validation", "iteration": iteration, "clip_top1": 3.0 * iteration, "failures": 0})
    return directory
