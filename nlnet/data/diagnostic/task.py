"""The diagnostic for long-range dependency: colour-cued digits, as a pure function of (spec, split, index).

A clip shows three square items on a drifting, noisy background: two handwritten digits of different classes
(scikit-learn's ``load_digits``), one on a red and one on a green tile, and a cue, a solid red or green tile. The label
is the class of the digit whose tile has the cue's colour. So the label is a relation between two items; where
they are is what the task names:

=========== ============================ ===============================
task        places                       moments
=========== ============================ ===============================
space       three corners of the frame   every frame
time        one place for all three      one slot of frames for each item
spacetime   three corners of the frame   one slot of frames for each item
=========== ============================ ===============================

Time is a ring: slots may wrap around the end of the clip, so that a test view that starts late and wraps around
(the released protocol) shows what the training clips show. Every item stays inside the ``margin``, so a crop that
cuts at most ``margin`` pixels off any side loses nothing.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import numpy as np

Task = Literal["space", "time", "spacetime"]
Split = Literal["train", "val", "test"]
Color = Literal["red", "green"]
Layout = Literal["corners", "anywhere"]

COLORS: tuple[Color, Color] = get_args(Color)
RGB = {"red": (205, 45, 45), "green": (40, 165, 60)}
SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # of the handwritings of each class
STILL_CLASSES = tuple(f"{color}-{digit}" for color in COLORS for digit in range(10)) + COLORS


@dataclass(frozen=True)
class DiagnosticSpec:
    """What a diagnostic data set is; sizes in pixels, times in frames, noise as a share of full brightness.

    ``visible`` frames show an item and at least ``gap`` empty frames follow it (tasks time and spacetime).
    ``still`` is the side of a pre-training still, which one item fills to a good part, as in an image data set.
    ``distance`` is the step between the corner places, centre to centre; None = as far as ``margin`` and ``jitter`` let.
    ``layout`` "anywhere" draws each place uniformly inside the margin, without overlap in one frame, so that
    distances vary from a tile to the whole frame; ``jitter`` and ``distance`` then mean nothing.
    """

    task: Task = "spacetime"
    height: int = 36
    width: int = 36
    frames: int = 16
    tile: int = 12
    visible: int = 3
    gap: int = 2
    margin: int = 4
    jitter: int = 2
    distance: int | None = None
    noise: float = 0.04
    still: int = 28
    seed: int = 0
    layout: Layout = "corners"

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ValueError(f"task: got {self.task!r}, expected one of {', '.join(get_args(Task))}")
        if min(self.jitter, self.margin, self.gap, self.seed) < 0 or self.visible < 1 or self.tile < 3:
            raise ValueError(
                f"expected jitter, margin, gap and seed ≥ 0, visible ≥ 1 and tile ≥ 3, got jitter {self.jitter}, "
                f"margin {self.margin}, gap {self.gap}, seed {self.seed}, visible {self.visible}, tile {self.tile}"
            )
        if self.still < 2 * self.margin + self.tile:
            raise ValueError(
                f"still: got {self.still} pixels, expected two margins and a tile, {2 * self.margin + self.tile}"
            )
        self._check_places()
        ring = 3 * (self.visible + self.gap)
        if self.task != "space" and self.frames < ring:
            raise ValueError(
                f"frames: got {self.frames}, expected room for three slots of visible + gap frames, {ring}"
            )

    def _check_places(self) -> None:
        """Places may overlap where items are apart in time, never in one frame."""
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout: got {self.layout!r}, expected one of {', '.join(get_args(Layout))}")
        if self.layout == "anywhere":
            self._check_room()
            return
        room = min(self.height, self.width) - 2 * self.margin - self.tile - self.jitter
        step = room if self.distance is None else self.distance
        least = self.tile + self.jitter if self.task == "space" else 1 if self.task == "spacetime" else 0
        if not least <= step <= room:
            raise ValueError(
                f"distance: places are {step} pixels apart, expected {least} to {room} for task {self.task!r} in "
                f"{self.height}×{self.width}; change height, width, tile, margin, jitter or distance"
            )

    def _check_room(self) -> None:
        """Three tiles have to find room in one frame without a long search."""
        inside = min(self.height, self.width) - 2 * self.margin
        least = 3 * self.tile if self.task == "space" else self.tile
        if inside < least or self.distance is not None:
            raise ValueError(
                f"layout 'anywhere': expected at least {least} pixels inside the margins for task {self.task!r} and no "
                f"distance, got {inside} and {self.distance}"
            )


@dataclass(frozen=True)
class Item:
    """One item of a clip: ``digit`` and ``handwriting`` (row of load_digits) are None for the cue."""

    color: Color
    digit: int | None
    handwriting: int | None
    top: int
    left: int
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Clip:
    frames: np.ndarray  # (T, H, W, 3) uint8 RGB
    label: int
    items: tuple[Item, Item, Item]  # red digit, green digit, cue


@cache
def handwritings() -> tuple[np.ndarray, dict[tuple[str, int], np.ndarray]]:
    """Images (1797, 8, 8) in [0, 1] and, for each (split, class), the rows that belong to it; splits are disjoint."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(1711).permutation(len(digits.target))
    rows = {}
    for digit in range(10):
        mine = order[digits.target[order] == digit]
        cuts = np.floor(np.cumsum(list(SPLIT_SHARES.values()))[:-1] * len(mine)).astype(int)
        for split, part in zip(SPLIT_SHARES, np.split(mine, cuts), strict=True):
            rows[split, digit] = np.sort(part)
    return digits.images / 16.0, rows


@cache
def _enlarge(source: int, target: int) -> np.ndarray:
    """Matrix (target, source) of bilinear interpolation with half-pixel centres."""
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(source)))


def _draw_item(
    spec: DiagnosticSpec, color: Color, handwriting: int | None, rng: np.random.Generator
) -> np.ndarray:
    """One tile (tile, tile, 3), values on [0, 255]."""
    tile = np.empty((spec.tile, spec.tile, 3))
    tile[:] = np.array(RGB[color]) * rng.uniform(0.85, 1.15)
    if handwriting is not None:
        grow = _enlarge(8, spec.tile - 2)
        ink = grow @ handwritings()[0][handwriting] @ grow.T
        inside = tile[1:-1, 1:-1]
        inside += ink[..., None] * (240.0 - inside)
    return tile


def _background(spec: DiagnosticSpec, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth texture on a torus that drifts with constant velocity, (frames, H, W, 3)."""
    cell = 9
    rows, cols = -(-spec.height // cell) + 1, -(-spec.width // cell) + 1
    gray = rng.uniform(-40, 40, (rows, cols, 1)) + rng.uniform(-15, 15, (rows, cols, 3))
    texture = _torus_enlarge(gray, cell)
    velocity, start = rng.uniform(-1.5, 1.5, 2), rng.uniform(0, cell * rows, 2)
    shift = np.round(start + velocity * np.arange(frames)[:, None]).astype(int)
    y = (shift[:, :1] + np.arange(spec.height)) % texture.shape[0]
    x = (shift[:, 1:] + np.arange(spec.width)) % texture.shape[1]
    return rng.uniform(70, 130) + texture[y[:, :, None], x[:, None, :]]


def _torus_enlarge(grid: np.ndarray, factor: int) -> np.ndarray:
    """Linear interpolation of a periodic grid along both axes."""
    share = np.arange(factor)[None, :, None, None] / factor
    tall = (grid[:, None] * (1 - share) + np.roll(grid, -1, 0)[:, None] * share).reshape(-1, *grid.shape[1:])
    flat = tall.swapaxes(0, 1)
    wide = (flat[:, None] * (1 - share) + np.roll(flat, -1, 0)[:, None] * share).reshape(-1, *flat.shape[1:])
    return wide.swapaxes(0, 1)


def _corners(spec: DiagnosticSpec) -> np.ndarray:
    """Top-left pixels (4, 2) of the four places, before jitter."""
    room = np.array([spec.height, spec.width]) - 2 * spec.margin - spec.tile - spec.jitter
    step = room if spec.distance is None else np.array([spec.distance] * 2)
    first = spec.margin + (room - step) // 2
    return np.array([first + step * (row, col) for row in (0, 1) for col in (0, 1)])


def _places(spec: DiagnosticSpec, rng: np.random.Generator) -> np.ndarray:
    """Top-left pixel (3, 2) of each item."""
    if spec.layout == "anywhere":
        return _anywhere(spec, rng)
    corners = _corners(spec)
    if spec.task == "time":
        return np.repeat(corners[rng.integers(4)][None] + rng.integers(0, spec.jitter + 1, 2), 3, 0)
    return corners[rng.permutation(4)[:3]] + rng.integers(0, spec.jitter + 1, (3, 2))


def _anywhere(spec: DiagnosticSpec, rng: np.random.Generator) -> np.ndarray:
    """Uniform places inside the margin; for the task space drawn anew until no two of them overlap."""
    room = np.array([spec.height, spec.width]) - 2 * spec.margin - spec.tile
    if spec.task == "time":
        return np.repeat(spec.margin + rng.integers(0, room + 1, (1, 2)), 3, 0)
    while True:
        places = spec.margin + rng.integers(0, room + 1, (3, 2))
        steps = np.abs(places - np.roll(places, 1, 0)).max(axis=1)
        if spec.task == "spacetime" or (steps >= spec.tile).all():
            return places


def _moments(spec: DiagnosticSpec, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Frames of each item: slots in random order on the ring of frames, spare frames spread at random."""
    if spec.task == "space":
        return [tuple(range(spec.frames))] * 3
    spare = spec.frames - 3 * (spec.visible + spec.gap)
    extra = np.diff(np.sort(rng.integers(0, spare + 1, 2)), prepend=0)
    starts = rng.integers(spec.frames) + np.cumsum([0, *(spec.visible + spec.gap + extra)])
    slots = [tuple(int(f) for f in np.sort((s + np.arange(spec.visible)) % spec.frames)) for s in starts]
    return [slots[i] for i in rng.permutation(3)]


def make_clip(spec: DiagnosticSpec, split: Split, index: int) -> Clip:
    """Clip `index` of a split: always the same for the same arguments. Labels go round, index mod 10."""
    rng = np.random.default_rng(
        [spec.seed, get_args(Task).index(spec.task), get_args(Split).index(split), index, 0]
    )
    label, cue = index % 10, COLORS[rng.integers(2)]
    other = int((label + rng.integers(1, 10)) % 10)
    frames = _background(spec, spec.frames, rng)
    items: list[Item] = []
    for color, place, moments in zip((*COLORS, cue), _places(spec, rng), _moments(spec, rng), strict=True):
        digit = None if len(items) == 2 else label if color == cue else other
        writing = None if digit is None else int(rng.choice(handwritings()[1][split, digit]))
        top, left = (int(v) for v in place)
        items.append(Item(color, digit, writing, top, left, moments))
        frames[list(moments), top : top + spec.tile, left : left + spec.tile] = _draw_item(
            spec, color, writing, rng
        )
    red, green, cued = items
    return Clip(_expose(frames, spec.noise, rng), label, (red, green, cued))


def make_still(spec: DiagnosticSpec, split: Split, index: int) -> tuple[np.ndarray, int]:
    """One small frame with one item anywhere inside the margin, and its class, a row of STILL_CLASSES."""
    rng = np.random.default_rng(
        [spec.seed, get_args(Task).index(spec.task), get_args(Split).index(split), index, 1]
    )
    # one item: the rules for the places of three do not apply
    spec = replace(spec, task="time", height=spec.still, width=spec.still, distance=None, layout="corners")
    label = index % len(STILL_CLASSES)
    color, digit = COLORS[label // 10 if label < 20 else label - 20], label % 10 if label < 20 else None
    frames = _background(spec, 1, rng)
    writing = None if digit is None else int(rng.choice(handwritings()[1][split, digit]))
    top = rng.integers(spec.margin, spec.height - spec.margin - spec.tile + 1)
    left = rng.integers(spec.margin, spec.width - spec.margin - spec.tile + 1)
    frames[:, top : top + spec.tile, left : left + spec.tile] = _draw_item(spec, color, writing, rng)
    return _expose(frames, spec.noise, rng)[0], label


def _expose(frames: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness of the whole clip ±15 %, noise anew in every frame, rounding to uint8."""
    grain = rng.standard_normal(frames.shape, dtype=np.float32) * np.float32(255 * noise)
    return np.clip(frames * rng.uniform(0.85, 1.15) + grain + 0.5, 0, 255).astype(np.uint8)
