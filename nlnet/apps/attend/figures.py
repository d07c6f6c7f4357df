"""Figures of attention like Figure 3 of the paper: a star at the query, arrows to the strongest keys, and heat maps.

Keys are drawn at their centres in clip coordinates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import Normal, Stroke

from nlnet.apps.attend.attention_map import (
    NEGATIVE,
    POSITIVE,
    AttentionMap,
    nearest_centres,
    overlay_heat_map,
)
from nlnet.apps.plots import Figure
from nlnet.errors import NlnetError

MAX_FRAMES = 8
"""Most frames of the clip in a figure, unless its queries lie in more frames than that."""
MAX_ROWS = 40
"""Most rows of frames in one figure: larger figures take minutes to draw."""
QUERY_COLOR = "#35e0ff"


def attention_figure(frames: np.ndarray, maps: Sequence[AttentionMap], *, title: str, top: int) -> Figure:
    """Draw two rows of frames for each map: arrows to the `top` keys with the largest |f/C|, and the heat map.

    Frames that share a key (pooling in time) stand close together. An arrow to that key ends in each of them, and
    the frames that share the query get a hollow star beside the query's filled one.

    Args:
        frames: the clip, (T, H, W, 3) uint8.

    Returns:
        A figure that pyplot does not know, so it does not have to be closed.

    Raises:
        NlnetError: more maps than fit into one figure.
    """
    if 2 * len(maps) > MAX_ROWS:
        raise NlnetError(
            f"{len(maps)} attention maps (positions × blocks) are too many for one figure, expected at most "
            f"{MAX_ROWS // 2}; choose fewer positions or blocks"
        )
    shown = shown_frames(len(frames), [attention.position[0] for attention in maps])
    height, width = frames.shape[1:3]
    row_height = 9.9 * height / (len(shown) * width * 1.08)  # inches, in a figure 10 inches wide
    figure = Figure(
        figsize=(10, len(maps) * (2 * row_height + 0.5) + 0.35),
        layout=ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03, hspace=0.0),
    )
    axes = figure.subplots(2 * len(maps), 1, squeeze=False)
    for attention, above, below in zip(maps, axes[::2, 0], axes[1::2, 0], strict=True):
        offsets = frame_offsets(shown, nearest_centres(attention.centres[0], len(frames)), width)
        for panel, pictures in ((above, frames), (below, overlay_heat_map(frames, attention))):
            panel.imshow(_row_of_frames(pictures, offsets), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            _draw_stars(panel, attention, offsets, len(frames))
        _draw_arrows(above, attention, offsets, frames.shape, top)
        above.set_title(caption(attention), loc="left", fontsize=10)
        below.set_xticks([left + width / 2 for left in offsets.values()], [f"frame {t}" for t in offsets])
        below.tick_params(length=0, labelsize=8, pad=2)
    figure.suptitle(title, fontsize=12, x=0.004, ha="left")
    return figure


def shown_frames(count: int, queries: Sequence[int], limit: int = MAX_FRAMES) -> list[int]:
    """Choose at most `limit` of `count` frames, evenly spaced, with the frames of all queries among them.

    The evenly spaced frame nearest to a query's frame is replaced by it. If the queries lie in more than `limit`
    frames, all of these are shown.
    """
    wanted = dict.fromkeys(queries)
    limit = max(limit, len(wanted))
    if count <= limit:
        return list(range(count))
    chosen = [round((i + 0.5) * count / limit - 0.5) for i in range(limit)]
    for query in wanted:
        if query not in chosen:
            # never replace the frame of another query
            free = [i for i in range(limit) if chosen[i] not in wanted]
            chosen[min(free, key=lambda i: abs(chosen[i] - query))] = query
    return sorted(chosen)


def frames_of_key(time: float, times: np.ndarray, count: int, shown: Sequence[int]) -> list[int]:
    """The shown frames to which no other key is nearer than the one at `time`; if none, the frame nearest to it."""
    key = int(np.abs(times - time).argmin())
    nearest = nearest_centres(times, count)
    found = [frame for frame in shown if nearest[frame] == key]
    return found or [min(shown, key=lambda frame: abs(frame - time))]


def frame_offsets(shown: Sequence[int], keys: np.ndarray, width: int) -> dict[int, int]:
    """The left pixel of each shown frame in a row; the gap is smaller between frames with the same key.

    Args:
        keys: the index of the nearest key in time for each frame of the clip.
    """
    wide, narrow = max(2, width // 8), max(1, width // 32)
    offsets, left = {}, 0
    for before, frame in zip([None, *shown], shown, strict=False):
        if before is not None:
            left += width + (narrow if keys[before] == keys[frame] else wide)
        offsets[frame] = left
    return offsets


def caption(attention: AttentionMap) -> str:
    """The block, the query and the largest weight; if weights are unsigned, also its ratio to an even weight."""
    t, y, x = attention.position
    weight, keys = attention.strongest(1)[0][0], " × ".join(map(str, attention.weights.shape))
    uniform = attention.weights.sum() / attention.weights.size
    multiple = "" if attention.signed or uniform <= 0 else f" ({weight / uniform:.3g} × even)"
    return f"{attention.name} from frame {t}, row {y}, column {x};  largest f/C {weight:.3g}{multiple}, {keys} keys"


def _row_of_frames(pictures: np.ndarray, offsets: Mapping[int, int]) -> np.ndarray:
    """Put the frames of `offsets` into one picture (H, …, 3) on white."""
    height, width = pictures.shape[1:3]
    row = np.full((height, max(offsets.values()) + width, 3), 255, dtype=np.uint8)
    for frame, left in offsets.items():
        row[:, left : left + width] = pictures[frame]
    return row


def _draw_stars(panel: Any, attention: AttentionMap, offsets: Mapping[int, int], count: int) -> None:
    """A filled star at the query, hollow ones in the other frames that are pooled with the query's frame."""
    t, y, x = attention.position
    keys = nearest_centres(attention.centres[0], count)
    for frame, left in offsets.items():
        if keys[frame] == keys[t]:
            fill, edge, width = (QUERY_COLOR, "black", 0.8) if frame == t else ("none", QUERY_COLOR, 1.2)
            panel.plot([left + x], [y], marker="*", ms=15, color=fill, mec=edge, mew=width, zorder=5)


def _draw_arrows(
    panel: Any, attention: AttentionMap, offsets: Mapping[int, int], shape: tuple[int, ...], top: int
) -> None:
    """Arrows from the query to its `top` strongest keys, in every shown frame of each key."""
    drawn = attention.strongest(top)
    total = sum(abs(weight) for weight, _ in drawn) or 1.0
    t, y, x = attention.position
    # weakest first, so that strong arrows lie on top
    for weight, (time, row, column) in reversed(drawn):
        for frame in frames_of_key(time, attention.centres[0], shape[0], list(offsets)):
            _draw_arrow(
                panel,
                (offsets[t] + x, y),
                (offsets[frame] + column, row),
                strength=weight / attention.largest,
                share=abs(weight) / total,
                height=shape[1],
            )


def _draw_arrow(
    panel: Any,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    strength: float,
    share: float,
    height: int,
) -> None:
    """One curved arrow: opacity by `strength` (weight / largest |weight|), width by `share` of all drawn weights."""
    if abs(strength) < 0.01:  # would be invisible
        return
    color = tuple(c / 255 for c in (POSITIVE if strength >= 0 else NEGATIVE))
    thick = share**0.5
    distance = np.hypot(end[0] - start[0], end[1] - start[1])
    # a long arrow bends less, so that its arc stays within the row, and it bends towards the middle of the row
    bend = min(0.25, 0.3 * height / max(distance, 1.0))
    upper_half = start[1] + end[1] < height
    arrow = FancyArrowPatch(
        start,
        end,
        arrowstyle=f"-|>,head_length={2 + 5 * thick},head_width={1 + 3 * thick}",
        connectionstyle=f"arc3,rad={bend if upper_half == (end[0] > start[0]) else -bend}",
        linewidth=0.5 + 2 * thick,
        color=color,
        alpha=abs(strength) ** 0.5,
        shrinkA=0,
        shrinkB=0,
        zorder=3 + abs(strength),
    )
    # a black outline keeps arrows visible on frames of any colour
    arrow.set_path_effects([Stroke(linewidth=1.1 + 2.9 * thick, foreground="black"), Normal()])
    arrow.set_in_layout(False)  # else the constrained layout would shrink the frames to make room for arcs
    panel.add_patch(arrow)
