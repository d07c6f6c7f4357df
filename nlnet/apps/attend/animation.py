"""Animations of attention: the clip playing beside the heat map of each block, as GIF and MP4."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nlnet.apps.attend.attention_map import AttentionMap, overlay_heat_map
from nlnet.apps.attend.figures import QUERY_COLOR
from nlnet.engine.runs.atomic_write import write_atomically

PANEL_SIDE = 256
"""Approximate longer side of a panel in pixels: frames are enlarged by a whole factor."""
MIN_RATE, MAX_RATE = 2, 12
"""Frames per second of an animation: slow enough to compare the panels while it plays."""
DEFAULT_RATE = Fraction(4)
"""Frames per second of a clip whose frame times are not known."""


def frame_rate(seconds: Sequence[float] | None) -> Fraction:
    """The frame rate at which a clip plays at the speed of its video, limited to `MIN_RATE` … `MAX_RATE`.

    Args:
        seconds: the time of each frame of the clip in the video.
    """
    gaps = np.diff(seconds or ())
    gaps = gaps[gaps > 0]  # a clip longer than its video starts over: the jump back is no frame duration
    if not len(gaps):
        return DEFAULT_RATE
    return Fraction(float(np.clip(1 / np.median(gaps), MIN_RATE, MAX_RATE))).limit_denominator(1001)


def animation_frames(frames: np.ndarray, maps: Sequence[AttentionMap]) -> np.ndarray:
    """Draw the frames of the animation, (T, height, width, 3): for each position a row with the clip and all heat maps."""
    longer = max(frames.shape[1:3])
    factor = max(1, round(PANEL_SIDE / longer))
    rows = []
    for position in dict.fromkeys(attention.position for attention in maps):
        own = [attention for attention in maps if attention.position == position]
        panels = [("clip", frames), *((each.name, overlay_heat_map(frames, each)) for each in own)]
        rows.append(np.concatenate([_panel(name, p, position, factor) for name, p in panels], axis=2))
    return np.concatenate(rows, axis=1)


def _panel(name: str, pictures: np.ndarray, position: tuple[int, int, int], factor: int) -> np.ndarray:
    """Enlarge pictures by repeating pixels; add a caption and, at the query, a ring (filled in its own frame)."""
    large = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    header, margin = 20, 4
    panels = []
    font = ImageFont.load_default(size=12)
    t, y, x = position
    for number, picture in enumerate(large):
        height, width = picture.shape[:2]
        canvas = Image.new("RGB", (width + 2 * margin, height + header + margin), "white")
        canvas.paste(Image.fromarray(picture), (margin, header))
        draw = ImageDraw.Draw(canvas)
        draw.text((margin, 3), f"{name}   frame {number}", fill="black", font=font)
        across, down = margin + (x + 0.5) * factor, header + (y + 0.5) * factor
        # a black ring around the coloured one, so that it is visible on any frame
        for radius, line in ((8, "black"), (7, QUERY_COLOR)):
            box = (across - radius, down - radius, across + radius, down + radius)
            fill = QUERY_COLOR if number == t and line == QUERY_COLOR else None
            draw.ellipse(box, outline=line, width=2, fill=fill)
        panels.append(np.asarray(canvas))
    return np.stack(panels)


def write_gif(pictures: np.ndarray, path: Path, rate: Fraction = DEFAULT_RATE) -> None:
    """Write an endless GIF at `rate` frames per second; each frame has its own palette of 256 colours, dithered."""
    images = []
    for picture in pictures:
        image = Image.fromarray(picture)
        # a palette for the whole GIF would band: photographs and heat maps differ from frame to frame
        images.append(image.quantize(palette=image.quantize(), dither=Image.Dither.FLOYDSTEINBERG))
    write_atomically(
        path,
        lambda temporary: images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / rate),
            loop=0,
        ),
    )


def write_mp4(pictures: np.ndarray, path: Path, rate: Fraction = DEFAULT_RATE) -> None:
    """Write an H.264 video at `rate` frames per second; an odd height or width is padded by one white line."""
    height, width = pictures.shape[1:3]
    # 4:2:0 halves the colour planes, so both sides have to be even
    even = np.pad(pictures, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=255)

    def write(temporary: Path) -> None:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
            stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
            for picture in even:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())  # the frames that the encoder still holds back

    write_atomically(path, write)
