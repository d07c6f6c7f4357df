"""Films of attention: the clip playing beside the heat map of each block, as GIF and MP4."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nlnet.apps.attend.figures import STAR, Gaze, heated
from nlnet.engine.runs.atomic_write import atomically

PANEL = 256
"""Pixels that the side of a panel comes near to, by a whole factor."""
SLOWEST, FASTEST = 2, 12
"""Frames a second of a film: eyes that go to and fro between panels need some time for each."""
UNKNOWN = Fraction(4)
"""The rate where the video does not say its own."""


def pace(seconds: Sequence[float] | None) -> Fraction:
    """Frames a second of a clip whose frames are shown at these moments of the video, within `SLOWEST` and `FASTEST`.

    By the median gap: a clip may go on from the video's end at its beginning.
    """
    gaps = np.diff(seconds or ())
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return UNKNOWN
    return Fraction(float(np.clip(1 / np.median(gaps), SLOWEST, FASTEST))).limit_denominator(1001)


def film(frames: np.ndarray, gazes: Sequence[Gaze]) -> np.ndarray:
    """The clip playing, (T, height, width, 3): a row for each position, the clip itself and then each block's heat."""
    side = max(frames.shape[1:3])
    factor = max(1, round(PANEL / side))
    rows = []
    for position in dict.fromkeys(gaze.position for gaze in gazes):
        mine = [gaze for gaze in gazes if gaze.position == position]
        panels = [("clip", frames), *((gaze.name, heated(frames, gaze)) for gaze in mine)]
        rows.append(np.concatenate([_panel(name, p, position, factor) for name, p in panels], axis=2))
    return np.concatenate(rows, axis=1)


def _panel(name: str, pictures: np.ndarray, position: tuple[int, int, int], factor: int) -> np.ndarray:
    """Pictures enlarged by repeating pixels, captioned, the query ringed throughout and filled in its own frame."""
    large = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    header, margin = 20, 4
    made = []
    font = ImageFont.load_default(size=12)
    t, y, x = position
    for number, picture in enumerate(large):
        height, width = picture.shape[:2]
        canvas = Image.new("RGB", (width + 2 * margin, height + header + margin), "white")
        canvas.paste(Image.fromarray(picture), (margin, header))
        draw = ImageDraw.Draw(canvas)
        draw.text((margin, 3), f"{name}   frame {number}", fill="black", font=font)
        across, down = margin + (x + 0.5) * factor, header + (y + 0.5) * factor
        for radius, line in ((8, "black"), (7, STAR)):
            box = (across - radius, down - radius, across + radius, down + radius)
            draw.ellipse(box, outline=line, width=2, fill=STAR if number == t and line == STAR else None)
        made.append(np.asarray(canvas))
    return np.stack(made)


def write_gif(pictures: np.ndarray, path: Path, rate: Fraction = UNKNOWN) -> None:
    """Each frame in its own 256 colours, dithered, for 1/`rate` s; it plays for ever."""
    images = []
    for picture in pictures:
        image = Image.fromarray(picture)
        images.append(image.quantize(palette=image.quantize(), dither=Image.Dither.FLOYDSTEINBERG))
    atomically(
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


def write_mp4(pictures: np.ndarray, path: Path, rate: Fraction = UNKNOWN) -> None:
    """H.264 at `rate` frames a second in 4:2:0, which wants even sides: an odd one gets a white line."""
    height, width = pictures.shape[1:3]
    even = np.pad(pictures, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=255)

    def write(temporary: Path) -> None:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
            stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
            for picture in even:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())

    atomically(path, write)
