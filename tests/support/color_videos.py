"""Small noise videos whose colour tint is their class."""

from pathlib import Path

import av
import numpy as np

COLORS = ("blue", "green", "red")


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write (T, H, W, 3) uint8 frames as H.264 in an .mp4 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
