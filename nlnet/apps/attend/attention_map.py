"""An attention map (the weights of one block from one position of a clip) and its heat map over the clip's frames."""

from dataclasses import dataclass

import numpy as np

from nlnet.insertion.targets import CHILD_NAME

POSITIVE, NEGATIVE = (255, 176, 0), (60, 140, 255)
"""Colours (RGB) of positive and negative weights; they differ in brightness too. Only the dot product has both."""


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The weights f/C of one block from one query position to all keys, with the position of each key in the clip."""

    block: str
    position: tuple[int, int, int]
    """(t, y, x) of the query in the clip."""
    weights: np.ndarray
    """f/C over the block's grid of keys, (T', H', W')."""
    centres: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Centres of the keys in the clip: frames (T'), rows (H') and columns (W')."""
    signed: bool
    """Whether weights can be negative."""

    @property
    def name(self) -> str:
        """The module after which the block was inserted, such as "layer2.1"."""
        return self.block.removesuffix(f".{CHILD_NAME}")

    @property
    def largest(self) -> float:
        """The largest |weight|, which gets full opacity in a picture; at least 1e-12, to make division safe."""
        return max(float(np.abs(self.weights).max()), 1e-12)

    def strongest(self, count: int) -> list[tuple[float, tuple[float, float, float]]]:
        """The `count` keys with the largest |weight|, largest first: weight and centre (t, y, x)."""
        flat = self.weights.ravel()
        found = []
        # the stable sort keeps equal weights in grid order, so that pictures do not change from run to run
        for number in np.argsort(-np.abs(flat), kind="stable")[:count]:
            cell = np.unravel_index(number, self.weights.shape)
            t, y, x = (float(centres[i]) for centres, i in zip(self.centres, cell, strict=True))
            found.append((float(flat[number]), (t, y, x)))
        return found


def nearest_centres(centres: np.ndarray, count: int) -> np.ndarray:
    """The index of the nearest centre for each coordinate 0 … count − 1; the earlier centre if two are equally near."""
    return np.abs(np.arange(count)[:, None] - centres[None]).argmin(axis=1)


def weights_per_pixel(attention: AttentionMap, size: tuple[int, int, int]) -> np.ndarray:
    """Interpolate an attention map to every pixel of a clip of size (T, H, W).

    Linear in rows and columns between the centres of the keys, constant beyond the outermost centres. In time each
    frame takes the keys of the nearest centre.
    """
    frames, height, width = size
    times, rows, columns = attention.centres
    # bilinear interpolation is separable: one matrix product along the rows, one along the columns
    tall = _interpolation_matrix(rows, height) @ attention.weights  # (T', H, W')
    return (tall @ _interpolation_matrix(columns, width).T)[nearest_centres(times, frames)]


def _interpolation_matrix(centres: np.ndarray, count: int) -> np.ndarray:
    """The (count, keys) matrix that maps values at `centres` to values at 0 … count − 1 by linear interpolation."""
    # interpolation is linear in the values, so its columns are the interpolated unit vectors
    return np.stack([np.interp(np.arange(count), centres, unit) for unit in np.eye(len(centres))], axis=1)


def overlay_heat_map(frames: np.ndarray, attention: AttentionMap) -> np.ndarray:
    """Blend the weights as colours over frames (T, H, W, 3) uint8.

    The frames are darkened and half desaturated first, so that the colour means weight and not content.
    """
    share = weights_per_pixel(attention, frames.shape[:3])[..., None] / attention.largest
    color = np.where(share >= 0, np.array(POSITIVE), np.array(NEGATIVE))
    cover = 0.8 * np.abs(share)  # never opaque: the frame stays visible under the largest weight
    pale = 0.5 * frames + 0.5 * frames.mean(axis=-1, keepdims=True)
    return (0.45 * pale * (1 - cover) + color * cover + 0.5).astype(np.uint8)  # + 0.5 rounds
