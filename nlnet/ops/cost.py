"""What the algorithms cost, in the one unit that `auto` compares: multiply-adds of a matrix product, forward.

    definition      NM(D + C), or (N + M)D + NMC for concatenation;  + MAP for each of the NM affinities
    reassociated    (N + M)DC
    sorted          (N + M)D + SORTED for each of the (N + M)C values carried;  + LAUNCHES for its many small steps

each times the batch; in half precision re-association costs HALF of that, since the definition computes in float32
whatever it is given. Softmax has no cheaper sum: its algorithms do the same products and differ in what they keep. There
the price is that product, times a factor that says which is faster at this size (`softmax_price`).

The CPU constants are fitted to forward + backward in float32 (docs/math.md has the table and where the rule loses);
those for accelerators are reasoned from bandwidth and launch time there, not measured.
"""

from dataclasses import dataclass

import torch

from nlnet.layers.matmul import BF16, FAINT, ONEDNN
from nlnet.ops.tiled import kept_rows, largest_tile


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One call of the operation: theta (batch, queries, compared), phi (batch, keys, compared), g (…, carried)."""

    operator: str
    batch: int
    queries: int
    keys: int
    compared: int
    carried: int
    dtype: torch.dtype
    device: str
    """The type: cpu, cuda, …"""
    backward: bool = True
    """Whether gradients will be asked for."""

    @property
    def affinities(self) -> int:
        return self.batch * self.queries * self.keys

    @property
    def rows(self) -> int:
        return self.batch * (self.queries + self.keys)

    @property
    def half(self) -> bool:
        return self.dtype.itemsize < 4

    @property
    def rates(self) -> "Rates":
        return CPU if self.device == "cpu" else ACCELERATOR


@dataclass(frozen=True)
class Rates:
    """Prices in multiply-adds, and the largest map (in affinities, the whole batch) that softmax keeps."""

    map: float
    sorted: float
    launches: float
    kept_map: int
    kept_half: int
    """The same for bf16 and fp16, which the definition computes in float32."""
    tiles: int | None
    """Affinities of one item from which softmax may be computed by tiles, if ever."""
    wide: int
    """D + C from which tiles of float32 are worth it, in training."""
    half: float
    """A product of bf16 or fp16 for each of float32, in which the definition computes whatever it is given."""


CPU = Rates(
    map=10.0,
    sorted=100.0,
    launches=20e6,
    kept_map=3 << 20,
    kept_half=1 << 16,
    tiles=None if ONEDNN is None else 1 << 20,
    wide=256,
    half=0.45,
)
ACCELERATOR = Rates(
    map=1000.0, sorted=4000.0, launches=20e9, kept_map=0, kept_half=0, tiles=None, wide=0, half=0.5
)

KEEPS, TILES, FUSED = 0.9, 1.0, 1.1
"""Softmax: the definition where its map is small, tiles where they pay, the fused kernel; elsewhere AVOIDED."""
AVOIDED = 10.0


def definition_macs(p: Problem) -> int:
    return p.affinities * (p.compared + p.carried)


def concatenation_macs(p: Problem) -> int:
    """The two halves of w_fᵀ[θ, φ] are one number a position; only the sum over keys is quadratic."""
    return p.rows * p.compared + p.affinities * p.carried


def reassociated_macs(p: Problem) -> int:
    return p.rows * p.compared * p.carried


def sorted_macs(p: Problem) -> int:
    return p.rows * p.compared + 2 * p.rows * p.carried


def definition_price(p: Problem) -> float:
    return definition_macs(p) + p.rates.map * p.affinities


def concatenation_price(p: Problem) -> float:
    return concatenation_macs(p) + p.rates.map * p.affinities


def reassociated_price(p: Problem) -> float:
    return reassociated_macs(p) * (p.rates.half if p.half else 1.0)


def sorted_price(p: Problem) -> float:
    return sorted_macs(p) + p.rates.sorted * p.rows * p.carried + p.rates.launches


def softmax_kept_price(p: Problem) -> float:
    """The definition: the fastest way while the map is small enough to be read again from a cache."""
    kept = p.rates.kept_half if p.half else p.rates.kept_map
    return definition_macs(p) * (KEEPS if p.affinities <= kept else AVOIDED)


def softmax_tiled_price(p: Problem) -> float:
    return definition_macs(p) * (TILES if worth_tiling(p) else AVOIDED)


def softmax_fused_price(p: Problem) -> float:
    return definition_macs(p) * FUSED


def worth_tiling(p: Problem) -> bool:
    """Whether the tiles of softmax are faster than the fused kernel: always in bf16, else for wide products that train."""
    tiles = p.rates.tiles
    if tiles is None or p.queries * p.keys < tiles:
        return False
    wide = p.compared + p.carried >= p.rates.wide
    return p.dtype == torch.bfloat16 or (p.dtype == torch.float32 and p.backward and wide)


def tiles_compiled(p: Problem) -> bool:
    """Whether torch.compile's `auto` takes the tiles: where oneDNN's products hold exp, and they pay. Not for export."""
    if p.device != "cpu" or ONEDNN is None or p.dtype not in FAINT or torch.compiler.is_exporting():
        return False
    return (BF16 or p.dtype != torch.bfloat16) and worth_tiling(p)


# The most that an algorithm holds beyond inputs and output, forward and backward, in bytes: estimates.


def definition_bytes(p: Problem) -> int:
    return 2 * p.affinities * p.dtype.itemsize


def tiled_bytes(p: Problem) -> int:
    itemsize, sums = p.dtype.itemsize, _sum_size(p)
    tile = min(p.affinities, largest_tile(p.keys))
    kept = p.batch * p.keys * kept_rows(p.queries, p.keys, p.compared + p.carried)
    gradients = p.batch * p.keys * (p.compared + p.carried) * sums
    return 2 * tile * sums + kept * itemsize + gradients + (gradients if itemsize < sums else 0)


def fused_bytes(p: Problem) -> int:
    """One logsumexp a query, and zeros that make D and C alike."""
    padded = p.batch * (p.queries + 2 * p.keys) * abs(p.compared - p.carried) * p.dtype.itemsize
    return p.batch * p.queries * 4 + padded


def reassociated_bytes(p: Problem) -> int:
    return 2 * p.batch * p.compared * p.carried * p.dtype.itemsize


def sorted_bytes(p: Problem) -> int:
    sums = _sum_size(p)
    tables = 4 * p.batch * (p.keys + 1) * p.carried * sums
    indices = 12 * p.rows * 8
    upcast = p.batch * p.keys * (p.compared + p.carried) * sums if p.dtype.itemsize < sums else 0
    return tables + indices + upcast


def _sum_size(p: Problem) -> int:
    """Bytes of a number that sums are kept in: float32 or wider."""
    return max(p.dtype.itemsize, 4)
