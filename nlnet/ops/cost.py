"""The cost of each algorithm, which `auto` compares; the unit is a multiply-add of a forward matrix product.

    definition      NM(D + C), or (N + M)D + NMC for concatenation;  + MAP for each of the NM affinities
    reassociated    (N + M)DC
    sorted          (N + M)D + SORTED for each of the (N + M)C values carried;  + LAUNCHES for its many small steps

each times the batch. In half precision re-association costs HALF of that, because the definition computes in float32
whatever its inputs are. The softmax cannot be re-associated: its algorithms do the same products and differ in what
they keep in memory, so their price is that product times a factor that ranks them at this size.

The CPU constants are fitted to forward + backward in float32 (docs/math.md has the table and where the rule loses);
those for accelerators are reasoned from bandwidth and launch time there, not measured.
"""

from dataclasses import dataclass

import torch

from nlnet.layers.matmul import BF16, EXP_SCALE_BITS, ONEDNN
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
        """B·N·M."""
        return self.batch * self.queries * self.keys

    @property
    def rows(self) -> int:
        """B·(N + M)."""
        return self.batch * (self.queries + self.keys)

    @property
    def half(self) -> bool:
        """Whether the dtype has 16 bits."""
        return self.dtype.itemsize < 4

    @property
    def rates(self) -> "Rates":
        """The constants of the device."""
        return CPU if self.device == "cpu" else ACCELERATOR


@dataclass(frozen=True)
class Rates:
    """Constants of one kind of device: prices in multiply-adds; map sizes in affinities, over the whole batch."""

    map: float
    sorted: float
    launches: float
    kept_map: int
    """The largest map that softmax computes by the definition."""
    kept_half: int
    """The same for bf16 and fp16 inputs, which the definition computes in float32."""
    tiles: int | None
    """The smallest map of one item that softmax computes by tiles; None where tiles are never faster."""
    wide: int
    """The smallest D + C at which tiles of float32 are faster, in training."""
    half: float
    """The time of a product in bf16 or fp16, relative to float32."""


CPU = Rates(
    map=10.0,  # the map is written and read several times: ten multiply-adds' worth of memory traffic each
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

KEEPS, TILES, FUSED, AVOIDED = 0.9, 1.0, 1.1, 10.0
"""Factors that rank the softmax algorithms: the definition where its map is small, tiles where they are faster, else the
fused kernel; AVOIDED is what the first two get elsewhere."""


def definition_macs(p: Problem) -> int:
    """N·M·(D + C): the affinities and the sum over keys."""
    return p.affinities * (p.compared + p.carried)


def concatenation_macs(p: Problem) -> int:
    """(N + M)·D + N·M·C: w_fᵀ[θ, φ] is one number per query plus one per key; the sum over keys is quadratic."""
    return p.rows * p.compared + p.affinities * p.carried


def reassociated_macs(p: Problem) -> int:
    """(N + M)·D·C: the product φᵀg, and θ times it."""
    return p.rows * p.compared * p.carried


def sorted_macs(p: Problem) -> int:
    """(N + M)·(D + 2C): the products a = θw₁ and b = φw₂, and two tables of running sums over the keys."""
    return p.rows * p.compared + 2 * p.rows * p.carried


def definition_price(p: Problem) -> float:
    """The price of the definition: its products, and reading and writing the N×M map."""
    return definition_macs(p) + p.rates.map * p.affinities


def concatenation_price(p: Problem) -> float:
    """The price of the definition for concatenation, whose affinities need fewer products."""
    return concatenation_macs(p) + p.rates.map * p.affinities


def reassociated_price(p: Problem) -> float:
    """The price of re-association: its products, at the speed of the dtype."""
    return reassociated_macs(p) * (p.rates.half if p.half else 1.0)


def sorted_price(p: Problem) -> float:
    """The price of sorting: its products, sorting and gathering the values of g, and many kernel launches."""
    return sorted_macs(p) + p.rates.sorted * p.rows * p.carried + p.rates.launches


def softmax_kept_price(p: Problem) -> float:
    """The price of softmax by the definition, which is fastest while the map fits in the cache."""
    kept = p.rates.kept_half if p.half else p.rates.kept_map
    return definition_macs(p) * (KEEPS if p.affinities <= kept else AVOIDED)


def softmax_tiled_price(p: Problem) -> float:
    """The price of softmax by tiles, which are cheap only where `worth_tiling` says so."""
    return definition_macs(p) * (TILES if worth_tiling(p) else AVOIDED)


def softmax_fused_price(p: Problem) -> float:
    """The price of softmax by torch's fused kernel, chosen where neither the definition nor tiles are fast."""
    return definition_macs(p) * FUSED


def worth_tiling(p: Problem) -> bool:
    """Whether tiles are faster than the fused kernel: large maps in bf16, or in float32 with wide products in training."""
    tiles = p.rates.tiles
    if tiles is None or p.queries * p.keys < tiles:
        return False
    wide = p.compared + p.carried >= p.rates.wide
    return p.dtype == torch.bfloat16 or (p.dtype == torch.float32 and p.backward and wide)


def tiles_compiled(p: Problem) -> bool:
    """Whether `auto` chooses tiles under torch.compile: where oneDNN makes them faster, never in an export."""
    # an exported program has to run on machines whose torch was built without oneDNN
    if p.device != "cpu" or ONEDNN is None or p.dtype not in EXP_SCALE_BITS or torch.compiler.is_exporting():
        return False
    return (BF16 or p.dtype != torch.bfloat16) and worth_tiling(p)


# The most that an algorithm holds beyond inputs and output, forward and backward, in bytes: estimates.


def definition_bytes(p: Problem) -> int:
    """Memory of the definition: the map and its gradient."""
    return 2 * p.affinities * p.dtype.itemsize


def tiled_bytes(p: Problem) -> int:
    """Memory of softmax by tiles: two tiles, the kept tiles, and gradients summed in float32."""
    itemsize, sums = p.dtype.itemsize, _sum_size(p)
    tile = min(p.affinities, largest_tile(p.keys))
    kept = p.batch * p.keys * kept_rows(p.queries, p.keys, p.compared + p.carried)
    gradients = p.batch * p.keys * (p.compared + p.carried) * sums
    return 2 * tile * sums + kept * itemsize + gradients + (gradients if itemsize < sums else 0)


def fused_bytes(p: Problem) -> int:
    """Memory of the fused kernel: one logsumexp per query, and the zeros that pad the narrower of D and C."""
    padded = p.batch * (p.queries + 2 * p.keys) * abs(p.compared - p.carried) * p.dtype.itemsize
    return p.batch * p.queries * 4 + padded


def reassociated_bytes(p: Problem) -> int:
    """Memory of re-association: the D×C matrix and its gradient."""
    return 2 * p.batch * p.compared * p.carried * p.dtype.itemsize


def sorted_bytes(p: Problem) -> int:
    """Memory of sorting: four tables of running sums, the indices, and upcast copies of half-precision inputs."""
    sums = _sum_size(p)
    tables = 4 * p.batch * (p.keys + 1) * p.carried * sums
    indices = 12 * p.rows * 8
    upcast = p.batch * p.keys * (p.compared + p.carried) * sums if p.dtype.itemsize < sums else 0
    return tables + indices + upcast


def _sum_size(p: Problem) -> int:
    """Bytes per element of sums, which are kept in float32 or wider."""
    return max(p.dtype.itemsize, 4)
