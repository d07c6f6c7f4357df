"""Fixtures shared by all tests: small encoded videos, and a fixed seed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.color_videos import COLORS, write_video


@pytest.fixture(scope="session")
def color_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders train/ and val/ with class folders blue, green, red: noise of that tint, 10 frames of 32×32."""
    root = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for channel, color in zip((2, 1, 0), COLORS, strict=True):
            for index in range(count):
                frames = rng.integers(0, 80, (10, 32, 32, 3), dtype=np.uint8)
                frames[..., channel] += 100
                write_video(root / split / color / f"{index}.mp4", frames)
    return root


@pytest.fixture
def corrupted(tmp_path: Path):
    """A function that copies videos and truncates the first one of a folder; returns the copy and the bad path."""

    def make(videos: Path, folder: str) -> tuple[Path, Path]:
        copy = tmp_path / "videos"
        shutil.copytree(videos, copy)
        bad = sorted((copy / folder).iterdir())[0]
        bad.write_bytes(bad.read_bytes()[:200])
        return copy, bad

    return make


@pytest.fixture
def without_onednn() -> Iterator[None]:
    """Switch oneDNN off: torch 2.13's sometimes gives NaN for bf16 gradients at odd sizes (docs/log.md)."""
    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = True


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Give every test the same torch seed."""
    torch.manual_seed(0)
