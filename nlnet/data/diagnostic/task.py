"""The clips and stills of the diagnostic: colour-cued digits, as pure functions of (spec, split, index).

A clip shows three square items on a drifting, noisy background: two handwritten digits of different classes
(scikit-learn's ``load_digits``), one on a red and one on a green tile, and a cue, a plain red or green tile. The label
is the class of the digit whose tile has the cue's colour: a relation between two items. The task says whether the items
are apart in space, in time, or in both:

=========== ============================ =================================
task        positions                    frames
=========== ============================ =================================
space       three corners of the frame   every frame
time        the same for all three       one slot of frames for each item
spacetime   three corners of the frame   one slot of frames for each item
=========== ============================ =================================

Time is a ring: slots may wrap around the end of the clip, so that a test clip that starts late and wraps around (the
protocol `released`) shows the same as training clips. Every item stays ``margin`` pixels away from the edges, so a crop
that cuts off at most ``margin`` pixels on any side loses no item.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import numpy as np

from nlnet.errors import NlnetError, did_you_mean

Task = Literal["space", "time", "spacetime"]
Split = Literal["train", "val", "test"]
Color = Literal["red", "green"]
Layout = Literal["corners", "anywhere"]

COLORS: tuple[Color, Color] = get_args(Color)
RGB = {"red": (205, 45, 45), "green": (40, 165, 60)}
SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # of the digit images of each class
STILL_CLASSES = tuple(f"{color}-{digit}" for color in COLORS for digit in range(10)) + COLORS


@dataclass(frozen=True)
class DiagnosticSpec:
    """The parameters of a diagnostic data set; sizes in pixels, times in frames, noise as a share of full brightness.

    ``visible`` frames show an item, and at least ``gap`` empty frames follow it (tasks time and spacetime).
    ``still`` is the side of a still for pre-training, which one item fills to a good part, as in an image data set.
    ``distance`` is the step between the corner positions, centre to centre; None is the largest that ``margin`` and
    ``jitter`` allow. ``layout`` "anywhere" draws each position uniformly inside the margin, without overlap in one
    frame, so that distances vary from a tile to the whole frame; ``jitter`` and ``distance`` are then not used.
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
            raise NlnetError(
                f"task: got {self.task!r}, expected one of {', '.join(get_args(Task))}"
                f"{did_you_mean(self.task, get_args(Task))}"
            )
        if min(self.jitter, self.margin, self.gap, self.seed) < 0 or self.visible < 1 or self.tile < 3:
            raise NlnetError(
                f"expected jitter, margin, gap and seed ≥ 0, visible ≥ 1 and tile ≥ 3, got jitter {self.jitter}, "
                f"margin {self.margin}, gap {self.gap}, seed {self.seed}, visible {self.visible}, tile {self.tile}"
            )
        if self.still < 2 * self.margin + self.tile:
            raise NlnetError(
                f"still: got {self.still} pixels, expected at least two margins and a tile, "
                f"{2 * self.margin + self.tile}"
            )
        self._check_positions()
        ring = 3 * (self.visible + self.gap)
        if self.task != "space" and self.frames < ring:
            raise NlnetError(
                f"frames: got {self.frames}, expected at least three slots of visible + gap frames, {ring}"
            )

    def _check_positions(self) -> None:
        """Raise NlnetError if items could overlap in a frame; items that are apart in time may share a position."""
        if self.layout not in get_args(Layout):
            raise NlnetError(
                f"layout: got {self.layout!r}, expected one of {', '.join(get_args(Layout))}"
                f"{did_you_mean(self.layout, get_args(Layout))}"
            )
        if self.layout == "anywhere":
            self._check_room()
            return
        room = min(self.height, self.width) - 2 * self.margin - self.tile - self.jitter
        step = room if self.distance is None else self.distance
        # jitter may bring two neighbours `jitter` pixels closer than the step; apart in time, they only have to differ
        least = self.tile + self.jitter if self.task == "space" else 1 if self.task == "spacetime" else 0
        if not least <= step <= room:
            raise NlnetError(
                f"distance: positions are {step} pixels apart, expected at least {least} and at most {room} for task {self.task!r} in "
                f"{self.height}×{self.width}; change height, width, tile, margin, jitter or distance"
            )

    def _check_room(self) -> None:
        """Raise NlnetError if random positions without overlap could take long to find, or `distance` is given."""
        inside = min(self.height, self.width) - 2 * self.margin
        least = 3 * self.tile if self.task == "space" else self.tile
        if inside < least or self.distance is not None:
            raise NlnetError(
                f"layout 'anywhere': expected at least {least} pixels inside the margins for task {self.task!r} and "
                f"distance None, got {inside} pixels and distance {self.distance}"
            )


@dataclass(frozen=True)
class Item:
    """One item of a clip: its colour, digit, position and the frames that show it.

    ``image_row`` is the row of the digit's image in load_digits; ``digit`` and ``image_row`` are None for the cue.
    """

    color: Color
    digit: int | None
    image_row: int | None
    top: int
    left: int
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Clip:
    """A clip of the diagnostic: its frames, its label, and where and when each item is shown."""

    frames: np.ndarray  # (T, H, W, 3) uint8 RGB
    label: int
    items: tuple[Item, Item, Item]  # red digit, green digit, cue


@cache
def digit_images() -> tuple[np.ndarray, dict[tuple[str, int], np.ndarray]]:
    """All digit images (1797, 8, 8) in [0, 1], and the rows of each (split, class); splits share no image."""
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
    """The matrix (target, source) of linear interpolation with half-pixel centres."""
    # weights fall from 1 at the output's position in the source to 0 one pixel away; clipping repeats the edge pixel
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(source)))


def _draw_item(
    spec: DiagnosticSpec, color: Color, image_row: int | None, rng: np.random.Generator
) -> np.ndarray:
    """The pixels of one tile, (tile, tile, 3) in [0, 255]; `image_row` None draws a cue."""
    tile = np.empty((spec.tile, spec.tile, 3))
    tile[:] = np.array(RGB[color]) * rng.uniform(0.85, 1.15)
    if image_row is not None:
        # a rim of one pixel stays plain, so that every tile shows its colour
        grow = _enlarge(8, spec.tile - 2)
        ink = grow @ digit_images()[0][image_row] @ grow.T
        inside = tile[1:-1, 1:-1]
        inside += ink[..., None] * (240.0 - inside)
    return tile


def _background(spec: DiagnosticSpec, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random texture that drifts with constant velocity, (frames, H, W, 3); it repeats at its edges."""
    cell = 9  # pixels between the random values, which are interpolated
    rows, cols = -(-spec.height // cell) + 1, -(-spec.width // cell) + 1
    gray = rng.uniform(-40, 40, (rows, cols, 1)) + rng.uniform(-15, 15, (rows, cols, 3))
    texture = _torus_enlarge(gray, cell)
    velocity, start = rng.uniform(-1.5, 1.5, 2), rng.uniform(0, cell * rows, 2)
    shift = np.round(start + velocity * np.arange(frames)[:, None]).astype(int)
    y = (shift[:, :1] + np.arange(spec.height)) % texture.shape[0]
    x = (shift[:, 1:] + np.arange(spec.width)) % texture.shape[1]
    return rng.uniform(70, 130) + texture[y[:, :, None], x[:, None, :]]


def _torus_enlarge(grid: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge a periodic grid by linear interpolation along both axes: `roll` makes the last cell meet the first."""
    share = np.arange(factor)[None, :, None, None] / factor
    tall = (grid[:, None] * (1 - share) + np.roll(grid, -1, 0)[:, None] * share).reshape(-1, *grid.shape[1:])
    flat = tall.swapaxes(0, 1)
    wide = (flat[:, None] * (1 - share) + np.roll(flat, -1, 0)[:, None] * share).reshape(-1, *flat.shape[1:])
    return wide.swapaxes(0, 1)


def _corners(spec: DiagnosticSpec) -> np.ndarray:
    """The top-left pixels (4, 2) of the four corner positions, before jitter."""
    room = np.array([spec.height, spec.width]) - 2 * spec.margin - spec.tile - spec.jitter
    step = room if spec.distance is None else np.array([spec.distance] * 2)
    first = spec.margin + (room - step) // 2
    return np.array([first + step * (row, col) for row in (0, 1) for col in (0, 1)])


def _positions(spec: DiagnosticSpec, rng: np.random.Generator) -> np.ndarray:
    """The top-left pixel of each item, (3, 2)."""
    if spec.layout == "anywhere":
        return _positions_anywhere(spec, rng)
    corners = _corners(spec)
    if spec.task == "time":
        return np.repeat(corners[rng.integers(4)][None] + rng.integers(0, spec.jitter + 1, 2), 3, 0)
    return corners[rng.permutation(4)[:3]] + rng.integers(0, spec.jitter + 1, (3, 2))


def _positions_anywhere(spec: DiagnosticSpec, rng: np.random.Generator) -> np.ndarray:
    """Uniform positions inside the margin; for the task space, drawn again until no two overlap."""
    room = np.array([spec.height, spec.width]) - 2 * spec.margin - spec.tile
    if spec.task == "time":
        return np.repeat(spec.margin + rng.integers(0, room + 1, (1, 2)), 3, 0)
    while True:
        positions = spec.margin + rng.integers(0, room + 1, (3, 2))
        # each of the three pairs once: an item and the one before it in the ring of three
        steps = np.abs(positions - np.roll(positions, 1, 0)).max(axis=1)
        if spec.task == "spacetime" or (steps >= spec.tile).all():
            return positions


def _slots(spec: DiagnosticSpec, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The frames that show each item: slots in random order on the ring of frames, with random extra gaps."""
    if spec.task == "space":
        return [tuple(range(spec.frames))] * 3
    spare = spec.frames - 3 * (spec.visible + spec.gap)
    # two sorted random cuts divide the spare frames into three gaps, of which the third closes the ring
    extra = np.diff(np.sort(rng.integers(0, spare + 1, 2)), prepend=0)
    starts = rng.integers(spec.frames) + np.cumsum([0, *(spec.visible + spec.gap + extra)])
    slots = [tuple(int(f) for f in np.sort((s + np.arange(spec.visible)) % spec.frames)) for s in starts]
    return [slots[i] for i in rng.permutation(3)]


def make_clip(spec: DiagnosticSpec, split: Split, index: int) -> Clip:
    """Clip `index` of a split: a pure function of its arguments. The label is index mod 10: classes are balanced."""
    # the last number of the seed tells clips (0) from stills (1); the order of all draws below is part of the data set
    rng = np.random.default_rng(
        [spec.seed, get_args(Task).index(spec.task), get_args(Split).index(split), index, 0]
    )
    label, cue = index % 10, COLORS[rng.integers(2)]
    other = int((label + rng.integers(1, 10)) % 10)
    frames = _background(spec, spec.frames, rng)
    items: list[Item] = []
    for color, position, slot in zip((*COLORS, cue), _positions(spec, rng), _slots(spec, rng), strict=True):
        digit = None if len(items) == 2 else label if color == cue else other  # the third item is the cue
        row = None if digit is None else int(rng.choice(digit_images()[1][split, digit]))
        top, left = (int(v) for v in position)
        items.append(Item(color, digit, row, top, left, slot))
        frames[list(slot), top : top + spec.tile, left : left + spec.tile] = _draw_item(spec, color, row, rng)
    red, green, cued = items
    return Clip(_add_noise(frames, spec.noise, rng), label, (red, green, cued))


def make_still(spec: DiagnosticSpec, split: Split, index: int) -> tuple[np.ndarray, int]:
    """One small frame with one item anywhere inside the margin, and its class, an index of STILL_CLASSES."""
    rng = np.random.default_rng(
        [spec.seed, get_args(Task).index(spec.task), get_args(Split).index(split), index, 1]
    )
    # the task time has the weakest rules for positions: those for three items in one frame do not apply to one item
    spec = replace(spec, task="time", height=spec.still, width=spec.still, distance=None, layout="corners")
    label = index % len(STILL_CLASSES)
    color, digit = COLORS[label // 10 if label < 20 else label - 20], label % 10 if label < 20 else None
    frames = _background(spec, 1, rng)
    row = None if digit is None else int(rng.choice(digit_images()[1][split, digit]))
    top = rng.integers(spec.margin, spec.height - spec.margin - spec.tile + 1)
    left = rng.integers(spec.margin, spec.width - spec.margin - spec.tile + 1)
    frames[:, top : top + spec.tile, left : left + spec.tile] = _draw_item(spec, color, row, rng)
    return _add_noise(frames, spec.noise, rng)[0], label


def _add_noise(frames: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Scale the brightness of the whole clip by up to ±15 %, add noise to every frame, and round to uint8."""
    grain = rng.standard_normal(frames.shape, dtype=np.float32) * np.float32(255 * noise)
    return np.clip(frames * rng.uniform(0.85, 1.15) + grain + 0.5, 0, 255).astype(np.uint8)
