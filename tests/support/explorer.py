"""Runs, videos and a running explorer for the tests of the page and its server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np
import torch
import uvicorn
from support.videos import write_video

from nlnet.apps.explorer.access import LOOPBACK
from nlnet.apps.explorer.command import listening
from nlnet.apps.explorer.server import create_app
from nlnet.apps.explorer.session import Session, load_run
from nlnet.apps.explorer.uploads import Uploads
from nlnet.block import NonLocalBlock
from nlnet.engine.config import Config, override
from nlnet.engine.network import build_model
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.engine.runs.directory import RunDir

CLASSES = ("juggling", "knitting", "rowing", "welding")


def saved_run(directory: Path, *settings: str) -> Path:
    """Write a run of a small untrained network whose blocks change their input: γ is random, not zero."""
    torch.manual_seed(1)
    config = override(
        Config(),
        [
            "model.name=i3d_mini_nl1",
            "model.variant=8x8",
            "data.frames=8",
            "data.stride=2",
            "data.crop=64",
            "data.scales=[72, 80]",
            "test.clips=2",
            "test.short_side=72",
            "test.crop=64",
            *settings,
        ],
    )
    model = build_model(config, len(CLASSES))
    for module in model.modules():
        if isinstance(module, NonLocalBlock):
            torch.nn.init.normal_(module.norm.weight, 1.0, 0.3)
    run = RunDir(directory)
    run.create(config, CLASSES)
    run.save(
        "last",
        Checkpoint(weights=model.state_dict(), config=config, classes=CLASSES, iteration=7, metrics={}),
    )
    return directory


def disc(number: int, height: int, width: int) -> np.ndarray:
    """A frame of a video in which a pale disc crosses a dark background with faint lines."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([40 + 20 * (x % 16 < 1), 44 + 20 * (y % 16 < 1), 60 + 0 * x], axis=-1).astype(np.uint8)
    inside = (y - height / 2 - 12 * np.sin(number / 5)) ** 2 + (x - 16 - 4 * number) ** 2 < 144
    frame[inside] = (250, 220, 170)
    return frame


def saved_video(path: Path, *, count: int = 24, size: tuple[int, int] = (72, 112)) -> Path:
    """Write a video of `disc` with `count` frames."""
    return write_video(path, count, size=size, draw=disc, options={"crf": "12"})


@dataclass(frozen=True)
class Explorer:
    """A running explorer: its address, its session and its uploads."""

    url: str
    port: int
    session: Session
    uploads: Uploads


@contextmanager
def serving(runs: list[Path], videos: list[Path], *, limit_bytes: int = 10**6) -> Iterator[Explorer]:
    """Run the real server on a real socket, in a thread of this process."""
    device = torch.device("cpu")
    session = Session([load_run(run, run.name, "last", device) for run in runs], videos, device)
    with listening("127.0.0.1", 0) as listener, Uploads(limit_bytes) as uploads:
        app = create_app(session, uploads, names=LOOPBACK, loopback=True)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", server_header=False, lifespan="off")
        )
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            yield Explorer(f"http://127.0.0.1:{port}/", port, session, uploads)
        finally:
            server.should_exit = True
            thread.join()
