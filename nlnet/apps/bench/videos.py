"""Synthetic H.264 videos that cost about as much to decode as filmed ones, since they have similar detail and motion.

An image with a 1/f spectrum, like that of photographs, moves behind a moving patch of another one, with noise on both.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import av
import numpy as np

from nlnet.data import VideoItem, VideoList


def write_videos(
    folder: Path, count: int, *, num_frames: int, size: tuple[int, int], options: Mapping[str, str]
) -> VideoList:
    """Write H.264 videos at 30 frames per second, and return them as a list of videos."""
    paths = [folder / f"{k}.mp4" for k in range(count)]
    for seed, path in enumerate(paths):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options=dict(options))
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
            for picture in moving_pictures(num_frames, size, seed):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return VideoList(tuple(VideoItem(path, None) for path in paths), (), folder)


def moving_pictures(num_frames: int, size: tuple[int, int], seed: int) -> Iterator[np.ndarray]:
    """The frames of one video, uint8 RGB (H, W, 3)."""
    rng = np.random.default_rng(seed)
    height, width = size
    scene, patch = _scene(rng, (height, 2 * width)), _scene(rng, (height // 4, height // 4))
    for t in range(num_frames):
        picture = np.roll(scene, -t, axis=1)[:, :width].copy()
        top = int((0.5 + 0.4 * np.sin(t / 17)) * (height - len(patch)))
        left = int((0.5 + 0.4 * np.cos(t / 23)) * (width - len(patch)))
        picture[top : top + len(patch), left : left + len(patch)] = 255 - patch
        yield (picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)


def _scene(rng: np.random.Generator, size: Sequence[int]) -> np.ndarray:
    """A random image (H, W, 3) with a 1/f spectrum, mean 120 and standard deviation 45."""
    y, x = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    falling = 1 / np.maximum(np.hypot(y, x), 1 / max(size))
    spectrum = np.fft.rfft2(rng.normal(size=(*size, 3)), axes=(0, 1)) * falling[..., None]
    scene = np.fft.irfft2(spectrum, s=tuple(size), axes=(0, 1))
    return 120 + 45 * (scene - scene.mean()) / scene.std()
