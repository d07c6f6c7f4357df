"""Pictures of attention: the paper's Figure 3 (a star, and arrows to what answers it) and heat maps.

A picture is made of gazes: where one block looks from one position of a clip. Everything is placed by the centres of
the keys, in clip coordinates; nothing is resized to fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import Normal, Stroke

from nlnet.apps.plots import save
from nlnet.insertion.targets import NAME

SHOWN = 8
"""Frames of a strip, unless its queries lie in more of them."""
MAX_LINES = 40
STAR = "#35e0ff"
WARM, COLD = (255, 176, 0), (60, 140, 255)
"""Positive and negative weights; told apart by brightness as well, and only the dot product has both."""


@dataclass(frozen=True, eq=False)
class Gaze:
    """Where one block looks from one position."""

    block: str
    position: tuple[int, int, int]
    """(t, y, x) of the query in the clip."""
    weights: np.ndarray
    """f/C over the block's keys, (T', H', W')."""
    centres: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Where the keys lie: frames, rows and columns of the clip."""
    signed: bool

    @property
    def name(self) -> str:
        """The block by its host, which is what people call it."""
        return self.block.removesuffix(f".{NAME}")

    @property
    def largest(self) -> float:
        """The largest |weight|, by which a picture is scaled."""
        return max(float(np.abs(self.weights).max()), 1e-12)

    def strongest(self, count: int) -> list[tuple[float, tuple[float, float, float]]]:
        """The `count` keys of largest |weight|, first the largest: weight and centre (t, y, x)."""
        flat = self.weights.ravel()
        found = []
        for number in np.argsort(-np.abs(flat), kind="stable")[:count]:
            cell = np.unravel_index(number, self.weights.shape)
            t, y, x = (float(centres[i]) for centres, i in zip(self.centres, cell, strict=True))
            found.append((float(flat[number]), (t, y, x)))
        return found


def nearest(centres: np.ndarray, count: int) -> np.ndarray:
    """For each of the places 0 … count − 1 the index of the nearest centre, the earlier of two."""
    return np.abs(np.arange(count)[:, None] - centres[None]).argmin(axis=1)


def spread(gaze: Gaze, size: tuple[int, int, int]) -> np.ndarray:
    """The weights over every pixel of a clip (T, H, W): linear between the keys' centres, level beyond the last ones.

    A frame shows the key frame whose centre is nearest.
    """
    frames, height, width = size
    times, rows, columns = gaze.centres
    tall = _between(rows, height) @ gaze.weights  # (T', H, W')
    return (tall @ _between(columns, width).T)[nearest(times, frames)]


def _between(centres: np.ndarray, count: int) -> np.ndarray:
    """The matrix (count, keys) of linear interpolation."""
    return np.stack([np.interp(np.arange(count), centres, unit) for unit in np.eye(len(centres))], axis=1)


def heated(frames: np.ndarray, gaze: Gaze) -> np.ndarray:
    """Frames (T, H, W, 3) uint8, darkened and paled, under the colour of the weights."""
    share = spread(gaze, frames.shape[:3])[..., None] / gaze.largest
    color = np.where(share >= 0, np.array(WARM), np.array(COLD))
    cover = 0.8 * np.abs(share)
    pale = 0.5 * frames + 0.5 * frames.mean(axis=-1, keepdims=True)
    return (0.45 * pale * (1 - cover) + color * cover + 0.5).astype(np.uint8)


def shown_frames(count: int, queries: Sequence[int], limit: int = SHOWN) -> list[int]:
    """At most `limit` frames of `count`, evenly spread, the nearest ones moved so that the queries' frames are among them.

    More where the queries lie in more frames than that: all of these are shown.
    """
    wanted = dict.fromkeys(queries)
    limit = max(limit, len(wanted))
    if count <= limit:
        return list(range(count))
    chosen = [round((i + 0.5) * count / limit - 0.5) for i in range(limit)]
    for query in wanted:
        if query not in chosen:
            free = [i for i in range(limit) if chosen[i] not in wanted]
            chosen[min(free, key=lambda i: abs(chosen[i] - query))] = query
    return sorted(chosen)


def ends(time: float, times: np.ndarray, count: int, shown: Sequence[int]) -> list[int]:
    """The shown frames that a key centred on `time` answers for; where none is shown, the one nearest to it."""
    mine = int(np.abs(times - time).argmin())
    owners = nearest(times, count)
    found = [frame for frame in shown if owners[frame] == mine]
    return found or [min(shown, key=lambda frame: abs(frame - time))]


def strip(frames: np.ndarray, gazes: Sequence[Gaze], path: Path, *, title: str, top: int) -> None:
    """For each gaze two lines of frames: arrows to the `top` keys of largest |f/C|, and the heat map.

    Frames that share a key (pooling in time) stand close together: an arrow to it ends in each of them, and the
    frames that share the query have a hollow star beside its filled one.

    Raises:
        ValueError: more gazes than fit a picture.
    """
    if 2 * len(gazes) > MAX_LINES:
        raise ValueError(
            f"{len(gazes)} rows of pictures (positions × blocks) are too many, expected at most {MAX_LINES // 2}; "
            "choose fewer --at or --block"
        )
    shown = shown_frames(len(frames), [gaze.position[0] for gaze in gazes])
    height, width = frames.shape[1:3]
    line = 9.9 * height / (len(shown) * width * 1.08)
    figure, axes = plt.subplots(
        2 * len(gazes),
        1,
        figsize=(10, len(gazes) * (2 * line + 0.5) + 0.35),
        layout=ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03, hspace=0.0),
        squeeze=False,
    )
    for gaze, above, below in zip(gazes, axes[::2, 0], axes[1::2, 0], strict=True):
        places = panel_places(shown, nearest(gaze.centres[0], len(frames)), width)
        for panel, pictures in ((above, frames), (below, heated(frames, gaze))):
            panel.imshow(_side_by_side(pictures, places), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            _stars(panel, gaze, places, len(frames))
        drawn = gaze.strongest(top)
        total = sum(abs(weight) for weight, _ in drawn) or 1.0
        for weight, (time, row, column) in reversed(drawn):
            for frame in ends(time, gaze.centres[0], len(frames), shown):
                start = (places[gaze.position[0]] + gaze.position[2], gaze.position[1])
                end = (places[frame] + column, row)
                _arrow(above, start, end, weight / gaze.largest, abs(weight) / total, height)
        above.set_title(caption(gaze), loc="left", fontsize=10)
        below.set_xticks([left + width / 2 for left in places.values()], [f"frame {t}" for t in places])
        below.tick_params(length=0, labelsize=8, pad=2)
    figure.suptitle(title, fontsize=12, x=0.004, ha="left")
    save(figure, path)


def panel_places(shown: Sequence[int], owners: np.ndarray, width: int) -> dict[int, int]:
    """The left pixel of each shown frame in a line: frames with the same key (`owners`) stand closer together."""
    apart, close = max(2, width // 8), max(1, width // 32)
    places, left = {}, 0
    for before, frame in zip([None, *shown], shown, strict=False):
        if before is not None:
            left += width + (close if owners[before] == owners[frame] else apart)
        places[frame] = left
    return places


def _stars(panel: Any, gaze: Gaze, places: Mapping[int, int], count: int) -> None:
    t, y, x = gaze.position
    owners = nearest(gaze.centres[0], count)
    for frame, left in places.items():
        if owners[frame] == owners[t]:
            fill, edge, width = (STAR, "black", 0.8) if frame == t else ("none", STAR, 1.2)
            panel.plot([left + x], [y], marker="*", ms=15, color=fill, mec=edge, mew=width, zorder=5)


def caption(gaze: Gaze) -> str:
    """Which block looks from where, and how sharply: the largest weight, also as a multiple of an even spread."""
    t, y, x = gaze.position
    weight, keys = gaze.strongest(1)[0][0], " × ".join(map(str, gaze.weights.shape))
    even = gaze.weights.sum() / gaze.weights.size
    sharp = "" if gaze.signed or even <= 0 else f" ({weight / even:.3g} × even)"
    return f"{gaze.name} from frame {t}, row {y}, column {x};  largest f/C {weight:.3g}{sharp}, {keys} keys"


def _side_by_side(pictures: np.ndarray, places: Mapping[int, int]) -> np.ndarray:
    """The frames of `places` in one picture (H, …, 3), on white."""
    height, width = pictures.shape[1:3]
    line = np.full((height, max(places.values()) + width, 3), 255, dtype=np.uint8)
    for frame, left in places.items():
        line[:, left : left + width] = pictures[frame]
    return line


def _arrow(
    panel: Any,
    start: tuple[float, float],
    end: tuple[float, float],
    strength: float,
    part: float,
    height: int,
) -> None:
    """As opaque as the weight is large beside the largest (`strength`), as wide as its part of all that are drawn.

    The invisible ones are left out.
    """
    if abs(strength) < 0.01:
        return
    color = tuple(c / 255 for c in (WARM if strength >= 0 else COLD))
    thick = part**0.5
    distance = np.hypot(end[0] - start[0], end[1] - start[1])
    # an arc no higher than a part of the frame, towards the line's middle
    bend = min(0.25, 0.3 * height / max(distance, 1.0))
    downwards = start[1] + end[1] < height
    arrow = FancyArrowPatch(
        start,
        end,
        arrowstyle=f"-|>,head_length={2 + 5 * thick},head_width={1 + 3 * thick}",
        connectionstyle=f"arc3,rad={bend if downwards == (end[0] > start[0]) else -bend}",
        linewidth=0.5 + 2 * thick,
        color=color,
        alpha=abs(strength) ** 0.5,
        shrinkA=0,
        shrinkB=0,
        zorder=3 + abs(strength),
    )
    arrow.set_path_effects([Stroke(linewidth=1.1 + 2.9 * thick, foreground="black"), Normal()])
    arrow.set_in_layout(False)
    panel.add_patch(arrow)
